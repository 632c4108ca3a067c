"""Finding tools: an index that follows its servers, whatever happened to it before."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcp import Client
from mcp.server import MCPServer
from tool_examples import ERASE, FIT, MAIL, built, by_server, thousand

from agentlab.errors import AgentlabError
from agentlab.tool_embed import Hashed, Vectors
from agentlab.tool_index import Ranking, ToolIndex
from agentlab.tool_lexical import K1, B, Lexical
from agentlab.tool_records import BRIEF, Changes, Tool, listed_tool, read_tool
from agentlab.tool_words import words


class Counting:
    """The hashed embedder, and how many texts it was given."""

    def __init__(self) -> None:
        self._inner = Hashed(256)
        self.count = 0
        self.name = self._inner.name
        self.weigh = self._inner.weigh

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.count += len(texts)
        return self._inner.embed(texts)


# ---- following the servers ----


def test_a_sync_after_changing_ten_of_a_thousand_tools_touches_ten(tmp_path: Path) -> None:
    tools, embedder = thousand(), Counting()
    index = ToolIndex(tmp_path / "tools.sqlite", embedder)
    assert len(index.sync(by_server(tools)).created) == 1000
    embedder.count = 0
    chosen = set(random.Random(0).sample(range(1000), 10))  # noqa: S311 -- no secrets
    edited = [replace(t, description=t.description + " Twice.") if i in chosen else t for i, t in enumerate(tools)]
    changes = index.sync(by_server(edited))
    assert changes.updated == tuple(sorted(tools[i].full_name for i in chosen))
    assert (changes.touched, changes.kept, embedder.count) == (changes.updated, 990, 10)
    assert index.sync(by_server(edited)) == Changes(kept=1000)
    assert ToolIndex(tmp_path / "tools.sqlite", embedder).sync(by_server(edited)) == Changes(kept=1000)
    assert embedder.count == 10


def test_tools_are_created_updated_and_deleted_as_their_server_lists_them() -> None:
    index = built([FIT, MAIL])
    changed = replace(FIT, schema={"properties": {"formula": {"type": "string"}, "seed": {"type": "integer"}}})
    new = replace(FIT, name="laws")
    assert index.sync({"fit": [changed, new]}) == Changes(("fit.laws",), ("fit.fitLaw",), (), 0)
    assert index.sync({"fit": []}) == Changes((), (), ("fit.fitLaw", "fit.laws"), 0)
    assert index.tools == (MAIL,)
    assert index.servers == ("mail",)


@pytest.mark.parametrize(
    "other",
    [
        replace(FIT, name="fit_law"),
        replace(FIT, description="Fit one formula."),
        replace(FIT, schema={"properties": {"formula": {"type": "number"}}}),
        replace(FIT, annotations={"readOnlyHint": True}),
    ],
    ids=["name", "description", "schema", "annotations"],
)
def test_everything_that_a_caller_sees_is_in_the_digest(other: Tool) -> None:
    assert other.digest() != FIT.digest()


def test_the_order_of_keys_is_not_a_change() -> None:
    one = replace(FIT, schema={"type": "object", "properties": {"a": {"title": "A", "type": "string"}}})
    two = replace(FIT, schema={"properties": {"a": {"type": "string", "title": "A"}}, "type": "object"})
    assert one.digest() == two.digest()
    assert read_tool(one.canonical()) == two


NAMES = st.sampled_from(["get", "getAll", "drop_it", "x"])
TOOLS = st.builds(
    Tool,
    st.just("one"),
    NAMES,
    st.text(max_size=30),
    st.dictionaries(st.just("properties"), st.dictionaries(st.text(max_size=5), st.just({"type": "string"}))),
    st.just({}),
)
LISTS = st.dictionaries(
    st.sampled_from(["one", "two", "three"]), st.lists(TOOLS, max_size=4, unique_by=lambda t: t.name)
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(LISTS, max_size=5), query=st.text(min_size=1, max_size=20), reopen=st.booleans())
def test_an_index_after_any_edits_is_the_index_built_anew(
    edits: list[dict[str, list[Tool]]], query: str, tmp_path_factory: pytest.TempPathFactory, reopen: bool
) -> None:
    path = tmp_path_factory.mktemp("index") / "tools.sqlite"
    edited, last = ToolIndex(path), dict[str, list[Tool]]()
    for edit in edits:
        listed = {server: [replace(t, server=server) for t in tools] for server, tools in edit.items()}
        before = {t.full_name: t for t in edited.tools}
        changes = edited.sync(listed)
        after = {t.full_name: t for t in edited.tools}
        assert set(changes.touched) == {n for n in before | after if before.get(n) != after.get(n)}
        last |= listed
    anew = ToolIndex()
    anew.sync(last)
    if reopen:
        edited = ToolIndex(path)
    assert edited.tools == anew.tools
    if query.strip():
        assert edited.find(query) == anew.find(query)


def test_tools_of_real_servers_are_listed_with_all_that_their_callers_see() -> None:
    server = MCPServer("demo")

    @server.tool()
    def prune(tree: str, hard: bool = False) -> str:
        """Cut the branches of a tree."""
        return tree

    async def listed() -> list[Tool]:
        async with Client(server) as client:
            return [listed_tool("demo", t) for t in (await client.list_tools()).tools]

    index = ToolIndex()
    assert index.sync({"demo": asyncio.run(listed())}).created == ("demo.prune",)
    (found,) = index.find("cutting trees")
    assert (found.name, found.brief) == ("demo.prune", "Cut the branches of a tree.")
    assert found.schema["required"] == ["tree"]
    assert [name for name, _ in index.tools[0].parameters()] == ["tree", "hard"]


# ---- searching ----


def test_names_are_split_on_case_and_underscore_and_endings_meet() -> None:
    assert words("fitLaws2 HTTPServer drop_it") == ["fit", "law", "2", "http", "server", "drop"]
    assert words("queries query") == ["query"] * 2
    assert words("planning planned plans plan") == ["plan"] * 4
    assert words("Größe größe") == ["größ"] * 2
    assert words("the of to") == []


def test_bm25_is_the_published_formula() -> None:
    documents = [["law", "fit", "law"], ["mail"], ["fit"]]
    mean = 5 / 3
    inverse = np.log(1 + (3 - 1 + 0.5) / (1 + 0.5))
    expected = inverse * 2 * (K1 + 1) / (2 + K1 * (1 - B + B * 3 / mean))
    assert Lexical(documents).scores(["law"]) == pytest.approx([expected, 0, 0])
    assert Lexical([]).scores(["law"]).size == 0


@pytest.mark.parametrize("by", ["hybrid", "lexical", "embedding"])
def test_a_tool_is_found_by_what_it_does(by: Ranking) -> None:
    index = built([FIT, ERASE, MAIL])
    for query, tool in (("fitting a formula", FIT), ("remove folders", ERASE), ("letter address", MAIL)):
        assert index.find(query, 1, by=by)[0].name == tool.full_name


def test_a_misspelt_word_is_found_by_its_letters_and_not_by_words() -> None:
    index = built([FIT, ERASE, MAIL])
    assert index.find("formulla", by="lexical") == []
    assert index.find("formulla")[0].name == "fit.fitLaw"


def test_the_joint_ranking_is_the_sum_of_reciprocal_ranks() -> None:
    tools = [Tool("s", n, f"{n} {text}") for n, text in (("a", "red fox"), ("b", "red red hen"), ("c", "redish"))]
    index = built(tools)
    kinds: tuple[Ranking, ...] = ("lexical", "embedding")
    rank = {by: [f.name for f in index.find("red hen", by=by)] for by in kinds}
    expected = {
        name: sum(1 / (61 + rank[by].index(name)) for by in rank if name in rank[by])
        for name in {n for names in rank.values() for n in names}
    }
    assert {f.name: f.score for f in index.find("red hen")} == pytest.approx(expected)


def test_a_search_that_fits_nothing_finds_nothing_and_an_empty_one_is_refused() -> None:
    index = built([FIT])
    assert index.find("zzz") == []
    assert ToolIndex().find("anything") == []
    assert len(built([FIT, ERASE, MAIL]).find("a formula for a folder of letters", 2)) == 2
    with pytest.raises(AgentlabError, match="say in a few words"):
        index.find("  ")
    with pytest.raises(AgentlabError, match="1 or more"):
        index.find("fit", 0)


def test_what_a_search_shows_of_a_long_description_is_one_short_line() -> None:
    tool = Tool("s", "t", "Counts\n  the moss. " + "And more. " * 50)
    assert tool.brief == "Counts the moss."
    assert len(replace(tool, description="moss " * 100).brief) == BRIEF
    assert Tool("s", "t").brief == ""
