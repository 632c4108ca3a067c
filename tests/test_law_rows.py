"""Conditions choose rows and expressions make columns, or say in one line why not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from agentlab.law import LawError, column_expression, rows_where

TABLE: dict[str, NDArray[Any]] = {
    "n_params": np.array([1e6, 1e7, 1e8, 1e9]),
    "tokens": np.array([1e9, 2e9, 3e9, np.nan]),
    "steps": np.array([1, 2, 3, 4]),
    "family": np.array(["a", "b", "it's", "dense moe"]),
    "lambda": np.array([0.0, 1.0, 0.0, 1.0]),
}
NUMBERS = {k: v for k, v in TABLE.items() if k not in ("family", "lambda")}


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("n_params >= 1e7", [1, 2, 3]),
        ("n_params>=1e7 and tokens<3e9", [1]),
        ("1e6 < n_params <= 1e8", [1, 2]),
        ("tokens/n_params >= 200", [0, 1]),
        ("6*n_params*tokens > 1e17 or steps == 4", [1, 2, 3]),
        ("not steps == 2", [0, 2, 3]),
        ("not (steps < 2 or steps > 3)", [1, 2]),
        ("steps in (1, 4)", [0, 3]),
        ("steps not in [1, 4]", [1, 2]),
        ("family == 'a'", [0]),
        ("'a' != family", [1, 2, 3]),
        ('family in ("it\'s", "dense moe")', [2, 3]),
        ("family not in ('a', 'b') and steps<4", [2]),
        ("lambda == 1", [1, 3]),
        ("tokens == tokens", [0, 1, 2]),
        ("tokens != 1e9", [1, 2, 3]),
        ("log10(n_params) > 7.5", [2, 3]),
        ("1 < 2", [0, 1, 2, 3]),
        ("'a' == 'b'", []),
    ],
)
def test_a_condition_chooses_rows(text: str, rows: list[int]) -> None:
    mask = rows_where(text, TABLE)
    assert mask.dtype == bool
    assert np.flatnonzero(mask).tolist() == rows


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("n_param > 1", "no column 'n_param': did you mean 'n_params'?"),
        ("zzz > 1", "there is: n_params, tokens, steps, family, lambda"),
        ("Tokens > 1", "did you mean 'tokens'?"),
        ("family > 'a'", "no order"),
        ("family == 1", "quote text"),
        ("family == a", "quote text"),
        ("steps == 'a'", "quote text"),
        ("family*2 > 1", "holds text"),
        ("steps", "compare it, for example steps == 1"),
        ("steps + 1", "no comparison"),
        ("steps = 1", "write == for equality"),
        ("steps > 1 & steps < 3", "write and"),
        ("steps > 1 | steps < 3", "write or"),
        ("!steps > 1", "write not"),
        ("steps in 3", "needs a list"),
        ("steps in ()", "needs a list"),
        ("steps is 3", "write == or !="),
        ("family == 'a", "not allowed"),
        ("steps > ", "cannot be read"),
        ("(steps > 1", "unbalanced bracket"),
        ("__import__('os').system('true') == 0", "not allowed"),
        ("exp('a') > 1", "not a number"),
        ("steps.real > 1", "not allowed"),
        ("[s for s in steps] == 1", "cannot be read"),
        ("steps > 1 if steps else 2", "cannot be read"),
        ("", "empty"),
        ("steps>1 and " * 1000 + "steps>1", "characters"),
        ("not " * 500 + "steps>1", "deep"),
    ],
)
def test_a_bad_condition_is_refused_in_one_line(text: str, says: str) -> None:
    with pytest.raises(LawError) as caught:
        rows_where(text, TABLE)
    message = str(caught.value)
    assert says in message
    assert message.isprintable()
    assert len(message) < 200


@given(st.text("steps family123.><=! andornotin'\"()[],+-*/\\\n", max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_condition_gives_a_mask_or_one_line_of_error(text: str) -> None:
    try:
        mask = rows_where(text, TABLE)
    except LawError as error:
        assert str(error).isprintable()  # noqa: PT017 - most texts are refused, some are not
    else:
        assert mask.shape == (4,)


def test_an_expression_makes_a_column() -> None:
    np.testing.assert_allclose(column_expression("6*n_params*steps", NUMBERS), [6e6, 1.2e8, 1.8e9, 2.4e10])
    np.testing.assert_allclose(column_expression("log2(steps)", NUMBERS), np.log2([1, 2, 3, 4]))
    np.testing.assert_allclose(column_expression("2", NUMBERS), [2, 2, 2, 2])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("6*n*tokens", "no column 'n'"),
        ("6*Tokens", "did you mean 'tokens'?"),
        ("steps > 1", "not allowed"),
        ("", "empty"),
        ("1/0", "not a finite number"),
    ],
)
def test_a_bad_expression_is_refused_in_one_line(text: str, says: str) -> None:
    with pytest.raises(LawError, match=says.replace("(", r"\(").replace("?", r"\?")):
        column_expression(text, NUMBERS)


def test_an_expression_over_text_is_refused() -> None:
    with pytest.raises(LawError, match="holds text"):
        column_expression("family*2", TABLE)
