"""Replicas of the trainer on the nodes of a Ray cluster: each segment is a task, and a node that dies loses no more.

The checkpoint travels with the task and comes back; the votes, the digests and the agreed checkpoints stay here
(agentlab.tools._segments), so that the nodes need share no disk with this machine, nor with one another.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from agentlab.tools import _ray
from agentlab.tools._job_files import Fields
from agentlab.tools._ray_node import versions
from agentlab.tools._ray_segments import CORPUS, Left, Placed, Segment, train_segment
from agentlab.tools._segments_replicas import Attempt, Replica, Replicated, Tail, Watch, read_lines

from agentlab.errors import AgentlabError, BackendError

Tell = Callable[[Fields], None]


class Nodes:
    """The nodes of a cluster, which this process joins; Ray finds each replica its place.

    Raises:
        BackendError: there is no cluster, or none of its nodes could ever take a replica.
    """

    def __init__(self, asked: Replicated, cluster: _ray.Cluster, tell: Tell) -> None:
        self._asked, self._needs, self._tell = asked, cluster.needs, tell
        _ray.join(cluster.address)
        _ray.wait_for_room(cluster.needs)
        self._corpus = _ray.put(_corpus(Path(str(asked.config["corpus"]))))

    def most(self) -> int:
        """All at once: those for whom there is no room wait in the cluster."""
        return 1000

    def begin(self, number: int, folder: Path, checkpoint: Path | None, watch: Watch | None) -> Replica:
        """A task that begins where there is room, on another node than its neighbours as far as there are others."""
        config = {k: v for k, v in self._asked.config.items() if k not in ("corpus", "out")}
        before = None if checkpoint is None else checkpoint.read_bytes()
        segment = Segment(config, self._asked.threads, self._needs.gpus, before, versions("numpy", "torch"))
        items = _ray.submit(train_segment, self._needs, segment, self._corpus, spread=True, streams=True)
        return _Task(number, folder, items, Tail(_empty(folder / "log.jsonl"), watch), self._needs, self._tell)


class _Task:
    """A segment under way on some node; what it sends is put where a process of this machine would have left it."""

    def __init__(
        self, number: int, folder: Path, items: Any, tail: Tail, needs: _ray.Needs, tell: Tell,  # noqa: ANN401
    ) -> None:  # fmt: skip
        self.number, self._folder, self._items, self._tail = number, folder, items, tail
        self._needs, self._tell = needs, tell
        self._heard = self._asked_for_room = time.monotonic()
        self._placed = False

    def look(self, stall: float | None) -> Attempt | None:
        """What has come of it; None while it waits or runs."""
        for item in _ray.arrived(self._items):
            self._heard = time.monotonic()
            if isinstance(item, _ray.Gone):
                return self._lost(item)
            if isinstance(item, Left):
                return self._ended(item)
            self._take(item)
        now = time.monotonic()
        if not self._placed:
            # It may wait for others to end, but not for a node that is no more.
            if now - self._asked_for_room > _ray.ROOM:
                _ray.wait_for_room(self._needs)
                self._asked_for_room = time.monotonic()
        elif stall is not None and now - self._heard > stall:
            self.end()
            return self._attempt("stall")
        return None

    def end(self) -> None:
        """Ends the task's process, and with it the trainer."""
        _ray.cancel(self._items)

    def _take(self, item: Placed | bytes) -> None:
        if isinstance(item, Placed):
            self._placed = True
            about = f"{self._folder.parent.name}/{self._folder.name}"
            self._tell({"event": "placed", "run": about, "node": item.node, "host": item.host})
            return
        with (self._folder / "log.jsonl").open("ab") as log:
            log.write(item)
        self._tail.grew()

    def _ended(self, left: Left) -> Attempt:
        for name, data in left.files.items():
            (self._folder / name).write_bytes(data)
        (self._folder / "errors.txt").write_text(left.errors + "\n" if left.errors else "", encoding="utf-8")
        return self._attempt("ran" if left.code in (0, 2) else "died")

    def _lost(self, gone: _ray.Gone) -> Attempt:
        if gone.refused:
            raise BackendError(gone.why)
        (self._folder / "errors.txt").write_text(gone.why + "\n", encoding="utf-8")
        return self._attempt("died")

    def _attempt(self, ended: Literal["ran", "died", "stall"]) -> Attempt:
        return Attempt(self.number, self._folder, read_lines(self._folder / "log.jsonl"), ended)


def _corpus(folder: Path) -> dict[str, bytes]:
    """The text to train on, as it travels; raises AgentlabError where it is not there."""
    for name in CORPUS:
        if not (folder / name).is_file():
            raise AgentlabError(
                f"corpus: {name} is not in {folder}; build it first: tool `corpus` of the server `train`"
            )
    return {name: (folder / name).read_bytes() for name in CORPUS}


def _empty(path: Path) -> Path:
    path.touch()
    return path
