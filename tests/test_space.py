"""Design spaces: the table [design] of a task as feasible configurations with their costs."""

from __future__ import annotations

from typing import Any

import pytest

from agentlab.catalog import load_design, load_task, task_names
from agentlab.errors import AgentlabError
from agentlab.space import read_design, space_of
from agentlab.types import Task, Variable

TASK = Task("toy", (Variable("A"), Variable("C")), ("loss",))


def table(**changed: Any) -> dict[str, Any]:
    """A small design space; what is changed replaces its keys."""
    told: dict[str, Any] = {
        "tool": "train.start",
        "poll": "train.status",
        "cost": "flops",
        "require": ["top_k <= experts"],
        "knob": [
            {"name": "budget", "rows": [{"flops": 1e11, "width": 16}, {"flops": 3e11, "width": 24}]},
            {"name": "experts", "values": [2, 4, 8]},
            {"name": "top_k", "low": 1, "high": 4, "levels": 3, "integer": True},
        ],
        "values": {"d_ff": "4*width/top_k"},
        "config": {
            "experts": "= experts",
            "top_k": "= top_k",
            "d_ff": "= d_ff",
            "lr": "= 0.01*width**(-0.5)",
            "ffn": "gelu",
        },
        "columns": {"A": "top_k/experts", "C": "flops"},
        "targets": {"loss": "valid_loss"},
    }
    return told | changed


def test_every_choice_that_meets_what_is_required_is_there_once() -> None:
    space = space_of(read_design(table(), TASK), TASK)
    assert len(space) == 2 * (2 + 3 + 3)  # top_k 4 of 2 experts is left out
    assert all(c["top_k"] <= c["experts"] for c in space.configs)  # type: ignore[operator]
    assert len({str(c) + str(f) for c, f in zip(space.configs, space.cost, strict=True)}) == len(space)
    shares = [float(c["top_k"]) / float(c["experts"]) for c in space.configs]
    assert space.columns["A"].tolist() == pytest.approx(shares)


def test_whole_numbers_reach_the_tool_as_whole_numbers_and_words_as_words() -> None:
    config = space_of(read_design(table(), TASK), TASK).configs[0]
    assert isinstance(config["experts"], int)
    assert isinstance(config["d_ff"], int)
    assert config["ffn"] == "gelu"
    assert config["lr"] == pytest.approx(0.0025)


def test_the_knobs_along_which_runs_grow_dearer_are_told() -> None:
    space = space_of(read_design(table(), TASK), TASK)
    assert space.dear == {"budget": True, "experts": False, "top_k": False}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"cots": "flops"}, "cots"),
        ({"cost": "flop"}, "flops"),
        ({"require": ["top_k <="]}, "require"),
        ({"require": ["top_k > 9"]}, "no choice of the knobs"),
        ({"columns": {"A": "top_k/experts"}}, "nothing says what C"),
        ({"targets": {"valid": "valid_loss"}}, "loss"),
        ({"knob": []}, "knob"),
        ({"knob": [{"name": "flops"}]}, "give one of values"),
        ({"knob": [{"name": "flops", "low": 3, "high": 1}]}, "low < high"),
        ({"knob": [{"name": "x", "rows": [{"a": 1}, {"b": 2}]}]}, "different names"),
        (
            {
                "knob": [
                    {"name": "a", "low": 1, "high": 9, "levels": 200},
                    {"name": "b", "low": 1, "high": 9, "levels": 200},
                ]
            },
            "40000",
        ),
        ({"knob": [{"name": "flops", "values": [1e11], "hihg": 3}]}, "hihg"),
    ],
)
def test_a_table_that_cannot_be_used_gets_one_line_that_names_the_key(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(AgentlabError) as told:
        read_design(table(**changed), TASK)
    assert said in str(told.value)
    assert "\n" not in str(told.value)


def test_a_configuration_without_experts_or_cost_is_no_choice() -> None:
    knobs = [
        {"name": "flops", "values": [0.0, 1e11]},
        {"name": "experts", "values": [0, 4]},
        {"name": "top_k", "values": [1]},
    ]
    told = table(knob=knobs, values={}, config={"experts": "= experts"})
    space = space_of(read_design(told, TASK), TASK)
    assert [c["experts"] for c in space.configs] == [4]
    assert space.cost.tolist() == [1e11]


@pytest.mark.parametrize("name", task_names())
def test_the_spaces_that_ship_can_be_read(name: str) -> None:
    told = load_design(name)
    if told is None:
        return
    task = load_task(name)
    space = space_of(read_design(told[1], task), task)
    assert len(space) > 20
    assert (space.cost > 0).all()
