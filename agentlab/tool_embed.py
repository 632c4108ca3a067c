"""Vectors of tools: hashed words and letter groups, which need no model, and ways to join a tool's texts."""

from __future__ import annotations

import functools
import math
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from agentlab.errors import AgentlabError
from agentlab.tool_records import Tool
from agentlab.tool_words import words

Vectors = npt.NDArray[np.float32]
"""One row a text or tool."""


class Embedder(Protocol):
    """Makes vectors of texts; the same text gives the same vector, whatever stands beside it.

    `name` says what made a vector: an index made by another name is made anew.
    """

    @property
    def name(self) -> str:
        """What made the vectors, with all that changes them."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors (texts, dimensions). Raises BackendError where a service does not give them."""

    def weigh(self, vectors: Vectors) -> Vectors:
        """How much each dimension counts (dimensions,), given all the vectors that are searched."""


@dataclass(frozen=True, slots=True)
class Hashed:
    """Counts of words and of groups of letters, hashed to dimensions; rare ones count more.

    Groups of letters let word forms and misspellings meet. Words of another sound and the same sense do not meet: that
    takes a trained model. (Weinberger et al. 2009, arXiv 0902.2206, for signed hashing.)
    """

    dimensions: int = 2048
    groups: tuple[int, ...] = (3, 4, 5)
    group_weight: float = 0.5

    @property
    def name(self) -> str:
        """The sizes, which make the vectors."""
        return f"hashed {self.dimensions} {','.join(map(str, self.groups))} {self.group_weight:g}"

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Sums over the words of a text, by the root of their counts: a word said four times counts twice."""
        out = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for row, text in enumerate(texts):
            for word, times in Counter(words(text)).items():
                where, values = _hashed_word(word, self)
                np.add.at(out[row], where, math.sqrt(times) * values)
        return out

    def weigh(self, vectors: Vectors) -> Vectors:
        """Inverse document frequency of each dimension."""
        seen = np.count_nonzero(vectors, axis=0)
        return np.asarray(np.log1p(len(vectors) / (1.0 + seen)), dtype=np.float32)


@functools.lru_cache(maxsize=1 << 14)
def _hashed_word(word: str, how: Hashed) -> tuple[npt.NDArray[np.intp], Vectors]:
    """Where a word and its groups of letters go, and what they add there."""
    bounded = f"<{word}>"
    groups = [bounded[i : i + size] for size in how.groups for i in range(len(bounded) - size + 1)]
    codes = np.array([zlib.crc32(feature.encode()) for feature in (f"={word}", *groups)], dtype=np.int64)
    weights = np.array([1.0, *(how.group_weight for _ in groups)], dtype=np.float32)
    return (codes >> 1) % how.dimensions, weights * np.where(codes & 1, 1, -1).astype(np.float32)


class Recipe(Protocol):
    """Makes one vector of a tool's texts."""

    @property
    def name(self) -> str:
        """What made the vectors, with all that changes them."""

    def vectors(self, tools: Sequence[Tool], embedder: Embedder) -> Vectors:
        """Vectors (tools, dimensions)."""


@dataclass(frozen=True, slots=True)
class Concatenation:
    """The embedding of name, description and arguments, one after the other: the default.

    Without reranking it beats the weighted average in ScaleMCP (arXiv 2505.06416).
    """

    @property
    def name(self) -> str:
        """There is one."""
        return "concatenation"

    def vectors(self, tools: Sequence[Tool], embedder: Embedder) -> Vectors:
        """Vectors (tools, dimensions)."""
        return unit(embedder.embed([whole_text(t) for t in tools]))


Questions = Callable[[Tool], Sequence[str]]


def plain_questions(tool: Tool) -> Sequence[str]:
    """What somebody may ask that the tool answers, made without a model; give your own where a model wrote them."""
    name = " ".join(words(tool.full_name))
    given = ", ".join(parameter.replace("_", " ") for parameter, _ in tool.parameters())
    asked = [f"How do I {tool.brief.rstrip('.').lower()}?", f"Which tool does {name}?"]
    return [*asked, f"{name} with {given}"] if given else asked


@dataclass(frozen=True, slots=True)
class WeightedAverage:
    """TDWA: the normalised weighted sum of unit embeddings of a tool's texts (ScaleMCP, arXiv 2505.06416, section 3).

    The weights here lean on the questions, as the paper's do; they are ours, and none need be zero.
    """

    title: float = 0.2
    description: float = 0.2
    schema: float = 0.2
    questions: float = 0.4
    ask: Questions = plain_questions

    def __post_init__(self) -> None:
        weights = (self.title, self.description, self.schema, self.questions)
        if min(weights) < 0 or not 0 < sum(weights) < math.inf:
            raise AgentlabError(
                f"weights of a tool's texts {weights}: write numbers that are not negative, one above 0"
            )

    @property
    def name(self) -> str:
        """The weights, and where the questions come from."""
        weights = " ".join(f"{w:g}" for w in (self.title, self.description, self.schema, self.questions))
        return f"tdwa {weights} {self.ask.__module__}.{self.ask.__qualname__}"

    def vectors(self, tools: Sequence[Tool], embedder: Embedder) -> Vectors:
        """Vectors (tools, dimensions); a text that a tool does not have takes no part."""
        parts: list[tuple[float, Callable[[Tool], str]]] = [
            (self.title, lambda t: t.full_name),
            (self.description, lambda t: t.description),
            (self.schema, schema_text),
            (self.questions, lambda t: "\n".join(self.ask(t))),
        ]
        texts = [text(t) or " " for _, text in parts for t in tools]
        vectors = unit(embedder.embed(texts)).reshape(len(parts), len(tools), -1)
        weights = np.array([[w * bool(text(t)) for t in tools] for w, text in parts], dtype=np.float32)
        return unit(np.einsum("pt,ptd->td", weights, vectors))


def whole_text(tool: Tool) -> str:
    """Name, description, names and descriptions of the arguments, as one text."""
    return "\n".join(part for part in (tool.full_name, tool.description, schema_text(tool)) if part)


def schema_text(tool: Tool) -> str:
    """Names and descriptions of the arguments, one a line."""
    return "\n".join(f"{name} {about}".strip() for name, about in tool.parameters())


def unit(vectors: Vectors) -> Vectors:
    """Each row divided by its length; a row of zeros stays one."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1), dtype=np.float32)
