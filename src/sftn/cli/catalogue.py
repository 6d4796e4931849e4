"""What `sftn list` shows and which names exist, read from a file that `python docs/catalogue.py` writes.

The registries of networks and methods import torch, which takes seconds. The catalogue holds their content, so that a
list or a misspelt name is answered at once. It also holds a digest of the files in which names are registered: if one
of them has changed since, the catalogue is ignored and the registries are asked.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("catalogue.json")
_SOURCES = ("methods/__init__.py", "networks/__init__.py", "networks/families/*.py", "data/load.py", "tasks/recipes.py")
"""Where names are registered, below the package's folder."""


@dataclass(frozen=True)
class Listing:
    """A table of names: what `sftn list` prints."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The first column."""
        return tuple(dict.fromkeys(row[0] for row in self.rows))


def listing(what: str) -> Listing:
    """A part of the catalogue: networks, methods, options (of methods), data, recipes."""
    return (stored() or collected())[what]


@cache
def stored() -> dict[str, Listing] | None:
    """The catalogue of the file; None if there is none or names have been registered since it was written."""
    try:
        record = json.loads(FILE.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if record.pop("digest", "") != _digest():
        return None
    return {
        name: Listing(tuple(part["header"]), tuple(tuple(row) for row in part["rows"])) for name, part in record.items()
    }


@cache
def collected() -> dict[str, Listing]:
    """The catalogue as the registries have it; imports torch."""
    from sftn.data.load import SOURCES, source
    from sftn.methods import METHODS
    from sftn.tasks import recipes

    methods = [("kd", recipes.OBJECTIVES["kd"].formula, "logits", "-", "Hinton et al. 2015")]
    for name, method in METHODS.items():
        first = "-" if method.warmup is METHODS["at"].warmup else "yes"
        methods.append((name, recipes.OBJECTIVES[name].formula, method.reads, first, method.summary))
    data = [(name, (source(name).__doc__ or "").strip().splitlines()[0]) for name in SOURCES]
    schedules = [
        (name, str(one.epochs), str(one.batch), f"{one.lr:g}", " ".join(f"{at:g}" for at in one.milestones))
        for name, one in recipes.SCHEDULES.items()
    ]
    return {
        "networks": Listing(("network", "stages", "parameters (100 classes)"), _networks()),
        "methods": Listing(("method", "objective", "reads", "first stage", "from"), tuple(methods)),
        "options": Listing(("method", "option", "default", "meaning", "default from"), _options()),
        "data": Listing(("data", "what it is"), tuple(data)),
        "recipes": Listing(("recipe", "epochs", "batch", "learning rate", "drops at"), tuple(schedules)),
    }


def write(file: Path = FILE) -> None:
    """Write the file."""
    record: dict[str, Any] = {"digest": _digest()}
    record |= {name: {"header": part.header, "rows": part.rows} for name, part in collected().items()}
    file.write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _networks() -> tuple[tuple[str, ...], ...]:
    import torch

    from sftn.networks import PACKAGED, build

    rows = []
    for name in PACKAGED:
        with torch.device("meta"):
            net = build(name, 100)
        rows.append((name, str(len(net.stages)), f"{sum(p.numel() for p in net.parameters()):,}"))
    return tuple(rows)


def _options() -> tuple[tuple[str, ...], ...]:
    """The options of every method, as in `crd(negatives=4096)`."""
    from sftn.methods import METHODS
    from sftn.methods.kd import distillation_loss
    from sftn.methods.options import options
    from sftn.tasks import recipes

    found = [("kd", list(options(distillation_loss).values()), "RepDistiller")]
    found += [(name, list(options(method).values()), method.source) for name, method in METHODS.items()]
    found.append(("any", list(recipes.WEIGHT_OPTIONS.values()), ""))
    return tuple(
        (name, one.name, one.shown_default, one.meaning.replace("`", ""), origin)
        for name, own, origin in found
        for one in own
    )


def _digest() -> str:
    root, digest = FILE.parents[1], hashlib.sha256()
    for pattern in _SOURCES:
        for path in sorted(root.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
