"""Why no reply came: a name out of a fixed list, and one line that holds no key."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from agentlab.errors import BackendError
from agentlab.models_records import plain

Kind: TypeAlias = Literal[
    "cannot be reached",
    "key refused",
    "no such model",
    "bad request",
    "rate limit",
    "server error",
    "time-out",
    "broken connection",
    "no chat completion",
    "over the bound",
]
"""What went wrong: the first six are told by the server or for want of one, and cost nothing."""

SAID = 200
"""Characters of a server's own words that an error repeats."""

LOOKED_AT = 4096
"""Characters of them that are looked at; no key is longer."""

SECRET = re.compile(r"KEY|TOKEN|SECRET", re.IGNORECASE)
"""Environment variables with such a name hold what no message may repeat, if it is long enough;
the key itself may be shorter."""

SHORTEST, SHORTEST_KEY = 8, 4


class ModelError(BackendError):
    """No reply came. `kind` names why; `lost` says that the model may have worked on one, so the cost is unknown."""

    def __init__(self, kind: Kind, message: str, *, lost: bool = False) -> None:
        super().__init__(message)
        self.kind: Kind = kind
        self.lost = lost


class LostReplyError(ModelError):
    """No reply came, but the model may have worked on one: what it cost is unknown."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(kind, message, lost=True)


@dataclass(frozen=True)
class Failures:
    """The errors of one server: `where` names it, `key_variable` where its key comes from, `deadline` is in seconds."""

    where: str
    key_variable: str
    deadline: float
    secrets: re.Pattern[str]

    def refused(self, status: int, words: str) -> ModelError:
        """An answer with a status of failure, and what it said."""
        if status in (401, 403):
            # Servers repeat the key here, some of them half masked.
            return self._error("key refused", f"refused ({status}); set {self.key_variable} to a valid key")
        said = self.said(words) or "without a word"
        if status == 404:
            return self._error("no such model", f"no such model there, or no /v1 in base_url= ({said})")
        kind: Kind = "bad request"
        if status == 429:
            kind = "rate limit"
        elif status == 408:
            kind = "time-out"
        elif status >= 500:
            kind = "server error"
        elif status < 400:
            said = "it sends the call elsewhere; correct base_url="
        return self._error(kind, f"refused ({status}: {said})")

    def unreachable(self) -> ModelError:
        """There was no connection."""
        return self._error("cannot be reached", "cannot be reached; start the server, or correct base_url=")

    def broken(self, words: str = "") -> LostReplyError:
        """The connection ended before the reply did; `words` is what came in its place."""
        said = f" ({self.said(words)})" if words else ""
        return self._lost("broken connection", f"the connection broke before the reply{said}; look at the server's log")

    def late(self) -> LostReplyError:
        """The deadline passed."""
        return self._lost("time-out", f"no reply within {self.deadline:g} s; allow more, or ask a faster model")

    def nonsense(self, words: str = "") -> LostReplyError:
        """What came is something else; `words` says what."""
        said = f" ({self.said(words)})" if words else ""
        return self._lost(
            "no chat completion", f"the answer is no chat completion{said}; is base_url= right, with its /v1?"
        )

    def said(self, words: str) -> str:
        """A server's own words as an error may repeat them. Keys go before the text is cut, which would leave half."""
        begin = self.secrets.sub("***", words[: 2 * LOOKED_AT])[:LOOKED_AT]
        return self.secrets.sub("***", plain(begin))[:SAID]

    def _error(self, kind: Kind, words: str) -> ModelError:
        return ModelError(kind, self.secrets.sub("***", f"{self.where}: {words}"))

    def _lost(self, kind: Kind, words: str) -> LostReplyError:
        return LostReplyError(kind, self.secrets.sub("***", f"{self.where}: {words}"))


def secrets_in(env: Mapping[str, str], key: str = "") -> re.Pattern[str]:
    """What matches every value that no message may repeat: the key, and what the environment names like one."""
    values = {v.strip() for name, v in env.items() if SECRET.search(name) and len(v.strip()) >= SHORTEST}
    values |= {key} if len(key) >= SHORTEST_KEY else set()
    # As it is, as JSON writes it, and as one line of a message.
    forms = {plain(form) for v in values for form in (v, json.dumps(v)[1:-1])} - {""}
    # The longest first: another value may be a part of it. Without any, nothing matches.
    return re.compile("|".join(map(re.escape, sorted(forms, key=len, reverse=True))) or "(?!)", re.IGNORECASE)
