"""What the paper ran: schedules, loss weights and learning rates, in one place.

A method's weight, and what stands beside it, is on its class (`sftn.methods`). The weights are RepDistiller's
(SSKD's is its authors', OH's its authors' for CIFAR: theirs for ImageNet is a tenth); the feature methods run together
with KD, as in the paper: CE + KD + β·method.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import NamedTuple

from sftn.errors import InputError, unknown
from sftn.methods import METHODS
from sftn.methods.kd import distillation_loss
from sftn.methods.logits import LogitMethod
from sftn.methods.options import Option, parsed
from sftn.spec.objective import Objective, Term
from sftn.spec.schedule import Schedule

SCHEDULES: dict[str, Schedule] = {
    "paper": Schedule(),
    "short": Schedule(epochs=30),
    "smoke": Schedule(epochs=1, batch=32),
    "imagenet": Schedule(epochs=100, lr=0.1, milestones=(0.3, 0.6, 0.9), weight_decay=1e-4, batch=256),
}
"""Section B.1, and the same shape for people without a GPU; section B.2, whose learning rate and weight decay are the
usual ones, since the text does not give them."""

KD = Objective("kd", ce=0.1, kd=0.9)
KD_STANDARDISED = Objective("kd@std", ce=0.1, kd=9.0, temperature=2.0, standardise=True)
"""Sun et al. (2024, arXiv:2403.01427), with the temperature and weight of most of their runs."""

WEIGHT_OPTIONS: dict[str, Option] = {
    "warmup": Option("warmup", float, 0.0, "epochs (or fraction of the run) in which the weight grows linearly"),
    "fade": Option("fade", float, 0.0, "epoch (or fraction of the run) from which the weight falls to zero, a cosine"),
}
"""Options that every method has beside its own: those of its weight."""


def usual(name: str, *, standardise: bool = False) -> Objective:
    """The objective that a registered method's name alone stands for: ce·CE + kd·KD + weight·method.

    Args:
        name: of the method, or kd.
        standardise: that of `NAME@std`, which compares standardised logits.

    Raises:
        InputError: no method has that name, or it does not compare logits.
    """
    if name == KD.name:
        return KD_STANDARDISED if standardise else KD
    if name not in METHODS:
        raise unknown("method", name, (KD.name, *METHODS))
    method = METHODS[name]
    term = Term(name, method.weight, warmup=method.weight_warmup)
    if standardise:
        if not issubclass(method, LogitMethod):
            able = (KD.name, *(name for name, other in METHODS.items() if issubclass(other, LogitMethod)))
            raise InputError(f"{name}@std: {name} does not compare logits; @std is for {', '.join(able)}")
        weight = method.weight if method.standardised_weight is None else method.standardised_weight
        term = replace(term, weight=weight, options={**method.standardised_options, "standardise": True})
    return Objective(f"{name}@std" if standardise else name, ce=method.ce, kd=method.kd, terms=(term,))


OBJECTIVES: dict[str, Objective] = {name: usual(name) for name in (KD.name, *METHODS)}
"""Of every method of this package; those of Tables 17 and 18 are the paper's."""


def title(text: str) -> str:
    """A method's name as people write it: `KD` for `kd`, `CRD + KD` for `crd+kd`; options and weights stay."""
    names = {name: method.__name__ for name, method in METHODS.items() if "-" not in name}
    parts = [re.split(r"(?=[@(:])", part, maxsplit=1) for part in _summands(text)]
    return " + ".join("".join([names.get(name, name.upper()), *rest]) for name, *rest in parts)


SLOW_LEARNERS = ("mobilenetv2", "shufflev1", "shufflev2")
"""Networks that RepDistiller trains with a learning rate of 0.01 instead of 0.05."""


def schedule(recipe: str, network: str, **changes: float | int | tuple[float, ...] | None) -> Schedule:
    """The schedule of a recipe for a network; `changes` that are not None replace fields of it.

    Raises:
        InputError: the recipe is unknown or a change is out of range.
    """
    if recipe not in SCHEDULES:
        raise unknown("recipe", recipe, SCHEDULES)
    base = SCHEDULES[recipe]
    if network in SLOW_LEARNERS:
        base = replace(base, lr=base.lr / 5)
    given = {name: value for name, value in changes.items() if value is not None}
    return replace(base, **given)  # type: ignore[arg-type]


def objective(text: str, *, alone: bool = False, temperature: float | None = None) -> Objective:
    """The objective that a text stands for.

    Args:
        text: a method as the paper ran it (`crd`, `kd`, …), or a sum in which nothing is implied but CE:
            `crd+kd` is CE + 0.8·CRD + KD, and `crd:0.5+kd:2` gives the weights. `NAME(OPTION=VALUE, …)` changes a
            method's hyper-parameters (`crd(negatives=4096,temperature=0.1):0.5`), or how its weight follows the epoch:
            `at(warmup=20)`, `at(fade=0.6)`. `NAME@std` compares standardised logits (`kd@std`, `dkd@std(beta=24)`).
        alone: the method without KD beside it, as RepDistiller's own table has it.
        temperature: of KD, unless its options give one; None for 4, and 2 for `kd@std`.

    Raises:
        InputError: a method or an option is unknown or given twice, or a value or weight is no number in its range.
    """
    parts = [_part(part) for part in _summands(text)]
    if len(parts) == 1 and parts[0].weight is None:
        found = parts[0].objective
        found = found if temperature is None or parts[0].has_temperature else replace(found, temperature=temperature)
        if alone and found.terms:
            return replace(found, name=f"{found.name} alone", ce=1.0 if found.kd else found.ce, kd=0.0)
        return found
    seen: set[str] = set()
    whole = Objective(text, kd=0.0) if temperature is None else Objective(text, kd=0.0, temperature=temperature)
    for part in parts:
        if part.name in seen:
            raise InputError(f"{text!r} names {part.name} twice: give it one weight, as in {part.name}:0.5")
        seen.add(part.name)
        own = part.objective
        if part.name != KD.name:
            term = own.terms[0] if part.weight is None else replace(own.terms[0], weight=part.weight)
            whole = replace(whole, terms=(*whole.terms, term))
            continue
        usual_weight = own.kd if own.standardise else 1.0
        whole = replace(whole, kd=usual_weight if part.weight is None else part.weight, standardise=own.standardise)
        if temperature is None or part.has_temperature:
            whole = replace(whole, temperature=own.temperature)
    return whole


class _Part(NamedTuple):
    """One summand of a text."""

    name: str
    objective: Objective
    """The usual one, its options changed."""
    weight: float | None
    has_temperature: bool
    """Whether its options give KD's temperature."""


_FORM = re.compile(r"([^@(:]*)(@[^(:]*)?(\((.*)\))?\s*(:.*)?")


def _summands(text: str) -> list[str]:
    """A text at its plus signs, but for those within parentheses."""
    return [part.strip().lower() for part in re.split(r"\+(?![^(]*\))", text)]


def _part(text: str) -> _Part:
    form = _FORM.fullmatch(text)
    if form is None:
        raise InputError(f"{text!r} is no method: write NAME, NAME(OPTION=VALUE), NAME@std or NAME:WEIGHT")
    name, variant, options, weight = form[1].strip(), (form[2] or "").strip(), form[4] or "", form[5]
    if variant not in ("", "@std"):
        raise InputError(f"{text!r}: there is no form {variant} of {name or 'a method'}, only {name}@std")
    found = usual(name, standardise=bool(variant))
    given = None if weight is None else _number(weight[1:], text)
    if name == KD.name:
        changed = parsed(name, distillation_loss, options)
        found = replace(found, name=text, **changed) if changed else found  # type: ignore[arg-type]
        return _Part(name, found, given, "temperature" in changed)
    changed = parsed(name, METHODS[name], options, WEIGHT_OPTIONS)
    own = {key: float(changed.pop(key)) for key in tuple(changed) if key in WEIGHT_OPTIONS}
    (term,) = found.terms
    if changed or own:
        found = replace(found, name=text, terms=(replace(term, options={**term.options, **changed}, **own),))  # type: ignore[arg-type]
    return _Part(name, found, given, False)


def _number(text: str, part: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"the weight in {part!r} is no number: write {part.partition(':')[0]}:0.5") from None
