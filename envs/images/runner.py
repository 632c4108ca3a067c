"""The first process of a sandbox: starts commands, carries their input and output, and kills all they leave behind.

    python3 -I -S runner.py FILTER

FILTER is a seccomp program in hexadecimal ("-" for none), loaded before anything else. Frames go in and out on standard
input and output: one byte of kind, four of length (big-endian), then the payload. In: S start (see Asked), I input, E
end of input, K kill, P put (4 bytes length of the path, path, data), G get (path). Out: H once at the start, O output,
R errors, X exit (code and memory kills), D data, F failure (text). One command at a time. As the first process of its
process namespace it cannot be killed, stopped or read by what it starts, and when it or its input ends, the system
kills everything else.
"""

# Every sandbox waits for what is imported here. Python itself takes 10 ms of processor; json, signal, selectors,
# contextlib, pathlib and typing took 25 more, and the modules in C under them take next to nothing.
# ruff: noqa: PTH123, SIM105

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]
import ctypes
import errno
import os
import resource
import select
import stat
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

HEAD = struct.Struct(">BI")
BLOCK = 1 << 16
MOST_FILE = 64 << 20
PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 4, 38, 22, 2
LIMITS = {
    "memory": resource.RLIMIT_AS, "cpu": resource.RLIMIT_CPU, "file": resource.RLIMIT_FSIZE,
    "open": resource.RLIMIT_NOFILE, "processes": resource.RLIMIT_NPROC, "core": resource.RLIMIT_CORE,
}  # fmt: skip


class Program(ctypes.Structure):
    """struct sock_fprog of the kernel."""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def confine(filter_bytes: bytes) -> None:
    """Hides this process from its children and loads the filter, for good and for all that is started from here."""
    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(filter_bytes)
    steps = [(PR_SET_DUMPABLE, 0, 0), (PR_SET_NO_NEW_PRIVS, 1, 0)]
    if filter_bytes:
        program = Program(len(filter_bytes) // 8, ctypes.addressof(code))
        steps.append((PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(program)))
    for option, first, second in steps:
        if libc.prctl(option, ctypes.c_ulong(first), ctypes.c_ulong(second), 0, 0):
            raise OSError(ctypes.get_errno(), f"prctl {option}")


def memory_kills() -> int:
    """How many processes of this container the kernel has killed for their memory; 0 where it does not say."""
    for name in ("/sys/fs/cgroup/memory/memory.oom_control", "/sys/fs/cgroup/memory.events"):
        try:
            with open(name) as file:
                return next((int(line.split()[1]) for line in file if line.startswith("oom_kill ")), 0)
        except (OSError, ValueError):
            continue
    return 0


class Asked:
    """A command, from words that end in a zero byte each.

    First its folder, then its arguments, limits (name=number) and environment (NAME=value), how many before each.
    """

    def __init__(self, payload: bytes) -> None:
        words = iter(os.fsdecode(payload).split("\0"))
        self.cwd = next(words)
        self.argv, limits, env = ([next(words) for _ in range(int(next(words)))] for _ in range(3))
        self.limits = {name: int(value) for name, _, value in (word.partition("=") for word in limits)}
        self.env = {name: value for name, _, value in (word.partition("=") for word in env)}


def spawn(asked: Asked, pipes: tuple[int, int, int]) -> int:
    """The pid of a new command in a session of its own; raises OSError where it cannot be started."""
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        become(asked, pipes, tell)
    os.close(tell)
    with os.fdopen(told, "rb") as answer:
        failed = answer.read()
    if failed:
        os.waitpid(pid, 0)
        raise OSError(int(failed), os.strerror(int(failed)))
    return pid


def become(asked: Asked, pipes: tuple[int, int, int], tell: int) -> None:
    """In the child: the command, under its limits; the error's number goes back on `tell`."""
    try:
        os.setsid()
        for number, pipe in enumerate(pipes):
            os.dup2(pipe, number)
        os.chdir(asked.cwd)
        try:  # the system takes a command before it takes this runner
            with open("/proc/self/oom_score_adj", "w") as file:
                file.write("1000")
        except OSError:
            pass
        for name, value in asked.limits.items():
            hard = resource.getrlimit(LIMITS[name])[1]
            bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(LIMITS[name], (bound, bound))
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.execvpe(asked.argv[0], asked.argv, asked.env)  # noqa: S606 - what a sandbox is for
    except OSError as error:
        os.write(tell, str(error.errno or errno.EIO).encode())
    finally:
        os._exit(127)


def plain(path: str, flags: int, *, make: bool = False) -> int:
    """A descriptor of a plain file, with `make` below new folders: no link on the way is followed, no pipe waited for.

    A command may have left anything there, such as a link to this process's own output.
    """
    *folders, name = path.strip("/").split("/")
    at = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        for folder in folders:
            if make:
                try:
                    os.mkdir(folder, dir_fd=at)
                except OSError:  # there already; what else is wrong is said by the next line
                    pass
            below = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = below
        fd = os.open(name, flags | os.O_NONBLOCK | os.O_NOFOLLOW, 0o666, dir_fd=at)
    finally:
        os.close(at)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a plain file")
    return fd


class Runner:
    """Frames in, frames out, and at most one command."""

    def __init__(self) -> None:
        self.poll = select.epoll()
        self.watch: dict[int, Callable[[int], None]] = {}
        self.listen(0, self.frames)
        self.seen = bytearray()
        self.pid = 0
        self.code: int | None = None
        self.pending = bytearray()
        self.input = -1
        self.ended = False
        self.outputs: dict[int, bytes] = {}
        awake, wake = os.pipe()
        for end in (awake, wake):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.listen(awake, self.reap)

    def listen(self, fd: int, call: Callable[[int], None], event: int = select.EPOLLIN) -> None:
        """Calls with the descriptor whenever something happens to it."""
        self.poll.register(fd, event)
        self.watch[fd] = call

    def forget(self, fd: int) -> None:
        """Listens no more, if it did."""
        if self.watch.pop(fd, None) is not None:
            self.poll.unregister(fd)

    def run(self) -> None:
        """Until standard input ends."""
        self.say(b"H")
        while True:
            for fd, _ in self.poll.poll():
                if fd in self.watch:  # an earlier one of these may have closed it
                    self.watch[fd](fd)

    def say(self, kind: bytes, payload: bytes = b"") -> None:
        """One frame out."""
        data = memoryview(HEAD.pack(kind[0], len(payload)) + payload)
        while data:
            data = data[os.write(1, data) :]

    def frames(self, fd: int) -> None:
        """Obeys the frames that have come in whole."""
        block = os.read(fd, BLOCK)
        if not block:
            os._exit(0)
        self.seen += block
        while len(self.seen) >= HEAD.size:
            kind, size = HEAD.unpack_from(self.seen)
            if len(self.seen) < HEAD.size + size:
                return
            payload = bytes(self.seen[HEAD.size : HEAD.size + size])
            del self.seen[: HEAD.size + size]
            self.obey(bytes([kind]), payload)

    def obey(self, kind: bytes, payload: bytes) -> None:
        """Does what one frame asks; what the system refuses goes back as a failure."""
        try:
            if kind == b"S":
                self.start(Asked(payload))
            elif kind in b"IE":
                self.feed(payload, last=kind == b"E")
            elif kind == b"K":
                self.kill()
            elif kind == b"P":
                size = int.from_bytes(payload[:4], "big")
                self.put(payload[4 : 4 + size].decode(), payload[4 + size :])
            elif kind == b"G":
                self.get(payload.decode())
        except (OSError, ValueError) as error:
            self.say(b"F", str(error).encode()[:500])

    def start(self, asked: Asked) -> None:
        """Starts the command, its three pipes to this process."""
        ends = [os.pipe(), os.pipe(), os.pipe()]
        try:
            self.pid = spawn(asked, (ends[0][0], ends[1][1], ends[2][1]))
        except OSError:
            for end in (ends[0][1], ends[1][0], ends[2][0]):
                os.close(end)
            raise
        finally:
            for end in (ends[0][0], ends[1][1], ends[2][1]):
                os.close(end)
        self.input, self.ended = ends[0][1], False
        self.outputs = {ends[1][0]: b"O", ends[2][0]: b"R"}
        self.code = None
        for end in (self.input, *self.outputs):
            os.set_blocking(end, False)
        for end in self.outputs:
            self.listen(end, self.carry)

    def feed(self, data: bytes, *, last: bool) -> None:
        """More input for the command; after the last its standard input ends."""
        if self.input < 0:
            return
        self.pending += data
        self.ended = self.ended or last
        self.pour(self.input)

    def pour(self, fd: int) -> None:
        """Gives the command as much of its input as it takes now."""
        try:
            while self.pending:
                del self.pending[: os.write(fd, self.pending[: 1 << 20])]
        except BlockingIOError:
            if fd not in self.watch:
                self.listen(fd, self.pour, select.EPOLLOUT)
            return
        except OSError:  # it does not read on
            self.pending.clear()
            self.ended = True
        self.forget(fd)
        if self.ended:
            os.close(fd)
            self.input = -1

    def carry(self, fd: int) -> None:
        """A block of the command's output, or its end."""
        try:
            block = os.read(fd, BLOCK)
        except BlockingIOError:
            return
        if block:
            self.say(self.outputs[fd], block)
            return
        self.forget(fd)
        os.close(fd)
        del self.outputs[fd]
        self.finish()

    def kill(self) -> None:
        """Everything but this process; the system lets nobody fork past it, and orphans become children of ours."""
        try:
            os.kill(-1, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.bury(wait=True)

    def bury(self, *, wait: bool) -> None:
        """Collects the dead; with `wait` until no child is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, 0 if wait else os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.pid and self.code is None:
                self.code = os.waitstatus_to_exitcode(status)

    def reap(self, fd: int) -> None:
        """A child has ended."""
        try:
            os.read(fd, BLOCK)
        except BlockingIOError:
            pass
        self.bury(wait=False)
        self.finish()

    def finish(self) -> None:
        """Says how the command ended once it did, and nothing that it started is left."""
        if not self.pid or self.code is None:
            return
        self.kill()
        for fd, kind in self.outputs.items():  # their ends need not come: dead sockets may hold them in flight
            self.forget(fd)
            try:
                while block := os.read(fd, BLOCK):
                    self.say(kind, block)
            except BlockingIOError:
                pass
            os.close(fd)
        self.outputs = {}
        if self.input >= 0:
            self.forget(self.input)
            os.close(self.input)
        self.pid, self.input = 0, -1
        self.pending.clear()
        self.say(b"X", f"{self.code} {memory_kills()}".encode())

    def put(self, path: str, data: bytes) -> None:
        """Writes a file, making the folders above it."""
        with os.fdopen(plain(path, os.O_WRONLY | os.O_CREAT, make=True), "wb") as file:
            file.truncate()
            file.write(data)
        self.say(b"D")

    def get(self, path: str) -> None:
        """A plain file's bytes; a link, a pipe or a device is refused."""
        with os.fdopen(plain(path, os.O_RDONLY), "rb") as file:
            if os.fstat(file.fileno()).st_size > MOST_FILE:
                raise OSError(errno.EFBIG, f"larger than {MOST_FILE} bytes")
            self.say(b"D", file.read(MOST_FILE))


if __name__ == "__main__":
    confine(b"" if sys.argv[1] == "-" else bytes.fromhex(sys.argv[1]))
    Runner().run()
