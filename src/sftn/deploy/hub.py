"""Students on the Hugging Face Hub: `Student.from_pretrained("FOLDER or REPOSITORY")`, with the library's mixin."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sftn.deploy import model_card
from sftn.deploy.classifier import Classifier
from sftn.deploy.exporter import CONFIG, FILES
from sftn.deploy.predict import Answer, of_classifier, predict
from sftn.deploy.preprocessing import config
from sftn.deploy.source import Source
from sftn.errors import InputError
from sftn.networks.weights import read_metadata
from sftn.storage.json_files import read_json, write_json
from sftn.storage.records import read_text

try:
    from huggingface_hub import ModelHubMixin, hf_hub_download
except ModuleNotFoundError as error:
    raise InputError("huggingface_hub is not installed: pip install 'sftn[hub]'") from error

WEIGHTS = FILES["safetensors"]


class Student(Classifier, ModelHubMixin):
    """A trained network with its normalisation, labels and model card: pixels in, logits out.

    `from_pretrained`, `save_pretrained` and `push_to_hub` are those of `huggingface_hub.ModelHubMixin`; a folder holds
    `model.safetensors`, `config.json` and `README.md`, as `sftn export --to safetensors` writes them.

    Args:
        classifier: shares its network and record.
        card: text of README.md; the library's template if empty.
        run: id of the run that trained it.
    """

    def __init__(self, classifier: Classifier, card: str = "", run: str = "") -> None:
        super().__init__(classifier.network, classifier.images, classifier.name)
        self.card, self.run = card, run

    @staticmethod
    def of_run(folder: str | Path) -> Student:
        """Load the network of a finished run.

        Raises:
            InputError: it is not finished, or not a run's folder.
        """
        source = Source.of(Path(folder))
        text = model_card.card(source, [{"files": [WEIGHTS]}], None)
        return Student(source.classifier, text, source.run.id)

    def predict(self, paths: Sequence[str | Path], top: int = 5) -> list[Answer]:
        """Classify image files.

        Raises:
            InputError: a file cannot be read.
        """
        return list(predict(of_classifier(self), [Path(path) for path in paths], top=top))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Student:
        """Load a student from a folder or a repository; `options` are the mixin's.

        Raises:
            InputError: a file is missing, damaged, or does not record what images it takes.
        """
        path = Path(pretrained_model_name_or_path) / CONFIG
        try:
            if path.exists():
                read_json(path)
            found: Student = super().from_pretrained(pretrained_model_name_or_path, **options)
        except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, RecursionError) as error:
            place = pretrained_model_name_or_path
            raise InputError(f"{CONFIG} of {place} is not valid JSON ({error}): export the run again") from error
        return found

    def _save_pretrained(self, save_directory: Path) -> None:
        self.save(save_directory / WEIGHTS, self.run)
        write_json(save_directory / CONFIG, config(self.name, self.images, self.run))
        if self.card:
            model_card.write(save_directory, self.card)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> Student:
        """Load for the mixin, which passes all its options; those for the download are used."""
        known = ("revision", "cache_dir", "force_download", "token", "local_files_only")
        how = {name: options[name] for name in known if name in options}
        folder = Path(model_id)
        if folder.is_dir():
            path, readme = folder / WEIGHTS, folder / model_card.NAME
        else:
            path = Path(hf_hub_download(model_id, WEIGHTS, **how))
            readme = path.with_name(model_card.NAME)
        text = read_text(readme) if readme.is_file() else ""
        return cls(Classifier.load(path), text, read_metadata(path).get("run", ""))
