"""Vectors of tools: hashed without a model, averaged by weights, or from a service."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tool_examples import ERASE, FIT, MAIL, by_server

from agentlab.errors import AgentlabError, BackendError
from agentlab.tool_embed import Concatenation, Hashed, WeightedAverage, unit
from agentlab.tool_embed_openai import Served
from agentlab.tool_index import ToolIndex
from agentlab.tool_records import Tool


def test_the_weighted_average_is_the_unit_of_the_weighted_units() -> None:
    embedder = Hashed(512)
    recipe = WeightedAverage(0.1, 0.2, 0.3, 0.4, ask=lambda tool: [f"what of {tool.name}"])
    texts = ["mail.send", "Send a letter to somebody.", "to Address.", "what of send"]
    parts = unit(embedder.embed(texts))
    expected = unit(np.array([0.1, 0.2, 0.3, 0.4], dtype=np.float32) @ parts)
    assert recipe.vectors([MAIL], embedder)[0] == pytest.approx(expected, abs=1e-6)


def test_a_tool_without_arguments_is_averaged_over_the_texts_it_has() -> None:
    bare = Tool("s", "moss", "", {})
    vectors = WeightedAverage(1, 1, 1, 0).vectors([bare], Hashed(256))
    assert vectors[0] == pytest.approx(unit(Hashed(256).embed(["s.moss"]))[0], abs=1e-6)
    with pytest.raises(AgentlabError, match="one above 0"):
        WeightedAverage(0, 0, 0, 0)


@given(st.lists(st.text(max_size=40), min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_the_same_text_has_the_same_vector_in_any_company(texts: list[str]) -> None:
    embedder = Hashed(128)
    together = embedder.embed(texts)
    assert np.isfinite(together).all()
    for row, text in zip(together, texts, strict=True):
        assert np.array_equal(row, embedder.embed([text])[0])


class _Embeddings(BaseHTTPRequestHandler):
    """Answers /v1/embeddings with hashed vectors, the last text first, as the protocol allows; then as `mood` says."""

    mood = "well"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        vectors = Hashed(64).embed(asked["input"])
        data = [{"object": "embedding", "index": i, "embedding": v.tolist()} for i, v in enumerate(vectors)]
        if type(self).mood == "short":
            data = data[1:]
        status = 401 if type(self).mood == "refuses" else 200
        body = json.dumps({"object": "list", "model": asked["model"], "data": data[::-1], "usage": {}}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- as the base class calls it
        pass


@pytest.fixture
def served() -> Iterator[Served]:
    _Embeddings.mood = "well"
    with ThreadingHTTPServer(("127.0.0.1", 0), _Embeddings) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        embedder = Served("toy", f"http://127.0.0.1:{server.server_port}/v1")
        yield embedder
        embedder.close()
        server.shutdown()
        thread.join()


def test_a_served_model_makes_the_vectors_in_batches_and_in_order(served: Served) -> None:
    texts = [f"word{n} moss" for n in range(70)]
    assert np.array_equal(served.embed(texts), Hashed(64).embed(texts))
    index = ToolIndex(embedder=served, recipe=Concatenation())
    index.sync(by_server([FIT, ERASE, MAIL]))
    assert index.find("remove folders", 1)[0].name == "disk.erase_folder"


@pytest.mark.parametrize("mood", ["refuses", "short"])
def test_a_service_that_fails_is_told_in_one_line_and_the_index_stays_as_it_was(served: Served, mood: str) -> None:
    index = ToolIndex(embedder=served)
    index.sync(by_server([FIT]))
    _Embeddings.mood = mood
    with pytest.raises(BackendError, match="embeddings of 'toy'") as told:
        index.sync(by_server([FIT, MAIL]))
    assert "\n" not in str(told.value)
    assert index.tools == (FIT,)
