"""The server `infer`: loss, text, times and service of a model trained here, through a real model server; pass@k."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs agentlab-discovery[train]")
pytest.importorskip("transformers", reason="needs agentlab-discovery[infer]")
openai = pytest.importorskip("openai", reason="needs agentlab-discovery[infer]")

import trained  # noqa: E402

sys.path.insert(0, str(trained.IMAGES / "infer"))

import infer_main  # noqa: E402
from agentlab.tools import infer  # noqa: E402
from agentlab.tools._endpoint import checked_url, key_of  # noqa: E402
from agentlab.tools._pass_at_k import pass_at_k, pass_rate  # noqa: E402
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from mcp import Client  # noqa: E402
from mcp.server.mcpserver.exceptions import ToolError  # noqa: E402

from agentlab.tool_tasks import TasksClient, TaskState  # noqa: E402
from agentlab.trace import read  # noqa: E402

Answer = dict[str, Any]
Ask = Callable[..., Answer]


def call(tool: str, *, error: bool = False, **arguments: Any) -> Any:
    """One call of a tool through an MCP client; the text of its refusal when `error`."""

    async def ask() -> Any:
        async with Client(infer.server) as client:
            return await client.call_tool(tool, arguments)

    result = asyncio.run(ask())
    text = result.content[0].text
    assert result.is_error == error, text
    return text if error else result.structured_content


def finished(job: Answer) -> Answer:
    """The job at its end; every poll is itself bounded."""
    for _ in range(8):
        if job["state"] not in ("starting", "running"):
            break
        job = call("status", job=job["job"], wait=15)
    assert job["state"] == "done", job
    return job


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """Gives a request to the inference programs in this process, which imports transformers once; the last line."""
    path = tmp_path_factory.mktemp("asked") / "request.json"

    def run(code: int = 0, **request: Any) -> Answer:
        path.write_text(json.dumps(request))
        said = io.StringIO()
        with redirect_stdout(said):
            assert infer_main.main([str(path)]) == code, said.getvalue()
        last: Answer = json.loads(said.getvalue().splitlines()[-1])
        return last

    return run


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A jobs folder, a corpus in it, and a trained model with its export, all of this module."""
    root = tmp_path_factory.mktemp("jobs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGENTLAB_JOBS", str(root))
        patch.setenv("AGENTLAB_MAX_JOBS", "8")
        (root / "corpus").mkdir()
        trained.write_corpus(root / "corpus")
        yield root
        for state in ("starting", "running"):
            for job in call("list", state=state)["jobs"]:
                call("cancel", job=job["job"])


@pytest.fixture(scope="module")
def valid_loss(places: Path) -> float:
    """The trainer's own validation loss of the model in places/model, which is also exported."""
    done = trained.train(places / "model", places / "corpus", trained.MIXTURE)
    exported = call("export", run="model", folder=str(places / "exported"))
    assert exported["architecture"] == "Qwen2MoeForCausalLM"
    return float(done["valid_loss"])


@pytest.fixture(scope="module")
def served(places: Path, valid_loss: float) -> Iterator[Answer]:
    """A real server, `transformers serve`, of the exported model; once cancelled it listens no more."""
    job = call("serve", checkpoint=str(places / "exported"), seconds=600)
    for _ in range(10):
        if job["served"] or job["state"] not in ("starting", "running"):
            break
        job = call("status", job=job["job"], wait=5)
    assert job["served"], job
    yield {**job["served"], "job": job["job"]}
    address = ("127.0.0.1", int(job["served"]["base_url"].rsplit(":", 1)[1].split("/")[0]))
    socket.create_connection(address, timeout=5).close()
    stopped = call("cancel", job=job["job"])
    assert (stopped["state"], stopped["served"]) == ("cancelled", None)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=5)


@pytest.fixture(scope="module")
def source(served: Answer) -> Answer:
    return {"base_url": served["base_url"], "model": served["model"]}


# ---- loss ----


def test_the_loss_is_the_validation_loss_of_the_trainer(places: Path, valid_loss: float) -> None:
    job = finished(call("perplexity", checkpoint="model", data=str(places / "corpus"), windows=64))
    found = job["perplexity"]
    assert abs(found["nats_per_byte"] - valid_loss) <= 1e-4
    assert found["byte_tokens"]
    assert found["bytes_scored"] == 64 * trained.SHAPE["context"]
    assert 0 < found["standard_error"] < found["nats_per_byte"] < 5.5  # of 256 bytes all alike: 5.545


def test_the_exported_model_has_the_validation_loss_of_the_trainer(places: Path, valid_loss: float, ask: Ask) -> None:
    where = {"checkpoint": str(places / "exported"), "data": str(places / "corpus" / "valid.bin")}
    found = ask(task="perplexity", windows=64, **where)
    assert abs(found["nats_per_byte"] - valid_loss) <= 1e-4
    assert found["byte_tokens"]
    shorter = ask(task="perplexity", windows=64, context=16, **where)
    ours = ask(task="perplexity", windows=64, context=16, **{**where, "checkpoint": str(places / "model")})
    assert shorter["nats_per_byte"] == pytest.approx(ours["nats_per_byte"], abs=1e-4)
    assert shorter["nats_per_byte"] > found["nats_per_byte"]  # less to go by


def test_the_same_request_is_the_same_job_until_the_text_changes(places: Path, valid_loss: float) -> None:
    text = places / "text.txt"
    text.write_text("def return import self." * 30)
    asked: Answer = {"checkpoint": "model", "data": str(text), "windows": 4}
    first = finished(call("perplexity", **asked))
    assert call("perplexity", **asked)["job"] == first["job"]
    text.write_text("entirely other words than before " * 30)
    other = finished(call("perplexity", **asked))
    assert other["job"] != first["job"]
    assert other["perplexity"]["nats_per_byte"] > first["perplexity"]["nats_per_byte"]


def test_a_tokenizer_of_longer_tokens_is_counted_in_bytes(places: Path, ask: Ask) -> None:
    """A model whose every logit is equal loses log(vocabulary) a token, whatever the tokens are."""
    from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: PLC0415 - comes with transformers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: PLC0415

    words = ["[UNK]", "ab", "cdef", " "]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "isolated")
    folder = places / "words"
    fast: Any = PreTrainedTokenizerFast
    fast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(folder)  # noqa: S106
    shape = LlamaConfig(
        vocab_size=4, max_position_embeddings=64, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=1,
    )  # fmt: skip
    model = LlamaForCausalLM(shape)
    torch.nn.init.zeros_(model.lm_head.weight)
    model.save_pretrained(folder)
    (places / "words.txt").write_text("ab cdef " * 20)
    # windows "ab cdef ab cdef ": 8 tokens, of which 7 are predicted, over all bytes but "ab"
    found = ask(task="perplexity", checkpoint=str(folder), data=str(places / "words.txt"), context=15, windows=2)
    assert found["tokens_scored"] == 14
    assert found["bytes_scored"] == 28
    assert found["nats_per_byte"] == pytest.approx(7 * torch.log(torch.tensor(4.0)).item() / 14)


# ---- text ----


def test_the_served_model_answers_an_openai_client(source: Answer) -> None:
    with openai.OpenAI(base_url=source["base_url"], api_key="none", max_retries=0, timeout=60) as client:
        asked: Answer = {"model": source["model"], "max_tokens": 24, "temperature": 0}
        text = client.completions.create(prompt="for i in ", **asked)
        chat = client.chat.completions.create(messages=[{"role": "user", "content": "for i in "}], **asked)
    assert text.usage.prompt_tokens == 9
    assert text.usage.completion_tokens == 24
    assert chat.choices[0].message.content == text.choices[0].text  # and the prompt does not stand before it


def test_a_served_model_and_its_checkpoint_write_the_same(places: Path, source: Answer) -> None:
    asked: Answer = {"prompt": "for i in ", "new_tokens": 24, "temperature": 0}
    by_server = finished(call("generate", source=source, **asked))["generated"]
    by_chat = finished(call("generate", source={**source, "api": "chat"}, **asked))["generated"]
    by_checkpoint = finished(call("generate", source={"checkpoint": "model"}, **asked))["generated"]
    assert len(by_checkpoint["texts"][0].encode()) == 24
    assert by_server["texts"] == by_chat["texts"] == by_checkpoint["texts"]
    assert by_server["prompt_tokens"] == by_checkpoint["prompt_tokens"] == 9
    assert by_server["new_tokens"] == 24


def test_a_run_with_a_small_model_on_a_real_server_handles_all_that_it_says(source: Answer, tmp_path: Path) -> None:
    """The model was trained on a few sentences: nothing it writes is a law, and the search finds one beside it."""
    data = tmp_path / "eight.csv"
    sizes = [1e6 * 2**i for i in range(8)]
    data.write_text("n,loss\n" + "".join(f"{n},{2 + 30 * n**-0.3}\n" for n in sizes))
    rows = [f"data={data}", "target=loss", "features=n", "residual=plain", "robust=none", "max_params=2", "workers=1"]
    given = [f"model={source['model']}", f"base_url={source['base_url']}", "reply_tokens=48", "budget.candidates=4"]
    done = subprocess.run(
        [str(Path(sys.executable).with_name("agentlab")), "discover", *rows, *given, f"out={tmp_path}", "--json"],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["proposer"] == "evolve"
    assert result["law"]["formula"]
    replies = [r for r in read(Path(result["dir"]) / "trace.jsonl") if r["kind"] == "reply"]
    assert result["counts"]["replies"]["calls"] >= len(replies) > 0
    for reply in replies:
        assert reply["gen_ai.usage.output_tokens"] > 0, "it really spoke"
        assert reply["rejects"] or reply["drafts"], "and what it said has a name"


def test_a_seed_draws_the_same_texts_and_another_draws_others(places: Path, valid_loss: float, ask: Ask) -> None:
    asked: Answer = {"checkpoint": str(places / "model"), "prompt": "import ", "count": 2, "new_tokens": 30}
    first, again, other = (ask(task="generate", seed=seed, **asked)["texts"] for seed in (1, 1, 2))
    assert first == again
    assert first[0] != first[1]
    assert first != other


# ---- times ----


def test_times_through_a_server_are_told_for_every_batch_and_length(source: Answer) -> None:
    asked: Answer = {"batches": [1, 2], "lengths": [8, 24], "new_tokens": 8, "repeats": 1}
    found = finished(call("latency", source=source, **asked))["latency"]
    assert [(c["batch"], c["length"]) for c in found["cells"]] == [(1, 8), (1, 24), (2, 8), (2, 24)]
    for cell in found["cells"]:
        assert cell["prompt_tokens"] == cell["length"]  # a byte is a token
        assert cell["new_tokens_counted"] == 8 * cell["batch"]
        assert cell["counted_by_server"]
        assert cell["ttft_seconds"] > 0
        assert cell["seconds_per_token"] > 0
        # 8 tokens take at least 7 times the mean time of a later one
        assert cell["tokens_per_second"] < cell["batch"] / cell["seconds_per_token"] * 8 / 7
    assert found["machine"]["cores"] == os.cpu_count()


def test_times_on_a_checkpoint_tell_prefill_decode_and_memory(places: Path, valid_loss: float, ask: Ask) -> None:
    asked: Answer = {"batches": [1, 16], "lengths": [4, 40], "new_tokens": 8, "repeats": 3}
    found = ask(task="speed", checkpoint=str(places / "model"), **asked)
    for cell in found["cells"]:
        for name in ("ttft_seconds", "seconds_per_token", "tokens_per_second"):
            low, high = cell[f"{name}_quartiles"]
            assert 0 < low <= cell[name] <= high
    cells = {(c["batch"], c["length"]): c for c in found["cells"]}
    assert cells[16, 40]["tokens_per_second"] > cells[1, 40]["tokens_per_second"]
    memory = found["memory_bytes"]
    layers, width = trained.SHAPE["n_layers"], trained.SHAPE["d_model"]
    assert memory["cache"] == 2 * 4 * layers * width * 16 * (40 + 8)  # keys and values in float32
    with_parameters = (places / "exported" / "model.safetensors").stat().st_size
    assert 0.8 * with_parameters < memory["parameters"] <= with_parameters
    assert memory["peak_process"] > memory["parameters"]


# ---- service and jobs ----


def test_asking_for_the_same_service_finds_the_one_that_runs(places: Path, served: Answer) -> None:
    again = call("serve", checkpoint=str(places / "exported"), seconds=600)
    assert again["job"] == served["job"]
    assert again["served"]["base_url"] == served["base_url"]


def test_progress_is_told_while_a_tool_waits(source: Answer) -> None:
    told: list[tuple[float, float | None]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total))

    async def ask() -> Any:
        arguments = {"source": source, "prompt": "def ", "count": 20, "new_tokens": 32, "seed": 5}
        async with Client(infer.server) as client:
            return await client.call_tool("generate", arguments, progress_callback=hear)

    job = finished(asyncio.run(ask()).structured_content)
    assert len(job["generated"]["texts"]) == 20
    assert told
    assert told == sorted(set(told))
    assert {total for _, total in told} == {20}


def test_a_client_of_the_tasks_extension_gets_the_result_of_the_job(places: Path, valid_loss: float) -> None:
    seen: list[TaskState] = []

    async def ask() -> Any:
        arguments = {"checkpoint": "model", "data": str(places / "corpus"), "windows": 7, "wait": 0}
        async with Client(infer.server, extensions=[TasksClient(seen.append)]) as client:
            return await client.call_tool("perplexity", arguments, read_timeout_seconds=100)

    job = asyncio.run(ask()).structured_content
    assert job["state"] == "done"
    assert job["perplexity"]["windows"] == 7
    assert seen[0].task_id == job["job"]
    assert (seen[0].status, seen[-1].status) == ("working", "completed")


def test_the_list_shows_jobs_of_this_server_and_survives_a_damaged_one(places: Path, valid_loss: float) -> None:
    job = finished(call("perplexity", checkpoint="model", data=str(places / "corpus"), windows=5))
    (Path(job["folder"]) / "result.json").write_text('{"windows": "five"}')
    listed = {j["job"]: j for j in call("list")["jobs"]}
    assert listed[job["job"]]["state"] == "failed"
    assert "damaged" in listed[job["job"]]["message"]
    assert "damaged" in call("status", job=job["job"], error=True)
    assert all(j["kind"] in ("perplexity", "generate", "latency", "serve") for j in listed.values())


def test_every_tool_says_what_it_may_do() -> None:
    async def tools() -> list[Any]:
        async with Client(infer.server) as client:
            return list((await client.list_tools()).tools)

    for tool in asyncio.run(tools()):
        assert tool.description
        assert tool.output_schema
        hints = tool.annotations
        assert None not in (
            hints.read_only_hint, hints.destructive_hint, hints.idempotent_hint, hints.open_world_hint,
        )  # fmt: skip


# ---- refusals ----


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "write either checkpoint or base_url"),
        ({"checkpoint": "model", "base_url": "http://127.0.0.1:1/v1"}, "write either checkpoint or base_url"),
        ({"checkpoint": "no such job"}, "holds no *.safetensors"),
        ({"base_url": "http://127.0.0.1:1/v1"}, "write the name that the server gives its model"),
        ({"base_url": "ftp://127.0.0.1/v1", "model": "m"}, "no address of a server"),
        ({"base_url": "http://127.0.0.1:99999/v1", "model": "m"}, "no address"),
        ({"base_url": "http://me:secret@127.0.0.1/v1", "model": "m"}, "must hold no user"),
        ({"base_url": "http://169.254.169.254/v1", "model": "m"}, "is not this machine"),
        ({"base_url": "http://127.0.0.1:1/v1", "model": "m", "key_variable": "AGENTLAB_TOKEN"}, "no name of a key"),
        ({"base_url": "http://127.0.0.1:1/v1", "model": "m", "key_variable": "NONE_API_KEY"}, "is not set"),
        ({"base_url": "http://127.0.0.1:1/v1", "model": "m"}, "cannot be reached"),
    ],
)
def test_a_source_that_cannot_answer_is_refused_in_one_line(
    places: Path, valid_loss: float, asked: Answer, said: str
) -> None:
    text = call("generate", source=asked, prompt="x", error=True)
    assert said in text
    assert "\n" not in text
    assert "secret" not in text


@pytest.mark.parametrize(
    ("asked", "where"),
    [
        ({"task": "perplexity", "data": "nowhere"}, "data"),
        ({"task": "perplexity", "data": "@valid", "context": 65}, "context"),
        ({"task": "perplexity", "data": "@valid", "windows": 1}, "windows"),
        ({"task": "perplexity", "data": "@valid", "dtype": "bfloat16"}, "dtype"),
        ({"task": "generate", "prompt": "x" * 40, "new_tokens": 30}, "new_tokens"),
        ({"task": "generate", "prompt": ""}, "prompt"),
        ({"task": "speed", "lengths": [60], "new_tokens": 5}, "lengths"),
        ({"task": "speed", "lengths": []}, "lengths"),
        ({"task": "speed", "batches": [0]}, "batches"),
        ({"task": "speed", "batches": list(range(1, 66))}, "batches"),
        ({"task": "speed", "device": "tpu"}, "device"),
        ({"task": "speed", "repeat": 3}, "repeat"),
        ({"task": "perplexity", "checkpoint": "/nowhere", "data": "@valid"}, "checkpoint"),
        ({"task": "dream"}, "task"),
    ],
)
def test_a_bad_request_to_the_program_is_one_line(
    places: Path, valid_loss: float, ask: Ask, asked: Answer, where: str
) -> None:
    whole = {"checkpoint": str(places / "model"), **asked}
    if whole.get("data") == "@valid":
        whole["data"] = str(places / "corpus" / "valid.bin")
    line = ask(code=2, **whole)
    assert (line["event"], line["where"]) == ("error", where)
    assert line["instead"]
    assert "\n" not in line["what"]


def test_the_program_reads_standard_input_and_leaves_its_result_in_a_folder(places: Path, valid_loss: float) -> None:
    asked = {"task": "perplexity", "checkpoint": str(places / "model"), "data": str(places / "corpus" / "valid.bin")}
    out = places / "by-hand"
    out.mkdir()
    line = trained.program("infer", "main.py", [], {**asked, "windows": 3, "out": str(out)})
    assert line == {"event": "done", **json.loads((out / "result.json").read_text())}


@contextmanager
def listener(reply: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """An address where every request gets the same bytes, and what was asked there."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)

        def answer() -> None:
            try:
                while True:
                    with server.accept()[0] as talk:
                        heard.append(talk.recv(1 << 16))
                        talk.sendall(reply)
            except OSError:
                return

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/v1", heard
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(30)


def test_a_key_reaches_its_server_and_nothing_else(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "sk-never-to-be-seen"
    monkeypatch.setenv("SOME_API_KEY", key)
    body = json.dumps({"error": {"message": f"key {key} is unknown"}}).encode()
    head = b"HTTP/1.1 401 No\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
    with listener(head % len(body) + body) as (url, heard):
        asked: Answer = {"base_url": url, "model": "m", "key_variable": "SOME_API_KEY"}
        text = call("generate", source=asked, prompt="x", error=True)
    assert key.encode() in heard[0]
    assert "401" in text
    assert key not in text
    written = [p.read_bytes() for p in places.glob("*/*") if p.is_file() and p.stat().st_size < 1 << 16]
    assert not any(key.encode() in block for block in written)


def test_a_key_does_not_follow_a_redirect(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "sk-stays")
    with listener(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n") as (other, heard):
        moved = f"HTTP/1.1 307 Moved\r\nlocation: {other}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        with listener(moved.encode()) as (url, _):
            asked: Answer = {"base_url": url, "model": "m", "key_variable": "SOME_API_KEY"}
            assert "307" in call("generate", source=asked, prompt="x", error=True)
    assert heard == []


def test_servers_elsewhere_are_asked_only_when_whoever_starts_this_one_allows_them() -> None:
    allowed = "https://models.example.org/v1, http://10.0.0.7:8000"
    assert checked_url("https://models.example.org/v1/", allowed) == "https://models.example.org/v1"
    assert checked_url("http://10.0.0.7:8000/other", allowed) == "http://10.0.0.7:8000/other"
    assert checked_url("http://[::1]:8000/v1", "") == "http://[::1]:8000/v1"
    for url in (
        "http://models.example.org/v1", "https://models.example.org:444/v1", "https://models.example.org.evil.net/v1",
        "http://127.0.0.1.evil.net/v1", "http://10.0.0.7:8001/v1", "http://0.0.0.0/v1", "//127.0.0.1/v1", "",
    ):  # fmt: skip
        with pytest.raises(ToolError, match="base_url"):
            checked_url(url, allowed)


def test_only_keys_can_be_named_as_keys() -> None:
    environment = {"OPENAI_API_KEY": "k", "AGENTLAB_TOKEN": "t", "HOME": "/h", "EMPTY_API_KEY": ""}
    assert key_of("OPENAI_API_KEY", environment) == {"OPENAI_API_KEY": "k"}
    assert key_of("", environment) == {}
    for name in ("AGENTLAB_TOKEN", "HOME", "EMPTY_API_KEY", "MISSING_API_KEY", "sk-real-key"):
        with pytest.raises(ToolError) as refused:
            key_of(name, environment)
        assert "sk-real-key" not in str(refused.value)


# ---- pass@k ----


@st.composite
def samples(draw: st.DrawFn) -> tuple[int, int, int]:
    n = draw(st.integers(1, 9))
    return n, draw(st.integers(0, n)), draw(st.integers(1, n))


@given(samples())
def test_pass_at_k_is_the_share_of_subsets_with_a_pass(case: tuple[int, int, int]) -> None:
    n, c, k = case
    passed = [i < c for i in range(n)]
    assert pass_at_k(n, c, k) == pytest.approx(fmean(any(s) for s in itertools.combinations(passed, k)), abs=1e-12)


@given(st.integers(1, 10**6), st.data())
def test_pass_at_k_is_a_probability_that_grows_with_passes_and_with_k(n: int, data: st.DataObject) -> None:
    c, k = data.draw(st.integers(0, min(n, 200))), data.draw(st.integers(1, min(n, 200)))
    here = pass_at_k(n, c, k)
    assert 0 <= here <= 1
    assert here <= pass_at_k(n, min(c + 1, n), k) + 1e-12
    assert here <= pass_at_k(n, c, min(k + 1, n)) + 1e-12
    if k == 1:
        assert here == pytest.approx(c / n)


@given(st.lists(st.tuples(st.just(10), st.integers(0, 10)), min_size=2, max_size=20), st.integers(1, 10))
def test_the_error_of_a_pass_rate_is_that_of_the_mean_over_problems(counts: list[tuple[int, int]], k: int) -> None:
    each = [pass_at_k(n, c, k) for n, c in counts]
    rate = pass_rate(counts, k)
    spread = sum((x - fmean(each)) ** 2 for x in each) / (len(each) - 1)
    assert rate.mean == pytest.approx(fmean(each))
    assert rate.standard_error == pytest.approx((spread / len(each)) ** 0.5, abs=1e-12)


def test_pass_rates_come_from_the_tool_with_their_errors_and_refusals() -> None:
    told = call("pass_at_k", problems=[{"n": 4, "c": 2}, {"n": 6, "c": 0}], k=[1, 2])
    assert told["problems"] == 2
    assert [rate["mean"] for rate in told["rates"]] == pytest.approx([0.25, (5 / 6) / 2])
    assert call("pass_at_k", problems=[{"n": 3, "c": 1}], k=[1])["rates"][0]["standard_error"] is None
    for problems in ([{"n": 2, "c": 1}], [{"n": 5, "c": 6}]):
        assert "write 0 <= c <= n and 1 <= k <= n" in call("pass_at_k", problems=problems, k=[3], error=True)
