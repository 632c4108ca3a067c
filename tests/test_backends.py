"""Backends of `train` other than our trainer: the simulator with planted truth, and command templates."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from agentlab.envs._processes import environment
from agentlab.tools import _backends, _simulator, train
from agentlab.tools._command import Progress
from agentlab.tools._train_records import Truth
from mcp import Client
from train_calls import ask, call, refusal, until, until_step

LAW = {"law": "E + A/N**a + B/D**b", "params": {"E": 1.69, "A": 406.4, "a": 0.34, "B": 410.7, "b": 0.28}}
SIZES = {"N": 1e8, "D": 2e9}
FINAL = 1.69 + 406.4 / 1e8**0.34 + 410.7 / 2e9**0.28
SIMULATED = {"backend": "simulator", "truth": LAW}

TRAINER = """
import json, os, sys, time
given = dict(a.lstrip("-").split("=", 1) for a in sys.argv[1:])
for step in range(1, int(given["steps"]) + 1):
    print(f"step {step:05d}/{given['steps']} | loss: {4 / step:.6f} | tok/sec: {1000 * step:,}", flush=True)
print(f"\\x1b[32mValidation loss: {float(given['lr']) * 10:.4f}\\x1b[0m")
found = {"argv": sys.argv[1:], "env": dict(os.environ)}
open(given["out"] + "/metrics.json", "w").write(json.dumps(found))
"""
TEMPLATE = """
about = "a trainer for tests"
argv = ["{{python}}", "{script}", "--steps={{steps}}", "--lr={{lr}}", "--out={{folder}}"]
flops = "6 * width**2 * steps"
variables = ["AGENTLAB_TEST_SHOWN"]
[environment]
KIND = "of {{job}}"
[defaults]
lr = 0.25
width = 10
[progress]
patterns = [
  'step (?P<step>\\d+)/(?P<steps>\\d+) .*loss: (?P<loss>\\S+) .*tok/sec: (?P<tokens_per_second>[\\d,]+)',
  'Validation loss: (?P<valid_loss>\\S+)',
]
"""


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A jobs folder and a folder of templates of its own."""
    monkeypatch.setenv(train.JOBS, str(tmp_path / "jobs"))
    monkeypatch.setenv(train.MAX_JOBS, "4")
    monkeypatch.setenv(_backends.BACKENDS, str(tmp_path))
    yield tmp_path / "jobs"
    for job in ask("list", {})["jobs"]:
        ask("cancel", {"job": job["job"]})


@pytest.fixture
def trainer(jobs: Path, tmp_path: Path) -> Path:
    """A template for a small script that behaves as a trainer."""
    (tmp_path / "script.py").write_text(TRAINER)
    path = tmp_path / "mine.toml"
    path.write_text(TEMPLATE.format(script=tmp_path / "script.py"))
    return path


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def finished(config: dict[str, Any], **more: Any) -> dict[str, Any]:
    job = ask("start", {"config": config, "backend": "mine", **more})["job"]
    return until(job, "done", "failed", "diverged")


# ---- the simulator ----


def test_a_simulated_run_ends_at_its_law_and_says_everywhere_that_it_is_simulated(jobs: Path) -> None:
    config = {**SIZES, "segments": 4, "steps": 100}
    began = ask("start", {"config": config, **SIMULATED})
    job = began["job"]
    done = until(job, "done")
    assert done["valid_loss"] == pytest.approx(FINAL, rel=1e-12)
    assert (done["step"], done["steps"]) == (100, 100)
    found = [ask(tool, {"job": job}) for tool in ("segments", "curve")]
    assert [s["step"] for s in found[0]["segments"]] == [25, 50, 75, 100]
    assert [p["loss"] for p in found[1]["points"]] == sorted((p["loss"] for p in found[1]["points"]), reverse=True)
    answers = [began, done, *found, *ask("list", {})["jobs"], ask("estimate", {"config": config, **SIMULATED})]
    written = [*lines(jobs / job), json.loads((jobs / job / "result.json").read_text())]
    assert all(answer["simulated"] is True for answer in [*answers, *written])
    assert len(answers) + len(written) > 25


def test_the_law_of_a_simulated_run_may_name_what_the_trainer_plans(jobs: Path) -> None:
    config = {"d_model": 16, "n_heads": 1, "d_ff": 32, "context": 32, "flops": 1e9}
    plan = ask("estimate", {"config": {**config, "corpus": "c"}})
    truth = {"law": "E + A/params**a + B/tokens**b", "params": LAW["params"]}
    done = until(ask("start", {"config": config, "backend": "simulator", "truth": truth})["job"], "done")
    wanted = 1.69 + 406.4 / plan["params"] ** 0.34 + 410.7 / plan["tokens"] ** 0.28
    assert done["valid_loss"] == pytest.approx(wanted, rel=1e-12)
    assert done["flops"] == plan["flops"]


def simulated_loss(seed: int, noise: float) -> float:
    """The final loss of a simulated run, as it is planned: nothing is started."""
    truth = Truth.model_validate({**LAW, "noise": noise})
    run = asyncio.run(_simulator.order({**SIZES, "seed": seed}, truth))
    argv = run.argv_of(Path(os.environ["PLAN"]))
    return float(json.loads(Path(argv[-1]).read_text())["result"]["valid_loss"])


def test_the_noise_of_a_simulated_run_is_the_stated_share_and_repeats_with_the_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLAN", str(tmp_path))
    drawn = [simulated_loss(seed, 0.01) for seed in range(400)]
    assert drawn[7] == simulated_loss(7, 0.01)
    assert statistics.fmean(drawn) == pytest.approx(FINAL, rel=3 * 0.01 / 20)
    assert statistics.stdev(drawn) == pytest.approx(0.01 * FINAL, rel=0.15)
    assert [simulated_loss(seed, 0.0) for seed in range(3)] == pytest.approx([FINAL] * 3, rel=1e-12)


def test_a_simulated_run_takes_its_time_reports_progress_and_can_be_cancelled(jobs: Path) -> None:
    slow = {**SIMULATED, "truth": {**LAW, "seconds": 600}}
    job = ask("start", {"config": {**SIZES, "steps": 1000}, **slow})["job"]
    assert ask("wait", {"job": job, "seconds": 0})["state"] in ("starting", "running")
    assert ask("cancel", {"job": job})["state"] == "cancelled"
    quick = ask("start", {"config": {**SIZES, "steps": 40}, **SIMULATED, "truth": {**LAW, "seconds": 1}})["job"]
    told: list[tuple[float, float | None, str | None]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total, message))

    async def follow() -> Any:
        async with Client(train.server) as client:
            return await client.call_tool("wait", {"job": quick}, progress_callback=hear)

    assert asyncio.run(follow()).structured_content["state"] == "done"
    steps = [step for step, _, _ in told]
    assert steps == sorted(set(steps))
    assert told[-1][1] == 40
    assert "simulated" in str(told[-1][2])


def test_a_simulated_run_needs_no_torch(tmp_path: Path) -> None:
    program = Path(str(files("agentlab.envs"))) / "images" / "train" / "simulate.py"
    run = {"points": [{"step": 1, "loss": 2.0}], "segment_ends": [1], "seconds": 0, "out": str(tmp_path)}
    (tmp_path / "run.json").write_text(json.dumps({**run, "result": {"status": "ok", "valid_loss": 2.0}}))
    code = (
        "import runpy, sys; program, run = sys.argv[1:]; sys.argv = [program, run]\n"
        "runpy.run_path(program, run_name='__main__'); print({'torch', 'numpy'} & {*sys.modules})"
    )
    command = [sys.executable, "-c", code, str(program), str(tmp_path / "run.json")]
    env = {**environment(), "PYTHONPATH": str(program.parent)}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"truth": None}, "give truth="),
        ({"truth": {**LAW, "law": "E + A/N**"}}, "truth.law: "),
        ({"truth": {**LAW, "law": "import os"}}, "truth.law: "),
        ({"truth": {**LAW, "params": {**LAW["params"], "Z": 1.0}}}, "Z is not in the law"),  # type: ignore[dict-item]
        ({"truth": {**LAW, "law": "E + A/N**a + B/D**b + x"}}, "x: neither the config nor truth.params"),
        ({"truth": {**LAW, "law": "E + A/(N-N)**a + B/D**b"}}, "give parameters for which it is a number"),
        ({"config": {**SIZES, "backend": "torch"}}, "backend: is no key of a config"),
        ({"backend": "torch"}, "only the simulator has a planted law"),
        ({"backend": "torchtita", "truth": None}, "did you mean 'torchtitan'?"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_a_simulation_that_makes_no_sense_is_refused_in_one_line(change: dict[str, Any], says: str, jobs: Path) -> None:
    assert says in refusal("start", {"config": SIZES, **SIMULATED, **change})
    assert not jobs.exists()


# ---- command templates ----


def test_a_command_is_followed_by_its_patterns_and_its_result_is_what_it_printed_last(trainer: Path) -> None:
    done = finished({"steps": 3})
    assert (done["state"], done["backend"], done["simulated"]) == ("done", "mine", False)
    assert (done["step"], done["steps"], done["loss"], done["tokens_per_second"]) == (3, 3, 1.333333, 3000)
    assert done["valid_loss"] == 2.5
    assert [p["loss"] for p in ask("curve", {"job": done["job"]})["points"]] == [4.0, 2.0, 1.333333]
    assert ask("start", {"config": {"steps": 3}, "backend": "mine"}) == done


def test_a_command_gets_one_argument_for_each_element_and_only_the_variables_allowed(
    trainer: Path, jobs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTLAB_TEST_SHOWN", "s3cret-shown")
    monkeypatch.setenv("AGENTLAB_TEST_HIDDEN", "s3cret-hidden")
    job = finished({"steps": 1, "lr": 1e-5})["job"]
    folder = jobs / job
    written = json.loads((folder / "metrics.json").read_text())
    assert written["argv"] == ["--steps=1", "--lr=1e-05", f"--out={folder}"]
    assert written["env"]["AGENTLAB_TEST_SHOWN"] == "s3cret-shown"
    assert "AGENTLAB_TEST_HIDDEN" not in written["env"]
    assert written["env"]["KIND"] == f"of {job}"
    kept = "".join(p.read_text() for p in folder.iterdir() if p.is_file() and p.name != "metrics.json")
    assert "s3cret" not in kept


def test_a_result_may_be_a_file_and_progress_json(trainer: Path, tmp_path: Path) -> None:
    script = "import json, sys\nfor i in (1, 2): print(json.dumps({'iteration': i, 'lm loss': 3 / i, 'note': 'x'}))\n"
    script += "open(sys.argv[1], 'w').write(json.dumps({'eval/loss': 1.5}))"
    (tmp_path / "script.py").write_text(script)
    trainer.write_text(
        'about = "json"\nargv = ["{python}", "../../script.py", "end.json"]\n'
        '[progress]\njson = { step = "iteration", loss = "lm loss" }\n'
        '[result]\nfile = "end.json"\nfields = { valid_loss = "eval/loss" }\n'
    )
    done = finished({})
    assert (done["step"], done["loss"], done["valid_loss"]) == (2, 1.5, 1.5)


def test_a_command_that_writes_its_lines_to_a_file_is_followed_there(trainer: Path, tmp_path: Path) -> None:
    script = "with open('out.log', 'w') as f:\n    for i in (1, 2, 3): print(f'step {i} loss {9 / i}', file=f)\n"
    (tmp_path / "script.py").write_text(script)
    trainer.write_text(
        'about = "file"\nargv = ["{python}", "../../script.py"]\n'
        "[progress]\nfile = \"out.log\"\npatterns = ['step (?P<step>\\d+) loss (?P<loss>\\S+)']\n"
    )
    done = finished({})
    assert (done["step"], done["loss"]) == (3, 3.0)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("raise SystemExit('CUDA out of memory')", "ended with code 1: CUDA out of memory"),
        ("print('hello')", "told nothing that is known"),
        ("import os; os.abort()", "ended with code -6"),
    ],
    ids=["code", "silence", "signal"],
)
def test_a_command_that_fails_leaves_no_result_and_says_why(
    script: str, says: str, trainer: Path, tmp_path: Path, jobs: Path
) -> None:
    (tmp_path / "script.py").write_text(script)
    failed = finished({"steps": 1})
    assert failed["state"] == "failed"
    assert says in failed["message"]
    assert not (jobs / failed["job"] / "result.json").exists()
    (tmp_path / "script.py").write_text(TRAINER)
    assert finished({"steps": 1})["state"] == "done"


def test_a_program_that_is_not_there_is_told(trainer: Path) -> None:
    trainer.write_text('about = "no"\nargv = ["no-such-program"]\n[progress]\npatterns = ["x"]\n')
    assert "no-such-program; cannot be started" in finished({})["message"]


def test_a_loss_that_is_no_number_is_a_run_that_diverged(trainer: Path, tmp_path: Path, jobs: Path) -> None:
    (tmp_path / "script.py").write_text("print('step 5/9 | loss: nan | tok/sec: 1')")
    found = finished({"steps": 9})
    assert (found["state"], found["step"], found["loss"]) == ("diverged", 5, None)
    assert "NaN" not in (jobs / found["job"] / "result.json").read_text()


def test_a_cancelled_command_is_killed_and_its_template_frees_the_rest(
    trainer: Path, tmp_path: Path, jobs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTLAB_TEST_SHOWN", "queue")
    (tmp_path / "script.py").write_text(
        "import time; print('step 1/9 | loss: 2 | tok/sec: 1', flush=True); time.sleep(1e6)"
    )
    free = 'import os, sys; open("freed", "w").write(sys.argv[1] + " of " + os.environ["AGENTLAB_TEST_SHOWN"])'
    frees = f"cancel = ['{{python}}', '-c', '{free}', '{{job}}']\n[environment]"
    trainer.write_text(trainer.read_text().replace("[environment]", frees))
    job = ask("start", {"config": {"steps": 9}, "backend": "mine"})["job"]
    until_step(job, 1)
    assert ask("cancel", {"job": job})["state"] == "cancelled"
    assert (jobs / job / "freed").read_text() == f"{job} of queue"


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"stepz": 3}, "stepz: mine.toml has no {stepz}; did you mean 'steps'?"),
        ({}, "{steps} of mine.toml has no value"),
        ({"steps": 3, "lr": "$(reboot)"}, "lr: '$(reboot)' is no number or plain word"),
        ({"steps": 3, "lr": "a b"}, "plain word"),
        ({"steps": 3, "lr": "--help"}, "plain word"),
        ({"steps": 3, "lr": "../../etc"}, "plain word"),
        ({"steps": [3]}, "plain word"),
        ({"steps": 3, "width": "x"}, "flops needs a number for width"),
        ({"steps": -3}, "flops is -1800.0"),
        ({"steps": 3, "folder": "x"}, "folder: mine.toml has no {folder}"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_a_config_that_does_not_fill_its_template_is_refused_in_one_line(
    config: dict[str, Any], says: str, trainer: Path, jobs: Path
) -> None:
    assert says in refusal("start", {"config": config, "backend": "mine"})
    assert not jobs.exists()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("--lr={lr}", "--lr={lr", "a single brace"),
        ("lr = 0.25", "lrr = 0.25", "{lr} of mine.toml has no value in the config; did you mean 'lrr'?"),
        ("about", "abbout", "about"),
        ("variables", "variable", "did you mean 'variables'?"),
        ("(?P<step>", "(?P<step", "mine.toml: "),
        ("6 * width**2", "6 * width**", "mine.toml: "),
        ("patterns", "pattern", "did you mean 'patterns'?"),
        ("argv = [", "argv = [1, ", "argv.0"),
        ("about", "[about", "mine.toml: "),
    ],
    ids=lambda v: v,
)
def test_a_damaged_template_is_told_in_one_line(old: str, new: str, says: str, trainer: Path, jobs: Path) -> None:
    trainer.write_text(trainer.read_text().replace(old, new, 1))
    assert says in refusal("start", {"config": {"steps": 1}, "backend": "mine"})
    assert any(b["name"] == "torch" for b in ask("backends", {})["backends"])
    assert not jobs.exists()


def test_a_template_is_found_by_name_alone(trainer: Path, jobs: Path) -> None:
    for path in (str(trainer), "../mine", "mine.toml/.."):
        assert call("start", {"config": {"steps": 1}, "backend": path}).is_error
    assert "no folder nowhere" in refusal_of_cwd(trainer, "nowhere")
    assert "$AGENTLAB_NO_SUCH is not set" in refusal_of_cwd(trainer, "$AGENTLAB_NO_SUCH/x")


def refusal_of_cwd(trainer: Path, cwd: str) -> str:
    text = trainer.read_text()
    trainer.write_text(f'cwd = "{cwd}"\n' + text)
    said = refusal("start", {"config": {"steps": 1}, "backend": "mine", "name": "cwd"})
    trainer.write_text(text)
    return said


def test_another_text_of_a_template_is_another_job(trainer: Path) -> None:
    first = finished({"steps": 1})
    trainer.write_text(trainer.read_text() + "# changed\n")
    assert finished({"steps": 1})["job"] != first["job"]


def test_an_estimate_tells_what_the_template_counts(trainer: Path, jobs: Path) -> None:
    found = ask("estimate", {"config": {"steps": 5}, "backend": "mine", "flops_per_second": 100})
    assert (found["flops"], found["seconds"]) == pytest.approx((3000, 30))
    assert (found["steps"], found["params"]) == (5, None)
    trainer.write_text(trainer.read_text().replace('flops = "6 * width**2 * steps"', ""))
    found = ask("estimate", {"config": {"steps": 5}, "backend": "mine"})
    assert (found["flops"], found["seconds"]) == (None, None)
    assert "does not tell" in found["convention"]


# ---- sealed budgets ----


@pytest.fixture
def sealed(tmp_path: Path) -> str:
    """A task whose hold-out begins at 3000 FLOPs."""
    (tmp_path / "task.toml").write_text("[data]\nsealed_flops = 3000\n")
    return str(tmp_path)


def test_sealed_budgets_are_refused_for_a_command(trainer: Path, sealed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"config": {"steps": 5}, "backend": "mine", "task": sealed}
    assert "sealed hold-out" in refusal("start", asked)
    assert finished({"steps": 4}, task=sealed)["state"] == "done"
    monkeypatch.setenv(train.SEALED_KEY, "the key")
    assert "sealed hold-out" in refusal("start", {**asked, "sealed_key": "guess"})
    assert finished({"steps": 5}, task=sealed, sealed_key="the key")["state"] == "done"


def test_a_command_whose_cost_nobody_counts_is_refused_where_a_hold_out_is_sealed(
    trainer: Path, sealed: str, jobs: Path
) -> None:
    trainer.write_text(trainer.read_text().replace('flops = "6 * width**2 * steps"', "").replace("width = 10", ""))
    assert "does not tell what the run costs" in refusal(
        "start", {"config": {"steps": 1}, "backend": "mine", "task": sealed}
    )
    assert "has no {flops}" in refusal("start", {"config": {"steps": 1, "flops": 1}, "backend": "mine", "task": sealed})
    trainer.write_text(trainer.read_text().replace('"--out', '"--flops={flops}", "--out'))
    start = {"config": {"steps": 1, "flops": 4000}, "backend": "mine", "task": sealed}
    assert "sealed hold-out" in refusal("start", start)
    assert not jobs.exists()


@pytest.mark.parametrize("sizes", [{"N": 10, "D": 50}, {"N": 1, "D": 1, "flops": 3000}, {"N": 1, "D": 1, "C": 3000}])
def test_sealed_budgets_are_refused_for_a_simulation(sizes: dict[str, float], sealed: str, jobs: Path) -> None:
    assert "sealed hold-out" in refusal("start", {"config": sizes, **SIMULATED, "task": sealed})
    assert not jobs.exists()


# ---- templates that are shipped ----


def test_the_shipped_templates_are_listed_with_their_keys(jobs: Path) -> None:
    found = {b["name"]: b for b in ask("backends", {})["backends"]}
    assert set(found) == {"torch", "simulator", "torchtitan", "nanochat", "slurm"}
    assert found["torchtitan"]["required"] == ["steps", "step_tokens", "params_active"]
    assert found["nanochat"]["required"] == ["depth", "flops"]
    assert found["slurm"]["required"] == ["script", "flops"]


@pytest.mark.parametrize(
    ("name", "config", "flops"),
    [
        ("torchtitan", {"steps": 10, "step_tokens": 8192, "params_active": 6e6}, 6 * 10 * 8192 * 6e6),
        ("nanochat", {"depth": 4, "flops": 1e15}, 1e15),
        ("slurm", {"script": "run.sbatch", "flops": 1e18}, 1e18),
    ],
)
def test_a_shipped_template_fills_and_counts_its_cost(
    name: str, config: dict[str, Any], flops: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("TORCHTITAN_DIR", "NANOCHAT_DIR"):
        monkeypatch.setenv(variable, str(tmp_path))
    order = _backends.order(config, name)
    assert order.flops == flops
    order.argv_of(tmp_path)
    argv = json.loads((tmp_path / "command.json").read_text())["argv"]
    assert not [item for item in argv if "{" in item or "}" in item]
    assert (tmp_path / "cancel.json").exists() == (name == "slurm")


@pytest.mark.parametrize(
    ("name", "line", "fields"),
    [
        (
            "torchtitan",
            "[titan] 2026-01-02 03:04:05,678 - root - INFO - step: 10  loss:  4.1234  grad_norm:  1.2  tps: 12,345",
            {"step": 10, "loss": 4.1234, "tokens_per_second": 12345},
        ),
        (
            "torchtitan",
            "[titan] 2026-01-02 03:04:05,678 - root - INFO - validate step: 20  loss:  4.0000  memory:  1.00GiB(1.00%)",
            {"step": 20, "valid_loss": 4.0},
        ),
        (
            "nanochat",
            "step 00010/00020 (50.00%) | loss: 6.123456 | lrm: 1.00 | dt: 99.00ms | tok/sec: 12,345 | bf16_mfu: 0.10",
            {"step": 10, "steps": 20, "loss": 6.123456, "tokens_per_second": 12345},
        ),
        ("nanochat", "Step 00020 | Validation bpb: 1.234567", {"step": 20, "valid_bpb": 1.234567}),
        ("slurm", '{"step": 3, "loss": 2.5, "other": 1}', {"step": 3, "loss": 2.5}),
    ],
)
def test_a_shipped_template_reads_the_lines_of_its_trainer(name: str, line: str, fields: dict[str, float]) -> None:
    progress = _backends.read_template(name).template.progress
    reader = Progress(progress.patterns, progress.json_fields)
    reader.line(line.encode())
    assert reader.newest == fields
