"""What is kept in `results/`: networks do what is recorded of them, and the pages come from the files beside them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sftn.data.dataset import Dataset
from sftn.errors import InputError
from sftn.experiments.paper import TABLES
from sftn.experiments.studies import STUDIES
from sftn.report.figures import tables
from sftn.runs.archive import NETWORKS
from sftn.runs.build import load_data, load_network
from sftn.runs.folder import DONE, RunFolder
from sftn.runtime.device import make_fabric
from sftn.runtime.environment import changes
from sftn.spec.run import Data
from sftn.storage.json_files import sha256
from sftn.training.evaluate import evaluate
from tests.support.reports import reported

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "results"
KEPT = sorted((RESULTS / NETWORKS).glob("*/result.json"))
PAGES = [path for name in (*TABLES, *STUDIES) if (path := RESULTS / f"report-{name}" / "report.md").exists()]
NO_NETWORK = pytest.param(None, marks=pytest.mark.skip(reason=f"no network is kept in results/{NETWORKS}"))
NO_PAGE = pytest.param(None, marks=pytest.mark.skip(reason="no page is kept in results/"))
NEAR = 5
"""So many images may be answered otherwise by another processor or PyTorch, which round otherwise."""


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """The images of a record, each set loaded once; skips where they are not."""
    seen: dict[Data, Dataset] = {}

    def of(data: Data) -> Dataset:
        if data not in seen:
            folder = os.environ.get("SFTN_DATA")
            if data.name == "cifar100" and folder is None and (SHARED / "cifar100").is_dir():
                folder = str(tmp_path_factory.mktemp("cifar100"))
                script = [sys.executable, str(SHARED / "unpack_cifar100.py"), folder]
                subprocess.run(script, check=True, capture_output=True)
            try:
                seen[data] = load_data(data, None if folder is None else Path(folder))
            except InputError as error:
                pytest.skip(f"{data.name} is neither in $SFTN_DATA nor in ../shared/data: {error}")
        return seen[data]

    return of


@pytest.mark.parametrize("result", KEPT or [NO_NETWORK], ids=lambda path: path.parent.name if path else "none")
def test_a_kept_network_gets_its_recorded_accuracy(result: Path, images) -> None:  # type: ignore[no-untyped-def]
    entry = RunFolder(result.parent).inspect()
    assert entry.state == DONE, entry.reason
    assert entry.run is not None
    assert entry.result is not None
    assert sha256(entry.folder.weights) == entry.result["weights_sha256"]
    dataset = images(entry.run.data)
    assert dataset.identity == entry.run.data.fingerprint
    fabric = make_fabric("cpu", entry.run.precision)
    network = load_network(entry.run, dataset, entry.folder.path.parent)
    found = evaluate(network, dataset.test, dataset.normalisation, fabric)
    other = len(dataset.test) * abs(found["accuracy"] - entry.result["accuracy"]) / 100
    here = changes(entry.result["environment"], "cpu")
    elsewhere = any(change.startswith(("torch ", "cpu", "device ")) for change in here)
    assert round(other, 6) <= (NEAR if elsewhere else 0), f"recorded on another machine: {here}"


@pytest.mark.parametrize("page", PAGES or [NO_PAGE], ids=lambda path: path.parent.name if path else "none")
def test_a_kept_page_comes_from_the_kept_files(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "available", lambda: False)  # they are drawn from the same numbers
    name = page.parent.name.removeprefix("report-")
    out = tmp_path / "results"
    shutil.copytree(RESULTS, out, ignore=shutil.ignore_patterns(NETWORKS, "report-*"))
    folder = reported([name], out)
    assert words(folder / "report.md") == words(page)
    for numbers in page.parent.glob("report.csv"):
        assert (folder / "report.csv").read_bytes() == numbers.read_bytes()


@pytest.mark.parametrize("name", ["README.md", "docs/results.md"])
def test_what_is_told_of_the_runs_stands_on_a_kept_page(name: str) -> None:
    told = (ROOT / name).read_text()
    if name == "README.md":
        told = told.split("## Does it help?\n")[1].split("\n## ")[0]
    pages = "\n".join(page.read_text() for page in PAGES)
    spreads = set(re.findall(r"[+-]?\d+\.\d+ ± \d+\.\d+", told))
    assert len(spreads) > 5
    assert {spread for spread in spreads if not re.search(rf"(?<![\d.+-]){re.escape(spread)}(?!\d)", pages)} == set()
    rows = {line for line in told.splitlines() if line.startswith("| ") and re.search(r"\| \d of \d \|", line)}
    assert rows <= set(pages.splitlines())


def words(page: Path) -> list[str]:
    """The lines of a page without its figures."""
    return [
        line for line in page.read_text().splitlines() if line and not line.startswith("![") and line != tables.MISSING
    ]
