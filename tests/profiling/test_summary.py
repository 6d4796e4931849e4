from __future__ import annotations

import csv
import io
from collections import defaultdict
from functools import partial
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F

from sftn.errors import InputError
from sftn.networks import build
from sftn.networks.staged import StagedNet, Tap
from sftn.profiling.summary import Layer, branch_layers, describe, layers
from sftn.report.pages import summary
from sftn.report.terminal import show
from sftn.tasks.student_branches import StudentBranches

IMAGE = (3, 32, 32)
COLUMNS = (
    "layer", "input_layer", "input_shape", "filter", "channels", "stride", "padding", "output_shape", "block",
)  # fmt: skip


def printed(table: int) -> list[dict[str, str]]:
    with (Path(__file__).parents[1] / "golden" / "tables_20_22.csv").open() as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return [row for row in rows if row["table"] == str(table)]


@pytest.fixture(scope="module")
def pair() -> StudentBranches:
    return StudentBranches(build("vgg13", 100), partial(build, "vgg8", 100), IMAGE)


@pytest.fixture(scope="module")
def tables(pair: StudentBranches) -> dict[int, list[Layer]]:
    teacher = layers(pair.teacher, IMAGE, symbol="B_T")
    return {
        20: teacher,
        21: layers(build("vgg8", 100), IMAGE, symbol="B_S"),
        22: teacher + branch_layers(pair, IMAGE),
    }


@pytest.mark.parametrize("table", [20, 21, 22])
def test_the_layers_are_those_of_the_table_row_by_row(table: int, tables: dict[int, list[Layer]]) -> None:
    right = [tuple(row[column].split(" => ")[-1] for column in COLUMNS) for row in printed(table)]
    assert [layer.cells for layer in tables[table]] == right
    assert len(right) == {20: 36, 21: 21, 22: 72}[table]


@pytest.mark.parametrize(("table", "wrong_cells"), [(20, 0), (21, 4), (22, 12)])
def test_every_erratum_is_named_and_is_one(table: int, wrong_cells: int) -> None:
    found = 0
    for row in printed(table):
        wrong = [row[column].split(" => ") for column in COLUMNS if " => " in row[column]]
        assert all(as_printed != right for as_printed, right in wrong)
        assert bool(row["erratum"]) >= bool(wrong)
        found += len(wrong)
    assert found == wrong_cells


@pytest.mark.parametrize("table", [20, 21, 22])
def test_the_printed_block_names_stand_in_the_middle_of_our_blocks(table: int, tables: dict[int, list[Layer]]) -> None:
    # The tables print a block's name once, about the middle of its rows. That, and branch 1, which grows from Relu-13
    # and whose block B_S^2 begins with a max pool, says that a pool is the first layer of a block, not the last.
    places = defaultdict(list)
    for place, layer in enumerate(tables[table]):
        places[layer.branch, layer.block].append(place)
    labels = [(place, row["label"]) for place, row in enumerate(printed(table)) if row["label"]]
    assert len(labels) == {20: 4, 21: 4, 22: 13}[table]
    for place, label in labels:
        layer = tables[table][place]
        block = places[layer.branch, layer.block]
        assert layer.block == label
        assert abs(place - sum(block) / len(block)) <= 1.5


def test_branches_grow_from_the_closing_relus(tables: dict[int, list[Layer]]) -> None:
    first = {number: next(layer for layer in tables[22] if layer.branch == number) for number in (1, 2, 3)}
    assert [first[number].inputs for number in (1, 2, 3)] == [("Relu-13",), ("Relu-20",), ("Relu-27",)]
    assert [first[number].name for number in (1, 2, 3)] == ["Conv2d-36", "Conv2d-52", "Conv2d-64"]


class Convolved(nn.Module):
    """One convolution and a functional, in-place ReLU."""

    def __init__(self, channels: int, width: int, kernel: int, **options: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, kernel, **options)

    def forward(self, flow: Tensor) -> Tap:
        preact = self.conv(flow)
        feature = F.relu_(preact.clone())
        return Tap(feature, preact, feature)


class Pooled(nn.Module):
    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, classes, bias=False)

    def forward(self, flow: Tensor) -> tuple[Tensor, Tensor]:
        embedding = flow.mean((2, 3))
        return embedding, self.linear(embedding)


def small(stride: int = 2, widths: tuple[int, int] = (6, 8)) -> StagedNet:
    first, second = widths
    stages: list[nn.Module] = [Convolved(4, first, 3, stride=stride, groups=2), Convolved(first, second, 1)]
    return StagedNet(Convolved(3, 4, 3, padding=1), stages, Pooled(second, 5), "small")


def test_functional_code_with_numbers_worked_out_by_hand() -> None:
    stem, first, second, linear = (row for row in layers(small(), (3, 9, 11)) if row.parameters)
    assert (stem.name, stem.multiply_adds, stem.parameters) == ("Conv2d-1", 9 * 11 * 4 * 27, 4 * 27 + 4)
    # 9×11 becomes 4×5; each of 6 channels reads 2 of the 4.
    assert (first.name, first.multiply_adds, first.parameters) == ("Conv2d-3", 4 * 5 * 6 * 18, 6 * 18 + 6)
    assert first.cells[1:] == ("Relu-2", "4x9x11", "3x3", "6", "2", "0", "6x4x5", "B^1")
    assert (second.name, second.multiply_adds, second.parameters) == ("Conv2d-5", 4 * 5 * 8 * 6, 8 * 6 + 8)
    assert linear.cells == ("Linear-8", "AvgPool2d-7", "8", "-", "-", "-", "-", "5", "-")
    assert (linear.multiply_adds, linear.parameters) == (40, 40)


def conv(channels: int, width: int, size: int, kernel: int = 3) -> int:
    """Multiply-adds of a convolution that puts out a size×size map."""
    return channels * width * kernel**2 * size**2


def test_multiply_adds_of_resnet8x4() -> None:
    expected = conv(3, 32, 32) + 256 * 100
    for before, width, size in ((32, 64, 32), (64, 128, 16), (128, 256, 8)):
        expected += conv(before, width, size) + conv(width, width, size) + conv(before, width, size, 1)
    assert describe(build("resnet8x4", 100), IMAGE).multiply_adds == expected == 177_071_104


def test_multiply_adds_of_wrn_16_2() -> None:
    expected = conv(3, 16, 32) + 128 * 100
    for before, width, size in ((16, 32, 32), (32, 64, 16), (64, 128, 8)):
        expected += conv(before, width, size) + 3 * conv(width, width, size) + conv(before, width, size, 1)
    assert describe(build("wrn_16_2", 100), IMAGE).multiply_adds == expected == 101_118_464


def test_a_residual_join_reads_two_layers() -> None:
    rows = {row.name: row for row in layers(build("resnet8", 10), IMAGE)}
    joins = [row for name, row in rows.items() if name.startswith("Add")]
    assert len(joins) == 3
    assert joins[0].inputs == ("BatchNorm2d-8", "Relu-3")
    assert [rows[name].inputs[0] for name in joins[1].inputs] == ["Conv2d-14", "Conv2d-16"]


def test_views_and_shuffles_are_no_layers_but_are_seen_through() -> None:
    rows = layers(build("shufflev2", 10), IMAGE)
    assert {row.name.split("-")[0] for row in rows} == {
        "Image", "Conv2d", "BatchNorm2d", "Relu", "Cat", "AvgPool2d", "Linear",
    }  # fmt: skip
    # The second block: one half of the shuffled channels goes through a convolution, the other straight to the join.
    shapes = {row.name: row.output_shape for row in rows}
    half = next(row for row in rows[1:] if (row.input_shape, shapes[row.inputs[0]]) == ((58, 16, 16), (116, 16, 16)))
    (shuffled,) = half.inputs
    assert half.name.startswith("Conv2d")
    assert shuffled.startswith("Relu")
    join = next(row for row in rows if row.name.startswith("Cat") and shuffled in row.inputs)
    assert [name.split("-")[0] for name in join.inputs] == ["Relu", "BatchNorm2d"]


@pytest.mark.parametrize("name", ["resnet8", "wrn_10_1", "vgg8", "shufflev1", "shufflev2", "mobilenetv2", "resnet18"])
def test_the_parameters_add_up(name: str) -> None:
    network = build(name, 10)
    rows = layers(network, IMAGE)
    assert sum(row.parameters for row in rows) == sum(p.numel() for p in network.parameters())
    assert [int(row.name.split("-")[1]) for row in rows[1:]] == list(range(1, len(rows)))
    names = {row.name: place for place, row in enumerate(rows)}
    assert all(names[source] < place for place, row in enumerate(rows) for source in row.inputs)


def test_the_parameters_of_branches_add_up(pair: StudentBranches, tables: dict[int, list[Layer]]) -> None:
    for place, branch in zip(pair.growth, pair.branches):
        found = sum(row.parameters for row in tables[22] if row.branch == place.number)
        assert found == sum(p.numel() for p in branch.parameters())


def test_networks_are_left_as_they_were() -> None:
    teacher = build("resnet8", 10)
    teacher.stages[1].eval()
    grown = StudentBranches(teacher, partial(build, "wrn_10_1", 10), IMAGE)
    modes = [module.training for module in grown.modules()]
    state = {key: value.clone() for key, value in grown.state_dict().items()}
    layers(teacher, IMAGE)
    branch_layers(grown, IMAGE)
    describe(teacher, IMAGE, partial(build, "wrn_10_1", 10))
    assert [module.training for module in grown.modules()] == modes
    assert any(modes)
    assert not all(modes)
    assert all(torch.equal(value, state[key]) for key, value in grown.state_dict().items())
    assert all(parameter.grad is None for parameter in grown.parameters())
    assert torch.is_grad_enabled()


class Attended(nn.Module):
    """A map turned into tokens with a position embedding, attended to with a residual, and back."""

    def __init__(self, width: int, tokens: int) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(1, tokens, width))
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)

    def forward(self, flow: Tensor) -> Tap:
        tokens = flow.flatten(2).transpose(1, 2) + self.position
        normal = self.norm(tokens)
        tokens = tokens + self.attention(normal, normal, normal, need_weights=False)[0]
        feature = tokens.transpose(1, 2).unflatten(2, flow.shape[-2:])
        return Tap(feature, feature, feature)


def test_attention_is_counted_and_its_tokens_are_followed() -> None:
    network = StagedNet(Convolved(3, 8, 2, stride=2), [Attended(8, 16)], Pooled(8, 5), "tokens")
    rows = layers(network, (3, 8, 8))
    assert sum(row.parameters for row in rows) == sum(p.numel() for p in network.parameters())
    position, residual = (row for row in rows if row.name.startswith("Add"))
    assert (position.inputs, position.parameters) == (("Relu-2",), 16 * 8)
    assert position.name in residual.inputs
    attention = sum(row.multiply_adds for row in rows if row.block == "B^1") - rows[1].multiply_adds
    # Projections into and out of attention, scores and mixtures of two heads of 4 channels.
    assert attention == 16 * 8 * 24 + 16 * 8 * 8 + 2 * (2 * 16 * 16 * 4)


def test_transforms_that_grow_the_map() -> None:
    teacher, student = build("shufflev2", 10), partial(build, "resnet8", 10)
    found = describe(teacher, IMAGE, student).student
    assert found is not None
    first = found.branches[0]
    assert (first.source, first.target) == ((116, 16, 16), (16, 32, 32))
    assert first.transform.name.startswith("ConvTranspose2d")
    assert (first.transform.kernel, first.transform.stride, first.transform.padding) == ((4, 4), (2, 2), (1, 1))
    # Each pixel that comes in meets every weight.
    assert first.transform.multiply_adds == 116 * 16 * 4 * 4 * 16 * 16
    assert first.transform.parameters == 116 * 16 * 4 * 4 + 16


def test_a_resizing_transform_and_unequal_stages_are_shown() -> None:
    found = describe(small(stride=1), (3, 16, 16), partial(small, 3)).student
    assert found is not None
    branch = found.branches[0]
    assert (branch.source, branch.target, branch.resized) == ((6, 14, 14), (6, 5, 5), True)
    assert branch.transform.name == found.layers[1].name
    unequal = describe(build("vgg8", 10), IMAGE, partial(build, "resnet8", 10), branches=[2]).student
    assert unequal is not None
    assert unequal.alignment == ((2, 1), (3, 2), (4, 3))
    assert [(branch.number, branch.teacher_stage, branch.student_stage) for branch in unequal.branches] == [(2, 3, 2)]
    assert {row.block for row in unequal.layers} == {"T^2", "B_S^3", "-"}
    chosen = describe(build("vgg8", 10), IMAGE, partial(build, "resnet8", 10), alignment=((0, 0), (2, 3))).student
    assert chosen is not None
    assert chosen.alignment == ((1, 1), (4, 3))
    with pytest.raises(InputError, match="branches"):
        describe(build("vgg8", 10), IMAGE, partial(build, "resnet8", 10), branches=[3])


def test_the_description_counts_what_the_branches_cost() -> None:
    teacher, student = build("vgg13", 100), partial(build, "vgg8", 100)
    alone, both = describe(teacher, IMAGE), describe(teacher, IMAGE, student)
    assert (alone.student, alone.training_cost, alone.layers[1].block) == (None, 1.0, "B^1")
    assert alone.features == ((128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 4, 4))
    assert alone.closing_norms == (True,) * 4
    assert describe(build("shufflev2", 10), IMAGE).closing_norms == (False,) * 3
    assert both.student is not None
    assert (both.parameters, both.student.parameters) == (9_462_180, 3_965_028)
    blocks = {2: conv(128, 256, 8), 3: conv(256, 512, 4), 4: conv(512, 512, 4)}
    transforms = {1: conv(128, 128, 16, 1), 2: conv(256, 256, 8, 1), 3: conv(512, 512, 4, 1)}
    added = sum(transforms[i] + sum(blocks[k] for k in blocks if k > i) + 51_200 for i in transforms)
    assert sum(branch.multiply_adds for branch in both.student.branches) == added
    assert both.training_cost == 1 + added / both.multiply_adds


def shown(width: int, *, terminal: bool) -> str:
    text = io.StringIO()
    console = Console(file=text, width=width, force_terminal=terminal, color_system=None)
    found = describe(build("vgg13", 100), IMAGE, partial(build, "vgg8", 100))
    show(summary.page(found, narrow=terminal and width < summary.WIDE), console)
    assert console.width == width
    return text.getvalue()


def test_what_is_piped_has_every_row_whole() -> None:
    lines = [line.split() for line in shown(80, terminal=False).splitlines()]
    for row in printed(22):
        right = [row[column].split(" => ")[-1] for column in COLUMNS]
        assert any(line[:9] == right for line in lines)
    text = "\n".join(map(" ".join, lines))
    assert "…" not in text
    assert "1 1x1, stride 1, padding 0 128x16x16 128x16x16 vgg8 2-4" in text
    assert "vgg13: 9,462,180 parameters, 284,936,192 multiply-adds per image." in text
    assert "1.64 times the multiply-adds" in text


def test_a_terminal_of_80_columns_is_enough() -> None:
    text = shown(80, terminal=True)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert [line.split() for line in text.splitlines() if line.startswith("Conv2d-56 ")] == [
        ["Conv2d-56", "MaxPool2d-55", "3x3", "1", "1", "512x4x4", "B_S^3", "1.18M", "18.9M"]
    ]
