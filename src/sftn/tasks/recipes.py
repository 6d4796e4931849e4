"""What the paper ran: schedules, loss weights and learning rates, in one place.

A method's weight, and what stands beside it, is on its class (`sftn.methods`). The weights are RepDistiller's (SSKD's
and OH's are their authors'); the feature methods run together with KD, as in the paper: CE + KD + β·method.
"""

from __future__ import annotations

from dataclasses import replace

from sftn.errors import InputError, unknown
from sftn.methods import METHODS
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


def usual(name: str) -> Objective:
    """The objective that a registered method's name alone stands for: ce·CE + kd·KD + weight·method.

    Raises:
        InputError: no method has that name.
    """
    if name == KD.name:
        return KD
    if name not in METHODS:
        raise unknown("method", name, (KD.name, *METHODS))
    method = METHODS[name]
    return Objective(name, ce=method.ce, kd=method.kd, terms=(Term(name, method.weight),))


OBJECTIVES: dict[str, Objective] = {name: usual(name) for name in (KD.name, *METHODS)}
"""Of every method of this package; those of Tables 17 and 18 are the paper's."""


def title(text: str) -> str:
    """A method's name as people write it: `KD` for `kd`, `CRD + KD` for `crd+kd`; weights stay."""
    parts = [part.strip().partition(":") for part in text.split("+")]
    names = {name: method.__name__ for name, method in METHODS.items()}
    return " + ".join(f"{names.get(name.lower(), name.upper())}{colon}{weight}" for name, colon, weight in parts)


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


def objective(text: str, *, alone: bool = False, temperature: float = 4.0) -> Objective:
    """The objective that a name stands for.

    Args:
        text: a method as the paper ran it (`crd`, `kd`, …), or a sum in which nothing is implied but CE:
            `crd+kd` is CE + 0.8·CRD + KD, and `crd:0.5+kd:2` gives the weights.
        alone: the method without KD beside it, as RepDistiller's own table has it.
        temperature: of KD.

    Raises:
        InputError: a method is unknown or a weight is no number.
    """
    parts = [part.strip().lower() for part in text.split("+")]
    if len(parts) == 1 and ":" not in parts[0]:
        found = replace(usual(parts[0]), temperature=temperature)
        if alone and found.terms:
            return replace(found, name=f"{found.name} alone", ce=1.0, kd=0.0)
        return found
    kd = 0.0
    terms: list[Term] = []
    for part in parts:
        name, _, given = part.partition(":")
        own = usual(name)
        weight = _number(given, part) if given else own.terms[0].weight if own.terms else 1.0
        if name == KD.name:
            kd += weight
        elif any(term.method == name for term in terms):
            raise InputError(f"{text!r} names {name} twice: give it one weight, as in {name}:0.5")
        else:
            terms.append(Term(name, weight))
    return Objective(text, ce=1.0, kd=kd, terms=tuple(terms), temperature=temperature)


def _number(text: str, part: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"the weight in {part!r} is no number: write {part.partition(':')[0]}:0.5") from None
