"""The tool server `infer`: loss, text, times and service of trained models, speed by shape, and pass@k of texts.

What takes time is a job (agentlab.tools._jobs) that outlives the server: a tool waits a while for it and then returns
where it stands; `status` tells more. The same request again is the same job, until its checkpoint or text changes.
"""

from __future__ import annotations

import uuid
from dataclasses import asdict
from typing import Annotated, Any

import anyio.to_thread
from agentlab.tools import _infer_jobs as jobs
from agentlab.tools._infer_records import (
    Checkpoint,
    Counts,
    Export,
    InferJob,
    InferJobs,
    Place,
    Rate,
    Rates,
    Shape,
    Sizes,
    Source,
    Wait,
    listed,
    view,
)
from agentlab.tools._job_files import Fields
from agentlab.tools._jobs import NAME, JobId, State
from agentlab.tools._pass_at_k import pass_rate
from agentlab.tools._server import hints, tool_server
from agentlab.tools._server import serve as serve_tools
from agentlab.tools._tasks import LongTool, Tasks
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

server: MCPServer[Any] = tool_server(
    "infer",
    "Loss, text, latency and throughput of trained models, by checkpoint or through an OpenAI-compatible server; speed "
    "against the shape of a model.",
    extensions=[Tasks(jobs.store, {kind: LongTool(kind, view) for kind in jobs.LONG})],
)


@server.tool(annotations=hints(repeats=True))
async def perplexity(
    ctx: Context[Any],
    checkpoint: Checkpoint,
    data: Annotated[str, Field(description="A file of text, or a corpus folder, of which valid.bin is taken.")],
    context: Annotated[int, Field(ge=0, description="Bytes predicted in a window; 0: as long as the model.")] = 0,
    windows: Annotated[int, Field(ge=2, le=100_000, description="Evenly spaced windows.")] = 512,
    place: Place = Place(),  # noqa: B008 - frozen
    wait: Wait = 15,
) -> InferJob:
    """Loss of a checkpoint on a text, in nats per byte: the trainer's valid_loss on its own corpus and windows."""
    text = jobs.text_file(data)
    asked: Fields = {"data": str(text), "context": context, "windows": windows}
    request = jobs.on_checkpoint("perplexity", checkpoint, place, asked, text)
    return await jobs.answered(ctx, await jobs.start("perplexity", request), wait)


@server.tool(annotations=hints(repeats=True, outside=True))
async def generate(
    ctx: Context[Any],
    prompt: Annotated[str, Field(min_length=1, max_length=100_000)],
    source: Source,
    new_tokens: Annotated[int, Field(ge=1, le=4096)] = 64,
    temperature: Annotated[float, Field(ge=0, le=2, description="0 takes the likeliest token each time.")] = 1.0,
    count: Annotated[int, Field(ge=1, le=64)] = 1,
    seed: Annotated[int, Field(ge=0, lt=2**31, description="Another one draws anew.")] = 0,
    wait: Wait = 15,
) -> InferJob:
    """Continues a prompt, by a checkpoint or by a server."""
    asked: Fields = {"prompt": prompt, "new_tokens": new_tokens, "temperature": temperature}
    asked |= {"count": count, "seed": seed}
    request = jobs.to_source(source, "generate", "ask", asked)
    return await jobs.answered(ctx, await jobs.start("generate", request), wait)


@server.tool(annotations=hints(repeats=True, outside=True))
async def latency(
    ctx: Context[Any],
    source: Source,
    batches: Annotated[Sizes, Field(description="Sequences at once; for a server, requests at once.")] = [1],  # noqa: B006
    lengths: Annotated[Sizes, Field(description="Tokens of the prompt; for a server, its letters.")] = [32],  # noqa: B006
    new_tokens: Annotated[int, Field(ge=2, le=4096)] = 16,
    repeats: Annotated[int, Field(ge=1, le=1000)] = 5,
    name: Annotated[str | None, Field(pattern=NAME, description="Job id; a new one measures the same anew.")] = None,
    wait: Wait = 15,
) -> InferJob:
    """Time to first token, time per later token and throughput against batch and length, with the machine's load."""
    asked: Fields = {"batches": list(batches), "lengths": list(lengths), "new_tokens": new_tokens, "repeats": repeats}
    request = jobs.to_source(source, "speed", "stream", asked)
    return await jobs.answered(ctx, await jobs.start("latency", request, name), wait)


@server.tool(annotations=hints(repeats=True))
async def measure(
    ctx: Context[Any],
    config: Shape,
    new_tokens: Annotated[int, Field(ge=1, le=4096, description="Decoding steps of a measurement.")] = 16,
    repeats: Annotated[int, Field(ge=1, le=1000)] = 7,
    name: Annotated[str | None, Field(pattern=NAME, description="Job id; a new one measures the same anew.")] = None,
    place: Place = Place(),  # noqa: B008 - frozen
    wait: Wait = 15,
) -> InferJob:
    """One experiment on speed: time to first token and per later one, on a model of random weights of a given shape."""
    request = await jobs.on_shape(config, place, new_tokens, repeats)
    return await jobs.answered(ctx, await jobs.start("measure", request, name), wait)


@server.tool(annotations=hints(repeats=True))
async def serve(
    ctx: Context[Any],
    checkpoint: Checkpoint,
    seconds: Annotated[float, Field(ge=1, le=7 * 86400, description="How long it is to serve.")] = 3600,
    place: Place = Place(),  # noqa: B008 - frozen
    wait: Wait = 15,
) -> InferJob:
    """Serves a checkpoint on this machine by the OpenAI interface; `served` has its address, `cancel` stops it."""
    request = jobs.on_checkpoint("serve", checkpoint, place, {"seconds": seconds})
    known = await anyio.to_thread.run_sync(lambda: jobs.store().list("serve", limit=100))
    job = next((j for j in known if j.going and j.config == request.asked), None)
    if job is None:  # one that served and ended is done for good, so each has an id of its own
        job = await jobs.start("serve", request, f"serve-{uuid.uuid4().hex[:8]}")
    return await jobs.answered(ctx, job, wait, until="ready")


@server.tool(annotations=hints())
async def export(
    run: Checkpoint,
    folder: Annotated[str, Field(min_length=1, description="New folder to write.")],
) -> Export:
    """Exports a model of our trainer in Hugging Face layout, for transformers and other servers of its architecture."""
    return Export.model_validate(await jobs.export(run, folder))


@server.tool(annotations=hints(reads=True))
def pass_at_k(
    problems: Annotated[list[Counts], Field(min_length=1, max_length=10_000)],
    k: Annotated[Sizes, Field(description="Each at most the smallest n.")],
) -> Rates:
    """Unbiased pass@k, 1 - C(n-c,k)/C(n,k) averaged over problems (arXiv 2107.03374), with its standard error."""
    try:
        rates = [pass_rate([(p.n, p.c) for p in problems], each) for each in k]
    except ValueError as error:
        raise ToolError(f"problems; {error}") from error
    return Rates(problems=len(problems), rates=[Rate.model_validate(asdict(rate)) for rate in rates])


@server.tool(annotations=hints(reads=True))
async def status(ctx: Context[Any], job: JobId, wait: Wait = 0) -> InferJob:
    """Where one job stands, with its result once it is done."""
    return view(await jobs.settled(ctx, await anyio.to_thread.run_sync(jobs.find, job), wait))


@server.tool(annotations=hints(destroys=True, repeats=True))
def cancel(job: JobId) -> InferJob:
    """Stops a running job, and a server that `serve` started."""
    return view(jobs.store().cancel(jobs.find(job).id))


@server.tool(name="list", annotations=hints(reads=True))
def list_jobs(
    state: Annotated[State | None, Field(description="Only jobs in this state.")] = None,
    limit: Annotated[int, Field(ge=1, le=100)] = 20,
) -> InferJobs:
    """The jobs of this server, newest first."""
    store = jobs.store()
    found = [job for kind in jobs.KINDS for job in store.list(kind, state, limit)]
    found.sort(key=lambda job: job.created, reverse=True)
    return InferJobs(folder=str(store.root), jobs=[listed(job) for job in found[:limit]])


if __name__ == "__main__":
    serve_tools(server)
