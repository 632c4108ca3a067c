"""What models cost, from files that the user can edit.

    ["name of the model"]     as it is written in model=
    input = 0.5               USD for a million tokens of prompts
    output = 2.0              USD for a million tokens of replies
    cached = 0.1              optional: the same for tokens of prompts that the server had in its cache; as input if not
    call = 0.0                optional: USD for each call

The file that ships holds no price, as prices change. The user's own is $AGENTLAB_PRICES, else
agentlab/prices.toml in $XDG_CONFIG_HOME or ~/.config; what stands there replaces what ships, model by model.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agentlab.errors import AgentlabError, nearest

SHIPPED = Path(__file__).with_name("prices.toml")

VARIABLE = "AGENTLAB_PRICES"
"""The environment variable that names the user's file."""

MILLION = 1e6

REQUIRED, OPTIONAL = ("input", "output"), ("cached", "call")


class PriceError(AgentlabError):
    """A file of prices that cannot be used; the line names file, key and fix."""


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens of prompts, of replies, and of prompts that the server had cached; USD per call."""

    input: float
    output: float
    cached: float
    call: float = 0.0

    def usd(self, tokens_in: int, tokens_cached: int, tokens_out: int) -> float:
        """The cost of a call in USD, never above `worst`; the cached tokens are among those that went in."""
        fresh = max(0, tokens_in - tokens_cached)
        exact = (fresh * self.input + tokens_cached * self.cached + tokens_out * self.output) / MILLION + self.call
        return min(exact, self.worst(max(tokens_in, tokens_cached), tokens_out))  # rounding may differ by a hair

    def worst(self, tokens_in: int, tokens_out: int) -> float:
        """The most that a call of at most so many tokens can cost in USD, whatever is cached."""
        return (tokens_in * max(self.input, self.cached) + tokens_out * self.output) / MILLION + self.call


@dataclass(frozen=True, slots=True)
class Prices:
    """The prices of models by name; `advice` says where to write one that is not known."""

    models: Mapping[str, Price] = field(default_factory=dict)
    advice: str = ""

    def of(self, model: str) -> Price | None:
        """The price of a model, None where none is known; only the whole name counts."""
        return self.models.get(model)


def read_prices(env: Mapping[str, str] = os.environ) -> Prices:
    """The prices that ship, and those of the user's file over them.

    Raises:
        PriceError: a file cannot be read or holds what is no price.
    """
    found = _read(SHIPPED)
    path = user_file(env)
    if path.is_file() or env.get(VARIABLE):
        found |= _read(path)
    return Prices(found, f"write it into {path}; {SHIPPED} shows the form")


def user_file(env: Mapping[str, str] = os.environ) -> Path:
    """Where the user's prices stand, if anywhere."""
    if env.get(VARIABLE):
        return Path(env[VARIABLE]).expanduser()
    return Path(env.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "agentlab" / "prices.toml"


def _read(path: Path) -> dict[str, Price]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PriceError(f"{path}: cannot be read ({error.strerror}); write it, or correct {VARIABLE}") from None
    except (ValueError, RecursionError) as error:
        raise PriceError(f"{path}: no TOML ({' '.join(str(error).split())}); see {SHIPPED} for its form") from None
    return {name: _price(table, name, path) for name, table in tables.items()}


def _price(table: object, name: str, path: Path) -> Price:
    where = f"{path}: {name!r}"
    if not isinstance(table, dict):
        raise PriceError(f'{where} is no table; write ["NAME OF THE MODEL"] above {" and ".join(REQUIRED)}')
    for key, value in table.items():
        if isinstance(value, dict):
            raise PriceError(f'{where} holds a table {key!r}; a name with a dot stands in quotes: ["{name}.{key}"]')
        if key not in (*REQUIRED, *OPTIONAL):
            raise PriceError(f"{where}: unknown key {key!r}; {nearest(key, [*REQUIRED, *OPTIONAL])}")
    for key in REQUIRED:
        if key not in table:
            raise PriceError(f"{where}: {key} is missing; write {key} = USD per million tokens")
    read = {key: _amount(value, f"{where}: {key}") for key, value in table.items()}
    return Price(read["input"], read["output"], read.get("cached", read["input"]), read.get("call", 0.0))


def _amount(value: object, where: str) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < MILLION
    if not good or not isinstance(value, int | float) or math.isnan(value):
        raise PriceError(f"{where} = {str(value)[:40]} is no price; write an amount of USD, 0 or more")
    return float(value)
