"""The errors that end a verb of the command line with one line and an exit code."""

from __future__ import annotations


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
