"""The command line as its users call it, in this process."""

from __future__ import annotations

from typing import Any

import pytest

from sftn.cli import main, options
from sftn.cli.commands.runs import runs


def called(*arguments: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    try:
        main(list(map(str, arguments)))
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    return code, *capsys.readouterr()


def refusal(*arguments: object, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr with which a command ends that was given something wrong."""
    code, _, err = called(*arguments, capsys=capsys)
    assert code == 2, err
    assert err.startswith("sftn: "), err
    assert err.count("\n") == 1, err
    return err


def runs_command(*arguments: Any, **more: Any) -> None:
    """`sftn runs`, from the fields of its record."""
    runs(options.Runs(*arguments, **more))
