"""Real training: the trainer's arithmetic, its promises about repeatability, and the tool server around it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs agentlab-discovery[train]")

from agentlab.envs._processes import environment, start_ticks  # noqa: E402
from agentlab.tools import train  # noqa: E402
from mcp import Client  # noqa: E402
from mcp.shared.exceptions import MCPError  # noqa: E402
from safetensors import safe_open  # noqa: E402
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

IMAGE = Path(str(files("agentlab.envs"))) / "images" / "train"
sys.path.insert(0, str(IMAGE))

import train_experts  # noqa: E402
import train_model  # noqa: E402
import train_ops  # noqa: E402
import train_plan  # noqa: E402
from train_calls import ask, elsewhere, refusal, stdio, until, until_step  # noqa: E402

SHAPE = {"d_model": 16, "n_layers": 2, "n_heads": 1, "d_ff": 32, "context": 32}
TINY = {**SHAPE, "batch_sequences": 4, "lr": 0.01, "report_every": 5}
MIXED = {**TINY, "experts": 8, "top_k": 2, "split": 2, "d_ff": 16}
Lines = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def _same_chance_every_time() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a small text of words, enough to learn from."""
    folder = tmp_path_factory.mktemp("corpus")
    words = [b"def ", b"return ", b"x + 1\n", b"import ", b"self.", b"(a, b)\n", b"for i in ", b"range(n):\n"]
    chance = torch.Generator().manual_seed(5)
    for name, count in (("train.bin", 20_000), ("valid.bin", 2_000)):
        picks = torch.randint(len(words), (count,), generator=chance).tolist()
        (folder / name).write_bytes(b"".join(words[i] for i in picks))
    return str(folder)


def command() -> list[str]:
    return [sys.executable, str(IMAGE / "main.py")]


def run(config: dict[str, Any], *, code: int = 0) -> Lines:
    done = subprocess.run(
        command(), input=json.dumps(config), capture_output=True, text=True, env=environment(), timeout=120, check=False
    )
    assert done.returncode == code, done.stderr
    assert not done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def timeless(lines: Lines) -> Lines:
    return [{k: v for k, v in line.items() if k not in ("seconds", "tokens_per_second")} for line in lines]


def config(**values: Any) -> Any:
    return train_plan.parse({"corpus": "c", "out": "o", "steps": 1, **values})


# ---- cost ----


def test_flops_of_a_small_dense_model_are_those_counted_by_hand() -> None:
    c = config(d_model=8, n_layers=2, n_heads=1, d_ff=16, context=4)
    matrices = 2 * (4 * 8 * 8 + 3 * 8 * 16) + 256 * 8
    attention = 2 * 2 * (2 * 8 * (1 + 2 + 3 + 4) // 4)  # scores and values, each 2 d for each of 2.5 positions
    assert train_plan.forward_flops(c) == 2 * matrices + attention
    assert train_plan.plan(c).flops_per_token_train == 3 * (2 * matrices + attention)


def test_flops_of_a_mixture_count_active_experts_and_the_router() -> None:
    c = config(d_model=8, n_layers=1, n_heads=1, d_ff=16, context=4, experts=4, top_k=2, split=2, shared=1)
    matrices = 4 * 8 * 8 + 3 * 8 * 8 * (4 + 1) + 8 * 8 + 256 * 8
    assert train_plan.forward_flops(c) == 2 * matrices + 2 * 8 * 5
    assert train_plan.plan(c).activation_ratio == 0.5
    assert train_plan.plan(c).granularity == 2.0


def test_flops_agree_with_the_counter_of_torch() -> None:
    c = config(**{**TINY, "ffn": "gelu"})
    tokens = torch.randint(256, (4, c.context))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        train_model.Transformer(c)(tokens)[0].sum().backward()
    plan = train_plan.plan(c)
    masked = 2 * c.d_model * c.n_layers * (c.context - 1)  # positions never seen, which torch counts
    assert counter.get_total_flops() == (plan.flops_per_token_train + 3 * masked) * tokens.numel()


def test_batched_experts_cost_what_the_plan_says_when_the_load_is_even() -> None:
    n, k, e, d, h = 32, 2, 4, 8, 6
    chosen = torch.stack([torch.arange(n) % e, (torch.arange(n) + 1) % e], 1)
    where = train_experts.dispatch(chosen, torch.bincount(chosen.view(-1), minlength=e))
    weights = torch.randn(e, d, 2 * h), torch.randn(e, h, d)
    with FlopCounterMode(display=False) as counter:
        train_experts.expert_ffn(torch.randn(n, d), torch.ones(n, k), *weights, where, True)
    combine = 2 * n * k * d  # the weighted sum, which the convention leaves out
    assert counter.get_total_flops() - combine == 2 * 3 * d * h * n * k


def test_splitting_experts_keeps_the_active_compute_but_for_the_router() -> None:
    cost = set()
    for split in (1, 2, 4, 8):
        plan = train_plan.plan(config(d_model=32, d_ff=64, experts=8, top_k=2, split=split))
        cost.add(plan.flops_per_token_train - plan.router_flops_per_token_train)
        assert plan.activation_ratio == 0.25
        assert plan.granularity == 2 * 32 / (64 / split)
    assert len(cost) == 1


@pytest.mark.parametrize("model", [TINY, MIXED], ids=["dense", "moe"])
def test_planned_parameters_are_those_of_the_model(model: dict[str, Any]) -> None:
    for positions in ("rope", "learned"):
        c = config(**model, positions=positions)
        assert sum(p.numel() for p in train_model.Transformer(c).parameters()) == train_plan.plan(c).params


def test_a_budget_is_met_to_within_one_sequence_and_never_passed(corpus: str, tmp_path: Path) -> None:
    c = {**TINY, "corpus": corpus, "out": str(tmp_path), "flops": 3.1e8}
    one = train_plan.sequence_flops(train_plan.parse(c))
    lines = run(c)
    assert 3.1e8 - one < lines[-1]["flops"] <= 3.1e8
    assert lines[-1]["flops"] % one == 0
    assert [x["flops"] for x in lines if x["event"] == "progress"][-1] == lines[-1]["flops"] == lines[0]["flops"]


# ---- arithmetic ----


def test_every_token_reaches_all_its_experts_however_uneven_the_load() -> None:
    chance = torch.Generator().manual_seed(0)
    n, k, e, d, h = 50, 3, 6, 4, 5
    chosen = torch.stack([torch.randperm(e, generator=chance)[:k] for _ in range(n)])
    chosen[:40, 0], chosen[:40, 1], chosen[:40, 2] = 1, 4, 0  # three experts hold most tokens
    x, gates, w_in, w_out = (
        torch.randn(shape, generator=chance, dtype=torch.float64, requires_grad=True)
        for shape in ((n, d), (n, k), (e, d, 2 * h), (e, h, d))
    )
    where = train_experts.dispatch(chosen, torch.bincount(chosen.view(-1), minlength=e))
    assert len(set(where.slot.tolist())) == n * k
    expected = torch.zeros(n, d, dtype=torch.float64)
    for token in range(n):
        for choice in range(k):
            gate, up = (x[token] @ w_in[chosen[token, choice]]).chunk(2)
            y = (torch.nn.functional.silu(gate) * up) @ w_out[chosen[token, choice]]
            expected[token] = expected[token] + gates[token, choice] * y
    got = train_experts.expert_ffn(x, gates, w_in, w_out, where, True)
    torch.testing.assert_close(got, expected)
    direction = torch.randn(n, d, generator=chance, dtype=torch.float64)
    ours = torch.autograd.grad(got, (x, gates, w_in, w_out), direction)
    torch.testing.assert_close(ours, torch.autograd.grad(expected, (x, gates, w_in, w_out), direction))


def test_an_expert_without_tokens_gets_a_zero_gradient() -> None:
    chosen = torch.tensor([[0], [0], [2]])
    where = train_experts.dispatch(chosen, torch.bincount(chosen.view(-1), minlength=4))
    w_in, w_out = torch.randn(4, 3, 4, requires_grad=True), torch.randn(4, 4, 3, requires_grad=True)
    torch.autograd.backward(
        train_experts.expert_ffn(torch.randn(3, 3), torch.ones(3, 1), w_in, w_out, where, False).sum()
    )
    assert w_in.grad is not None
    assert [bool(w_in.grad[e].any()) for e in range(4)] == [True, False, True, False]


@pytest.mark.parametrize("gated", [True, False])
def test_the_activation_has_the_gradient_of_torch(gated: bool) -> None:
    u = torch.randn(5, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: train_ops.swiglu_or_gelu(v, gated), (u,))


def test_the_cross_entropy_is_that_of_torch() -> None:
    logits = (torch.randn(7, 256, dtype=torch.float64) * 5).requires_grad_()
    target = torch.randint(256, (7,))
    ours, theirs = train_ops.cross_entropy(logits, target), torch.nn.functional.cross_entropy(logits, target)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(ours, logits), torch.autograd.grad(theirs, logits))


def test_rotary_positions_depend_on_distance_alone() -> None:
    turn = train_model.rotary(6, 8, torch.device("cpu"))
    q, k = (torch.randn(1, 1, 1, 8).expand(1, 6, 1, 8) for _ in range(2))
    scores = (train_model.rotate(q, turn).squeeze() @ train_model.rotate(k, turn).squeeze().T).detach()
    for distance in range(5):
        torch.testing.assert_close(scores.diagonal(distance), scores.diagonal(distance)[:1].expand(6 - distance))


def test_the_balancing_loss_is_one_when_even_and_larger_when_not() -> None:
    layer = train_model.MoE(config(**{**MIXED, "split": 1}))
    for p in layer.parameters():
        torch.nn.init.normal_(p)
    with torch.no_grad():
        layer.router.zero_()
    uneven = torch.ones(64, 16)
    even = layer(torch.randn(64, 16))[1].balance
    torch.testing.assert_close(even, torch.tensor(1.0))
    with torch.no_grad():
        layer.router[3].fill_(1.0)
    assert layer(uneven)[1].balance > 3


def test_gates_are_normalised_over_the_chosen_experts() -> None:
    layer = train_model.MoE(config(**{**MIXED, "experts": 4, "top_k": 4, "split": 1}))
    with torch.no_grad():
        layer.router.normal_()
        layer.w_in.copy_(torch.randn(layer.w_in[:1].shape).expand_as(layer.w_in))
        layer.w_out.copy_(torch.randn(layer.w_out[:1].shape).expand_as(layer.w_out))
    x = torch.randn(5, 16)
    first = train_experts.dispatch(torch.zeros(5, 1, dtype=torch.long), torch.tensor([5, 0, 0, 0]))
    alone = train_experts.expert_ffn(x, torch.ones(5, 1), layer.w_in, layer.w_out, first, True)
    # all experts are equal, so their gated sum is one of them times the sum of the gates
    torch.testing.assert_close(layer(x)[0], layer.scale * alone, rtol=1e-4, atol=1e-4)


# ---- runs ----


@pytest.mark.parametrize(
    "extra",
    [
        TINY,
        MIXED,
        {**MIXED, "shared": 1, "ffn": "gelu", "positions": "learned", "schedule": "wsd"},
        {**MIXED, "dtype": "bfloat16"},
    ],
    ids=["dense", "moe", "moe-shared-gelu-learned-wsd", "moe-bfloat16"],
)
def test_training_lowers_the_held_out_loss(extra: dict[str, Any], corpus: str, tmp_path: Path) -> None:
    lines = run({**extra, "corpus": corpus, "out": str(tmp_path), "steps": 40})
    assert [x["event"] for x in lines if x["event"] != "progress"] == ["start", "segment", "validation", "done"]
    assert lines[-1]["valid_loss"] < lines[1]["loss"] - 1
    assert json.loads((tmp_path / "result.json").read_text())["valid_loss"] == lines[-1]["valid_loss"]


def test_replicas_agree_and_another_seed_does_not(corpus: str, tmp_path: Path) -> None:
    base = {**MIXED, "corpus": corpus, "steps": 8, "segments": 2, "save_model": False}
    named = (("a", 1), ("b", 1), ("c", 2))
    first, second, other = (run({**base, "out": str(tmp_path / name), "seed": seed}) for name, seed in named)
    assert timeless(first) == timeless(second)
    assert first[-1]["digest"] != other[-1]["digest"]


def test_a_run_killed_in_mid_segment_resumes_to_the_same_bits(corpus: str, tmp_path: Path) -> None:
    base = {**MIXED, "corpus": corpus, "steps": 120, "segments": 8, "report_every": 5}
    whole = run({**base, "out": str(tmp_path / "whole")})
    broken = {**base, "out": str(tmp_path / "broken")}
    process = subprocess.Popen(command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment())
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(broken))
    process.stdin.close()
    before: Lines = []
    while not (before and before[-1]["event"] == "progress" and before[-1]["step"] > 55):
        before.append(json.loads(process.stdout.readline()))
    process.send_signal(signal.SIGKILL)
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    after = run(broken)
    resumed = next(x["step"] for x in after if x["event"] == "resume")
    assert 45 <= resumed < 120
    assert timeless(after)[2:] == [line for line in timeless(whole) if line.get("step", 0) > resumed]
    models = [(tmp_path / n / "model.safetensors").read_bytes() for n in ("whole", "broken")]
    assert models[0] == models[1]
    assert not (tmp_path / "broken" / "checkpoint.pt").exists()


def test_a_run_that_diverges_is_a_result(corpus: str, tmp_path: Path) -> None:
    wild = {"lr": 10.0, "weight_decay": 10.0, "clip": 0.0, "warmup_share": 0.0}
    lines = run({**TINY, **wild, "corpus": corpus, "out": str(tmp_path), "steps": 60})
    assert lines[-2]["event"] == "diverged"
    assert lines[-1]["status"] == "diverged"
    assert lines[-1]["valid_loss"] is None


def test_the_model_is_written_as_safetensors(corpus: str, tmp_path: Path) -> None:
    run({**TINY, "corpus": corpus, "out": str(tmp_path), "steps": 2})
    with safe_open(str(tmp_path / "model.safetensors"), "pt") as found:
        assert found.get_tensor("embedding").shape == (256, 16)
        assert json.loads(found.metadata()["config"])["d_model"] == 16


@pytest.mark.parametrize(
    ("change", "where", "says"),
    [
        ({"d_modle": 3}, "d_modle", "d_model"),
        ({"d_model": "big"}, "d_model", "64"),
        ({"d_model": 18, "n_heads": 5}, "n_heads", "divisor"),
        ({"experts": 4, "top_k": 5}, "top_k", "at most 4"),
        ({"experts": 4, "d_ff": 30, "split": 4}, "split", "divisor"),
        ({"experts": 4, "top_k": 1}, "normalise_gates", "false"),
        ({"split": 2}, "experts", "above 0"),
        ({"flops": 1e9}, "flops", "either"),
        ({"steps": 0, "flops": 10.0}, "flops", "at least"),
        ({"steps": 0}, "flops", "either"),
        ({"lr": float("nan")}, "lr", "from 0 to 10"),
        ({"schedule": "sawtooth"}, "schedule", "cosine"),
        ({"corpus": "/nowhere"}, "corpus", "build the corpus"),
        ({"out": ""}, "out", "folder"),
        ({"seed": True}, "seed", "0"),
    ],
    ids=lambda v: next(iter(v), "") if isinstance(v, dict) else "",
)
def test_a_bad_config_names_the_key_and_the_fix(change: dict[str, Any], where: str, says: str) -> None:
    values = {**TINY, "corpus": str(IMAGE), "out": "o", "steps": 1, **change}
    if where == "corpus":
        lines = run(values, code=2)
        assert len(lines) == 1
        assert (lines[0]["event"], lines[0]["where"]) == ("error", where)
        assert says in lines[0]["instead"]
        return
    with pytest.raises(train_plan.ConfigError) as caught:
        train_plan.parse(values)
    assert caught.value.where == where
    assert says in caught.value.instead


def test_a_config_that_is_not_json_gives_one_line_and_code_2() -> None:
    done = subprocess.run(command(), input="{nonsense", capture_output=True, text=True, env=environment(), check=False)
    assert (done.returncode, done.stderr) == (2, "")
    assert json.loads(done.stdout)["what"].startswith("not JSON")


# ---- corpus ----


def _wheel(folder: Path) -> tuple[Path, dict[str, str]]:
    """A small wheel and the pins of its corpus."""
    wheel = folder / "words-1.0-py3-none-any.whl"
    texts = {f"words/m{i}.py": f"x = {i}\n" * (i + 1) for i in range(40)} | {"words/data.txt": "no python"}
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in sorted(texts.items(), reverse=True):
            archive.writestr(name, text)
    parts: dict[bool, str] = {True: "", False: ""}
    for name in sorted(n for n in texts if n.endswith(".py")):
        parts[int(hashlib.sha256(name.encode()).hexdigest(), 16) % 4 == 0] += texts[name]
    hashes = {k: hashlib.sha256(v.encode()).hexdigest() for k, v in parts.items()}
    pins = {"train_sha256": hashes[False], "valid_sha256": hashes[True]}
    pins |= {"package": "words", "version": "1.0", "wheel": wheel.name}
    return wheel, {**pins, "wheel_sha256": hashlib.sha256(wheel.read_bytes()).hexdigest()}


def _write_pins(path: Path, pins: dict[str, str]) -> None:
    path.write_text("valid_one_in = 4\n" + "".join(f'{k} = "{v}"\n' for k, v in pins.items()))


def test_the_corpus_is_rebuilt_byte_for_byte_and_whole_files_are_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    wheel, pins = _wheel(tmp_path)
    _write_pins(tmp_path / "corpus.toml", pins)
    built = ask("corpus", {"task": str(tmp_path), "wheel": str(wheel)})
    texts = [(Path(built["folder"]) / name).read_bytes() for name in ("train.bin", "valid.bin")]
    assert [hashlib.sha256(t).hexdigest() for t in texts] == [pins["train_sha256"], pins["valid_sha256"]]
    assert min(map(len, texts)) > 0
    assert ask("corpus", {"task": str(tmp_path)}) == built  # found again, without the wheel


def test_a_wheel_with_other_bytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    wheel, pins = _wheel(tmp_path)
    _write_pins(tmp_path / "corpus.toml", {**pins, "wheel_sha256": "0" * 64})
    assert "pinned is 000" in refusal("corpus", {"task": str(tmp_path), "wheel": str(wheel)})


def test_the_shipped_pins_name_a_wheel_and_three_hashes() -> None:
    pins = tomllib.loads((Path(str(files("agentlab.tasks"))) / "moe_leverage" / "corpus.toml").read_text())
    assert pins["wheel"].startswith(f"{pins['package']}-{pins['version']}")
    assert all(len(pins[k]) == 64 for k in ("wheel_sha256", "train_sha256", "valid_sha256"))


# ---- the tool server ----


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A jobs folder of its own; whatever still trains at the end is cancelled."""
    monkeypatch.setenv(train.JOBS, str(tmp_path / "jobs"))
    monkeypatch.setenv(train.MAX_JOBS, "2")
    yield tmp_path / "jobs"
    for job in ask("list", {})["jobs"]:
        ask("cancel", {"job": job["job"]})


def test_every_tool_declares_what_it_may_do() -> None:
    async def inner() -> Any:
        async with Client(train.server) as client:
            return (await client.list_tools()).tools

    tools = {tool.name: tool for tool in asyncio.run(inner())}
    assert set(tools) == {
        "backends", "estimate", "start", "status", "wait", "cancel", "list", "segments", "curve", "corpus",
    }  # fmt: skip
    for tool in tools.values():
        hints = tool.annotations
        assert None not in (hints.read_only_hint, hints.destructive_hint, hints.idempotent_hint, hints.open_world_hint)
        assert tool.description
        assert tool.output_schema


def test_an_estimate_is_the_plan_of_the_trainer() -> None:
    found = ask("estimate", {"config": {**MIXED, "corpus": "c", "flops": 1e12}, "flops_per_second": 1e9})
    plan = train_plan.plan(train_plan.parse({**MIXED, "corpus": "c", "out": "o", "flops": 1e12}))
    assert (found["flops"], found["params"], found["steps"]) == (plan.flops, plan.params, plan.steps)
    assert found["seconds"] == plan.flops / 1e9
    assert "3 x forward" in found["convention"]


def test_a_job_starts_at_once_is_followed_and_is_not_run_twice(jobs: Path, corpus: str) -> None:
    c = {**TINY, "corpus": corpus, "steps": 20}
    began = ask("start", {"config": c})
    assert began["state"] in ("starting", "running")
    done = until(began["job"], "done")
    assert done["step"] == done["steps"] == 20
    assert done["valid_loss"] < 4
    assert ask("start", {"config": c}) == done
    assert [j["job"] for j in ask("list", {"state": "done"})["jobs"]] == [began["job"]]
    written = {p.name for p in (jobs / began["job"]).iterdir()}
    assert written >= {"config.json", "log.jsonl", "process.json", "result.json"}


def test_a_cancelled_job_is_found_by_another_server_and_resumed_to_the_same_digest(jobs: Path, corpus: str) -> None:
    c = {**TINY, "corpus": corpus, "steps": 200, "segments": 20, "report_every": 5}
    job = ask("start", {"config": c, "name": "long"})["job"]
    until_step(job, 40)
    assert ask("cancel", {"job": job})["state"] == "cancelled"
    assert elsewhere(jobs, "status", {"job": "long"})["state"] == "cancelled"
    ask("start", {"config": c, "name": "long"})
    done = until(job, "done")
    assert '"event": "resume"' in (jobs / job / "log.jsonl").read_text()
    whole = run({**c, "out": str(jobs.parent / "whole")})
    assert done["digest"] == whole[-1]["digest"]


def test_a_job_killed_from_outside_is_reported_as_interrupted(jobs: Path, corpus: str) -> None:
    job = ask("start", {"config": {**TINY, "corpus": corpus, "steps": 100_000}})["job"]
    until(job, "running")
    os.kill(json.loads((jobs / job / "process.json").read_text())["pid"], signal.SIGKILL)
    assert "resume" in until(job, "interrupted")["message"]


def test_bad_input_gets_one_line_from_the_server(jobs: Path, corpus: str) -> None:
    good = {**TINY, "corpus": corpus, "steps": 3}
    assert "did you mean d_model?" in refusal("start", {"config": {**good, "d_mode": 1}})
    assert "leave the key away" in refusal("start", {"config": {**good, "out": "elsewhere"}})
    assert "no job nothing" in refusal("status", {"job": "nothing"})
    assert "give the name of a task" in refusal("start", {"config": good, "task": "no_such_task"})
    assert not jobs.exists()


def test_a_third_job_waits_its_turn(jobs: Path, corpus: str) -> None:
    for seed in (1, 2):
        ask("start", {"config": {**TINY, "corpus": corpus, "steps": 100_000, "seed": seed}})
    assert "2 jobs run already" in refusal("start", {"config": {**TINY, "corpus": corpus, "steps": 5}})
    assert len(list(jobs.glob("*/config.json"))) == 2


def test_sealed_budgets_are_refused_but_to_the_holder_of_the_key(
    jobs: Path, corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "task.toml").write_text("[data]\nsealed_flops = 1e8\n")
    c = {**TINY, "corpus": corpus, "steps": 0, "flops": 1e8}
    for key in ({}, {"sealed_key": ""}, {"sealed_key": "guess"}):
        assert "sealed hold-out" in refusal("start", {"config": c, "task": str(tmp_path), **key})
    below = ask("start", {"config": {**c, "flops": 9e7}, "task": str(tmp_path)})
    monkeypatch.setenv(train.SEALED_KEY, "the key")
    assert "sealed" in refusal("start", {"config": c, "task": str(tmp_path), "sealed_key": "guess"})
    opened = ask("start", {"config": c, "task": str(tmp_path), "sealed_key": "the key"})
    assert [until(j["job"], "done")["state"] for j in (below, opened)] == ["done", "done"]
    assert jobs.exists()


def test_a_server_killed_in_mid_training_leaves_the_job_to_the_next_server(
    jobs: Path, corpus: str, tmp_path: Path
) -> None:
    c = {**TINY, "corpus": corpus, "steps": 240, "segments": 4, "report_every": 5}
    pid_file = tmp_path / "pid"

    async def start_and_kill() -> str:
        async with Client(stdio(jobs, pid_file)) as client:
            job = dict((await client.call_tool("start", {"config": c})).structured_content or {})["job"]
            step = 0
            while not step:
                found = await client.call_tool("wait", {"job": job, "seconds": 0.1})
                step = dict(found.structured_content or {})["step"]
            os.kill(int(pid_file.read_text()), signal.SIGKILL)
            os.kill(trainer(str(job)), signal.SIGSTOP)  # so that it cannot end before it is found again
            with pytest.raises(MCPError):
                await client.call_tool("status", {"job": job})
            return str(job)

    def trainer(job: str) -> int:
        return int(json.loads((jobs / job / "process.json").read_text())["pid"])

    job = asyncio.run(start_and_kill())
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)
    pid = trainer(job)
    found = elsewhere(jobs, "start", {"config": c})  # finds the job, and starts nothing
    assert (found["job"], found["state"], trainer(job)) == (job, "running", pid)
    assert 0 < found["step"] < 240
    os.kill(pid, signal.SIGCONT)
    done = until(job, "done")
    log = (jobs / job / "log.jsonl").read_text()
    assert (log.count('"event": "start"'), log.count('"event": "resume"')) == (1, 0)
    assert (done["step"], done["steps"], done["valid_loss"] < 4) == (240, 240, True)
    ends = ask("segments", {"job": job})["segments"]
    assert [s["step"] for s in ends] == [60, 120, 180, 240]
    assert ends[-1]["digest"] == done["digest"]


def test_a_cancelled_job_leaves_no_process_and_keeps_its_checkpoint(jobs: Path, corpus: str) -> None:
    job = ask("start", {"config": {**TINY, "corpus": corpus, "steps": 100_000, "segments": 5000}})["job"]
    until_step(job, 20)
    pid = json.loads((jobs / job / "process.json").read_text())["pid"]
    assert start_ticks(pid) is not None
    assert ask("cancel", {"job": job})["state"] == "cancelled"
    assert start_ticks(pid) is None
    assert (jobs / job / "checkpoint.pt").is_file()


def test_segments_and_curve_are_those_of_the_log(jobs: Path, corpus: str) -> None:
    c = {**TINY, "corpus": corpus, "steps": 40, "segments": 4, "valid_every_segment": True}
    job = ask("start", {"config": c})["job"]
    done = until(job, "done")
    found = ask("segments", {"job": job})
    assert (found["asked"], found["simulated"]) == (4, False)
    assert [s["step"] for s in found["segments"]] == [10, 20, 30, 40]
    assert [s["segment"] for s in found["segments"]] == [0, 1, 2, 3]
    assert found["segments"][-1]["digest"] == done["digest"]
    assert found["segments"][-1]["valid_loss"] == done["valid_loss"] < found["segments"][0]["valid_loss"]
    points = ask("curve", {"job": job})["points"]
    assert [p["step"] for p in points] == list(range(5, 41, 5))
    assert points[-1]["loss"] == found["segments"][-1]["loss"] < points[0]["loss"]
    assert [p["step"] for p in ask("curve", {"job": job, "points": 3})["points"]] == [10, 25, 40]


def test_the_module_starts_without_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys, agentlab.tools.train; print('torch' in sys.modules)"],
        capture_output=True, text=True, env=environment(), check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "False"
