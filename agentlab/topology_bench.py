"""`agentlab bench topology`: the towers of Hanoi by one simulated agent, by independent ones, and by a voting team.

Run i of every topology draws from the same stream of answers: the single agent is agent 0 of the independent ones, and
its answer to a step is the first that the team draws there, as long as they are in the same state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from agentlab.errors import AgentlabError
from agentlab.hanoi import Towers, TowersJob, simulate
from agentlab.hanoi_oracle import Answers, Faults, Oracle
from agentlab.steps import Chain, Tell, Voting, silent
from agentlab.topology import report
from agentlab.topology_trace import TOPOLOGIES, Call, Ending, Name, Run, run_records
from agentlab.trace import Record, Trace
from agentlab.vote import Answer, RedFlag, Wave

MOST_CALLS = 20_000_000
"""Calls that a trace may be asked to hold: about a gigabyte."""

COLUMNS = (
    "topology", "agents", "k", "calls a run", "overhead", "redundancy", "step errors", "amplified", "failed runs",
    "amplified", "efficiency",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Setting:
    """What `agentlab bench topology` is told.

    `error` is the share of wrong answers, `correlation` that of answers to the same step with one another; `agents`
    work apart or as a team, which takes the first answer that is `k` votes ahead. `out` is the folder of the traces.
    """

    disks: int = 6
    error: float = 0.02
    agents: int = 3
    k: int = 3
    repetitions: int = 50
    correlation: float = 0.0
    seed: int = 0
    out: str = "topology"


def run(setting: Setting, tell: Tell = silent) -> Record:
    """Run each topology `repetitions` times, write a trace of each below `out`, and report on these files.

    `tell` hears runs done and in all. The same setting writes the same bytes; traces that are there are replaced.

    Raises:
        AgentlabError: a setting makes no sense, or `out` cannot be written.
    """
    towers, faults = _checked(setting)
    faced = {"disks": setting.disks, "error": setting.error, "correlation": setting.correlation}
    job = {"job": "hanoi", "answers": "simulated", **faced}
    paths = [_fresh(Path(setting.out), name) for name in TOPOLOGIES]
    seeds = [int(np.random.SeedSequence([setting.seed, i]).generate_state(1)[0]) for i in range(setting.repetitions)]
    for number, (path, name) in enumerate(zip(paths, TOPOLOGIES, strict=True)):
        agents, k = (1 if name == "single" else setting.agents), (setting.k if name == "team" else 1)
        with Trace(path) as trace:
            for i, seed in enumerate(seeds):
                calls, endings = play(name, towers, Answers(towers, Oracle(faults, seed)), agents, k)
                trace.append(run_records(Run(name, agents, k, seed, job, tuple(calls), tuple(endings))))
                tell(number * len(seeds) + i + 1, len(TOPOLOGIES) * len(seeds))
    told = {"traces": [str(path) for path in paths], "simulated": True, "setting": asdict(setting)}
    return {"bench": "topology", **report(paths).as_record(), **told}


def _checked(setting: Setting) -> tuple[Towers, Faults]:
    towers = Towers(setting.disks)
    faults = Faults(setting.error, correlation=setting.correlation, steps=towers.moves)
    if setting.agents < 2:
        raise AgentlabError(f"topology: agents={setting.agents}; write 2 or more, one agent is run anyway")
    if setting.k < 1 or setting.repetitions < 1 or setting.seed < 0:
        raise AgentlabError("topology: k and repetitions are 1 or more, seed is 0 or more")
    if setting.correlation and setting.error in (0, 1):
        raise AgentlabError(f"topology: error={setting.error:g} leaves nothing to correlate; leave correlation= out")
    if setting.repetitions * towers.moves * max(setting.agents, setting.k) > MOST_CALLS:
        raise AgentlabError(f"topology: more than {MOST_CALLS:,} calls; write fewer disks or repetitions")
    return towers, faults


def _fresh(folder: Path, name: Name) -> Path:
    path = folder / f"{name}.jsonl"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    except OSError as error:
        raise AgentlabError(f"topology: out={folder} cannot be written ({error.strerror}); name a folder") from None
    return path


def play(topology: Name, towers: Towers, answers: Answers, agents: int, k: int) -> tuple[list[Call], list[Ending]]:
    """One run: the calls in order, and the outcome of the team or of each agent."""
    calls: list[Call] = []
    if topology == "team":
        return calls, [_ending(towers, _Table(answers, calls, agents), k, None)]
    return calls, [_ending(towers, _Alone(answers, calls, agent, agents), 1, agent) for agent in range(agents)]


class _Table:
    """The draw of a team: agents take turns round the table, step after step, and each draw is noted."""

    def __init__(self, answers: Answers, calls: list[Call], agents: int) -> None:
        self._answers, self._calls, self._agents = answers, calls, agents

    def __call__(self, state: int, index: int, wave: Wave) -> list[Answer]:
        found = self._answers.draw(state, index, wave)
        for answer in found:
            self._calls.append(_call(len(self._calls) % self._agents, index, answer))
        return found


class _Alone:
    """The draw of one of several agents that do not talk: every `agents`-th draw of the stream is its own."""

    def __init__(self, answers: Answers, calls: list[Call], agent: int, agents: int) -> None:
        self._answers, self._calls, self._agent, self._agents = answers, calls, agent, agents

    def __call__(self, state: int, index: int, wave: Wave) -> list[Answer]:
        found: list[Answer] = []
        for number in range(wave.number, wave.number + wave.count):
            own = Wave(wave.rung, self._agent + number * self._agents, 1)
            found += self._answers.draw(state, index, own)
            self._calls.append(_call(self._agent, index, found[-1]))
        return found


def _call(agent: int, step: int, answer: Answer) -> Call:
    return Call(agent, step, flag=answer.reason) if isinstance(answer, RedFlag) else Call(agent, step, answer)


def _ending(towers: Towers, draw: _Table | _Alone, k: int, agent: int | None) -> Ending:
    """Play to the end, judge each step in the state it was asked in, and have the referee judge the whole."""
    chain = Chain(TowersJob(towers, draw), 0, towers.moves, towers.begin(), Voting(k))
    moves, wrong = bytearray(), []
    while not chain.over:
        index, right = chain.index, towers.right(chain.state, chain.index)
        done: list[Hashable] = []
        chain.advance(1, done)
        if done != [right]:
            wrong.append(index)
        moves += bytes(key & 15 for key in done if isinstance(key, int))
    if chain.undecided is not None:
        return Ending(None, right=False, wrong=tuple(wrong), agent=agent)
    solved = not simulate(towers.disks, moves)
    return Ending(hashlib.sha256(moves).hexdigest(), solved, tuple(wrong), agent)


def page(result: Record) -> str:
    """The result for a person: a table, what its columns are, and what to run next."""
    setting, rows = result["setting"], result["topologies"]
    job = f"{setting['disks']} disks in {2 ** setting['disks'] - 1:,} steps, error {setting['error']:g}"
    lines = [f"{job}, correlation {setting['correlation']:g}; {setting['repetitions']:,} runs of each topology", ""]
    cells = [COLUMNS, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in cells) + 2 for i in range(1, len(COLUMNS))]
    lines += [f"{line[0]:12s}" + "".join(map(str.rjust, line[1:], widths)) for line in cells] + [""]
    lines += [
        "step errors  steps of the result that were wrong in the state they were asked in; amplified: over one agent's",
        "failed runs  runs whose result does not solve the towers; amplified: over one agent's",
        "redundancy   pairs of agents whose answers to a step, next state included, are exactly the same",
        "efficiency   share of solved runs, over calls a run as a multiple of one agent's",
    ]
    tied = next(row["tied"] for row in rows if row["topology"] == "independent")
    if tied:
        lines.append(
            f"independent  in {tied:,} runs no result was the most frequent; the first agent's of those was taken"
        )
    reasons = dict.fromkeys(text for row in rows for text in row["why"].values())
    lines += [f"-            {text}" for text in reasons]
    lines += ["", f"the answers are simulated; the figures come from {', '.join(result['traces'])}"]
    return "\n".join([*lines, "", f"next: {_next(setting)}"])


def _cells(row: Record) -> tuple[str, ...]:
    return (
        row["topology"], str(row["agents"]), str(row["k"]), f"{row['turns']:,.1f}",
        _shown(row["overhead"], "+.0%"), _shown(row["redundancy"], ".1%"),
        f"{row['wrong']:,} of {row['steps']:,}", _shown(row["amplification"], ".2f"),
        f"{row['run_error']:.0%}", _shown(row["run_amplification"], ".2f"), _shown(row["efficiency"], ".3f"),
    )  # fmt: skip


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _next(setting: Record) -> str:
    if setting["error"] in (0, 1):
        return "agentlab bench topology"
    kept = " ".join(f"{name}={setting[name]:g}" for name in ("disks", "error"))
    if setting["correlation"]:
        return f"agentlab bench hanoi {kept} k={setting['k']} correlation={setting['correlation']:g}"
    return f"agentlab bench topology {kept} agents={setting['agents']} k={setting['k']} correlation=0.9"
