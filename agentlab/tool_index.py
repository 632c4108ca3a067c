"""An index of tools that follows their servers: what changed is embedded again, and a search joins words and vectors.

The servers are the single source of truth (ScaleMCP, arXiv 2505.06416): nothing is ever added here by hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from agentlab.errors import AgentlabError
from agentlab.tool_embed import Concatenation, Embedder, Hashed, Recipe, unit, whole_text
from agentlab.tool_lexical import Lexical
from agentlab.tool_records import Changes, Found, Tool
from agentlab.tool_store import Row, Store
from agentlab.tool_words import words

Ranking = Literal["hybrid", "lexical", "embedding"]

FUSION = 60
"""Added to each rank before its reciprocal: Cormack, Clarke & Buettcher, "Reciprocal Rank Fusion" (SIGIR 2009)."""


class ToolIndex:
    """Tools of some servers, kept in a file where a path is given, else in memory only.

    Args:
        path: one file; it is made where it is not there, and started anew where it is damaged or was made with
            another embedder or recipe.
        embedder: makes vectors of texts.
        recipe: makes one vector of a tool's texts.

    Raises:
        AgentlabError: the path holds something else.
    """

    def __init__(
        self, path: Path | None = None, embedder: Embedder | None = None, recipe: Recipe | None = None
    ) -> None:
        self._embedder = embedder or Hashed()
        self._recipe = recipe or Concatenation()
        self._store = Store(path, f"{self._embedder.name} / {self._recipe.name}") if path else None
        self._rows = self._store.read() if self._store else {}
        self._search: _Search | None = None

    @property
    def tools(self) -> tuple[Tool, ...]:
        """All tools, by full name."""
        return tuple(self._rows[name].tool for name in sorted(self._rows))

    @property
    def servers(self) -> tuple[str, ...]:
        """The servers that have a tool here, sorted."""
        return tuple(sorted({row.tool.server for row in self._rows.values()}))

    def sync(self, listed: Mapping[str, Iterable[Tool]]) -> Changes:
        """Make the index say of each server in `listed` exactly what the server lists; other servers stay as they are.

        A tool is embedded again only where its SHA-256 changed. A server that is gone is given no tools. Nothing is
        changed where the embedder or the file fails.
        """
        wanted = {tool.full_name: tool for tools in listed.values() for tool in tools}
        if strangers := {tool.server for tool in wanted.values()} - listed.keys():
            raise AgentlabError(
                f"tool index: tools of {', '.join(sorted(strangers))} listed under another server's name"
            )
        digests = {name: tool.digest() for name, tool in wanted.items()}
        old = {name for name, row in self._rows.items() if row.tool.server in listed}
        deleted = sorted(old - wanted.keys())
        changed = sorted(n for n in wanted if n not in old or self._rows[n].digest != digests[n])
        if changed or deleted:
            vectors = self._recipe.vectors([wanted[n] for n in changed], self._embedder) if changed else ()
            rows = {n: Row(wanted[n], digests[n], v) for n, v in zip(changed, vectors, strict=True)}
            if self._store:
                self._store.write(rows, deleted)
            self._rows = {n: r for n, r in self._rows.items() if n not in deleted} | rows
            self._search = None
        return Changes(
            created=tuple(n for n in changed if n not in old),
            updated=tuple(n for n in changed if n in old),
            deleted=tuple(deleted),
            kept=len(wanted) - len(changed),
        )

    def find(self, query: str, k: int = 10, *, by: Ranking = "hybrid") -> list[Found]:
        """At most `k` tools for what a query asks, the best first; none where nothing fits at all.

        Raises:
            AgentlabError: the query is empty or `k` is not positive.
            BackendError: a served embedder does not answer.
        """
        if not query.strip():
            raise AgentlabError("find tools: the query is empty; say in a few words what the tool should do")
        if k < 1:
            raise AgentlabError(f"find tools: k={k}; write 1 or more")
        if not self._rows:
            return []
        if self._search is None:
            self._search = _Search([self._rows[n] for n in sorted(self._rows)], self._embedder)
        return self._search.find(query, k, by)


class _Search:
    """Rows made ready to be searched."""

    def __init__(self, rows: Sequence[Row], embedder: Embedder) -> None:
        self._tools = [row.tool for row in rows]
        self._embedder = embedder
        self._lexical = Lexical([words(whole_text(tool)) for tool in self._tools])
        vectors = np.stack([row.vector for row in rows])
        self._weights = embedder.weigh(vectors)
        self._vectors = unit(vectors * self._weights)

    def find(self, query: str, k: int, by: Ranking) -> list[Found]:
        scores = np.zeros(len(self._tools))
        if by != "embedding":
            lexical = self._lexical.scores(words(query))
            scores = lexical if by == "lexical" else _reciprocal_ranks(lexical)
        if by != "lexical":
            asked = unit(self._embedder.embed([query]) * self._weights)[0]
            near = np.asarray(self._vectors @ asked, dtype=float)
            scores = near if by == "embedding" else scores + _reciprocal_ranks(near)
        best = [i for i in np.argsort(-scores, kind="stable")[:k] if scores[i] > 0]
        return [Found(t.full_name, t.brief, t.schema, float(scores[i])) for i, t in ((i, self._tools[i]) for i in best)]


def _reciprocal_ranks(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """1 / (FUSION + rank) for each score above zero, 0 for the others; equal scores rank by name."""
    order = np.argsort(-scores, kind="stable")
    ranks = np.empty(len(scores))
    ranks[order] = np.arange(1, len(scores) + 1)
    return np.where(scores > 0, 1 / (FUSION + ranks), 0.0)
