"""What a result says about itself: recall by class, and what to know before believing its accuracy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sftn.data.dataset import Split
from sftn.networks import NETWORKS
from sftn.runs.caveats import Record, failed_seeds, listed, of_student, over_seeds
from sftn.runs.folder import RunFolder
from sftn.runs.runner import train
from sftn.runtime.device import make_fabric
from sftn.spec.schedule import Schedule
from sftn.tasks.recipes import objective
from sftn.training.evaluate import evaluate, predictions, recalls
from tests.support import tiny


def result(accuracy: float = 90.0, images: Any = (50, 50), recall: Any = (90.0, 90.0), **more: Any) -> dict[str, Any]:
    names = list("abcdefgh"[: len(images)])
    by_class = {"images": list(images), "recall": list(recall)}
    return {"accuracy": accuracy, "images": {"classes": names}, "by_class": by_class, **more}


@pytest.mark.parametrize(
    ("images", "unequal"), [((15, 10), True), ((14, 10), False), ((10, 0, 10), False), ((30, 0, 10), True), ((), False)]
)
def test_classes_are_unequal_from_half_as_many_images_more(images: tuple[int, ...], unequal: bool) -> None:
    assert Record.of(result(images=images, recall=[0.0] * len(images))).unequal == unequal


def test_balanced_accuracy_is_the_mean_recall_of_the_classes_that_are_tested() -> None:
    found = Record.of(result(95.0, (95, 5, 0), (100.0, 20.0, None)))
    assert found.balanced == 60.0
    assert Record.of({"accuracy": 95.0}).balanced is None


@pytest.mark.parametrize(
    ("recall", "chance"),
    [((54.0, 55.0), True), ((55.0, 55.0), False), ((100.0, 0.0), True), ((0.0, 20.0), True), ((95.0, 95.0), False)],
)
def test_a_tenth_of_the_way_from_chance_to_no_error_is_hardly_better(recall: Any, chance: bool) -> None:
    assert Record.of(result(95.0, (190, 10), recall)).by_chance == chance


def test_an_older_result_is_judged_by_its_accuracy_and_one_without_classes_not_at_all() -> None:
    older = {"accuracy": 18.9, "images": {"classes": list("abcdefghij")}}
    assert Record.of(older).by_chance
    assert not Record.of(older | {"accuracy": 19.0}).by_chance
    assert Record.of({"accuracy": 1.0}).caveats() == []


def test_caveats_name_the_collapse_and_the_classes() -> None:
    collapsed = result(95.0, (95, 5), (100.0, 0.0), collapsed=True, test={"favourite": 100.0})
    assert Record.of(collapsed).caveats() == ["gives 100.0 % of the test images the same class", "never recognises b"]
    assert Record.of(result(60.0, (5, 5, 5), (90.0, 90.0, 0.0))).caveats() == ["never recognises c"]
    chance = Record.of(result(34.0, (5, 5, 5), (34.0, 34.0, 34.0))).caveats()
    assert chance == ["is hardly better than chance (balanced accuracy 34.0 %, guessing 33.3 %)"]
    assert Record.of(result()).caveats() == []


def test_many_names_become_their_number() -> None:
    assert listed(["x"]) == "x"
    assert listed(list("xyz")) == "x, y or z"
    assert listed(list("uvwxyz")) == "6 classes (u, v, w, …)"


def test_seeds_are_named_if_not_all_are_meant() -> None:
    good, bad = result(), result(50.0, recall=(100.0, 0.0), collapsed=True)
    assert over_seeds({0: good, 1: good}) == {}
    assert over_seeds({0: bad}) == {
        "collapsed": "gives nearly all test images the same class",
        "never": "never recognises b",
    }
    five = dict.fromkeys(range(5), good) | {3: bad}
    assert over_seeds(five)["collapsed"] == "gives nearly all test images the same class (in 1 of 5 seeds: 3)"
    assert over_seeds({0: bad, 1: bad})["never"] == "never recognises b (in all 2 seeds)"
    assert failed_seeds(five) == [3]


def test_a_student_tells_of_its_teacher() -> None:
    student = result(80.0)
    assert of_student(student, "t", None) == []
    assert of_student(student, "t", result(80.0)) == []
    assert of_student(student, "t", result(79.5)) == ["scored more than its teacher t (80.00 % against 79.50 %)"]
    failed, _ = of_student(student, "t", result(50.0, recall=(50.0, 50.0)))
    assert failed == "had a teacher, t, that is hardly better than chance (balanced accuracy 50.0 %, guessing 50.0 %)"


@pytest.mark.usefixtures("tiny_networks")
def test_recalls_are_those_of_the_predictions() -> None:
    data, network, fabric = tiny.dataset(tests=21), tiny.network(), make_fabric("cpu", "float32")
    where = (network, data.test, data.normalisation, fabric)
    found = recalls(*where, batch=4)
    assert found == predictions(*where, batch=4).by_class(tiny.CLASSES)
    assert found["images"] == [6, 5, 5, 5]
    right = sum(n * share / 100 for n, share in zip(found["images"], found["recall"]))
    assert 100 * right / 21 == pytest.approx(evaluate(*where)["accuracy"])


@pytest.mark.usefixtures("tiny_networks")
def test_a_result_holds_warnings_of_its_network_and_its_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def constant(*args: Any, **options: Any) -> Any:
        network = tiny.network(*args, **options)
        with torch.no_grad():
            dict(network.named_parameters())["head.linear.bias"][2] = 50.0
        return network

    data = tiny.dataset(tests=40)
    data = replace(data, test=Split(data.test.images[data.test.labels != 3], data.test.labels[data.test.labels != 3]))
    monkeypatch.setitem(NETWORKS, "constant", constant)
    teacher = replace(tiny.run(data, "constant"), schedule=Schedule(epochs=1, batch=16, lr=1e-6))
    found = train(teacher, data, tmp_path)
    assert found["by_class"] == {"images": [10, 10, 10, 0], "recall": [0.0, 0.0, 100.0, None]}
    assert found["balanced_accuracy"] == pytest.approx(100 / 3)
    assert found["warnings"] == ["gives 100.0 % of the test images the same class", "never recognises a or b"]
    student = tiny.run(data, epochs=12, teacher=teacher, objective=objective("kd(temperature=4):0.01"))
    taught = train(student, data, tmp_path)
    assert taught["accuracy"] > found["accuracy"]
    assert taught["warnings"][-2:] == [
        "had a teacher, constant, that gives 100.0 % of the test images the same class",
        f"scored more than its teacher constant ({taught['accuracy']:.2f} % against 33.33 %)",
    ]
    folder = RunFolder(tmp_path / student.folder)
    assert folder.result(student) == json.loads(folder.result_json.read_text()) == taught
