"""BM25: how well the words of a query fit each of many short documents.

Our own forty lines, because the one small library of that name (rank-bm25) has had no release since February 2022 and
scans every document for every query; its successor (bm25s) brings files and options that a thousand tools do not need.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

K1, B = 1.2, 0.75
"""How soon a repeated word stops to count, and how much long documents are held back: the usual values."""


class Lexical:
    """Postings of the words of some documents.

    Robertson & Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), equation 3.15, with the
    inverse document frequency ln(1 + (N - n + 1/2) / (n + 1/2)), which is never negative.
    """

    def __init__(self, documents: Sequence[Sequence[str]]) -> None:
        self._size = len(documents)
        lengths = np.array([len(d) for d in documents], dtype=float)
        held_back = K1 * (1 - B + B * lengths / max(float(lengths.mean()) if self._size else 0.0, 1e-9))
        rows: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for number, document in enumerate(documents):
            for word, times in Counter(document).items():
                rows[word].append((number, times))
        self._postings: dict[str, tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]] = {}
        for word, entries in rows.items():
            where = np.array([number for number, _ in entries], dtype=np.intp)
            counts = np.array([count for _, count in entries], dtype=float)
            weight = math.log1p((self._size - len(entries) + 0.5) / (len(entries) + 0.5))
            self._postings[word] = (where, weight * counts * (K1 + 1) / (counts + held_back[where]))

    def scores(self, query: Sequence[str]) -> npt.NDArray[np.float64]:
        """One score a document, 0 where it shares no word with the query; a word counts as often as it is asked."""
        total = np.zeros(self._size)
        for word in query:
            if word in self._postings:
                where, part = self._postings[word]
                total[where] += part
        return total
