"""The errors that end a verb of the command line with one line and an exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AgentlabError(Exception):
    """A mistake of the user's or the data's, told in one line: what, where, what to write instead.

    The command line prints the text and exits with `exit_code`: 2 usage, 3 budget reached before any law,
    4 evaluation failed, 5 backend missing.
    """

    exit_code = 2


class EvaluationError(AgentlabError):
    """An evaluation that should have run failed."""

    exit_code = 4


class BackendError(AgentlabError):
    """A tool server, sandbox or service that is needed cannot be reached."""

    exit_code = 5


def nearest(name: str, names: Iterable[str]) -> str:
    """A half-sentence that names the nearest of `names`, or the first of them where none is near."""
    known = list(names)
    lower = {n.lower(): n for n in reversed(known)}
    inside = [n for n in known if len(name) > 1 and name.lower() in n.lower()]
    close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
    if close or inside:
        return f"did you mean {(lower[close[0]] if close else inside[0])!r}?"
    shown = ", ".join(known[:12]) + (", .." if len(known) > 12 else "")
    return f"there is: {shown}" if known else "there is none"
