"""Embeddings from any service that speaks the OpenAI protocol: hosted, vLLM, llama.cpp, Ollama or one's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import openai

from agentlab.errors import BackendError
from agentlab.tool_embed import Vectors

BATCH = 64
"""Texts a request: what small servers take."""


class Served:
    """Vectors of a served model.

    Args:
        model: the model's name on the server.
        base_url: where it is served, with its /v1; None for the hosted API.
        key: the key, "" for a server that asks for none.
        timeout: seconds a request may take.
    """

    def __init__(self, model: str, base_url: str | None = None, key: str = "", timeout: float = 60.0) -> None:
        self._model = model
        self._client = openai.OpenAI(base_url=base_url, api_key=key or "EMPTY", timeout=timeout, max_retries=2)

    @property
    def name(self) -> str:
        """The model: where it is served does not change its vectors."""
        return f"served {self._model}"

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors (texts, dimensions). Raises BackendError where the service refuses or answers nonsense."""
        rows: list[list[float]] = []
        for start in range(0, len(texts), BATCH):
            batch = list(texts[start : start + BATCH])
            try:
                # Asked for as numbers: many servers do not know the client's own choice, base64.
                answer = self._client.embeddings.create(model=self._model, input=batch, encoding_format="float")
            except openai.OpenAIError as error:
                said = " ".join(str(error).split())[:200]
                raise BackendError(f"embeddings of {self._model!r} from {self._client.base_url}: {said}") from error
            rows += [item.embedding for item in sorted(answer.data, key=lambda item: item.index)]
            if len(rows) != start + len(batch) or len({len(r) for r in rows}) != 1:
                raise self._nonsense(f"{len(answer.data)} vectors for {len(batch)} texts, or of several lengths")
        vectors = np.array(rows, dtype=np.float32).reshape(len(rows), -1)
        if not np.isfinite(vectors).all():
            raise self._nonsense("numbers that are not finite")
        return vectors

    def _nonsense(self, what: str) -> BackendError:
        return BackendError(f"embeddings of {self._model!r} from {self._client.base_url}: {what}; try another model")

    def weigh(self, vectors: Vectors) -> Vectors:
        """A trained model has weighed its dimensions already."""
        return np.ones(vectors.shape[1], dtype=np.float32)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
