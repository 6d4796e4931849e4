"""Names on the command line are checked, listed and looked up without importing torch."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sftn.cli import COMMANDS, analysis_options, catalogue
from sftn.cli.references import settle
from sftn.errors import InputError
from sftn.experiments.grid import seed_values
from sftn.runs.folder import RunFolder, find
from tests.support import tiny
from tests.support.command import called, refusal

WITHOUT_TORCH = """
import sys
from sftn.cli import main
for line in sys.stdin.read().splitlines():
    try:
        main(line.split())
    except SystemExit as stop:
        print("exit", stop.code)
    assert "torch" not in sys.modules, line
"""


def test_the_catalogue_is_what_the_registries_have() -> None:
    assert catalogue.stored() == catalogue.collected(), "run python docs/catalogue.py"


def test_a_catalogue_is_ignored_once_names_have_been_registered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "_digest", lambda: "of other files")
    catalogue.stored.cache_clear()
    try:
        assert catalogue.stored() is None
        assert "crd" in catalogue.listing("methods").names
    finally:
        catalogue.stored.cache_clear()


def test_misspelt_names_and_lists_import_no_torch(tmp_path: Path) -> None:
    wrong = {
        "compare --teacher resnet20 --student resnet9": "resnet8",
        "compare --methods kd crdd:0.5+kd": "crd",
        "compare --data digts": "digits",
        "compare --recipe papr": "paper",
        "compare --precision fp8": "bf16",
        "compare --epochs 0": "epochs",
        "compare": "--dry-run",
        "train-teacher --teacher resnet20 --standard --lr -1": "lr",
        "distil": "did you mean distill",
        "distill --teacher 1234 --student resnet8": "no runs",
        "distill --teacher away.pth --student resnet8": "does not exist",
        "evaluate ./away": "does not exist",
        "describe resnet9": "resnet8",
    }
    lists = [f"list {what}" for what in ("networks", "methods", "data", "recipes", "tables")]
    (tmp_path / "runs").mkdir()
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH],
        input="\n".join([*wrong, *lists]),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ,
        check=True,
    )
    lines = ended.stderr.splitlines()
    assert len(lines) == len(wrong)
    for line, word in zip(lines, wrong.values()):
        assert word in line
    assert ended.stdout.count("exit 2") == len(wrong)


def test_runs_are_named_by_prefix_and_as_last(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no runs"):
        find("last", tmp_path)
    folders = []
    for seed, width in ((0, "tiny"), (1, "tiny"), (2, "wide")):
        run = tiny.run(tiny.dataset(), width, seed=seed)
        folder = RunFolder(tmp_path / run.folder)
        folder.write(run)
        folders.append(folder)
    with pytest.raises(InputError, match=r"no run in .* is done"):
        find("last", tmp_path)
    for folder, stamp in zip(folders, (2, 3, 1)):
        folder.result_json.write_text("{}")
        os.utime(folder.result_json, (stamp, stamp))
    assert find("last", tmp_path) == folders[1]
    assert find("wide", tmp_path) == folders[2]
    assert find(folders[0].name[:-8], tmp_path) == folders[0]
    with pytest.raises(InputError, match=r"matches 2 runs \(tiny-.*, tiny-.*\)"):
        find("tiny", tmp_path)
    asked = analysis_options.Similarity(("last", "wide"), teacher=None, look=analysis_options.LookOptions(out=tmp_path))
    assert settle(asked).runs == (str(folders[1]), str(folders[2]))


def test_seeds_are_a_number_or_the_seeds_themselves() -> None:
    assert seed_values((3,)) == (0, 1, 2)
    assert seed_values((0, 7)) == (0, 7)
    for wrong in ((), (0,), (-1,), (1, 1), (1, -2)):
        with pytest.raises(InputError, match="seeds"):
            seed_values(wrong)


@pytest.mark.parametrize("command", ["compare", "demo", "train-teacher", "reproduce"])
def test_a_dry_run_says_what_and_how_long_and_writes_nothing(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_pair = ("--teacher", "wrn_10_1", "--student", "resnet8")
    more = {"compare": (*tiny_pair, "--seeds", "4", "7"), "train-teacher": tiny_pair, "reproduce": ("digits",)}
    small = () if command == "reproduce" else ("--epochs", "1", "--batch", "20", "--precision", "float32")
    out = tmp_path / "runs"
    code, said, err = called(command, *more.get(command, ()), *small, "--dry-run", "--out", out, capsys=capsys)
    assert (code, err) == (0, "")
    assert not out.exists()
    if command == "compare":
        assert re.search(r"to train: 4 teachers and 6 students; (less than|about) .* minutes? on this machine", said)
    if command == "train-teacher":
        assert "wrn_10_1-for-resnet8: digits, 797 training images, 1 epoch," in said


def test_bare_compare_asks_for_the_pair(capsys: pytest.CaptureFixture[str]) -> None:
    assert "needs --teacher and --student" in refusal("compare", capsys=capsys)
    assert "needs --student" in refusal("distill", capsys=capsys)


EVERY = """
import sys
from sftn.cli import parse
from sftn.cli.references import settle
for line in sys.stdin.read().splitlines():
    settle(parse(line.split()))
assert "torch" not in sys.modules
"""


def test_the_usual_form_of_every_command_passes_the_check_of_names(tmp_path: Path) -> None:
    """Without torch, as from a shell: the check is left to the registries where torch is loaded, as in these tests."""
    run = tiny.run(tiny.dataset(), "wide")
    folder = RunFolder(tmp_path / "runs" / run.folder)
    folder.write(run)
    folder.result_json.write_text("{}")
    lines = f"""
        demo --seeds 1
        compare --teacher last --student resnet8 vgg8 --methods kd@std crd(negatives=4):0.5+kd --data folder:photos
        train-teacher --teacher timm:resnet26 --student resnet8 --recipe short
        distill --teacher last --student resnet8 --method dkd(beta=6)
        reproduce table12 --to stl10 folder:photos --methods kd
        report last table17
        runs list
        analyse transfer last --to stl10
        evaluate {run.id[:6]} --data cifar10
        export last --quantize
        export wide --to safetensors
        export wide --to torch-export
        predict last photo.jpg
        bench --teacher vgg13
        describe vgg13 --student vgg8
        list recipes
    """
    asked = "\n".join(filter(None, map(str.strip, lines.splitlines())))
    subprocess.run(
        [sys.executable, "-c", EVERY], input=asked, text=True, cwd=tmp_path, env=os.environ, check=True, timeout=60
    )
    assert {line.split()[0] for line in asked.splitlines()} == set(COMMANDS)


@pytest.mark.parametrize(
    ("line", "word"),
    [
        (("compare", "--data", "photos"), "give folder:photos"),
        (("compare", "--data", "own:pictures"), "given from Python"),
        (("runs", "show", "compare-1"), "is a comparison, not a run: sftn report"),
        (("evaluate", "lastt"), "did you mean last?"),
    ],
)
def test_what_a_stranger_types_is_explained(
    line: tuple[str, ...],
    word: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    run = tiny.run(tiny.dataset())
    RunFolder(tmp_path / "runs" / run.folder).write(run)
    (tmp_path / "runs" / "compare-1").mkdir()
    (tmp_path / "runs" / "compare-1" / "comparison.json").write_text("{}")
    assert word in refusal(*line, capsys=capsys)


def test_a_run_of_exactly_that_name_is_meant_before_longer_ones(tmp_path: Path) -> None:
    runs = [tiny.run(tiny.dataset(), network, seed=seed) for network, seed in (("wide", 0), ("wider", 0), ("wider", 1))]
    for run in runs:
        RunFolder(tmp_path / run.folder).write(run)
    assert find("wide", tmp_path).name == runs[0].folder
    with pytest.raises(InputError, match="matches 2 runs"):
        find("wider", tmp_path)
