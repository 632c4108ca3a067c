"""Checkpoints of the loop's graph: resumed in another process, kept small, and never in the way of a run."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import pytest
from conftest import Postgres
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, interrupt

from agentlab.checkpoints import FILE, VARIABLE, open_saver, prune
from agentlab.errors import AgentlabError, BackendError
from agentlab.words import UsageError

ROUNDS = 4
SECRET = "hush-hush-0123"  # noqa: S105 -- made up
ON: Any = {"configurable": {"thread_id": "one"}}

Where = tuple[Path, str | None]
"""What a saver is opened with."""


class Cursor(TypedDict):
    """A state as the loop's: how far it is, and what a person said."""

    asked: int
    said: str


def ask(state: Cursor) -> dict[str, Any]:
    return {"asked": state["asked"] + 1}


def approve(state: Cursor) -> dict[str, Any]:
    """A person is asked once, in the second round."""
    return {"said": interrupt({"asked": state["asked"], "usd": 2.5})} if state["asked"] == 2 else {}


def build(saver: BaseCheckpointSaver[str]) -> CompiledStateGraph[Cursor, None, Cursor, Cursor]:
    graph = StateGraph(Cursor)
    graph.add_node("ask", ask)
    graph.add_node("approve", approve)
    graph.add_edge(START, "ask")
    graph.add_edge("ask", "approve")
    graph.add_conditional_edges("approve", lambda s: END if s["asked"] == ROUNDS else "ask", ["ask", END])
    return graph.compile(checkpointer=saver)


async def begin(where: Where, thread: str = "one") -> Any:
    """Run until a person is asked; the question."""
    async with open_saver(*where) as saver:
        config: Any = {"configurable": {"thread_id": thread}}
        return (await build(saver).ainvoke({"asked": 0, "said": ""}, config))["__interrupt__"][0].value


async def answer(where: Where, said: str) -> Any:
    """Give a person's answer and run to the end; the last state."""
    async with open_saver(*where) as saver:
        return await build(saver).ainvoke(Command(resume=said), ON)


async def kept(where: Where, thread: str = "one") -> int:
    """How many checkpoints there are."""
    async with open_saver(*where) as saver:
        return len([c async for c in saver.alist({"configurable": {"thread_id": thread}})])


async def use(where: Where) -> None:
    async with open_saver(*where):
        pass


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Where:
    """A place for checkpoints that holds none yet, of each kind."""
    return tmp_path, None if request.param == "sqlite" else request.getfixturevalue("postgres")


def test_a_graph_that_waits_for_a_person_goes_on_in_another_process(tmp_path: Path, postgres: str) -> None:
    program = (
        "import asyncio, sys; from pathlib import Path; from test_checkpoints import begin;"
        "print(*(asyncio.run(begin((Path(sys.argv[1]), url))) for url in (None, sys.argv[2])))"
    )
    command = [sys.executable, "-c", program, str(tmp_path), postgres]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    assert done.stdout == "{'asked': 2, 'usd': 2.5} {'asked': 2, 'usd': 2.5}\n", done.stderr
    for url in (None, postgres):
        assert asyncio.run(answer((tmp_path, url), "yes")) == {"asked": ROUNDS, "said": "yes"}


def test_pruning_keeps_what_a_waiting_graph_goes_on_from_and_other_threads(where: Where) -> None:
    async def go() -> None:
        await begin(where)
        await begin(where, "other")
        before = await kept(where)
        async with open_saver(*where) as saver:
            await prune(saver, "one")
        assert (await kept(where), await kept(where, "other")) == (1, before)
        assert before > 1
        assert await answer(where, "no") == {"asked": ROUNDS, "said": "no"}
        async with open_saver(*where) as saver:
            await prune(saver, "one")
            await prune(saver, "one")
            assert (await build(saver).aget_state(ON)).values == {"asked": ROUNDS, "said": "no"}
            await prune(saver, "never seen")
        assert await kept(where) == 1

    asyncio.run(go())


def test_a_graph_that_is_pruned_while_it_runs_ends_as_one_that_is_not(where: Where) -> None:
    async def go() -> Any:
        async with open_saver(*where) as saver:
            stream = build(saver).astream({"asked": 0, "said": ""}, ON, stream_mode="values")
            async for _ in stream:
                await prune(saver, "one")
            async for _ in build(saver).astream(Command(resume="yes"), ON, stream_mode="values"):
                await prune(saver, "one")
            return (await build(saver).aget_state(ON)).values

    assert asyncio.run(go()) == {"asked": ROUNDS, "said": "yes"}


def test_the_variable_left_empty_means_a_file_in_the_folder(tmp_path: Path) -> None:
    asyncio.run(begin((tmp_path, "")))
    assert (tmp_path / FILE).is_file()


@pytest.mark.parametrize("harm", ["text", "middle", "cut", "empty"])
def test_a_damaged_file_is_begun_anew(tmp_path: Path, harm: str) -> None:
    asyncio.run(begin((tmp_path, None)))
    path = tmp_path / FILE
    whole = path.read_bytes()
    damaged = {
        "text": b"no database\n" * 1000,
        "middle": whole[:4096] + b"\xff" * 4096 + whole[8192:],
        "cut": whole[:5000],
        "empty": b"",
    }
    path.write_bytes(damaged[harm])
    assert asyncio.run(kept((tmp_path, None))) == 0
    assert asyncio.run(begin((tmp_path, None)))["asked"] == 2


def test_a_file_that_cannot_be_opened_is_one_line_and_stays(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(BackendError, match=rf"{FILE}: checkpoints cannot be kept there .*resume$"):
        asyncio.run(use((tmp_path, None)))


def test_a_checkpoint_never_brings_a_type_of_another_module(tmp_path: Path) -> None:
    """Whoever can write to a shared database must not run code in ours."""

    async def go() -> object:
        async with open_saver(tmp_path) as saver:
            return saver.serde.loads_typed(saver.serde.dumps_typed({"asked": 1, "what": Postgres(tmp_path, tmp_path)}))

    read = asyncio.run(go())
    assert isinstance(read, dict)
    assert read["asked"] == 1
    assert not isinstance(read["what"], Postgres)


def test_runs_that_open_a_new_database_at_once_all_may(postgres: str, tmp_path: Path) -> None:
    async def go() -> list[Any]:
        return await asyncio.gather(*(begin((tmp_path, postgres), f"thread {n}") for n in range(6)))

    assert asyncio.run(go()) == [{"asked": 2, "usd": 2.5}] * 6


BAD_URLS = {
    f"mysql://ann:{SECRET}@db.example/runs": "is no address",
    f"host=db.example password={SECRET}": "is no address",
    f"postgresql+psycopg://ann:{SECRET}@db.example/runs": "is no address",
    f"postgresql://ann:{SECRET}@db.example/runs?nonsense={SECRET}": "cannot be read; write an address",
    f"postgresql://ann:{SECRET}@{SECRET}@db.example/runs": "cannot be read; write @ as %40",
    f"postgresql://ann:{SECRET}/{SECRET}@db.example/runs": "cannot be read; write @ as %40",
    f"postgresql://ann:{SECRET}@127.0.0.1:1/runs": r"the database runs on 127\.0\.0\.1 does not answer",
    f"postgres://ann:{SECRET}@/runs?host=/nowhere": "the database runs on /nowhere does not answer",
    f"postgres://ann:{SECRET}@127.0.0.1:1": r"the database the user's own on 127\.0\.0\.1 does not answer",
}


@pytest.mark.parametrize(("url", "says"), BAD_URLS.items(), ids=range(len(BAD_URLS)))
def test_a_bad_address_is_one_line_without_the_password(url: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(AgentlabError, match=f"^[^\n]*{says}[^\n]*$") as raised:
        asyncio.run(use((tmp_path, url)))
    assert isinstance(raised.value, BackendError if "answer" in says else UsageError)
    assert VARIABLE in str(raised.value)
    assert SECRET not in str(raised.value)
    assert not list(tmp_path.iterdir())


Wrong = Callable[[str], str]


@pytest.mark.parametrize(
    "wrong",
    [lambda u: u.replace("agentlab:", f"agentlab:{SECRET}"), lambda u: u.replace("/runs", "/elsewhere")],
    ids=["password", "database"],
)
def test_a_server_that_lets_nobody_in_is_one_line(wrong: Wrong, postgres: str, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"^[^\n]*does not let the user in[^\n]*$") as raised:
        asyncio.run(use((tmp_path, wrong(postgres))))
    assert SECRET not in str(raised.value)


def test_a_server_that_goes_away_under_a_run_is_one_line(postgres: str, tmp_path: Path) -> None:
    import psycopg  # noqa: PLC0415 -- an extra

    async def go() -> None:
        async with open_saver(tmp_path, postgres) as saver:
            graph = build(saver)
            with psycopg.connect(postgres, autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
            await graph.ainvoke({"asked": 0, "said": ""}, ON)

    with pytest.raises(BackendError, match=r"^the database runs on [^\n]*: checkpoints cannot be kept there[^\n]*$"):
        asyncio.run(go())


def test_a_saver_does_not_show_the_password(postgres: str, postgres_server: Postgres, tmp_path: Path) -> None:
    async def go() -> str:
        async with open_saver(tmp_path, postgres) as saver:
            return f"{saver!r} {vars(saver)!r}"

    assert postgres_server.password not in asyncio.run(go())


def test_an_extra_that_is_missing_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(BackendError, match=r"pip install 'agentlab-discovery\[postgres\]'$"):
        asyncio.run(use((tmp_path, "postgresql://ann@db.example/runs")))
