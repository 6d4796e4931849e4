"""Conditions of the kept studies."""

from __future__ import annotations

from sftn.experiments.grid import Conditions
from sftn.spec.run import Data
from sftn.spec.schedule import Schedule

# As the demo's runs are recorded, on a machine with bf16.
DEMO = Conditions(Data("digits", "5b7633f7772af8bd", 200), Schedule(epochs=80, batch=32), "bf16")
