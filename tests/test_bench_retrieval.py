"""The measure of tool search measures what it says: paraphrases are paraphrases, and figures are computed right."""

from __future__ import annotations

import sys

import pytest
from conftest import CHECKOUT

from agentlab.tool_embed import whole_text
from agentlab.tool_words import words

sys.path.insert(0, str(CHECKOUT / "bench"))
from retrieval import average_precision
from retrieval_calls import filled
from retrieval_queries import DOMAIN_WORDS, LEVELS, OBJECT_WORDS, SITUATIONS, VERB_WORDS, queries
from retrieval_tools import DOMAINS, made_tools

MADE = made_tools()
GENERATOR = {word for made in MADE for word in words(whole_text(made.tool))}
BLANKS = dict.fromkeys("doabtfmw", "")


@pytest.mark.parametrize(
    "texts",
    [
        [*OBJECT_WORDS.values(), *DOMAIN_WORDS.values()],
        [form.format(**BLANKS) for forms in VERB_WORDS.values() for form in forms],
        [form.format(**BLANKS) for form in SITUATIONS.values()],
    ],
    ids=["objects and domains", "verbs", "situations"],
)
def test_no_word_of_the_paraphrases_is_one_of_the_generators(texts: list[str]) -> None:
    assert len(MADE) == len({made.tool.full_name for made in MADE}) == 1000
    assert not {word for text in texts for word in words(text)} & GENERATOR


def test_every_object_and_domain_has_its_paraphrase() -> None:
    assert {o for objects in DOMAINS.values() for o in objects} == OBJECT_WORDS.keys()
    assert DOMAINS.keys() == DOMAIN_WORDS.keys()


def test_questions_are_the_same_for_the_same_seed_and_give_the_arguments_that_their_tools_need() -> None:
    asked = queries(MADE, 20, seed=3)
    assert asked == queries(MADE, 20, seed=3)
    assert {q.level for q in asked} == set(LEVELS)
    schemas = {made.tool.full_name: made.tool.schema for made in MADE}
    given = [q for q in asked if q.level not in ("two tools", "our servers")]
    plain = [q for q in given if not q.withheld and "Re ZZ" not in q.text]
    assert all(filled(schemas[q.right[0]], q.text) == q.arguments for q in plain)
    assert all(filled(schemas[q.right[0]], q.text) is None for q in given if q.withheld)
    referred = [q for q in given if "Re ZZ" in q.text and any("id" in name for name in q.arguments)]
    assert referred
    assert not any(filled(schemas[q.right[0]], q.text) == q.arguments for q in referred)


def test_average_precision_is_the_mean_over_the_right_ones() -> None:
    assert average_precision(["a", "x", "b"], ["a", "b"]) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(["x", "a"], ["a"]) == 0.5
    assert average_precision([*"0123456789", "a"], ["a"]) == 0
