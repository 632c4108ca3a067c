"""The lab in memory: what it refuses, how long its answers are, what it may read, and that calls can be left."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from agentlab.tools import _lab_calls, lab
from agentlab.tools._lab_asking import calls
from agentlab.tools._lab_short import LONGEST
from finished_runs import finished
from lab_session import ROWS, TRUE, Session, ask, environment_of, session, write_sweep
from mcp import Client, MCPError

from agentlab.detach import stop
from agentlab.run_rows import Intake, write_rows
from agentlab.types import AgentlabError, Rows, Task, Variable

__all__ = ["session"]

TOOLS = {
    *("tasks_list", "task_get", "law_fit", "law_audit", "law_predict", "law_allocate", "laws_compare"),
    *("discover_estimate", "discover_start", "run_get", "run_stop", "train_propose", "train_submit", "board_query"),
}
ENTRIES = 3_000


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that the server may read, with sweep.csv in it."""
    for name, value in environment_of(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    write_sweep(tmp_path / "sweep.csv")
    (tmp_path / "runs").mkdir()
    yield tmp_path
    calls.close()


def use(work: Callable[[Client], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with Client(lab.server) as client:
            return await work(client)

    return anyio.run(main)


def call(tool: str, **arguments: Any) -> Any:
    return use(lambda client: ask(client, tool, **arguments))


def read(uri: str) -> str:
    """The text of a resource, or "refused: " and why it is not given."""

    async def work(client: Client) -> str:
        try:
            return str(getattr((await client.read_resource(uri)).contents[0], "text", ""))
        except MCPError as error:
            return f"refused: {error}"

    return str(use(work))


def refused(said: object, words: str) -> None:
    """A refusal: one line that says what to write."""
    assert isinstance(said, str), said
    assert words in said
    assert said.count("\n") == 0


# ---- what there is ----


def test_every_tool_is_there_with_a_sentence_and_all_four_hints() -> None:
    async def work(client: Client) -> Any:
        return (await client.list_tools()).tools

    tools = use(work)
    assert {t.name for t in tools} == TOOLS
    for tool in tools:
        assert tool.description
        assert None not in tool.annotations.model_dump(exclude={"title"}).values()
    assert len(json.dumps([[t.description, t.input_schema] for t in tools])) < LONGEST


def test_prompts_name_what_they_were_given_and_the_guide_names_the_roots(root: Path) -> None:
    async def work(client: Client) -> list[str]:
        prompts = (await client.list_prompts()).prompts
        texts = []
        for prompt in prompts:
            given = {a.name: f"<{a.name}>" for a in prompt.arguments or []}
            reply = await client.get_prompt(prompt.name, given)
            texts.append(str(getattr(reply.messages[0].content, "text", "")))
            assert all(value in texts[-1] for value in given.values()), prompt.name
            assert "$" not in texts[-1].replace("$target", "")
        return texts

    assert len(use(work)) == 4
    assert str(root) in read("agentlab://guide")


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("run_get", {"run": "x", "wait_s": 99}, "wait_s = 99: input should be less than or equal to 15"),
        ("run_get", {"run": "x", "detail": "bref"}, "detail = 'bref': input should be 'brief' or 'full'"),
        ("run_get", {}, "run is missing"),
        ("run_get", {"run": "x", "wait": 1}, "no argument 'wait'; did you mean 'wait_s'?"),
        ("law_fit", {"law": "a", "rows": {"tarqet": "y"}}, "no argument 'rows.tarqet'; did you mean 'target'?"),
        ("runget", {}, "no tool 'runget'; did you mean 'run_get'?"),
    ],
)
def test_wrong_arguments_are_told_in_one_line_and_none_is_ignored(
    tool: str, arguments: dict[str, Any], words: str
) -> None:
    refused(call(tool, **arguments), words)


# ---- what it may read ----


@pytest.fixture
def sealed(root: Path, session: Session) -> Path:
    """A finished run with sealed rows among the runs of this server."""
    folder = root / "runs" / session.run
    shutil.copytree(session.folder, folder)
    (folder / "detach.json").unlink()
    return folder


def test_no_path_leads_to_a_hold_out_or_out_of_the_roots(root: Path, sealed: Path, tmp_path_factory: Any) -> None:
    outside = tmp_path_factory.mktemp("outside") / "rows.csv"
    outside.write_text("N,loss\n1,2\n")
    (root / "holdout.csv").write_text("N,loss\n1,2\n2,3\n3,4\n")
    shutil.copy(root / "holdout.csv", root / "innocent.csv")
    (root / "link.csv").symlink_to(sealed / "holdout.npz")
    (root / "out.csv").symlink_to(outside)
    (root / "folder").symlink_to(outside.parent)
    npz = f"runs/{sealed.name}/holdout.npz"
    paths = [
        *(npz, f"./runs/../{npz}", str(root / npz), "holdout.csv", "innocent.csv", "link.csv", "out.csv"),
        *(
            "folder/rows.csv",
            str(outside),
            f"../{outside.parent.name}/rows.csv",
            "/etc/passwd",
            "sweep.csv\0",
            "~root",
            "x" * 300,
        ),
    ]

    async def work(client: Client) -> list[object]:
        told: list[object] = []
        for path in paths:
            rows = ROWS | {"data": path}
            told.append(await ask(client, "law_fit", law=TRUE, rows=rows))
            told.append(await ask(client, "discover_estimate", rows=rows))
            told.append(await ask(client, "discover_estimate", rows=ROWS, search={"holdout": path}))
            told.append(await ask(client, "law_predict", run=sealed.name, data=path))
        for run in ("..", ".", "../runs", f"{sealed.name}/rounds", "", "a" * 200):
            told.append(await ask(client, "run_get", run=run))
            told.append(await ask(client, "law_fit", law=TRUE, run=run))
        told.append(await ask(client, "task_get", task=str(root)))
        told.append(await ask(client, "law_fit", law=TRUE, rows={"task": "../tasks/moe_leverage"}))
        return told

    said = use(work)
    assert len(said) == 4 * len(paths) + 14
    assert all(isinstance(one, str) for one in said), [one for one in said if not isinstance(one, str)]
    bad = [one for one in said if ": " not in one or "\n" in one]  # a crash has no reason, a traceback many lines
    assert not bad


def test_no_resource_leads_out_of_a_runs_folder(sealed: Path) -> None:
    for uri in (
        "agentlab://law/..",
        "agentlab://law/%2e%2e%2fetc",
        f"agentlab://law/{sealed.name}/plots/holdout.npz",
        f"agentlab://law/{sealed.name}/plots/..%2f..%2fsweep.csv",
        "agentlab://run/..%2f..%2fsecret/events",
        "agentlab://run/nothing/events",
    ):
        assert read(uri).startswith("refused: "), uri


def test_a_run_is_told_by_scores_and_its_sealed_rows_are_not(root: Path, sealed: Path) -> None:
    rows = np.genfromtxt(root / "sweep.csv", delimiter=",", names=True)
    hidden = [f"{v:.6f}"[:7] for v in rows["loss"][rows["N"] > 1e10]]
    told = json.dumps([call("run_get", run=sealed.name, detail="full"), read(f"agentlab://run/{sealed.name}/events")])
    assert "holdout" in told
    assert not [value for value in hidden if value in told]


def test_rows_may_come_as_text_and_are_the_same_rows(root: Path) -> None:
    text = (root / "sweep.csv").read_text()
    inline = {k: v for k, v in ROWS.items() if k != "data"} | {"csv": text}
    one, other = call("law_fit", law=TRUE, rows=ROWS), call("law_fit", law=TRUE, rows=inline)
    assert one["params"] == other["params"]
    refused(call("law_fit", law=TRUE, rows=inline | {"csv": "N,loss\n"}), "no rows; send a header line")
    refused(call("law_fit", law=TRUE, rows=inline | {"csv": "N,loss\n" + "1,2\n" * 300_000}), "send at most")


# ---- what it refuses ----


@pytest.mark.parametrize(
    ("tool", "given", "said"),
    [
        ("task_get", {"task": "moe"}, "did you mean 'moe_leverage'?"),
        ("law_fit", {"law": TRUE}, "run= with the id of a finished run, or rows="),
        ("law_fit", {"law": TRUE, "rows": {"data": "sweep.csv"}}, 'target="loss"'),
        ("law_fit", {"law": TRUE, "rows": ROWS | {"csv": "N\n1\n"}}, "give the rows once"),
        ("law_fit", {"law": "__import__('os')", "rows": ROWS}, "not"),
        ("law_fit", {"law": TRUE, "rows": ROWS | {"features": "M"}}, "no column 'M'"),
        ("law_predict", {"run": "nothing", "points": {"N": [1.0]}}, "no run nothing"),
        ("discover_start", {"rows": ROWS, "search": {"proposer": "evolve", "max_usd": 1}}, "agentlab mcp --model"),
        ("discover_start", {"rows": {"task": "moe_leverage"}, "search": {"experiments": 4}}, "max_flops="),
        ("discover_start", {"rows": ROWS | {"scale": "N\0"}}, "send shorter, plain texts"),
        ("discover_start", {"rows": ROWS | {"scale": "N" * 200_000}}, "send shorter, plain texts"),
        ("run_stop", {"run": "nothing"}, "no run nothing"),
        ("train_submit", {"config": {"n": 1}, "max_flops": 1e9, "backend": "simulator"}, "truth"),
    ],
)
def test_a_mistake_is_told_in_one_line_that_says_what_to_write(
    root: Path, tool: str, given: dict[str, Any], said: str
) -> None:
    refused(call(tool, **given), said)


def test_a_model_that_may_be_asked_needs_a_limit_of_what_it_costs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTLAB_MCP_MODEL", "some-model")
    refused(call("discover_start", rows=ROWS, search={"proposer": "evolve"}), "max_usd=, or max_tokens=")


def test_a_run_of_a_terminal_is_not_stopped_from_here(sealed: Path) -> None:
    refused(call("run_stop", run=sealed.name), "press Ctrl-C where it runs")
    with pytest.raises(AgentlabError, match="was not started with --detach"):
        stop(sealed)


# ---- training runs ----


def test_a_training_run_is_started_under_a_cap_and_a_simulated_answer_says_so(root: Path) -> None:
    truth = {"law": "E + A/n**a", "params": {"E": 1.7, "A": 400, "a": 0.34}}
    given = {"config": {"n": 1e6, "flops": 6e14}, "backend": "simulator", "truth": truth, "task": "planted_chinchilla"}
    refused(call("train_submit", **given, max_flops=5e14), "above max_flops=5e+14; raise that")
    job = call("train_submit", **given, max_flops=1e15)
    assert (job["simulated"], job["flops"]) == (True, 6e14)
    assert call("train_submit", **given, max_flops=1e15)["job"] == job["job"]

    async def follow(client: Client) -> Any:
        with anyio.fail_after(60):
            while (found := await ask(client, "run_get", run=job["job"], wait_s=5))["state"] in ("starting", "running"):
                pass
        return found

    done = use(follow)
    assert (done["state"], done["simulated"]) == ("done", True)
    assert "nothing was trained" in done["note"]
    assert call("run_stop", run=job["job"])["was"] == "done"


def test_a_run_that_is_proposed_can_be_submitted_as_it_is(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    run = shutil.copytree(finished("training", tmp_path_factory), root / "runs" / "toy-001").name
    told = call("train_propose", run=run, flops=1e22, max_runs=2)
    assert told["submit"] == {"run": run}, "the planted law is nobody's to know"
    assert 1 <= len(told["next_runs"]) <= 2
    assert told["flops"] == pytest.approx(sum(one["flops"] for one in told["next_runs"]))
    first = told["next_runs"][0]
    job = call("train_submit", config=first["config"], max_flops=first["flops"], **told["submit"])
    assert job["simulated"]
    assert job["flops"] == pytest.approx(first["flops"])
    call("run_stop", run=job["job"])
    asked = {"config": first["config"], **told["submit"], "max_flops": 1e30}
    refused(call("train_submit", **asked, task="moe_leverage"), "leave task= away")
    refused(call("train_submit", **asked, name=run), "a run is called so")
    refused(call("train_submit", **asked | {"max_flops": "Infinity"}), "finite")
    truth = {"law": "E + A/n", "params": {"E": 1, "A": 1}}
    less = {"config": {"n": 1e6, "flops": -6e14}, "backend": "simulator", "truth": truth, "max_flops": 1e15}
    refused(call("train_submit", **less), "it costs -6e+14 FLOPs")


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("audit_my_fitt", {}, "did you mean 'audit_my_fit'?"),
        ("audit_my_fit", {"law": "E"}, "audit_my_fit: data, target, features missing"),
        ("plan_next_runs", {"run": "x", "flop": "1"}, "did you mean 'flops'?"),
    ],
)
def test_a_prompt_that_cannot_be_filled_in_says_why(name: str, given: dict[str, str], words: str) -> None:
    async def work(client: Client) -> str:
        with pytest.raises(MCPError) as told:
            await client.get_prompt(name, given)
        return str(told.value)

    refused(use(work), words)


def test_the_sealed_budget_of_a_task_is_refused(root: Path) -> None:
    truth = {"law": "E + A/n**a", "params": {"E": 1.7, "A": 400, "a": 0.34}}
    given = {"config": {"n": 1e6, "flops": 9e12}, "backend": "simulator", "truth": truth, "task": "moe_leverage"}
    refused(call("train_submit", **given, max_flops=1e15), "sealed hold-out of moe_leverage")


# ---- long runs ----


@pytest.fixture
def long_run(root: Path) -> Path:
    """A run with 3,000 candidates on record, each a little better at first, and no process at it."""
    folder = root / "runs" / "long-001"
    folder.mkdir()
    task = Task("long", (Variable("N"),), ("loss",))
    n = np.arange(1.0, 9.0)
    write_rows(folder, Intake(task, Rows({"N": n}, {"loss": 1 / n}, np.full(8, "all"), n, None, np.arange(8))))
    config = {"experiments": 0, "budget": {"candidates": ENTRIES, "seconds": None}}
    (folder / "config.json").write_text(json.dumps(config))
    dev = {"r2": 0.9, "nmse": 0.1, "nmae": 0.1, "mae": 0.1, "are": 0.1, "n": 4}
    with (folder / "trace.jsonl").open("w") as file:
        file.write(json.dumps({"kind": "run", "schema": 1, "task": "long"}) + "\n")
        for i in range(ENTRIES):
            entry = {"kind": "entry", "id": i, "formula": f"E + A/N**a + {i}", "key": str(i), "status": "ok"}
            entry |= {"objective": -float(min(i, 500)), "dev": dev, "params": {"all": {"loss": {"E": 1.0, "A": 0.1}}}}
            file.write(json.dumps(entry if i % 3 else {**entry, "status": "rejected", "reason": "x" * 3_000}) + "\n")
    return folder


def pages(run: str, detail: str) -> tuple[list[Any], list[int]]:
    """Every event of a run a page at a time, and how long each answer is as a client gets it."""

    async def work(client: Client) -> tuple[list[Any], list[int]]:
        events: list[Any] = []
        lengths: list[int] = []
        cursor, more = 0, True
        while more:
            reply = await client.call_tool("run_get", {"run": run, "cursor": cursor, "detail": detail})
            found: Any = reply.structured_content
            lengths.append(len(getattr(reply.content[0], "text", "")))
            events += found["events"]
            cursor, more = found["cursor"], found["more"]
        return events, lengths

    found: tuple[list[Any], list[int]] = use(work)
    return found


def test_a_long_run_is_told_a_page_at_a_time_and_nothing_twice(long_run: Path) -> None:
    events, lengths = pages(long_run.name, "full")
    assert [e["id"] for e in events if e["kind"] == "entry"] == list(range(ENTRIES))
    assert max(lengths) <= LONGEST
    assert len(lengths) > 20


def test_a_brief_answer_tells_better_laws_and_not_every_candidate(long_run: Path) -> None:
    events, lengths = pages(long_run.name, "brief")
    better = [e["entry"] for e in events if e["event"] == "better law"]
    assert better == [i for i in range(501) if i % 3]
    assert max(lengths) <= LONGEST
    refused(call("run_get", run=long_run.name, cursor=10**6), "no place in this run")
    found = call("run_get", run=long_run.name)
    assert found["evaluated"] + found["rejected"] == ENTRIES
    assert found["state"] == "open"


def test_many_clients_that_follow_one_run_are_told_the_same_count(long_run: Path) -> None:
    found: list[tuple[int, int]] = []

    async def work(client: Client) -> None:
        async def one() -> None:
            state = await ask(client, "run_get", run=long_run.name)
            found.append((state["evaluated"], state["rejected"]))

        async with anyio.create_task_group() as group:
            for _ in range(12):
                group.start_soon(one)

    use(work)
    assert found == [(2 * ENTRIES // 3, ENTRIES // 3)] * 12


def test_a_cursor_that_is_no_place_in_the_run_is_refused(long_run: Path) -> None:
    refused(call("run_get", run=long_run.name, cursor=7, detail="full"), "take it from the last answer")


# ---- time ----


def test_an_audit_that_takes_long_is_asked_for_again_and_leaves_a_card(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_lab_calls, "WAIT", 0.3)
    given = {"law": TRUE, "rows": ROWS, "draws": 20}

    async def work(client: Client) -> tuple[Any, Any]:
        first = (await client.call_tool("law_audit", given)).structured_content
        return first, await ask(client, "law_audit", **given)

    first, card = use(work)
    assert first["state"] == "running"
    assert "call again with the same arguments" in first["note"]
    assert card["verdict"]
    assert {p["name"] for p in card["parameters"]} == {"E", "A", "a"}
    assert read(card["card"]).startswith("# Law Card: sweep.csv")
    assert all("<svg" in read(uri) for uri in card["plots"][:1])
    assert "no plot 'other.svg'" in read(f"{card['card']}/plots/other.svg")


def test_a_call_that_is_left_ends_its_process_and_others_are_answered_meanwhile(root: Path) -> None:
    async def work(client: Client) -> tuple[int, Any]:
        given = {"law": TRUE, "rows": ROWS, "draws": 5_000}
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(client.call_tool, "law_audit", given)
                with anyio.fail_after(60):
                    while not calls._under:  # noqa: ASYNC110 -- it is a process
                        await anyio.sleep(0.02)
                pid = next(iter(calls._under.values())).process.pid
                meanwhile = await ask(client, "tasks_list")
                assert alive(pid)
                scope.cancel()
        with anyio.fail_after(60):
            while alive(pid):  # noqa: ASYNC110 -- it is a process
                await anyio.sleep(0.02)
        return pid, meanwhile

    _, meanwhile = use(work)
    assert meanwhile["tasks"]
    assert not calls._under


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_progress_only_grows_while_a_run_is_followed(sealed: Path) -> None:
    told: list[float] = []

    async def tell(progress: float, total: float | None, message: str | None) -> None:
        told.append(progress)

    async def work(client: Client) -> None:
        await client.call_tool("run_get", {"run": sealed.name}, progress_callback=tell)

    use(work)
    assert len(told) == 1
    assert told[0] > 0


def test_commands_get_no_secrets_and_keys_only_where_a_model_is_asked(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "hidden")
    monkeypatch.setenv("AGENTLAB_TOKEN", "hidden")
    assert "hidden" not in _lab_calls.variables().values()
    assert _lab_calls.variables(keys=True)["SOME_API_KEY"] == "hidden"
    assert "AGENTLAB_TOKEN" not in _lab_calls.variables(keys=True)
