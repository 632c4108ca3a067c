"""The same sandboxes on a Ray cluster: an actor on some node holds one of the others and does there what is asked here.

It is as strong as the sandbox inside. The nodes need agentlab installed, and what the inner sandbox needs.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from types import TracebackType
from typing import Any, ClassVar, Self

from agentlab.envs import STRICT, Executed, Failure, Limits, Reply, SandboxError, Talk
from agentlab.envs._choose import choose

from agentlab.errors import AgentlabError

ADDRESS = "RAY_ADDRESS"
"""Variable that names the cluster; without it one of this machine is used, or started."""
START = 120.0
"""Seconds until the cluster must have found a place for the actor."""
SLACK = 30.0
"""Seconds that an answer may take beyond its own time-out before the node is given up."""


class Sandbox:
    """An actor with a sandbox inside; `inner` is one of the others or "auto", `resources` what Ray reserves for it."""

    confines: ClassVar[bool] = True
    strength: ClassVar[int] = 0  # never by itself: a cluster is asked for

    def __init__(
        self,
        image: str = "law",
        limits: Limits = STRICT,
        *,
        inner: str = "auto",
        address: str | None = None,
        resources: Mapping[str, float] | None = None,
    ) -> None:
        self._image, self._limits, self._inner = image, limits, inner
        self._address, self._resources = address, dict(resources or {})
        self._actor: Any = None
        self.python, self.programs = "", ""
        self.where = ""

    @classmethod
    def missing(cls, image: str = "law") -> str:
        """What keeps it from working here; a cluster that cannot be reached is told when it is asked for."""
        del image
        try:
            import ray  # noqa: F401, PLC0415 - heavy, and only for those who have it
        except ImportError:
            return "the package ray is missing; pip install '.[ray]' in the checkout"
        return ""

    async def __aenter__(self) -> Self:
        """Finds the cluster, places the actor and opens the sandbox inside it."""
        missing = self.missing()
        if missing:
            raise SandboxError(f"ray: {missing}")
        try:
            async with asyncio.timeout(START):
                self._actor = await asyncio.to_thread(self._place)
                self.python, self.programs, self.where = await self._actor.begin.remote()
        except TimeoutError as error:
            self._end()
            raise SandboxError(f"ray: no node had room within {START:.0f} s; add nodes or ask for less") from error
        except BaseException as error:
            self._end()
            if isinstance(error, Exception):
                raise self._told(error) from error
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the sandbox inside, then ends the actor; a node that is gone took both with it."""
        actor = self._actor
        if actor is not None:
            await asyncio.wait([asyncio.ensure_future(_done(actor.end.remote()))], timeout=SLACK)
            self._end()

    def _place(self) -> Any:  # noqa: ANN401 - Ray's handle of an actor is untyped
        import ray  # noqa: PLC0415

        if not ray.is_initialized():
            address = self._address or os.environ.get(ADDRESS) or None
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, ignore_reinit_error=True)
        options: dict[str, Any] = {"num_cpus": 1, "max_concurrency": 4, "resources": self._resources or None}
        actor = ray.remote(_Inside).options(**options)
        return actor.remote(self._inner, self._image, self._limits)

    def _end(self) -> None:
        if self._actor is None:
            return
        import ray  # noqa: PLC0415

        ray.kill(self._actor)
        self._actor = None

    async def exec(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        timeout: float | None = None,  # noqa: ASYNC109 - part of the sandbox protocol, and it kills the tree
        cwd: str = ".",
        env: Mapping[str, str] | None = None,
    ) -> Executed:
        """Runs one command on the node; raises SandboxError when it cannot be started or the node is gone."""
        call = self._open_actor().exec.remote(list(argv), stdin, timeout, cwd, dict(env or {}))
        bound = None if timeout is None else timeout + SLACK
        try:
            async with asyncio.timeout(bound):
                found: Executed = await call
        except TimeoutError as error:
            raise SandboxError("ray: the node does not answer; open a new sandbox") from error
        except asyncio.CancelledError:
            import ray  # noqa: PLC0415

            ray.cancel(call)
            raise
        except Exception as error:
            raise self._told(error) from error
        return found

    async def open(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> Talk:
        """Starts a program on the node to talk to."""
        actor = self._open_actor()
        await self._call(actor.open.remote(list(argv), dict(env or {})))
        return _Conversation(actor)

    async def put(self, path: str | PurePosixPath, data: bytes) -> None:
        """Writes a file on the node."""
        await self._call(self._open_actor().put.remote(str(path), data))

    async def get(self, path: str | PurePosixPath) -> bytes:
        """Reads a file on the node."""
        return bytes(await self._call(self._open_actor().get.remote(str(path))))

    def _open_actor(self) -> Any:  # noqa: ANN401
        if self._actor is None:
            raise SandboxError("the sandbox is not open; use it in `async with`")
        return self._actor

    async def _call(self, call: Any) -> Any:  # noqa: ANN401
        try:
            return await call
        except Exception as error:
            raise self._told(error) from error

    @staticmethod
    def _told(error: Exception) -> SandboxError:
        """The inner sandbox's own line, or the cluster's."""
        cause: object = getattr(error, "cause", None) or error
        if isinstance(cause, AgentlabError):
            return SandboxError(str(cause))
        line = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        return SandboxError(f"ray: {line[:300]}; see `ray status`")


async def _done(call: Any) -> None:  # noqa: ANN401
    """Waits for a call and forgets how it ended."""
    await asyncio.gather(call, return_exceptions=True)


class _Inside:
    """The actor: one sandbox of its node and the program that talks in it."""

    def __init__(self, inner: str, image: str, limits: Limits) -> None:
        self._choice = (inner, image, limits)
        self._box: Any = None
        self._talk: Talk | None = None

    async def begin(self) -> tuple[str, str, str]:
        """Opens the sandbox; its interpreter, the folder of its programs, and which one it is."""
        inner, image, limits = self._choice
        chosen = await asyncio.to_thread(choose, inner, image=image)
        self._box = chosen.make(image, limits)
        await self._box.__aenter__()
        return self._box.python, self._box.programs, chosen.name

    async def end(self) -> None:
        """Closes it."""
        if self._box is not None:
            await self._box.__aexit__(None, None, None)

    async def exec(self, argv: list[str], stdin: str, seconds: float | None, cwd: str, env: dict[str, str]) -> Executed:
        """One command."""
        done: Executed = await self._box.exec(argv, stdin=stdin, timeout=seconds, cwd=cwd, env=env)
        return done

    async def open(self, argv: list[str], env: dict[str, str]) -> None:
        """Starts the program to talk to."""
        self._talk = await self._box.open(argv, env=env)

    async def ask(self, line: bytes, seconds: float) -> Reply:
        """One line and its answer."""
        assert self._talk is not None  # noqa: S101 - only a conversation asks
        return await self._talk.ask(line, seconds)

    async def close(self) -> None:
        """Kills the program."""
        if self._talk is not None:
            await self._talk.close()

    async def put(self, path: str, data: bytes) -> None:
        """Writes a file."""
        await self._box.put(path, data)

    async def get(self, path: str) -> bytes:
        """Reads a file."""
        return bytes(await self._box.get(path))


class _Conversation:
    """Lines to and from a program on a node."""

    def __init__(self, actor: Any) -> None:  # noqa: ANN401
        self._actor = actor
        self._failure: Failure = ""

    async def ask(self, line: bytes, timeout: float) -> Reply:  # noqa: ASYNC109 - a late answer is a value
        """The answer of the node, "ended" where the node is gone."""
        if self._failure:
            return Reply(b"", self._failure)
        call = self._actor.ask.remote(line, timeout)
        done, _ = await asyncio.wait([asyncio.ensure_future(_value(call))], timeout=timeout + SLACK)
        reply = next(iter(done)).result() if done else None
        if reply is None:
            reply = Reply(b"", "ended")
        self._failure = reply.failure
        return reply

    async def close(self) -> None:
        """Kills the program."""
        self._failure = self._failure or "ended"
        await _done(self._actor.close.remote())


async def _value(call: Any) -> Reply | None:  # noqa: ANN401
    """The reply of a call; None where the cluster lost it. A sandbox's own error is raised."""
    found: object = (await asyncio.gather(call, return_exceptions=True))[0]
    if isinstance(found, Reply):
        return found
    cause: object = getattr(found, "cause", None)
    if isinstance(cause, SandboxError):
        raise SandboxError(str(cause))
    return None
