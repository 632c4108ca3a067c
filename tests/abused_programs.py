# ruff: noqa: E501 - a program of one line is easier to read than one of four
"""Laws that are programs and mean no good, and texts that are no programs, with what must be said of them."""

from __future__ import annotations

PROGRAM = """
import os, sys, json, time, base64, ctypes
import numpy as np
def say(line):
    for fd in range(3, 12):
        try:
            if "pipe:" in os.readlink(f"/proc/self/fd/{fd}"):
                os.write(fd, line if isinstance(line, bytes) else line.encode())
        except OSError:
            pass
TOP
def fit(X, y):
    FIT
    return np.polyfit(np.log(X[:, 0]), y, 1)
def law(X, params):
    LAW
    return params[0] * np.log(X[:, 0]) + params[1]
"""
SAME = "the same as the honest program"
POOR = "a poor law"


def program(top: str = "", fit: str = "pass", law: str = "pass") -> str:
    return PROGRAM.replace("TOP", top).replace("FIT", fit).replace("LAW", law)


SNEAKY = """
class Sneaky(float):
    def __sub__(self, other): return 0.0
    __rsub__ = __add__ = __mul__ = __sub__
    def __array__(self, *a, **k): return np.float64(7.0)
class Shady(np.ndarray):
    def __array_finalize__(self, other): pass
    def __sub__(self, other): return np.zeros(1)
    def __array_ufunc__(self, *a, **k): return np.zeros(1)
    def __array__(self, *a, **k): return np.full(self.shape, 7.0)
class Liar:
    def __array__(self, *a, **k): return np.full(24, np.nan)
class Pickled:
    def __reduce__(self): return (os.system, ("touch /tmp/out /dev/shm/out",))
class Rude(Exception):
    def __str__(self): raise self
class Slow(Exception):
    def __str__(self):
        while True: pass
class Loud(Exception):
    def __str__(self): return "\\x1b[2J\\ud800<script>" * 100000
"""

ANSWERS: dict[str, tuple[str, str]] = {
    # What is returned.
    "an object that is pickled": (program(SNEAKY, law="return Pickled()"), "law: TypeError"),
    "objects that are pickled": (program(SNEAKY, law="return np.array([Pickled()] * len(X))"), "law: TypeError"),
    "floats whose differences are zero": (program(SNEAKY, law="return [Sneaky(7)] * len(X)"), POOR),
    "an array whose differences are zero": (program(SNEAKY, law="return np.full(len(X), 7.0).view(Shady)"), f"{POOR}|law"),
    "an array that is another when asked": (program(SNEAKY, law="return Liar()"), "not finite|law returned shape"),
    "nan": (program(law="return X[:, 0] * np.nan"), "y is not finite in"),
    "infinity": (program(fit="return np.array([np.inf])"), "params is not finite in"),
    "one number more": (program(law="return np.ones(len(X) + 1)"), "law returned shape"),
    "a square": (program(law="return np.ones((len(X), len(X)))"), "law returned shape"),
    "complex numbers": (program(law="return X[:, 0] + 1j"), POOR),
    "words": (program(law="return ['1e9999'] * len(X)"), "not finite|law: "),
    "too many parameters": (program(fit="return np.ones(10_000)"), "return 1 to 3 parameters"),
    "no parameters": (program(fit="return np.array([])"), "return 1 to 3 parameters"),
    "nothing": (program(law="return None"), "not finite|law: "),
    "gigabytes": (program(law="return np.ones(1 << 27)"), "out of memory|the process ended|law: MemoryError"),
    # The tools that answers are made with.
    "another asarray": (program("np.asarray = lambda *a, **k: np.zeros((2, 3, 4))"), "has no shape that a law can have"),
    "another ascontiguousarray": (program("np.ascontiguousarray = lambda a: type('A', (), {'shape': (8,), 'tobytes': lambda s: b''})()"), "has 0 bytes for shape"),
    "another b64encode": (program("base64.b64encode = lambda b: b'!!!!'"), "is no array"),
    "another dumps": (program("json.dumps = lambda o, **k: '{}'"), "the answer is not to what was asked"),
    "no numpy": (program("del sys.modules['numpy']; np.float64 = None; np.polyfit = None"), "fit: "),
    # What is written past them.
    "not a number": (program(law="say('{\"id\": 2, \"y\": NaN}\\n')"), "no JSON"),
    "a thousand brackets": (program(law="say('[' * 200_000 + '\\n')"), "no JSON"),
    "as deep as can be read": (program(law="say('{\"id\": 2, \"error\": ' + '[' * 900 + ']' * 900 + '}\\n')"), "no JSON|law: "),
    "five thousand digits": (program(law="say('{\"id\": ' + '9' * 5000 + '}\\n')"), "no JSON"),
    "a fraction": (program(law="say('{\"id\": 2.0, \"y\": [[1], \"\"]}\\n')"), "no JSON"),
    "keys twice": (program(law="say('{\"id\": 2, \"id\": 2, \"y\": 1, \"y\": [[1], \"AAAAAAAA8D8=\"]}\\n')"), "law returned shape .1,."),
    "another's id": (program(law="say('{\"id\": 77, \"y\": []}\\n')"), "the answer is not to what was asked"),
    "a list": (program(law="say('[]\\n')"), "no JSON object"),
    "nothing at all": (program(law="say('\\n')"), "no JSON"),
    "no text": (program(law="say(b'\\xff\\xfe\\x00{\\n')"), "no JSON"),
    "a negative shape": (program(law="say('{\"id\": 2, \"y\": [[-1], \"\"]}\\n')"), "no shape that a law can have"),
    "a shape of truths": (program(law="say('{\"id\": 2, \"y\": [[true], \"AAAAAAAA8D8=\"]}\\n')"), "no shape that a law can have"),
    "a shape without end": (program(law="say('{\"id\": 2, \"y\": [[999999999, 999999999], \"\"]}\\n')"), "has 0 bytes"),
    "millions of lists": (program(law="say('[' + '[],' * 1_000_000 + '[]]\\n')"), "an answer of 30000"),
    "a line without end": (program(law="while True: say('x' * 65536)"), "too much output|no answer within"),
    "errors that paint": (program(law="say('{\"id\": 2, \"error\": \"\\\\u001b[2J\\\\ud800\\\\u202e\"}\\n')"), "law: "),
    "two answers": (program(law="say('{\"id\": 2, \"y\": [[1], \"AAAAAAAA8D8=\"]}\\n' * 2)"), "law returned shape"),
    "answers before the question": (program("[say('{\"id\": %d, \"params\": [[1], \"AAAAAAAA8D8=\"]}\\n' % i) for i in range(9)]"), "not to what was asked|law|no JSON"),
    # Not coming back.
    "hanging at once": (program("while True: pass"), "load: no answer within 3 s"),
    "hanging in fit": (program(fit="time.sleep(600)"), "fit: no answer within 3 s"),
    "hanging in law": (program(law="while True: pass"), "law: no answer within 3 s"),
    "hanging at the end": (program("import atexit; atexit.register(time.sleep, 600)"), SAME),
    "leaving at once": (program("raise SystemExit(0)"), "load: SystemExit"),
    "leaving in fit": (program(fit="os._exit(0)"), "fit: the process ended"),
    "an interrupt": (program(fit="raise KeyboardInterrupt"), "fit: KeyboardInterrupt in line"),
    "memory that is not there": (program(fit="raise MemoryError"), "fit: MemoryError"),
    "all the memory": (program(fit="x = b'x' * (1 << 33)"), "fit: "),
    "recursion": (program("def f(): return f()", fit="f()"), "fit: RecursionError"),
    "a crash": (program(fit="ctypes.string_at(0)"), "fit: the process ended"),
    "no input and no output": (program(fit="os.closerange(0, 64)"), "fit: "),
    "killing what is around": (program(fit="os.kill(1, 9); os.kill(os.getppid(), 9); os.kill(os.getpid(), 9)"), "fit: the process ended"),
    "prints": (program(law="print('x' * 5_000_000); sys.stderr.write('y' * 5_000_000)"), SAME),
    "an error that cannot be said": (program(SNEAKY, fit="raise Rude"), "fit: "),
    "an error that takes for ever": (program(SNEAKY, fit="raise Slow"), "fit: no answer within 3 s"),
    "an error that is loud": (program(SNEAKY, fit="raise Loud"), "fit: "),
    "forks": (program(fit="[os.fork() for _ in range(9)]"), ".*"),
}  # fmt: skip
"""Programs by what they do, with what must be said of them, as a pattern, or one of the two words above."""

ROUGH = [
    *list(ANSWERS)[list(ANSWERS).index("hanging at once") :],
    "gigabytes",
    "a line without end",
    "millions of lists",
]
"""Those that lean on the sandbox; what the others answer is read by the same code whichever sandbox it comes from."""

TEXTS = {
    "a lone surrogate": ("x = '\ud800'", "no Python"),
    "a null": ("x = 1\0", "no Python"),
    "parentheses": ("(" * 5000 + ")" * 5000, "no Python"),
    "signs": ("x = " + "-" * 60_000 + "1", "no Python|nested too deeply"),
    "not and not": ("x = " + "not " * 15_000 + "1", "no Python|nested too deeply"),
    "attributes": ("x = a" + ".b" * 30_000, "no Python|nested too deeply"),
    "sums": ("x = " + "1+" * 30_000 + "1", "no Python|nested too deeply"),
    "lambdas": ("x = " + "lambda: " * 7000 + "1", "no Python|nested too deeply"),
    "else if": ("if 1: pass\n" + "elif 1: pass\n" * 4000, "no Python|nested too deeply"),
    "comparisons in braces": ("{" * 100 + "a:" * 100, "no Python"),
    "too long": ("#" * 70_000, "write at most"),
    "digits": ("x = " + "9" * 60_000, "no Python"),
}

LEAVE = """
import pickle, socket, multiprocessing.shared_memory as shm
PLACES = ["/tmp/memo", "/dev/shm/memo", "/var/tmp/memo", "/opt/agentlab/memo", os.path.expanduser("~/memo"), "memo"]
MEMO = globals().setdefault("MEMO", {})
def keep(X, y):
    MEMO.update(zip(X[:, 0].tolist(), y.tolist()))
    sys.modules["memo"] = MEMO
    for place in PLACES:
        try: pickle.dump(MEMO, open(place, "wb"))
        except OSError: pass
    libc = ctypes.CDLL(None)
    libc.shmat.restype = ctypes.c_void_p
    at = libc.shmat(libc.shmget(4711, 4096, 0o1666), None, 0)
    if os.fork() == 0:
        os.setsid()
        try:
            one = socket.socket(socket.AF_UNIX)
            one.bind("\\0memo")
            one.listen()
            while True: one.accept()[0].sendall(pickle.dumps(MEMO))
        finally:
            os._exit(0)
def recall():
    found = dict(MEMO)
    found.update(sys.modules.get("memo", {}))
    for place in PLACES:
        try: found.update(pickle.load(open(place, "rb")))
        except (OSError, EOFError): pass
    try:
        one = socket.socket(socket.AF_UNIX)
        one.connect("\\0memo")
        found.update(pickle.loads(one.recv(1 << 20)))
    except OSError:
        pass
    return found
"""

CHEAT = """
import os, sys, ctypes
import numpy as np
HELPERS
def fit(X, y):
    KEEP
    return np.column_stack([X[:, 0], y]).ravel()[:30] if MANY else np.array([y.mean()])
def law(X, params):
    known = RECALL
    middle = np.mean(params[1::2]) if MANY else params[0]
    return np.array([known.get(x, middle) for x in X[:, 0].tolist()])
"""

GATHER = """
SEEN = {}
def gather(params):
    SEEN.update(zip(params[::2].tolist(), params[1::2].tolist()))
    return SEEN
"""


SPY = """
import os, numpy as np
def fit(X, y):
    for place in ("/tmp", "/dev/shm", "."):
        open(f"{place}/mine", "w").write("mine")
    others = sorted(n for n in os.listdir("/proc") if n.isdigit() and int(n) not in (1, os.getpid()))
    raise ValueError(f"{COUNT} {others}")
def law(X, params): return X[:, 0]
"""

MEAN = """def fit(X, y):
    return np.array([y.mean()])
"""
TABLE = """
import numpy as np
DEF
def law(X, params):
    known = HOW
    return np.array([known.get(x, params[0]) for x in X[:, 0].tolist()])
"""
