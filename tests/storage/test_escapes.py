from __future__ import annotations

import pytest

from sftn.storage.escapes import code, markdown, spreadsheet


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[red]cats", "[red]cats"),
        ("[a](b) [a][b] [a]: b", r"[a\](b) [a\][b] [a\]: b"),
        ("[x] done", r"\[x] done"),
        ("a|b", r"a\|b"),
        ("<b>x</b>", r"\<b>x\</b>"),
        ("$x_1$", r"\$x_1\$"),
        ("[/]", "[/]"),
        ("_a_ wrn_16_2 λ_R^KL", r"\_a\_ wrn_16_2 λ_R^KL"),
        ("*b* `c` ~d~", r"\*b\* \`c\` \~d\~"),
        ("&lt; R&D", r"\&lt; R&D"),
        ("# x", r"\# x"),
        ("- x", r"\- x"),
        ("12. x", r"12\. x"),
        ("p < 0.01, -0.50 ± 0.10", "p < 0.01, -0.50 ± 0.10"),
        ("a\nb", r"a\\nb"),
    ],
)
def test_markdown_shows_text_as_it_is(text: str, shown: str) -> None:
    assert markdown(text) == shown


def test_code_may_hold_backticks() -> None:
    assert code("a|b") == "`a|b`"
    assert code("a`b``") == "``` a`b`` ```"


@pytest.mark.parametrize("value", ["=1+1", "+1+cmd|x", "-x", "@SUM(A1)", "\tx"])
def test_a_spreadsheet_computes_nothing(value: str) -> None:
    assert spreadsheet(value) == f"'{value}"


@pytest.mark.parametrize("value", [-0.5, None, 3, "cat", "-0.50 ± 0.10", "+2.00", "-", "a=b"])
def test_numbers_and_words_stay(value: object) -> None:
    assert spreadsheet(value) == value
