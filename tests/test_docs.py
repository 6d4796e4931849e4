"""What the documents say is run here."""

from __future__ import annotations

import importlib.util
import re
import runpy
import shlex
from pathlib import Path

import pytest
import torch

from sftn.cli import COMMANDS, parse
from sftn.data.load import SOURCES
from sftn.methods import METHODS
from sftn.networks import NETWORKS
from sftn.networks.staged import StagedNet
from tests.support import tiny
from tests.support.pages import ROOT, code, example


@pytest.fixture
def registry() -> object:
    yield
    METHODS.pop("cosine", None)


@pytest.mark.usefixtures("registry")
def test_own_method_page_runs_and_its_method_trains() -> None:
    from sftn.tasks.distillation import Distiller
    from sftn.tasks.recipes import objective

    names: dict[str, object] = {}
    exec(code("docs/own-method.md"), names)
    task = Distiller(tiny.network(), tiny.network((6, 8, 12)), objective("cosine"), tiny.IMAGE)
    terms = task(torch.randn(8, *tiny.IMAGE), torch.arange(8) % tiny.CLASSES)
    assert 0 < terms["cosine"] < 2
    expected = terms["ce"] + terms["kd"] + 2 * terms["cosine"]
    torch.testing.assert_close(terms["loss"].detach(), expected)


@pytest.mark.usefixtures("registry")
def test_own_method_example_registers_its_method() -> None:
    module = example("own_method")
    logits = torch.randn(4, 5)
    assert METHODS["cosine"] is module.Cosine
    assert module.cosine_loss(logits, 3 * logits + 1).item() == pytest.approx(0, abs=1e-6)


def test_own_loop_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    example("own_loop").main(epochs=1, limit=40)
    assert "student with KD" in capsys.readouterr().out


def test_readme_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code("README.md"), names)
    assert "student resnet8 with kd" in capsys.readouterr().out
    student = names["student"]
    assert isinstance(student, StagedNet)
    assert student(torch.zeros(2, 1, 8, 8)).isfinite().all()


def test_readme_names_every_command() -> None:
    readme = (ROOT / "README.md").read_text()
    assert all(f"sftn {name}" in readme for name in COMMANDS)


def test_every_name_is_in_the_docs() -> None:
    readme = (ROOT / "README.md").read_text()
    missing = [name for name in (*NETWORKS, *METHODS, *SOURCES) if not re.search(rf"\b{re.escape(name)}\b", readme)]
    assert not missing


PAGES = ("README.md", *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md"))))


def commands(page: str) -> list[str]:
    """Every `sftn …` of a page's shell blocks, a line broken by a backslash as one."""
    blocks = re.findall(r"^```(?:sh|bash)\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("sftn ")]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_commands_of_the_docs_are_understood(page: str) -> None:
    for line in commands(page):
        parse(shlex.split(line, comments=True)[1:])


def test_every_page_is_on_the_site_and_every_reference_exists() -> None:
    site = (ROOT / "mkdocs.yml").read_text()
    for page in PAGES[1:]:
        assert page.removeprefix("docs/") in site, f"{page} is missing from mkdocs.yml"
        for module in re.findall(r"^::: (\S+)", (ROOT / page).read_text(), re.MULTILINE):
            assert importlib.util.find_spec(module) is not None, f"{page} refers to {module}"


def test_the_map_of_the_package_is_that_of_its_docstrings() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "architecture.py"))
    assert script["PAGE"].read_text() == script["page"](), "run `python docs/architecture.py`"
