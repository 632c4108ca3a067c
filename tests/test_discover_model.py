"""The loop with a model that elects parents: voted, replayed from the trace, within its budget, never needed."""

from __future__ import annotations

import asyncio
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from scripted_model import Asked, Said, Scripted, serving

from agentlab import runs
from agentlab.archive import Archive
from agentlab.budget import Purse
from agentlab.cli import main
from agentlab.decisions import SPENT
from agentlab.discover_decide import FEWEST, FIRST, LISTED, START, Voters
from agentlab.models import KEY, Chat
from agentlab.proposers.mutate import CHOSEN, Mutate
from agentlab.trace import Record, Trace, TraceError, dump, read
from agentlab.types import Entry, Outcome, Proposal, Task, Variable

AGENTLAB = Path(sys.executable).with_name("agentlab")
SECRET = "sk-very-secret-0123456789"  # noqa: S105 -- made up
HALF = 4
ENDS = 20
"""Candidates of a run; with blocks of `HALF` it takes decisions for the blocks at 8, 12 and 16."""


class Done(NamedTuple):
    """How a call of the command line ended."""

    code: int
    out: str
    err: str


def agentlab(*given: str) -> Done:
    """The command line in this process, which spares its start; the key is in its environment."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["agentlab", *given])
        patch.setenv(KEY, SECRET)
        with pytest.raises(SystemExit) as ended:
            main()
    return Done(int(ended.value.code or 0), out.getvalue(), err.getvalue())


def words(folder: Path, url: str, *more: str) -> list[str]:
    """A search on eight runs with so small laws that edits begin within the first blocks."""
    data = folder / "eight.csv"
    sizes = np.geomspace(1e6, 1e8, 8)
    data.write_text("E,loss\n" + "".join(f"{n},{2 + 30 * n**-0.3}\n" for n in sizes))
    rows = [f"data={data}", "target=loss", "features=E", "residual=plain", "robust=none", "max_params=2", "workers=1"]
    models = ["model=scripted", f"base_url={url}"]
    if not any(w.startswith("proposer=") for w in more):
        models.append("proposer=mutate")
    return ["discover", *rows, f"window={2 * HALF}", f"out={folder}", *models, *more]


def candidates(count: int = ENDS) -> str:
    return f"budget.candidates={count}"


def objectives(asked: Asked) -> dict[int, float]:
    """The objectives of the laws that a request lists, by their number."""
    return {int(n): float(o) for n, o in re.findall(r"^- (\d+): .*?; objective (\S+),", asked.text, re.MULTILINE)}


def prefers_well(asked: Asked) -> str:
    """A scripted model that names the two best."""
    listed = objectives(asked)
    first, second = sorted(listed, key=lambda n: (listed[n], n))[:2]
    return f"They extrapolate best.\nanswer = {second}, {first}"


def random_choice(asked: Asked) -> str:
    """A scripted model that names any two, by the seed it is sent."""
    first, second = random.Random(asked.seed).sample(sorted(objectives(asked)), 2)  # noqa: S311 -- a script, no secret
    return f"answer = {first}, {second}"


def trace_of(folder: Path) -> bytes:
    return (folder / "trace.jsonl").read_bytes()


def decisions_of(folder: Path) -> list[Record]:
    return [r for r in read(folder / "trace.jsonl") if r["kind"] == "decision"]


class Run(NamedTuple):
    """A run that nobody disturbed."""

    folder: Path
    result: dict[str, Any]
    server: Scripted


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("whole")
    with serving(prefers_well) as server:
        done = agentlab(*words(folder, server.url, candidates()), "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out.splitlines()[-1]) == json.loads(dump(runs.result(folder / "eight.csv-001")))
    return Run(folder / "eight.csv-001", runs.result(folder / "eight.csv-001"), server)


def test_each_decision_stands_before_its_block_and_was_asked_for_while_the_block_below_it_was_worked_on(
    undisturbed: Run,
) -> None:
    records = list(read(undisturbed.folder / "trace.jsonl"))
    blocks = [r["block"] for r in records if r["kind"] == "decision"]
    assert blocks == [8, 12, 16]
    for at, record in enumerate(records):
        if record["kind"] == "decision":
            known = {r["id"]: r["objective"] for r in records[:at] if r.get("status") == "ok"}
            best = sorted(known, key=lambda n: (known[n], n))[:2]
            assert record["key"] == sorted(best)
            assert sum(r["kind"] == "entry" for r in records[:at]) == record["block"] - HALF
            assert record["tally"][0]["votes"] == [[sorted(best), START]]


def test_elected_laws_become_parents(undisturbed: Run) -> None:
    elected = {r["block"]: set(r["key"]) for r in decisions_of(undisturbed.folder)}
    entries = [r for r in read(undisturbed.folder / "trace.jsonl") if r["kind"] == "entry"]
    edited = [r for r in entries if r["parents"] and r["id"] >= min(elected)]
    started = [r for r in edited if r["parents"][0] in elected[r["id"] // HALF * HALF]]
    assert len(edited) / 3 <= len(started) < len(edited)


def test_the_result_counts_decisions_calls_and_tokens(undisturbed: Run) -> None:
    _, result, server = undisturbed
    assert result["law"]["formula"]
    told = {"decided": 3, "undecided": 0, "calls": len(server.asked), "tokens": server.tokens}
    assert result["counts"]["decisions"] == told
    assert result["cost"]["tokens"] == server.tokens > 0
    page = agentlab("runs", "show", str(undisturbed.folder)).out
    assert f"parents elected for 3 of 3 blocks that were voted on; 6 calls, {server.tokens:,} tokens" in page


def test_neither_the_key_nor_the_address_is_told_in_the_run_folder(undisturbed: Run) -> None:
    assert {a.key for a in undisturbed.server.asked} == {SECRET}
    files = {p.name: p.read_bytes() for p in undisturbed.folder.iterdir()}
    assert "trace.jsonl" in files
    assert [name for name, data in files.items() if SECRET.encode() in data] == []
    assert [name for name, data in files.items() if undisturbed.server.url.encode() in data] == ["config.json"]


@pytest.fixture(scope="module")
def broken_off(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """The folder of the same run where the server went away after the first decision, and how it ended."""
    folder = tmp_path_factory.mktemp("broken")
    with serving(lambda asked: prefers_well(asked) if asked.number < START else Said("gone", status=503)) as server:
        done = agentlab(*words(folder, server.url, candidates()), "--plain")
    return folder / "eight.csv-001", done


def test_a_server_that_goes_away_ends_the_run_in_one_line_with_code_5(
    undisturbed: Run, broken_off: tuple[Path, Done]
) -> None:
    folder, done = broken_off
    assert done.code == 5
    assert done.err.splitlines()[-1].startswith("agentlab: model 'scripted' at ")
    assert "Traceback" not in done.err + done.out
    assert SECRET not in done.err + done.out
    assert trace_of(undisturbed.folder).startswith(trace_of(folder))
    assert [r["block"] for r in decisions_of(folder)] == [8]


def test_continued_at_another_address_killed_and_resumed_it_writes_the_same_bytes_and_asks_for_none_twice(
    undisturbed: Run, broken_off: tuple[Path, Done], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(broken_off[0], tmp_path / "run"))
    config = json.loads((folder / "config.json").read_text())
    with serving(prefers_well) as server:
        (folder / "config.json").write_text(json.dumps(config | {"base_url": server.url}))
        command = [str(AGENTLAB), "runs", "resume", str(folder), "--plain"]
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        end = time.monotonic() + 120
        while process.poll() is None and len(decisions_of(folder)) < 2:
            assert time.monotonic() < end
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        on_record = sum(r["calls"] for r in decisions_of(folder)) - START
        assert agentlab("runs", "resume", str(folder), "--plain").code == 0
    assert trace_of(folder) == trace_of(undisturbed.folder)
    requests = [(a.text, a.seed) for a in server.asked]
    assert set(requests) == {(a.text, a.seed) for a in undisturbed.server.asked[START:]}
    assert on_record >= START
    assert [requests.count(r) for r in requests[:on_record]] == [1] * on_record


def test_a_search_whose_token_budget_runs_out_goes_on_without_the_model_and_says_so(tmp_path: Path) -> None:
    cap = 2900
    with serving(prefers_well) as server:
        done = agentlab(*words(tmp_path, server.url, candidates(), f"budget.tokens={cap}"))
    assert done.code == 0, done.err
    folder = tmp_path / "eight.csv-001"
    first, *_, last = decisions_of(folder)
    assert "key" in first
    assert last["undecided"] == SPENT
    assert last["block"] < ENDS - HALF, "the blocks after it have no decision"
    assert 0 < server.tokens <= cap
    assert [r["id"] for r in read(folder / "trace.jsonl") if r["kind"] == "entry"] == list(range(ENDS))
    assert f"from candidate {last['block']} on no model was asked" in done.out


def test_with_a_useless_model_an_interrupt_during_a_vote_finishes_the_step_and_the_run(tmp_path: Path) -> None:
    sent: list[int] = []

    def answer(asked: Asked) -> str:
        if len(objectives(asked)) > FEWEST and not sent:  # the second decision
            sent.append(asked.number)
            os.kill(os.getpid(), signal.SIGINT)
        return random_choice(asked)

    with serving(answer) as server:
        done = agentlab(*words(tmp_path, server.url, candidates(1000)), "--json")
    assert done.code == 0, done.err
    records = list(read(tmp_path / "eight.csv-001" / "trace.jsonl"))
    assert [r["reason"] for r in records if r["kind"] == "stop"] == ["interrupted"]
    *_, last = (r for r in records if r["kind"] == "decision")
    assert sum(r["kind"] == "entry" for r in records) == last["block"] + HALF
    told = json.loads(done.out.splitlines()[-1])
    assert told["law"]["formula"]
    assert told["counts"]["decisions"]["undecided"] > 0
    assert last["undecided"]
    assert "key" not in last


ASK = ("data=x.csv", "target=loss", "features=E")


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (("base_url=http://127.0.0.1:9/v1",), 2, "base_url= is given without a model"),
        (("budget.tokens=1000",), 2, "budget.tokens= is given without a model"),
        (("model=a,", "base_url=http://127.0.0.1:9/v1"), 2, "model=NAME,SECOND"),
        (("model=a,a", "base_url=http://127.0.0.1:9/v1"), 2, "different ones"),
        (("model=a", "base_url=somewhere"), 5, "is no address"),
        (("model=a", f"base_url=http://me:{SECRET}@127.0.0.1/v1"), 5, "holds a password"),
        (("model=a", "proposer=mutat", "base_url=http://127.0.0.1:9/v1"), 2, "mutate"),
        (("model=a", "budget.usd=1", "base_url=http://127.0.0.1:9/v1"), 2, "budget.usd="),
    ],
)
def test_settings_of_models_that_do_not_fit_get_one_line(
    tmp_path: Path, given: Sequence[str], code: int, said: str
) -> None:
    start = words(tmp_path, "", *given)
    kept = [w for w in start if not w.startswith(("model=", "base_url=")) or w in given]
    done = agentlab(*kept)
    assert done.code == code, done.err
    assert done.err.count("\n") == 1
    assert said in done.err
    assert SECRET not in done.err
    assert [p.name for p in tmp_path.iterdir()] == ["eight.csv"]


def test_a_model_without_an_address_or_a_key_gets_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.SECRET", "")
    kept = [w for w in words(tmp_path, "") if not w.startswith("base_url=")]
    done = agentlab(*kept)
    assert done.code == 2
    assert f"nobody to ask; give base_url= of its server, or set {KEY}" in done.err


def test_a_dry_run_says_how_many_decisions_and_what_would_be_sent(tmp_path: Path) -> None:
    url = "http://127.0.0.1:9/v1"
    start = words(tmp_path, url, candidates())
    page = agentlab(*start, "--dry-run").out.splitlines()
    assert [line for line in page if line.startswith("up to 3 decisions by scripted; sent to " + url)]
    told = json.loads(agentlab(*start, "--dry-run", "--json").out)
    assert told["decisions"] == 3
    assert f"up to {LISTED} laws" in told["sent"]
    assert "no rows" in told["sent"]
    unlimited = [w for w in start if w != candidates()]
    timed = json.loads(agentlab(*unlimited, "budget.seconds=9", "--dry-run", "--json").out)
    assert timed["decisions"] is None


def entry(number: int, objective: float, formula: str = "") -> Entry:
    text = formula or f"A*E**{number + 2}"
    proposal = Proposal(number, "fit.laws", text, text, "test", "seed", (), number % 5)
    return Entry(number, proposal, Outcome("ok", "", objective, 10.0, 2, 5))


def growing(blocks: int) -> Iterator[tuple[int, list[Entry]]]:
    """Blocks, with the entries that are committed before each is asked for; the best ones change all the time."""
    for block in range(HALF * 2, HALF * (blocks + 2), HALF):
        yield block, [entry(n, -float(n % 7) - n / 10) for n in range(block - HALF)]


def vote(
    folder: Path, server: Scripted, models: Sequence[str], blocks: int, tokens: float = 1e9, known: int = 0
) -> list[tuple[int, ...]]:
    """The ids elected for each block by voters that begin, or go on where a trace with `known` decisions ends."""

    async def all_of_them() -> list[tuple[int, ...]]:
        chats = [Chat(server.url, m, env={}, retries=0) for m in models]
        voters = Voters(chats, seed=3, steps=blocks, purse=Purse(tokens=tokens))
        elected = []
        with Trace(folder / "trace.jsonl") as trace:
            if not trace.empty:
                voters.recall(read(folder / "trace.jsonl"), HALF * (known + 2))
            for block, entries in growing(blocks):
                archive = Archive()
                for one in entries:
                    archive.add(one)
                if block >= HALF * (known + 2):
                    await voters.choose(block, archive, trace)
                    elected.append(tuple(e.id for e in archive.chosen))
        for chat in chats:
            await chat.close()
        return elected

    return asyncio.run(all_of_them())


def sometimes_wrong(asked: Asked) -> str:
    return random_choice(asked) if random.Random(asked.seed).random() < 0.1 else prefers_well(asked)  # noqa: S311


def test_k_and_the_budget_go_on_from_the_decisions_on_record(tmp_path: Path) -> None:
    blocks, tokens = FIRST + 6, 50_000
    with serving(sometimes_wrong) as server:
        elected = vote(tmp_path, server, ["scripted"], blocks, tokens)
        whole, asked = trace_of(tmp_path), len(server.asked)
        requests = {(a.text, a.seed) for a in server.asked}
        assert len(requests) == asked
        records = decisions_of(tmp_path)
        lines = whole.splitlines(keepends=True)
        for known in (FIRST - 2, len(lines)):
            (tmp_path / "trace.jsonl").write_bytes(b"".join(lines[:known]))
            again = vote(tmp_path, server, ["scripted"], blocks, tokens, known)
            assert trace_of(tmp_path) == whole, known
            assert again == elected[known:]
            asked += sum(r["calls"] for r in records[known:])
            assert len(server.asked) == asked
    assert {(a.text, a.seed) for a in server.asked} == requests
    assert [r["k"] for r in records[:FIRST]] == [START] * FIRST
    assert min(r["k"] for r in records[FIRST:]) > START
    assert [r["block"] for r in records if r.get("undecided") == SPENT] == [records[-1]["block"]]
    assert FIRST + 1 < len(records) < blocks
    assert 0 < tokens - sum(sum(r["tokens"].values()) for r in records) < 2000, "not one call more would have fitted"


def test_dissent_asks_the_second_model_and_without_one_it_stays_undecided(tmp_path: Path) -> None:
    def answer(asked: Asked) -> str:
        return prefers_well(asked) if asked.model == "steady" else random_choice(asked)

    with serving(answer, models=("fickle", "steady")) as server:
        alone, both = tmp_path / "alone", tmp_path / "both"
        alone.mkdir()
        both.mkdir()
        none = vote(alone, server, ["fickle"], 2)
        elected = vote(both, server, ["fickle", "steady"], 2)
    undecided = [r for r in decisions_of(alone) if "undecided" in r]
    assert len(undecided) >= 2
    assert [k for k, r in zip(none, decisions_of(alone), strict=True) if "undecided" in r] == [()] * len(undecided)
    asked = [[t["rung"] for t in r["tally"]] for r in decisions_of(both)]
    assert asked.count(["base", "paraphrase", "second model"]) >= 2
    for (block, entries), chosen, rungs in zip(growing(2), elected, asked, strict=True):
        best = sorted(entries, key=lambda e: (e.outcome.objective, e.id))[:2]
        assert rungs[-1] != "second model" or chosen == tuple(sorted(e.id for e in best)), block
    assert b"steady" not in trace_of(both)


def test_nobody_is_asked_before_there_are_enough_laws_and_a_decision_about_others_is_no_replay(tmp_path: Path) -> None:
    def archive(count: int) -> Archive:
        found = Archive()
        for n in range(count):
            found.add(entry(n, -float(n)))
        return found

    async def check(server: Scripted) -> None:
        async with Chat(server.url, "scripted", env={}) as chat:
            with Trace(tmp_path / "trace.jsonl") as trace:
                voters = Voters([chat], seed=0, steps=3, purse=Purse())
                await voters.choose(4, archive(FEWEST - 1), trace)
                assert not server.asked
                await voters.choose(4, archive(FEWEST), trace)
                assert len(server.asked) == START
                voters = Voters([chat], seed=0, steps=3, purse=Purse())
                voters.recall(read(tmp_path / "trace.jsonl"), 4)
                with pytest.raises(TraceError, match="where another one was asked"):
                    await voters.choose(4, archive(FEWEST + 1), trace)

    with serving(prefers_well) as server:
        asyncio.run(check(server))


def test_half_of_the_edits_start_from_a_chosen_parent_and_without_one_nothing_changes() -> None:
    task = Task("t", (Variable("E"), Variable("N")), ("loss",))
    archive = Archive()
    for n, text in enumerate(("A*E**a", "A + B*log(E)", "A*E**a*N**b", "A/N", "A + B/E", "E**a + N**b")):
        archive.add(entry(n, float(n), text))

    def proposals(chosen: Sequence[int]) -> list[Proposal]:
        archive.choose(chosen)
        asked = (Mutate(task, 1).ask(index, archive, ()) for index in range(101, 401, 2))
        return [p for p in asked if p is not None]

    alone = proposals([])
    assert proposals([]) == alone
    usual, now = (
        sum(p.parents[:1] in ((4,), (5,)) for p in found) / len(found) for found in (alone, proposals([4, 5]))
    )
    assert usual < now - 0.2
    assert CHOSEN - 0.1 < now < CHOSEN + (1 - CHOSEN) * usual + 0.15
    assert proposals([99]) == alone
