"""Objects of JSON in replies: in good form or mended, wherever they stand; and any other text is a named failure."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.models_json import DEEPEST, LONGEST, MOST, Found, Unread, objects_in
from agentlab.models_json_loose import LONGEST as LONGEST_LOOSE
from agentlab.models_json_loose import read_object

PLAIN = st.characters(exclude_categories=["Cs"])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**290), 10**290)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(PLAIN),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(PLAIN), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(PLAIN), VALUES, max_size=4)
PROSE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="{}<>"))
WRAPS = st.sampled_from(
    [
        ("", ""),
        ("```json\n", "\n```"),
        ("[", ",]"),
        ("<think>Is it {'f': 1}?</think>", ""),
        ('Is it {"f": 1}?</think>', ""),
    ]
)


def values(text: str) -> list[dict[str, Any]]:
    found = objects_in(text)
    assert not isinstance(found, Unread), found
    return [one.value for one in found]


def one(text: str) -> Found:
    found = objects_in(text)
    assert not isinstance(found, Unread), found
    (only,) = found
    return only


def reason(text: str) -> str:
    found = objects_in(text)
    assert isinstance(found, Unread), found
    assert 0 <= found.at <= max(len(text), LONGEST)
    return found.reason


@given(OBJECTS, PROSE, WRAPS, PROSE, st.booleans(), st.sampled_from([None, 1]))
def test_any_object_survives_prose_fences_and_thoughts(
    sent: dict[str, Any], before: str, wrap: tuple[str, str], after: str, ascii_only: bool, indent: int | None
) -> None:
    written = json.dumps(sent, ensure_ascii=ascii_only, indent=indent)
    assert one(before + wrap[0] + written + wrap[1] + after) == Found(sent)


@given(OBJECTS, st.booleans())
def test_what_mends_reads_good_json_as_json_does(sent: dict[str, Any], ascii_only: bool) -> None:
    mended: dict[str, None] = {}
    written = json.dumps(sent, ensure_ascii=ascii_only)
    assert read_object(f"x{written}", 1, mended) == (sent, len(written) + 1)
    assert not mended


@given(st.text() | st.text("{}[]\":,\\'/*#ntue01.- \n<think>", max_size=60))
def test_no_text_at_all_raises(text: str) -> None:
    found = objects_in(text)
    if not isinstance(found, Unread):
        json.dumps([f.value for f in found], allow_nan=False).encode()


@given(OBJECTS, st.data())
def test_an_object_that_is_cut_off_keeps_only_what_was_whole(sent: dict[str, Any], data: st.DataObject) -> None:
    written = json.dumps({"first": 1, **sent})
    end = data.draw(st.integers(written.index("1") + 2, len(written)))
    found = objects_in(written[:end])
    if not isinstance(found, Unread):
        assert part_of(found[0].value, {"first": 1, **sent})


def part_of(part: Any, sent: Any) -> bool:
    """Whether a value is what a prefix of another one's text may leave: members and elements, in their order."""
    if isinstance(part, dict) and isinstance(sent, dict):
        names = list(sent)[: len(part)]
        return list(part) == names and all(part_of(part[n], sent[n]) for n in names)
    if isinstance(part, list) and isinstance(sent, list):
        return bool(part == sent[: len(part)])
    return bool(part == sent)


MENDED: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    ('{"a": [1, 2,], }', {"a": [1, 2]}, ("trailing commas",)),
    ("{'a': 'it\\'s \"b\"'}", {"a": 'it\'s "b"'}, ("single quotes", "backslashes")),
    ('{"a": True, "b": None, "c": False}', {"a": True, "b": None, "c": False}, ("Python words",)),
    ('{"a": 1, // one\n # two\n "b": /* three */ 2}', {"a": 1, "b": 2}, ("comments",)),
    ('{"url": "http://x/#y", }', {"url": "http://x/#y"}, ("trailing commas",)),
    ('{"code": "def f():\n\treturn 1"}', {"code": "def f():\n\treturn 1"}, ("line breaks in strings",)),
    (r'{"f": "\alpha x\_1"}', {"f": r"\alpha x\_1"}, ("backslashes",)),
    (r"{'f': '\x41\u0042'}", {"f": "AB"}, ("single quotes", "backslashes")),
    ('{"a": .5, "b": +1, "c": 1., "d": 007}', {"a": 0.5, "b": 1, "c": 1.0, "d": 7}, ("numbers",)),
    ('{"a": 1, "b": 2, "a": 3}', {"a": 1, "b": 2}, ("duplicate keys",)),
    ('{"a": 1, "a": 2,}', {"a": 1}, ("duplicate keys", "trailing commas")),
    (r'{"a": "\ud800"}', {"a": "\ufffd"}, ("broken characters",)),
    (r'{"a": "\ud800",}', {"a": "\ufffd"}, ("broken characters", "trailing commas")),
    ('{"a": "x", "b": "y', {"a": "x"}, ("cut off",)),
    ('{"a": 1, "b": 2', {"a": 1}, ("cut off",)),
    ('{"a": 1, "b": tru', {"a": 1}, ("cut off",)),
    ('{"p": [{"f": "A"}, {"f": "B", "i": "so', {"p": [{"f": "A"}]}, ("cut off",)),
    ('```json\n{"law": {"f": "A", "idea": "half of', {"law": {"f": "A"}}, ("cut off",)),
    ('{"a": [1, 2, /* and', {"a": [1, 2]}, ("comments", "cut off")),
]


@pytest.mark.parametrize(("text", "value", "mended"), MENDED)
def test_what_is_nearly_json_is_mended_and_told(text: str, value: dict[str, Any], mended: tuple[str, ...]) -> None:
    assert one(text) == Found(value, mended)


def test_braces_and_quotes_in_prose_do_not_hide_the_object() -> None:
    text = 'In {1, 2} and \\frac{A}{B}, {"so to say, {\'or: use "{" and then\n{"f": "A"} as {said}'
    assert values(text) == [{"f": "A"}]
    assert values("{} or {'f': 1} {}") == [{"f": 1}]
    assert values("It is {}.") == [{}]


def test_several_objects_come_in_their_order() -> None:
    assert values('1. {"f": "A"}\n2. {"f": "B"}') == [{"f": "A"}, {"f": "B"}]
    assert values('[{"f": "A"}, {"f": "B"}, 3]') == [{"f": "A"}, {"f": "B"}]
    assert objects_in('{"f": 1, "f": 2} {"f": 3}') == (Found({"f": 1}, ("duplicate keys",)), Found({"f": 3}))
    assert len(values('{"f": 1} ' * 2 * MOST)) == MOST


def test_of_an_object_that_cannot_be_mended_the_whole_ones_inside_are_taken() -> None:
    found = objects_in('{"p": [{"f": "A"}, {"f": NaN}, {"f": B}, {"f": "C"}]}')
    assert found == (Found({"f": "A"}, ("beside a broken object",)), Found({"f": "C"}, ("beside a broken object",)))


def test_a_thought_is_no_answer() -> None:
    assert values('<think>{"f": "A"} or {"f": "</think>{"f": "B"}') == [{"f": "B"}]
    assert values('{"f": "A"} or {"f": </think>{"f": "B"}') == [{"f": "B"}]
    assert values('{"f": "A"} <think>{"f": "B"}</think> and <thought>{"f": "C"}</thought>.') == [{"f": "A"}]
    assert values('{"f": "</think>"}') == [{"f": "</think>"}]
    assert reason('<think>{"f": "A"} or') == "cut off"


UNREAD = [
    ("", "no JSON"),
    ("I cannot help with that.", "no JSON"),
    ("{1, 2} or {x: 3}", "no JSON"),
    ("[1, 2, 3]", "no JSON"),
    ('{"f": A + B}', "malformed"),
    ('{"f": "A" "g": "B"}', "malformed"),
    ('{"f": "A", "g": [1}', "malformed"),
    ('{"f": "A + B/N**', "cut off"),
    ('{"p": [{"f": "A', "cut off"),
    ('{"f', "cut off"),
    ("Here: {", "cut off"),
    ('{"a": NaN}', "not a number"),
    ('{"a": -Infinity}', "not a number"),
    ("{'a': nan}", "not a number"),
    ('{"a": 1e999}', "not a number"),
    ('{"a": ' + "9" * 5000 + "}", "not a number"),
    ("{'a': " + "9" * 5000 + "}", "not a number"),
    ("[" * 100_000, "no JSON"),
    ('{"a":' + "[" * 100_000, "too deep"),
    ('{"a":' * 500 + "1" + "}" * 500, "too deep"),
    ('{"a":' * 100_000 + "1" + "}" * 100_000, "too deep"),
    ('{"a": [' + "1," * LONGEST_LOOSE, "too long"),
    ('{"a": 1}' + " " * LONGEST, "too long"),
    ('{"' * 500_000, "too tangled"),
    ("{'a\"" * 100_000, "too tangled"),
    ('{"a": x} ' * 100_000, "malformed"),
]


@pytest.mark.parametrize(("text", "why"), UNREAD, ids=range(len(UNREAD)))
def test_a_text_that_holds_no_object_has_a_name_for_why(text: str, why: str) -> None:
    assert reason(text) == why


def test_nesting_is_read_as_deep_as_it_may_be() -> None:
    deepest = '{"a":' * DEEPEST + "1" + "}" * DEEPEST
    assert values(deepest) == values(deepest.replace("1", "1,"))
    assert reason('{"a":' + deepest + "}") == "too deep"
    assert one('{"a":' + deepest.replace("1", "1,") + "}").mended[-1] == "beside a broken object"
    assert values('{"a":' * 900 + "1" + "}" * 900 + ' {"f": 1}') == [{"f": 1}]


def test_large_texts_are_read_in_full() -> None:
    rows = [{"f": f"A + {i}"} for i in range(40_000)]
    assert values("So: " + json.dumps({"p": rows})) == [{"p": rows}]
    assert math.isfinite(values('{"a": ' + "9" * 300 + ".5}")[0]["a"])
