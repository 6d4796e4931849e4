from __future__ import annotations

from pathlib import Path

import pytest

from sftn.errors import InputError
from sftn.runs import cohort
from sftn.spec.execution import Execution
from tests.support import tiny


@pytest.mark.parametrize("several", [Execution(devices=2), Execution(nodes=2)])
def test_a_cohort_is_not_for_several_processes(several: Execution, tmp_path: Path) -> None:
    data = tiny.dataset()
    with pytest.raises(InputError, match="a cohort needs a single process"):
        cohort.train_together([tiny.run(data), tiny.run(data, epochs=3)], data, tmp_path, several)
