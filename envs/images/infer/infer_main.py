"""Answers one request about a trained model: a JSON request in (path argument or standard input), JSON lines out.

The key `task` tells requests apart: perplexity, generate and speed compute on a checkpoint, measure on a model of
random weights, cost tells what such a one takes, ask and stream speak to an OpenAI-compatible server, serve starts one.
Lines, told apart by "event": start, progress, ready, done, error. The done line is also result.json in the folder
`out`. A request that cannot be met gives one error line and exit code 2.
"""

import json
import sys
from pathlib import Path

from infer_lines import InferError, emit, write_result
from infer_plan import Ask, Cost, Generate, Measure, Perplexity, Request, Speed, Stream, parse


def read(path: str | None) -> Request:
    """The request in that file, or on standard input."""
    try:
        raw = json.loads(Path(path).read_text(encoding="utf-8") if path else sys.stdin.read())
    except OSError as error:
        raise InferError(str(error), "request", "give the path of a JSON file") from error
    except ValueError as error:
        raise InferError(f"not JSON: {error}", "request", 'write {"task": "perplexity", ..}') from error
    return parse(raw)


def answer(request: Request) -> dict[str, object]:
    """Does what is asked; each import takes seconds that the others have no need of."""
    if isinstance(request, Ask | Stream):
        import infer_endpoint  # noqa: PLC0415

        return infer_endpoint.ask(request) if isinstance(request, Ask) else infer_endpoint.stream(request)
    if isinstance(request, Perplexity):
        from infer_perplexity import perplexity  # noqa: PLC0415

        return perplexity(request)
    if isinstance(request, Generate):
        from infer_generate import generate  # noqa: PLC0415

        return generate(request)
    if isinstance(request, Speed):
        from infer_speed import speed  # noqa: PLC0415

        return speed(request)
    if isinstance(request, Cost):
        import infer_cost  # noqa: PLC0415

        if not isinstance(request, Measure):
            return infer_cost.told(request)
        from infer_measure import measure  # noqa: PLC0415

        return measure(request)
    from infer_serve import serve  # noqa: PLC0415

    return serve(request)


def main(arguments: list[str]) -> int:
    """Exit code: 0 answered, 2 not."""
    try:
        request = read(arguments[0] if arguments else None)
        result = {"status": "ok", **answer(request)}
    except InferError as error:
        emit("error", what=error.what, where=error.where, instead=error.instead)
        return 2
    write_result(request.out, result)
    emit("done", **result)
    return 0
