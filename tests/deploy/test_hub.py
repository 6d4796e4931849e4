"""Students by huggingface_hub's mixin, against folders; nothing here reaches a network."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sftn.deploy.exporter import export
from sftn.deploy.parity import noise
from sftn.deploy.source import Source
from sftn.errors import InputError
from tests.deploy.conftest import CLASSES

huggingface_hub = pytest.importorskip("huggingface_hub")


def test_exported_folder_is_a_student(student: Path, photos: Path, tmp_path: Path) -> None:
    from sftn.deploy.hub import Student

    export(student, "safetensors", out=tmp_path)
    found = Student.from_pretrained(tmp_path)
    pixels = torch.from_numpy(noise((3, 16, 16), 4))
    assert torch.equal(found(pixels), Source.of(student).classifier(pixels))
    assert not found.training
    assert found.classes == CLASSES
    (answer,) = found.predict([photos / "red" / "1.png"], top=2)
    assert len(answer.classes) == 2


def test_page_runs(
    student: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "shipping.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    export(student, "safetensors", out=tmp_path / "export")
    shutil.copy(photos / "red" / "2.png", tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert "Answer(path=PosixPath('photo.jpg')" in capsys.readouterr().out


def test_saved_student_is_the_same(student: Path, tmp_path: Path) -> None:
    from sftn.deploy.hub import Student

    first = Student.of_run(student)
    first.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    again = Student.from_pretrained(str(tmp_path))
    assert (again.card, again.run, again.images, again.name) == (first.card, first.run, first.images, first.name)
    assert "0.1·CE + 0.9·KD" in again.card
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(again.parameters(), first.parameters(), strict=True))


def test_push_uploads_weights_record_and_card(student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sftn.deploy.hub import Student

    seen: dict[str, Any] = {}

    class Api:
        def __init__(self, token: str | None = None) -> None:
            pass

        def create_repo(self, repo_id: str, **_: object) -> SimpleNamespace:
            return SimpleNamespace(repo_id=repo_id)

        def upload_folder(self, *, repo_id: str, folder_path: Path, **_: object) -> str:
            seen[repo_id] = {path.name for path in Path(folder_path).iterdir()}
            return "uploaded"

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Api)
    assert Student.of_run(student).push_to_hub("me/colours") == "uploaded"
    assert seen == {"me/colours": {"README.md", "config.json", "model.safetensors"}}


def test_folder_without_weights_is_one_line(tmp_path: Path) -> None:
    from sftn.deploy.hub import Student

    with pytest.raises(InputError, match="no weights at"):
        Student.from_pretrained(tmp_path)


@pytest.mark.parametrize("text", ["", "[1]", "[" * 10**5, '{"a": ' + "9" * 5000 + "}", "\ud800"])
def test_damaged_record_is_one_line(student: Path, tmp_path: Path, text: str) -> None:
    from sftn.deploy.hub import Student

    export(student, "safetensors", out=tmp_path)
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError, match=r"config\.json") as error:
        Student.from_pretrained(tmp_path)
    assert str(error.value).isprintable()
