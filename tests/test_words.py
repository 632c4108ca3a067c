"""key=value words become a RunConfig, or one clear line."""

import pytest

from agentlab.types import Budget, RunConfig
from agentlab.words import UsageError, keys, read_words, tool_arguments


def test_words_fill_the_record_with_the_types_it_declares() -> None:
    words = [
        "task=moe_leverage",
        "seed=7",
        "budget.candidates=1e3",
        "budget.usd=2.5",
        "blind=true",
        "where=a==1 and b>2",
    ]
    expected = RunConfig(
        task="moe_leverage", seed=7, budget=Budget(candidates=1000, usd=2.5), blind=True, where="a==1 and b>2"
    )
    assert read_words(words, RunConfig) == expected


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["taks=moe"], "did you mean 'task'?"),
        (["budget.candidate=3"], "did you mean 'budget.candidates'?"),
        (["budget=3"], "budget"),
        (["seed.x=3"], "seed.x"),
        (["seed=two"], "seed=two is not a whole number"),
        (["seed=1.5"], "not a whole number"),
        (["budget.seconds=soon"], "not a number"),
        (["sandbox=vm"], "auto, docker, bubblewrap, local"),
        (["blind=perhaps"], "true or false"),
        (["seed=1", "seed=2"], "given twice"),
        (["seed="], "has no value"),
        (["data.csv"], "is not key=value"),
        (["budget.candidates=0"], "at least 1"),
        (["workers=0"], "at least 1"),
        (["window=1"], "at least 2"),
        (["budget.seconds=-1"], "more than 0"),
        (["budget.seconds=nan"], "more than 0"),
        (["seed=1e400"], "not a whole number"),
    ],
)
def test_a_word_that_cannot_be_used_gets_one_line_that_names_it(words: list[str], said: str) -> None:
    with pytest.raises(UsageError) as told:
        read_words(words, RunConfig)
    assert said in str(told.value)
    assert "\n" not in str(told.value)
    assert told.value.exit_code == 2


def test_every_key_can_be_written() -> None:
    assert "budget.flops" in keys(RunConfig)
    assert "budget" not in keys(RunConfig)


def test_tool_arguments_are_json_where_they_read_as_such() -> None:
    words = ["data=runs/x", 'formulas=["a*x"]', "seed=3", "formula=E + A/N**a"]
    assert tool_arguments(words) == {"data": "runs/x", "formulas": ["a*x"], "seed": 3, "formula": "E + A/N**a"}
