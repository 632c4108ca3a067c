"""Whole runs with a model that writes laws, against a scripted server: replayed, killed, capped, approved, blind."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from scripted_model import Asked, Said, Scripted, serving
from test_discover_model import SECRET, Done, agentlab, candidates, trace_of, words

from agentlab import runs, semconv
from agentlab.models import KEY
from agentlab.trace import Record, read

AGENTLAB = Path(sys.executable).with_name("agentlab")
COUNT = 32
FORMS = ("P + Q*E**r", "P*E**r", "P + Q*log(E)", "P*log(E)", "P + Q*E", "P*exp(Q*E)", "P + Q*sqrt(E)", "E**r + P")


def writes(asked: Asked) -> str:
    """A scripted model: two laws a reply out of its list, by the seed it is sent; the first two where it shall vote."""
    if "answer =" in asked.text:
        first, second = re.findall(r"^- (\d+):", asked.text, re.MULTILINE)[:2]
        return f"answer = {first}, {second}"
    drawn = random.Random(asked.seed)  # noqa: S311 - a script, no secret
    forms = [f"{form} + {drawn.random():.3f}*E**{drawn.randint(2, 4)}" for form in drawn.sample(FORMS, 2)]
    good = [{"formula": f, "idea": f"idea {asked.seed % 7}"} for f in drawn.sample(FORMS, 2)]
    return json.dumps({"proposals": [*good, {"formula": forms[0]}, {"formula": "E +"}]})


def start(folder: Path, url: str, *more: str) -> list[str]:
    return words(folder, url, "proposer=evolve", candidates(COUNT), *more)


def of(kind: str, folder: Path) -> list[Record]:
    return [r for r in read(folder / "trace.jsonl") if r["kind"] == kind]


class Run(NamedTuple):
    """A run that nobody disturbed, its server gone."""

    folder: Path
    result: dict[str, Any]
    server: Scripted


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("whole")
    with serving(writes) as server:
        done = agentlab(*start(folder, server.url), "--json")
    assert done.code == 0, done.err
    return Run(folder / "eight.csv-001", json.loads(done.out.splitlines()[-1]), server)


def test_a_run_holds_what_was_asked_and_answered_under_the_names_of_the_conventions(whole: Run) -> None:
    replies = of("reply", whole.folder)
    assert replies
    for reply in replies:
        assert reply[semconv.OPERATION] == semconv.CHAT
        assert reply[semconv.MODEL] == "scripted"
        (asked,) = reply[semconv.INPUT_MESSAGES]
        assert asked["parts"][0]["content"] in [a.text for a in whole.server.asked]
        assert reply[semconv.OUTPUT_MESSAGES][0]["parts"][0]["content"].startswith('{"proposals"')
        assert any(reason.startswith("not a formula") for reason, _ in reply["rejects"])
    counts = whole.result["counts"]["replies"]
    entries = of("entry", whole.folder)
    assert len(entries) == COUNT
    assert counts["tried"] == sum("call" in e for e in entries) > 0
    assert {e["proposer"] for e in entries} == {"evolve", "mutate"}
    assert whole.result["counts"]["rejected"]["seen before"] > 0
    assert whole.result["proposer"] == "evolve"
    assert whole.result["blind"] is False


def test_every_entry_that_a_model_wrote_names_its_reply_which_holds_it(whole: Run) -> None:
    drafts = {r["call"]: [d[1] for d in r["drafts"]] for r in of("reply", whole.folder)}
    written = [e for e in of("entry", whole.folder) if "call" in e]
    assert all(e["key"] in drafts[e["call"]] for e in written)
    keys = [e["key"] for e in of("entry", whole.folder) if e["key"]]
    assert len(set(keys)) == len(keys), "what was proposed before is not fitted again"


def test_the_tokens_of_a_run_are_those_that_the_server_counted(whole: Run) -> None:
    lost = sum(r["tokens"] for r in of("lost", whole.folder))
    answered = sum(sum(r["tokens"].values()) for r in of("decision", whole.folder))
    answered += sum(r[semconv.INPUT_TOKENS] + r[semconv.OUTPUT_TOKENS] for r in of("reply", whole.folder))
    assert whole.result["cost"]["tokens"] == answered + lost
    if not lost:
        assert answered == whole.server.tokens


def test_a_finished_run_replays_to_the_same_bytes_without_its_model(whole: Run, tmp_path: Path) -> None:
    done = agentlab("runs", "replay", str(whole.folder), f"--out={tmp_path}", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out.splitlines()[-1])
    assert told["same"]
    assert trace_of(Path(told["dir"])) == trace_of(whole.folder)
    assert runs.result(Path(told["dir"]))["law"] == whole.result["law"]


def test_a_replay_of_a_trace_that_was_changed_says_where(whole: Run, tmp_path: Path) -> None:
    copy = tmp_path / "changed"
    copy.mkdir()
    for path in whole.folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    lines = trace_of(copy).splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if b'"kind":"reply"' in line)
    line = lines[at].replace(b'"drafts":[["', b'"drafts":[["0*', 1)
    (copy / "trace.jsonl").write_bytes(b"".join([*lines[:at], line, *lines[at + 1 :]]))
    done = agentlab("runs", "replay", str(copy), f"--out={tmp_path}")
    assert done.code == 2
    assert re.search(r"line \d+ is another than in|answers another prompt", done.err.splitlines()[-1])


# ---- programs ----

WAVE = """import numpy as np

def law(X, params):
    return params[0] + params[1] * np.sin(params[2] * np.log(X[:, 0]))

def fit(X, y):
    found = []
    for w in np.linspace(3, 5, 201):
        B = np.stack([np.ones(len(y)), np.sin(w * np.log(X[:, 0]))], axis=1)
        c, *_ = np.linalg.lstsq(B, y, rcond=None)
        found.append((float(np.sum((B @ c - y) ** 2)), [c[0], c[1], w]))
    return min(found)[1]
"""
LOOP = "def law(X, params):\n    while True:\n        X = X\n\ndef fit(X, y):\n    return [y.mean()]"


def programs(asked: Asked) -> str:
    """A scripted model that knows a wave, which no formula can write; it also loops, and reads a file."""
    if "answer =" in asked.text:
        return "none"
    spied = WAVE.replace("params[0] +", "params[0] + len(open('/etc/passwd').read()) * 0 +")
    listed = [{"program": p, "idea": "try"} for p in (WAVE, LOOP, spied, "law = 3")]
    return json.dumps({"proposals": listed if asked.number == 0 else listed[:1]})


def test_a_program_is_judged_in_a_sandbox_believed_and_scored_on_the_hold_out(tmp_path: Path, bwrap: str) -> None:
    data = tmp_path / "wave.csv"
    sizes = np.geomspace(1e3, 1e6, 60)
    data.write_text("n,y\n" + "".join(f"{n},{2 + 0.3 * np.sin(4 * np.log(n))}\n" for n in sizes))
    rows = [f"data={data}", "target=y", "features=n", "residual=plain", "max_params=3", "workers=1", "window=8"]
    with serving(programs) as server:
        ask = ["model=scripted", f"base_url={server.url}", "proposer=code", "sandbox=bubblewrap", candidates(16)]
        done = agentlab("discover", *rows, *ask, "holdout=n > 5e5", f"out={tmp_path}", "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out.splitlines()[-1])
    assert result["law"]["program"]
    assert result["law"]["formula"].rstrip() == WAVE.rstrip()
    assert (tmp_path / "wave.csv-001" / "law.py").read_text() == WAVE
    assert result["score"]["holdout"]["r2"] > 0.999
    rejected = result["counts"]["rejected"]
    assert any("law" in reason or "program" in reason for reason in rejected), rejected
    for verb in (("audit",), ("plan", "--flops", "1e20"), ("predict", f"data={data}")):
        refused = agentlab(verb[0], str(tmp_path / "wave.csv-001"), *verb[1:])
        assert refused.code == 2, verb
        assert "program" in refused.err
        assert refused.err.count("\n") == 1
    assert "a program, in" in agentlab("runs", "show", str(tmp_path / "wave.csv-001")).out


# ---- killed ----


def spent(folder: Path) -> tuple[int, int]:
    """Calls for proposals that went out, and those among them that were lost."""
    sent = [r for r in of("sent", folder) if "call" in r]
    return len(sent), sum(len(r["calls"]) for r in of("lost", folder))


def test_a_run_killed_at_random_points_repeats_at_most_the_calls_in_flight_and_charges_both(
    whole: Run, tmp_path: Path
) -> None:
    drawn = random.Random(5)  # noqa: S311 - no secret
    env = {**os.environ, KEY: SECRET}
    with serving(lambda asked: Said(writes(asked), delay=0.05)) as server:
        command = [str(AGENTLAB), *start(tmp_path, server.url)]
        kills = 0
        for _ in range(2):
            process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            kills += _killed(process, tmp_path, drawn)
            folder = tmp_path / "eight.csv-001"
            if (folder / "config.json").exists():
                command = [str(AGENTLAB), "runs", "resume", str(folder)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    result = runs.result(folder)
    sent, lost = spent(folder)
    replies = len(of("reply", folder))
    assert kills >= 1
    assert sent == replies + lost, "every call that went out is answered, or on record as lost"
    assert lost <= 4 * (kills + 1)
    assert result["cost"]["tokens"] >= server.tokens, "lost calls are charged as their worst case"
    assert len({e["id"] for e in of("entry", folder)}) == COUNT
    replayed = agentlab("runs", "replay", str(folder), f"--out={tmp_path}")
    assert replayed.code == 0, replayed.err
    assert result["law"]["key"] == whole.result["law"]["key"]


def _killed(process: subprocess.Popen[bytes], place: Path, drawn: random.Random) -> bool:
    """Whether it was killed while it searched: once its trace has grown by some lines."""
    path, goal = place / "eight.csv-001" / "trace.jsonl", None
    with process:
        while process.poll() is None:
            size = path.read_bytes().count(b"\n") if path.exists() else 0
            goal = goal or size + drawn.randint(4, 14)
            if size >= goal:
                process.send_signal(signal.SIGKILL)
                return True
            time.sleep(0.005)
    return False


# ---- caps ----


@pytest.mark.parametrize("cap", [9_000, 30_000])
def test_a_budget_of_tokens_is_never_exceeded_and_the_run_ends_with_a_law(tmp_path: Path, cap: int) -> None:
    with serving(writes) as server:
        done = agentlab(*start(tmp_path, server.url, f"budget.tokens={cap}"), "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out.splitlines()[-1])
    assert server.tokens <= result["cost"]["tokens"] <= cap
    assert result["law"]["formula"]
    block = [a.text for a in server.asked if "Budget:" in a.text]
    assert all("tokens:" in text and "left (" in text for text in block)


def priced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "prices.toml"
    path.write_text('["scripted"]\ninput = 1.0\noutput = 2.0\n')
    monkeypatch.setenv("AGENTLAB_PRICES", str(path))


def test_money_is_counted_from_the_users_prices_and_capped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(writes) as server:
        refused = agentlab(*start(tmp_path, server.url, "budget.usd=1"))
        assert refused.code == 2
        assert "no price of 'scripted' is known" in refused.err
        priced(tmp_path, monkeypatch)
        done = agentlab(*start(tmp_path, server.url, "budget.usd=0.02"), "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out.splitlines()[-1])
    counted = sum(r.tokens_in * 1e-6 + r.tokens_out * 2e-6 for r in server.receipts)
    assert 0 < counted <= result["cost"]["usd"] + 1e-9 <= 0.02 + 1e-9
    assert "budget.usd" in done.err, "half of the budget was told of"


# ---- approval ----


def test_calls_above_the_limit_wait_for_somebody_and_the_run_loses_nothing(tmp_path: Path) -> None:
    with serving(writes) as server:
        done = agentlab(*start(tmp_path, server.url, "approve.tokens=100"))
        assert done.code == 2
        assert "nobody is here to ask; resume the run at a terminal, or with --approve or --deny" in done.err
        assert not [a for a in server.asked if "proposals" in a.text], "nothing was sent before it was approved"
        folder = str(tmp_path / "eight.csv-001")
        approved = agentlab("runs", "resume", folder, "--approve", "--json")
        assert approved.code == 0, approved.err
        assert next(r["approved"] for r in of("approval", Path(folder)))
        assert json.loads(approved.out.splitlines()[-1])["counts"]["replies"]["tried"] > 0


def test_a_policy_denies_without_asking(tmp_path: Path) -> None:
    with serving(writes) as server:
        done = agentlab(*start(tmp_path, server.url, "approve.tokens=100", "approve.otherwise=no"), "--json")
    assert done.code == 0, done.err
    assert not [a for a in server.asked if "proposals" in a.text]
    assert [r["approved"] for r in of("approval", tmp_path / "eight.csv-001")] == [False]


# ---- what a model sees, and does ----


def test_a_blind_run_shows_no_name_and_says_so(tmp_path: Path) -> None:
    def blind(asked: Asked) -> str:
        if "answer =" in asked.text:
            first, second = re.findall(r"^- (\d+):", asked.text, re.MULTILINE)[:2]
            return f"answer = {first}, {second}"
        forms = ("P + Q*x1**r", "Q/(x1 + P)", "P*exp(Q*x1)", "nonsense(x1)", f"P + {asked.number}.5*x1**2")
        return json.dumps({"proposals": [{"formula": f, "idea": "a power"} for f in forms]})

    with serving(blind) as server:
        given = start(tmp_path, server.url, "blind=true")
        data = tmp_path / "eight.csv"
        data.write_text(data.read_text().replace("E,loss", "active_size,final_loss"))
        given = [w.replace("features=E", "features=active_size").replace("=loss", "=final_loss") for w in given]
        done = agentlab(*given, "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out.splitlines()[-1])
    assert result["blind"]
    assert "names and description were hidden" in result["verdict"]
    assert any("seen before" in a.text for a in server.asked)
    assert any("answer =" in a.text for a in server.asked)
    for asked in server.asked:
        assert "active" not in asked.text
        assert "final_loss" not in asked.text
    assert "hidden (blind)" in agentlab("runs", "show", str(tmp_path / "eight.csv-001")).out


def failing(status: int) -> Callable[[Asked], Said]:
    return lambda asked: Said(f"{SECRET} is no good", status=status)


@pytest.mark.parametrize(("status", "kind"), [(401, "key refused"), (404, "no such model")])
def test_a_model_that_always_fails_is_told_of_and_given_up_and_the_search_goes_on(
    tmp_path: Path, status: int, kind: str
) -> None:
    with serving(failing(status)) as server:
        done = agentlab(*start(tmp_path, server.url), "--json")
    assert done.code == 0, done.err
    assert {401: "refused (401)", 404: "no such model there"}[status] in done.err
    result = json.loads(done.out.splitlines()[-1])
    assert result["counts"]["rejected"][f"call failed, {kind}"] >= 3
    assert result["law"]["formula"]
    assert len(of("entry", tmp_path / "eight.csv-001")) == COUNT


def test_no_file_of_a_run_holds_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_TOKEN", "tok-planted-9876543210")
    turn = itertools.cycle([200, 401, 200, 500])

    def leaks(asked: Asked) -> Said:
        told = f"{asked.key} and tok-planted-9876543210"
        status = next(turn)
        if asked.number % 8 == 0:
            idea = "".join(f"\\u{ord(c):04x}" for c in asked.key)
            return Said('{"proposals": [{"formula": "P + Q*E**r + 1.5", "idea": "' + idea + '"}]}')
        return Said(told + writes(asked) if status == 200 else told, status=status)

    with serving(leaks) as server:
        done = agentlab(*start(tmp_path, server.url), "--json")
    assert done.code == 0, done.err
    assert any(a.key == SECRET for a in server.asked)
    for text in (done.out, done.err, *(p.read_bytes().decode("latin-1") for p in tmp_path.rglob("*") if p.is_file())):
        assert SECRET not in text
        assert "tok-planted" not in text


def test_a_slow_model_keeps_no_candidate_waiting(tmp_path: Path) -> None:
    with serving(lambda asked: Said(writes(asked), delay=1.0)) as server:
        done = agentlab(*start(tmp_path, server.url), "--json")
    assert done.code == 0, done.err
    kinds = [(r["kind"], "call" in r) for r in read(tmp_path / "eight.csv-001" / "trace.jsonl")]
    sent, reply = kinds.index(("sent", True)), kinds.index(("reply", True))
    assert ("entry", False) in kinds[sent:reply], "candidates were tried while the model was thinking"
    assert json.loads(done.out.splitlines()[-1])["counts"]["replies"]["tried"] > 0, "and its proposals still counted"


def test_a_dry_run_shows_the_first_prompt_and_what_to_expect_and_sends_nothing(tmp_path: Path) -> None:
    with serving(writes) as server:
        page = agentlab(*start(tmp_path, server.url), "--dry-run")
        told = json.loads(agentlab(*start(tmp_path, server.url), "--dry-run", "--json").out)
    assert page.code == 0, page.err
    assert not server.asked
    for part in ("proposals: about", "votes: about", "the first prompt to", '"E"', "nothing was run"):
        assert part in page.out, part
    assert told["first_prompt"].startswith("You find scaling laws")
    assert {e["what"] for e in told["estimates"]} == {"proposals", "votes"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("proposer=evolve",), "it writes with a model; add model=NAME"),
        (("blind=true",), "blind= is given without a model"),
        (("approve.usd=1",), "approve.usd= is given without a model"),
        (("sandbox=docker",), "only programs and experiments need one"),
        (("approve.otherwise=maybe",), "not one of ask, no"),
    ],
)
def test_settings_that_do_not_fit_get_one_line(tmp_path: Path, given: tuple[str, ...], said: str) -> None:
    start = [w for w in words(tmp_path, "", *given) if not w.startswith(("model=", "base_url="))]
    if "proposer=evolve" not in given:
        start = [w for w in start if not w.startswith("proposer=")]
    done: Done = agentlab(*start)
    assert done.code == 2, done.err
    assert said in done.err
    assert done.err.count("\n") == 1
