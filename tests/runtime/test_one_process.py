from __future__ import annotations

import socket
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sftn.data.loader import Loader, evaluation_batches
from sftn.errors import InputError
from sftn.runtime.collectives import WholeNorms, gathered, mean_over_batch, part, whole_norm
from sftn.runtime.leader import leads
from sftn.runtime.processes import Alone, Talk, check, ends_quietly, led, shared, together
from tests.support import tiny


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_shares_are_the_batch_in_order_and_nearly_alike(world: int) -> None:
    for begin, end in ((0, 5), (7, 30), (3, 11)):
        own = [range(begin, end)[slice(p.start - begin, p.stop - begin)] for p in _parts(begin, end, world)]
        assert [i for one in own for i in one] == list(range(begin, end))
        assert max(map(len, own)) - min(map(len, own)) <= 1


def _parts(begin: int, end: int, world: int) -> list[slice]:
    return [part(begin, end, rank, world) for rank in range(world)]


@pytest.mark.parametrize("copies", [1, 2])
def test_loaders_with_shares_make_the_batches_of_one(copies: int) -> None:
    data = tiny.dataset(19)
    how = {"batch": 7, "normalisation": data.normalisation, "padding": 1, "flip": True, "copies": copies}
    whole = Loader(data.train, **how)  # type: ignore[arg-type]
    own = [Loader(data.train, **how, share=(rank, 3)) for rank in range(3)]  # type: ignore[arg-type]
    for step, (batch, *parts) in enumerate(zip(whole.epoch(1), *(loader.epoch(1) for loader in own)), start=1):
        assert whole.images(step) == len(batch.labels)
        for all_of_it, pieces in zip(batch, zip(*parts)):
            assert torch.equal(torch.cat(pieces), all_of_it)


def test_evaluation_with_shares_reads_every_image_once() -> None:
    data = tiny.dataset(tests=11)
    how = {"batch": 4, "normalisation": data.normalisation}
    index = [b.index for rank in (0, 1) for b in evaluation_batches(data.test, **how, share=(rank, 2))]  # type: ignore[arg-type]
    assert torch.cat(index).sort().values.tolist() == list(range(11))


@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 5, 6)])
def test_the_whole_batchs_norm_is_pytorchs(shape: tuple[int, ...]) -> None:
    norm = nn.BatchNorm1d(3) if len(shape) == 2 else nn.BatchNorm2d(3)
    norm = norm.double()
    nn.init.uniform_(norm.weight)
    nn.init.normal_(norm.bias)
    images = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    mean, variance = norm.running_mean.clone(), norm.running_var.clone()
    ours = whole_norm(images, mean, variance, norm.weight, norm.bias, 0.1, norm.eps)
    theirs = norm(images)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close((mean, variance), (norm.running_mean, norm.running_var), rtol=1e-12, atol=1e-12)
    slope = torch.randn_like(theirs)
    wanted = (images, norm.weight, norm.bias)
    found = [torch.autograd.grad(output, wanted, slope) for output in (ours, theirs)]
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-12)


def test_norms_are_only_stood_in_for_while_they_train(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr("sftn.runtime.collectives.whole_norm", lambda input, *rest: calls.append(input) or input)
    images = torch.randn(4, 3, 5, 5)
    norm = nn.BatchNorm2d(3)
    with WholeNorms():
        norm(images)
        F.batch_norm(images, None, None, training=True)  # as a teacher of OH
        norm.eval()(images)
    norm.train()(images)
    assert len(calls) == 2


def test_one_process_needs_nobody() -> None:
    rows = torch.randn(3, 2)
    assert gathered(rows) is rows
    assert mean_over_batch(rows) == rows.mean()
    assert leads()
    assert led(lambda: 7) == 7
    assert Talk(every_step=False).heard(15, True) == (15, True)


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (
            "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error [::1]:3: Connection reset by peer",
            True,
        ),
        ("[../third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 4000ms for recv", True),
        ("Application timeout caused pair closure", True),
        ("[enforce fail at /pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:456] op.nbytes. 8 vs 4", False),
        ("shapes cannot be connected: the timeout of nothing", False),
    ],
)
def test_a_lost_connection_is_known_by_what_gloo_says(error: str, lost: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sftn.runtime.processes.world", lambda: 2)
    with pytest.raises(Alone if lost else RuntimeError) as caught, together():
        raise RuntimeError(error)
    assert isinstance(caught.value, Alone) is lost


def test_a_talk_takes_place_about_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """With steps of 0.1 s; the others find nothing due."""
    clock, talks = [0.0], []
    monkeypatch.setattr("sftn.runtime.processes.world", lambda: 2)
    monkeypatch.setattr("sftn.runtime.processes.leads", lambda: True)
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr("torch.distributed.get_backend", lambda: "gloo")
    monkeypatch.setattr("torch.distributed.all_reduce", lambda *given: None)
    talk = Talk(every_step=False)
    for _ in range(100):
        clock[0] += 0.1
        if talk.heard(0, False) is not None:
            talks.append(clock[0])
    gaps = [after - before for before, after in pairwise(talks[3:])]
    assert len(gaps) >= 5
    assert all(0.8 < gap < 1.3 for gap in gaps)


@pytest.mark.parametrize(
    ("env", "devices", "nodes", "said"),
    [
        ({}, 0, 1, "devices is 0"),
        ({}, 2, 0, "nodes is 0"),
        ({"MASTER_PORT": "abc"}, 2, 1, "MASTER_PORT is 'abc'"),
        ({"MASTER_PORT": "70000"}, 2, 1, "MASTER_PORT"),
        ({}, 1, 2, "MASTER_ADDR"),
        ({"RANK": "0", "WORLD_SIZE": "4"}, 2, 1, "4 processes were started"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, 1, 1, "2 processes were started"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, 2, 1, "RANK is 'x'"),
    ],
)
def test_processes_that_cannot_meet(
    env: dict[str, str], devices: int, nodes: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=said):
        check("cpu", devices, nodes)


def test_a_port_in_use_and_too_few_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        monkeypatch.setenv("MASTER_PORT", str(other.getsockname()[1]))
        with pytest.raises(InputError, match=r"port \d+ is not available"):
            check("cpu", 2, 1)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(InputError, match="1 GPU"):
        check("cuda", 2, 1)


def test_a_batch_without_images_for_all_is_refused() -> None:
    from sftn.data.loader import training_batches

    data = tiny.dataset(19)
    for batch, least in ((8, 2), (17, 1)):
        with pytest.raises(InputError, match="--batch"):
            training_batches(data, batch=batch, device="cpu", share=(0, 3), least=least)
    assert len(training_batches(data, batch=8, device="cpu", share=(0, 3))) == 3


def test_only_one_process_tells_what_all_of_them_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not ends_quietly(shared(InputError("no")))
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert ends_quietly(shared(InputError("no")))
    assert ends_quietly(None)  # a signal, which all get
    assert not ends_quietly(InputError("its own"))
