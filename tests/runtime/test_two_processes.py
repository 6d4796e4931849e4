from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file

from sftn.networks import KEYS, NETWORKS
from tests.support import process_checks as checks

ROOT = Path(__file__).resolve().parents[2]


class Together(NamedTuple):
    folder: Path
    first: dict[str, Any]
    second: dict[str, Any]
    last_words: str
    exit_code: int
    seconds: float


@pytest.fixture(scope="module")
def tiny_by_name() -> Iterator[None]:
    checks.named()
    yield
    del NETWORKS["tiny"], KEYS["tiny"]


@pytest.fixture(scope="module")
def pair(tiny_by_name: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Together]:
    """Two processes, started once, do everything; then one of them is killed in the middle of a run."""
    folder = tmp_path_factory.mktemp("pair")
    assert checks.carried_out(folder / "one-two", stop_after=1) == "stopped"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    env = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    command = [sys.executable, "-m", "tests.support.process_checks", str(folder)]
    children = [
        subprocess.Popen(command, cwd=ROOT, env=env | {"RANK": rank, "LOCAL_RANK": rank}, stderr=subprocess.PIPE)
        for rank in "01"
    ]
    try:
        _wait(lambda: list(folder.glob("endless/*/log.jsonl")) or any(child.poll() for child in children))
        children[1].kill()
        began = time.monotonic()
        _, said = children[0].communicate(timeout=60)
        spent = time.monotonic() - began
        files = [folder / f"process{rank}.pt" for rank in (0, 1)]
        assert all(file.exists() for file in files), said.decode()
        first, second = (torch.load(file, weights_only=False) for file in files)
        yield Together(folder, first, second, said.decode(), children[0].returncode, spent)
    finally:
        for child in children:
            child.kill()
            child.communicate()


def _wait(until: Any) -> None:
    end = time.monotonic() + 120
    while not until():
        assert time.monotonic() < end, "the two processes are not done"
        time.sleep(0.05)


@pytest.mark.parametrize("name", [name for name in checks.RUNS if name != "own norms"])
def test_two_processes_learn_what_one_does(name: str, pair: Together) -> None:
    """Within 1e-12 of a tensor's largest number, in float64: rounding of six steps, and of RKD's small distances."""
    alone, start = checks.trained(name), checks.phases(name)[0].state_dict()
    moved = 0.0
    for key, expected in alone["state"].items():
        found = pair.first[name]["state"][key]
        assert (found - expected).abs().max() <= 1e-12 * max(1.0, expected.abs().max().item()), key
        moved = max(moved, (expected - start[key]).abs().max().item())
    assert moved > 1e-4
    assert pair.first[name]["loss"] == pytest.approx(alone["loss"], rel=1e-12)


@pytest.mark.parametrize("name", checks.RUNS)
def test_both_processes_hold_the_same_bits(name: str, pair: Together) -> None:
    """Banks of CRD too, and running statistics that each has taken of its own share."""
    assert pair.first[name]["loss"] == pair.second[name]["loss"]
    for key, value in pair.first[name]["state"].items():
        assert torch.equal(value, pair.second[name]["state"][key]), key


def test_norms_of_a_share_are_another_training(pair: Together) -> None:
    own, whole = pair.first["own norms"]["state"], pair.first["supervised"]["state"]
    assert max((own[key] - whole[key]).abs().max().item() for key in own if key.endswith("weight")) > 1e-4


@pytest.mark.parametrize("images", [1, 24, 37])
def test_evaluation_counts_every_image_once(images: int, pair: Together) -> None:
    alone, together = checks.evaluated(images), pair.first[f"evaluate {images}"]
    assert together == pair.second[f"evaluate {images}"]
    for name in ("accuracy", "top5", "favourite"):
        assert together[name] == alone[name]
    for name in ("nll", "entropy"):  # of float32 logits
        assert together[name] == pytest.approx(alone[name], rel=1e-6)


def test_a_number_that_one_of_them_finds_is_found_by_both(pair: Together) -> None:
    alone = checks.poisoned(skip=False)
    assert 11 in alone["images"]
    assert pair.first["poisoned"] == pair.second["poisoned"] == alone


def test_both_skip_the_same_step(pair: Together) -> None:
    alone = checks.poisoned(skip=True)
    for found in (pair.first["skipped"], pair.second["skipped"]):
        assert found["skipped"] == alone["skipped"] == 1
        for key, expected in alone["state"].items():
            torch.testing.assert_close(found["state"][key], expected, rtol=1e-6, atol=1e-7)


def test_two_begin_and_one_goes_on(pair: Together, tmp_path: Path) -> None:
    """Within 1e-5 in float32: nine steps of rounding by 1e-7, in the order of sums."""
    assert pair.first["begin"] == pair.second["begin"] == "stopped"
    assert isinstance(checks.carried_out(pair.folder / "two-one"), dict)
    _same_as_uninterrupted(pair.folder / "two-one", tmp_path)


def test_one_begins_and_two_go_on(pair: Together, tmp_path: Path) -> None:
    assert pair.first["go on"] == pair.second["go on"]
    assert pair.first["go on"]["environment"]["processes"] == 2
    assert not list(pair.folder.glob("one-two/*/checkpoint*"))
    _same_as_uninterrupted(pair.folder / "one-two", tmp_path)


def _same_as_uninterrupted(out: Path, tmp_path: Path) -> None:
    assert isinstance(checks.carried_out(tmp_path), dict)
    name = f"{checks.run().folder}/weights.safetensors"
    expected = load_file(tmp_path / name)
    for key, value in load_file(out / name).items():
        torch.testing.assert_close(value, expected[key], rtol=1e-5, atol=1e-5)
    rows = [(out / checks.run().folder / "log.jsonl").read_text().count("\n") for out in (out, tmp_path)]
    assert rows == [3, 3]


def test_a_process_that_dies_ends_the_other_with_one_line(pair: Together) -> None:
    line = "another of the 2 processes has ended or does not respond; the same command resumes from the last checkpoint"
    assert [words for words in pair.last_words.splitlines() if words] == [line]
    assert pair.exit_code == 1
    assert pair.seconds < 30
