from __future__ import annotations

import pytest
import torch

from sftn.cli.commands.bench import bench
from sftn.cli.options import Bench
from sftn.networks import build
from sftn.profiling.roofline import Ceiling, measure_ceiling
from sftn.profiling.summary import describe
from sftn.profiling.throughput import PARTS, Loop, count, counter, measure, noise
from sftn.tasks.distillation import Distiller
from sftn.tasks.recipes import objective
from tests.support.command import refusal

DATA = noise(images=64, tests=16, classes=4, size=16)


def test_arithmetic_is_the_teachers_forward_and_three_times_the_students() -> None:
    student, teacher = build("resnet8", 4), build("resnet14", 4)
    found = count(Distiller(student, teacher, objective("kd"), (3, 32, 32)))
    ours, theirs = (2 * describe(network, (3, 32, 32)).multiply_adds for network in (student, teacher))
    first = 2 * 16 * 3 * 9 * 32 * 32  # no gradient flows into the images
    assert found == pytest.approx(theirs + 3 * ours - first, rel=0.01)


def test_gradients_of_grouped_convolutions_count_as_their_forward() -> None:
    conv = torch.nn.Conv2d(6, 6, 3, padding=1, groups=6)
    with counter() as counted:
        conv(torch.zeros(2, 6, 8, 8, requires_grad=True)).sum().backward()
    assert counted.get_total_flops() == 3 * 2 * 2 * 6 * 9 * 64


def test_a_loop_is_timed_and_its_parts_make_up_its_step() -> None:
    loop = Loop("resnet14", "resnet8", "kd", DATA, precision="float32", batch=16)
    speed = measure(loop, DATA, seconds=0.2)
    assert "activations" not in vars(loop.task.student)
    assert tuple(speed.parts) == PARTS
    assert 0.3 * speed.step < sum(speed.parts.values()) < 3 * speed.step
    assert speed.images_per_second == pytest.approx(16 / speed.step)
    assert speed.hours == pytest.approx(240 * 4 * speed.step * (1 + 16 / 64 / 3) / 3600)
    assert speed.memory > 50 * 2**20
    ceiling = measure_ceiling(largest=512)
    assert min(ceiling.product, ceiling.convolution, ceiling.bandwidth) > 0.1
    assert 0 < speed.share(ceiling) < 1.2


def test_bench_says_all_of_it(
    tiny_networks: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sftn.cli.commands.bench.measure_ceiling", lambda *_: Ceiling(1.0, 2.0, 3.0))
    asked = Bench("wide", "tiny", "at", "float32", "cpu", 0.1, 16, ("table17",), table_seconds=0.0)
    bench(asked, DATA)
    said = capsys.readouterr().out
    for word in (
        "images/s",
        "of this machine's arithmetic",
        "optimiser",
        "MiB",
        "240 epochs of 50,000 images",
        "of 2 GFLOP/s",
    ):
        assert word in said


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [("--teacher", "resnet9", "resnet8"), ("--method", "kdd", "kd"), ("--seconds", "0", "seconds")],
)
def test_wrong_input_is_one_line(option: str, value: str, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert word in refusal("bench", option, value, "--tables", capsys=capsys)
