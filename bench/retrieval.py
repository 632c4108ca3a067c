"""Finding tools among a thousand: `python bench/retrieval.py [--base-url URL --model NAME] [--count N]`.

Made-up tools with near-duplicates plus our own servers' real ones, and paraphrased questions of eight levels
(bench/retrieval_queries.py). Recall@10 and MAP@10 measure the search. Tool correctness is apart: the first tool is the
right one, and the call could be made: its required arguments are all in the question and come out as they were meant,
or, where the question withholds one, are seen to be missing. With a served model, rows of it are added;
bench/retrieval_server.py serves one from a folder.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import RESULTS, about, save
from retrieval_calls import filled
from retrieval_queries import LEVELS, Query, queries
from retrieval_tools import Made, made_tools

from agentlab.tool_embed import Concatenation, Embedder, Hashed, WeightedAverage, whole_text
from agentlab.tool_embed_openai import Served
from agentlab.tool_index import Ranking, ToolIndex
from agentlab.tool_records import Tool
from agentlab.tool_words import words
from agentlab.toolbox import known_tools

K = 10
Scores = dict[str, float]


def by_server(tools: Sequence[Tool]) -> dict[str, list[Tool]]:
    """Tools as servers list them."""
    listed: dict[str, list[Tool]] = {}
    for tool in tools:
        listed.setdefault(tool.server, []).append(tool)
    return listed


def average_precision(found: Sequence[str], right: Sequence[str]) -> float:
    """Mean of the precision at each right tool among the first K; a right one that is missing counts 0."""
    hits = [rank for rank, name in enumerate(found[:K], start=1) if name in right]
    return sum(number / rank for number, rank in enumerate(hits, start=1)) / len(right)


def score(index: ToolIndex, by: Ranking, asked: Sequence[Query]) -> Scores:
    """Means over some questions of one level."""
    recall: list[float] = []
    precision: list[float] = []
    first: list[bool] = []
    call: list[bool] = []
    caught: list[bool] = []
    for query in asked:
        found = index.find(query.text, K, by=by)
        names = [f.name for f in found]
        recall.append(len(set(names) & set(query.right)) / len(query.right))
        precision.append(average_precision(names, query.right))
        right = bool(names) and names[0] in query.right
        first.append(right)
        if query.level in ("two tools", "our servers"):
            continue  # they give no arguments that could be checked
        got = filled(found[0].schema, query.text) if found else None
        call.append(right and (got is None if query.withheld else got == query.arguments))
        if not right and not query.withheld:
            caught.append(got is None)
    columns: dict[str, Sequence[float]] = {
        "recall": recall,
        "map": precision,
        "first": first,
        "call": call,
        "caught": caught,
    }
    return {name: round(statistics.fmean(values), 4) for name, values in columns.items() if values}


def overlap(query: Query, tools: dict[str, Tool]) -> float:
    """Share of the question's telling words that the right tools' own texts have."""
    asked = set(words(query.text))
    return len(asked & {w for name in query.right for w in words(whole_text(tools[name]))}) / len(asked)


def median_ms(work: Callable[[int], object], times: int) -> float:
    """Median milliseconds of work(0), work(1), ..."""
    taken = []
    for number in range(times):
        start = time.perf_counter()
        work(number)
        taken.append(1e3 * (time.perf_counter() - start))
    return round(statistics.median(taken), 3)


def timings(tools: Sequence[Tool], asked: Sequence[Query]) -> dict[str, Any]:
    """Milliseconds of a first sync, one that changes nothing, one that changes 10 tools, and of searches; in a file."""

    def edited(number: int) -> dict[str, list[Tool]]:
        chosen = range(7 * number, 7 * number + 10)
        said = [replace(t, description=f"{t.description} v{number}") if i in chosen else t for i, t in enumerate(tools)]
        return by_server(said)

    def find(by: Ranking) -> float:
        return median_ms(lambda n: index.find(asked[n].text, K, by=by), 200)

    plain = by_server(tools)
    with tempfile.TemporaryDirectory() as folder:
        whole = median_ms(lambda n: ToolIndex(Path(folder) / f"{n}.sqlite").sync(plain), 5)
        path = Path(folder) / "0.sqlite"
        index = ToolIndex(path)
        touched = index.sync(edited(0)).touched
        assert len(touched) == 10, touched
        index.sync(plain)
        ten = statistics.median(_one_way(index, edited(n), plain) for n in range(1, 10))
        same = median_ms(lambda _: index.sync(plain), 9)
        opened = median_ms(lambda _: ToolIndex(path), 5)
        first = median_ms(lambda n: ToolIndex(path).find(asked[n].text, K), 5) - opened
        return {
            "sync_all_ms": whole,
            "sync_10_changed_ms": round(ten, 3),
            "sync_all_over_10_changed": round(whole / ten, 1),
            "sync_unchanged_ms": same,
            "touched_after_changing_10": len(touched),
            "open_ms": opened,
            "first_find_ms": round(first, 3),
            "find_ms": {by: find(by) for by in _RANKINGS},
            "file_mb": round(path.stat().st_size / 1e6, 2),
        }


def _one_way(index: ToolIndex, changed: dict[str, list[Tool]], plain: dict[str, list[Tool]]) -> float:
    """Milliseconds of a sync that changes 10 tools; the way back is not timed."""
    taken = median_ms(lambda _: index.sync(changed), 1)
    index.sync(plain)
    return taken


_RANKINGS: tuple[Ranking, ...] = ("lexical", "embedding", "hybrid")


def measure(embedder: Embedder, label: str, tools: Sequence[Tool], asked: Sequence[Query]) -> dict[str, Any]:
    """Every way of one embedder by name: scores by level and over all."""
    rows: dict[str, Any] = {}
    for recipe in (Concatenation(), WeightedAverage()):
        index = ToolIndex(embedder=_Remembering(embedder), recipe=recipe)
        index.sync(by_server(tools))
        text = "concatenation" if isinstance(recipe, Concatenation) else "TDWA"
        for by in _RANKINGS:
            name = "BM25" if by == "lexical" else f"{label}, {text}" + (" + BM25" if by == "hybrid" else "")
            if name not in rows:
                levels = {level: score(index, by, [q for q in asked if q.level == level]) for level in LEVELS}
                rows[name] = levels | {"all": score(index, by, asked)}
                print(
                    f"{name:40s} recall {rows[name]['all']['recall']:.3f} MAP {rows[name]['all']['map']:.3f}",
                    flush=True,
                )
    return rows


class _Remembering:
    """An embedder that makes the vector of a text once: questions are asked of several indexes."""

    def __init__(self, inner: Embedder) -> None:
        self._inner = inner
        self._known: dict[str, np.ndarray[Any, np.dtype[np.float32]]] = {}
        self.name = inner.name
        self.weigh = inner.weigh

    def embed(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """As the inner one does."""
        fresh = [t for t in dict.fromkeys(texts) if t not in self._known]
        if fresh:
            self._known |= dict(zip(fresh, self._inner.embed(fresh), strict=True))
        return np.stack([self._known[t] for t in texts])


def alone(embedder: Embedder, ours: Sequence[Tool], asked: Sequence[Query]) -> Scores:
    """The questions to our own servers where no other tools are: what `find_tools` meets by default."""
    index = ToolIndex(embedder=embedder)
    index.sync(by_server(ours))
    return score(index, "hybrid", [q for q in asked if q.level == "our servers"])


def markdown(result: dict[str, Any]) -> str:
    """The tables."""
    about_them = (
        f"{result['tools']} tools ({result['made']} made up, {result['ours']} of our own servers), "
        f"{result['queries']} questions; `python bench/retrieval.py`. Levels and the tables of paraphrases: "
        "bench/retrieval_queries.py."
    )
    lines = ["# Finding tools", "", about_them]
    head = "| |" + "".join(f" {level} |" for level in (*LEVELS, "all"))
    rule = "|---|" + "---|" * (len(LEVELS) + 1)
    counts = result["count_by_level"]
    share = result["overlap_by_level"]
    lines += ["", "## The questions", "", head, rule]
    lines.append("| questions |" + "".join(f" {counts[level]} |" for level in (*LEVELS, "all")))
    lines.append("| words that the right tool has |" + "".join(f" {100 * share[x]:.0f}% |" for x in (*LEVELS, "all")))
    for metric, title in (
        ("recall", "Recall@10"),
        ("map", "MAP@10"),
        ("first", "Tool correctness: the first tool is a right one"),
        ("call", "Call correctness: and its required arguments come out right, or are seen to be missing"),
        ("caught", "Of the wrong first tools, those whose required arguments the question does not give"),
    ):
        lines += ["", f"## {title}", "", head, rule]
        for name, row in result["rows"].items():
            cells = [row[level].get(metric) for level in (*LEVELS, "all")]
            lines.append(f"| {name} |" + "".join(" - |" if c is None else f" {c:.2f} |" for c in cells))
    lines += ["", f"Our servers' {counts['our servers']} questions among their own {result['ours']} tools alone:", ""]
    lines += [
        f"- {name} + BM25: Recall@10 {row['recall']:.2f}, MAP@10 {row['map']:.2f}, first right {row['first']:.2f}"
        for name, row in result["alone"].items()
    ]
    lines += ["", *result["notes"], "", "## Time (hashed, in one file)", "", "```json"]
    lines += [json.dumps(result["time"], indent=1), "```", "", f"Machine: {json.dumps(about())}", ""]
    return "\n".join(lines)


def made_result(made: Sequence[Made], ours: Sequence[Tool], asked: Sequence[Query]) -> dict[str, Any]:
    """What was asked of what."""
    tools = {t.full_name: t for t in (*(m.tool for m in made), *ours)}
    unknown = {name for query in asked for name in query.right} - tools.keys()
    assert not unknown, f"no such tools: {unknown}"
    shares = {level: [overlap(q, tools) for q in asked if level in (q.level, "all")] for level in (*LEVELS, "all")}
    return {
        "bench": "retrieval",
        "tools": len(tools),
        "made": len(made),
        "ours": len(ours),
        "queries": len(asked),
        "count_by_level": {level: len(values) for level, values in shares.items()},
        "overlap_by_level": {level: round(float(np.mean(values)), 3) for level, values in shares.items()},
    }


def main() -> None:
    """Measure, print a JSON line, keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", help="where a model is served, with its /v1")
    parser.add_argument("--model", help="the served model's name")
    parser.add_argument("--count", type=int, default=200, help="questions a level")
    given = parser.parse_args()
    made, ours = made_tools(), known_tools()
    load = os.getloadavg()[0]
    tools = [*(m.tool for m in made), *ours]
    asked = queries(made, given.count)
    result = made_result(made, ours, asked)
    result["rows"] = measure(Hashed(), "hashed", tools, asked)
    result["alone"] = {"hashed": alone(Hashed(), ours, asked)}
    result["notes"] = ["Hashed: words and letter groups, no model."]
    if given.base_url:
        served = Served(given.model, given.base_url)
        result["rows"] |= measure(served, given.model, tools, asked)
        result["notes"] += [f"{given.model}: a trained sentence embedding, served behind the OpenAI protocol."]
        result["alone"][given.model] = alone(served, ours, asked)
        served.close()
    result["time"] = {"load": [round(load, 1), round(os.getloadavg()[0], 1)]} | timings([m.tool for m in made], asked)
    save(result)
    (RESULTS / "retrieval.md").write_text(markdown(result), encoding="utf-8")
    print(json.dumps({k: v for k, v in result.items() if k != "rows"} | about()))


if __name__ == "__main__":
    main()
