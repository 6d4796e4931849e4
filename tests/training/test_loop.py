from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sftn.data.dataset import Dataset
from sftn.data.loader import Loader
from sftn.errors import InputError
from sftn.runtime.device import make_fabric, settle_precision
from sftn.spec.schedule import Schedule
from sftn.tasks.supervised import Supervised
from sftn.training.loop import LoopOptions, first_steps, fit
from sftn.training.phase import Phase
from tests.support import tiny
from tests.support.callbacks import Rows


def loader(data: Dataset, batch: int = 16) -> Loader:
    return Loader(data.train, batch=batch, normalisation=data.normalisation, padding=1)


def train(task: nn.Module, schedule: Schedule, precision: str = "float32") -> list[Any]:
    callback = Rows()
    fit(
        Phase("train", task, (task,), schedule),
        loader(tiny.dataset(), schedule.batch),
        make_fabric("cpu", precision),
        callback=callback,
    )
    return callback.rows


def test_the_rate_falls_at_fractions_of_the_run_and_at_epochs() -> None:
    paper = Schedule()
    assert [paper.lr_at(epoch) for epoch in (0, 149, 150, 180, 210, 239)] == pytest.approx(
        [0.05, 0.05, 0.005, 0.0005, 0.00005, 0.00005]
    )
    assert [Schedule(epochs=8).lr_at(epoch) for epoch in range(8)] == [paper.lr_at(30 * epoch) for epoch in range(8)]
    assert Schedule(epochs=240, milestones=(150, 180, 210)).lr_at(200) == paper.lr_at(200)


def test_a_warmup_keeps_its_share_of_a_shorter_run() -> None:
    assert Schedule().warmup(30).epochs == 30
    assert Schedule(epochs=24).warmup(30).epochs == 3
    assert Schedule(epochs=1).warmup(60).epochs == 1
    assert Schedule(lr=0.01).warmup(30).lr == 0.01


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"batch": -1}, {"lr": 0.0}, {"momentum": -0.1}, {"milestones": (-1,)}]
)
def test_impossible_schedules_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        Schedule(**wrong)


def test_a_run_learns_and_its_rows_say_so() -> None:
    rows = train(Supervised(tiny.network()), Schedule(epochs=12, batch=16))
    assert [row["epoch"] for row in rows] == list(range(1, 13))
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert rows[-1]["accuracy"] > 60
    assert all(row["images_per_second"] > 0 for row in rows)


def test_twenty_steps_are_those_of_a_loop_written_out() -> None:
    """SGD with momentum and weight decay as in its paper's equations, without Fabric, fused steps or channels-last."""
    data = tiny.dataset(images=80)
    schedule = Schedule(epochs=4, batch=16, lr=0.1, milestones=(2,))
    ours, theirs = tiny.network(), tiny.network()
    theirs.load_state_dict(ours.state_dict())
    task = Supervised(ours)
    callback = Rows()
    fit(Phase("train", task, (task,), schedule), loader(data), make_fabric("cpu", "float32"), callback=callback)

    velocity: dict[str, Tensor] = {}
    means = []
    for epoch in range(4):
        losses = []
        for images, labels, _ in loader(data).epoch(epoch):
            loss = Supervised(theirs)(images.contiguous(), labels)["loss"]
            names = dict(theirs.named_parameters())
            gradients = torch.autograd.grad(loss, list(names.values()))
            with torch.no_grad():
                for (name, weight), gradient in zip(names.items(), gradients):
                    step = gradient + 5e-4 * weight
                    velocity[name] = step if name not in velocity else 0.9 * velocity[name] + step
                    weight -= (0.1 if epoch < 2 else 0.01) * velocity[name]
            losses.append(loss.item())
        means.append(sum(losses) / len(losses))
    assert [row["loss"] for row in callback.rows] == pytest.approx(means, rel=1e-4)


def test_the_same_seed_gives_the_same_bits() -> None:
    ends = []
    for _ in range(2):
        torch.manual_seed(3)
        task = Supervised(tiny.network())
        train(task, Schedule(epochs=2, batch=16))
        ends.append(task.state_dict())
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def test_what_a_phase_does_not_train_stays_as_it_was() -> None:
    task = Supervised(tiny.network())
    before = {key: value.clone() for key, value in task.state_dict().items()}
    phase = Phase("head", task, (task.network.head,), Schedule(epochs=1, batch=16))
    fit(phase, loader(tiny.dataset()), make_fabric("cpu", "float32"))
    changed = {key for key, value in task.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"network.head.linear.weight", "network.head.linear.bias"}


class Broken(nn.Module):
    """Its loss is not a number from the second step on."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor, labels: Tensor, index: Tensor) -> dict[str, Tensor]:
        return {"loss": self.weight * float("nan")}


def test_a_loss_that_is_no_number_ends_the_run() -> None:
    with pytest.raises(FloatingPointError, match=r"train, epoch 1, step 1, learning rate 0.05: loss nan"):
        train(Broken(), Schedule(epochs=2, batch=16))


def test_evaluation_comes_every_so_many_epochs_and_at_the_end() -> None:
    callback = Rows()
    task = Supervised(tiny.network())
    fit(
        Phase("train", task, (task,), Schedule(epochs=5, batch=16)),
        loader(tiny.dataset()),
        make_fabric("cpu", "float32"),
        LoopOptions(evaluate=lambda: {"test_accuracy": 1.0}, evaluate_every=2),
        callback=callback,
    )
    assert [row["epoch"] for row in callback.rows if "test_accuracy" in row] == [2, 4, 5]
    assert callback.steps == 15


def test_bf16_trains_too() -> None:
    rows = train(Supervised(tiny.network()), Schedule(epochs=6, batch=16), "bf16")
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_precision_is_settled_by_name() -> None:
    with pytest.raises(InputError, match="fp8"):
        settle_precision("fp8")
    with pytest.raises(InputError, match="GPU"):
        settle_precision("float16", "cpu")


@pytest.mark.parametrize(
    ("capability", "multiplies", "expected"),
    [("AVX512", True, "bf16"), ("AVX512", False, "float32"), ("AVX2", True, "float32"), ("DEFAULT", False, "float32")],
)
def test_auto_is_bf16_where_the_processor_multiplies_it(
    capability: str, multiplies: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: multiplies)
    assert settle_precision("auto", "cpu") == expected


def test_auto_is_what_the_flags_of_this_processor_say() -> None:
    flags = set(re.findall(r"avx512_bf16|avx512f", Path("/proc/cpuinfo").read_text(encoding="utf-8")))
    assert settle_precision("auto", "cpu") == ("bf16" if flags == {"avx512_bf16", "avx512f"} else "float32")


def test_first_steps_are_those_of_training() -> None:
    def trained(count: int | None) -> tuple[dict[str, Tensor], int]:
        torch.manual_seed(4)
        task = Supervised(tiny.network())
        phase = Phase("train", task, (task,), Schedule(epochs=2, batch=16))
        given = phase, loader(tiny.dataset()), make_fabric("cpu", "float32")
        steps = 6 if count is None else len(first_steps(*given, count))
        if count is None:
            fit(*given)
        return task.state_dict(), steps

    whole, steps = trained(None)
    assert steps == 6
    for count, expected in ((6, 6), (9, 6), (4, 4)):
        state, made = trained(count)
        assert made == expected
        assert all(torch.equal(state[key], whole[key]) for key in state) is (made == 6)


def test_slow_modules_learn_at_their_own_rate() -> None:
    """The first step moves a weight by its rate times the gradient, weight decay apart."""
    moved = []
    for rate in (1.0, 0.1):
        torch.manual_seed(5)
        task = Supervised(tiny.network())
        before = {key: value.clone() for key, value in task.state_dict().items()}
        phase = Phase("t", task, (task,), Schedule(epochs=1, batch=48), (task.network.stages,), rate)
        fit(phase, loader(tiny.dataset(), 48), make_fabric("cpu", "float32"))
        moved.append({key: value - before[key] for key, value in task.state_dict().items()})
    key = "network.stages.0.blocks.0.body.0.weight"
    torch.testing.assert_close(moved[1][key], 0.1 * moved[0][key], rtol=1e-3, atol=1e-7)
    key = "network.head.linear.weight"
    torch.testing.assert_close(moved[1][key], moved[0][key])
