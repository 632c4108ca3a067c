"""Command templates: a TOML file that tells how any trainer is started, followed, read and cancelled.

A template is found by name: <name>.toml in $AGENTLAB_BACKENDS, else among those shipped in tools/backends, where
torchtitan.toml explains every line. A config fills its {placeholders}; each element of `argv` stays one argument, and
no shell reads it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from agentlab.tools._command import Command, prepare
from agentlab.tools._job_files import Fields
from agentlab.tools._jobs import CANCEL
from agentlab.tools._trainer import Order, number
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from agentlab.errors import AgentlabError, nearest
from agentlab.files import write_json
from agentlab.law import parse

BACKENDS = "AGENTLAB_BACKENDS"
"""Variable that names a folder of the user's own templates."""
OF_THE_JOB = ("folder", "job", "python")
"""Placeholders that the server fills: the job's folder, its id, this Python."""

_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}|[{}]")
_WORD = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./:,+-]{0,255}")
"""What a text in a config may look like: never an option (-x), an assignment, a pattern or anything of a shell."""

_STRICT = ConfigDict(extra="forbid", frozen=True)


class Progress(BaseModel):
    """How a line of output becomes progress: by a pattern's named groups, or as JSON with fields {ours = "theirs"}."""

    model_config = _STRICT

    patterns: tuple[str, ...] = ()
    json_fields: dict[str, str] = Field(default_factory=dict, alias="json")
    file: str = ""


class Reading(BaseModel):
    """Where the result is read: a JSON file, else the newest progress; `fields` is {ours = "theirs"}, empty for all."""

    model_config = _STRICT

    file: str = ""
    fields: dict[str, str] = Field(default_factory=dict)


class Template(BaseModel):
    """One TOML file."""

    model_config = _STRICT

    about: str
    argv: tuple[str, ...] = Field(min_length=1)
    cwd: str = "{folder}"
    flops: str = ""
    defaults: dict[str, bool | int | float | str] = Field(default_factory=dict)
    variables: tuple[str, ...] = ()
    environment: dict[str, str] = Field(default_factory=dict)
    cancel: tuple[str, ...] = ()
    progress: Progress = Progress()
    result: Reading = Reading()


@dataclass(frozen=True)
class Named:
    """A template, the name of its file, and the digest of its text: another text is another experiment."""

    name: str
    digest: str
    template: Template

    @property
    def keys(self) -> list[str]:
        """The placeholders that a config fills, in the order of the file, then what `flops` names."""
        t = self.template
        texts = [*t.argv, t.cwd, *t.environment.values(), *t.cancel, t.progress.file, t.result.file]
        names = [name for text in texts for name in _placeholders(text)]
        names += parse(t.flops, ()).params if t.flops else ()
        return [n for n in dict.fromkeys(names) if n not in OF_THE_JOB]


def template_names() -> list[str]:
    """The templates there are."""
    return sorted({path.stem for folder in _folders() for path in folder.glob("*.toml")})


def read_template(name: str) -> Named:
    """The template of that name.

    Raises:
        ToolError: there is none, or it is damaged: in which line or key, and what to write instead.
    """
    path = next((p for folder in _folders() if (p := folder / f"{name}.toml").is_file()), None)
    if path is None:
        raise ToolError(f"backend {name}: {nearest(name, ['torch', 'simulator', *template_names()])}")
    try:
        text = path.read_text(encoding="utf-8")
        named = Named(
            name, hashlib.sha256(text.encode()).hexdigest()[:12], Template.model_validate(tomllib.loads(text))
        )
        for pattern in named.template.progress.patterns:
            re.compile(pattern)
        named.keys  # noqa: B018 - reads every placeholder and the formula, so that a mistake shows here
    except ValidationError as error:
        raise ToolError(f"{name}.toml: {_first(error)}") from error
    except (OSError, ValueError, re.error, AgentlabError) as error:
        raise ToolError(f"{name}.toml: {error}") from error
    if not (named.template.progress.patterns or named.template.progress.json_fields or named.template.result.file):
        raise ToolError(f"{name}.toml: nothing says what to read; write patterns or json in [progress]")
    return named


def order(config: Fields, name: str) -> Order:
    """A run of a template's command. Raises ToolError for a config that does not fill it."""
    named = read_template(name)
    values = _values(config, named)
    flops = _flops(named, {**named.template.defaults, **config})
    asked = {**config, "backend": name, "template": named.digest}

    def argv_of(folder: Path) -> list[str]:
        return _write_command(folder, named, values)

    env = {v: os.environ[v] for v in named.template.variables if v in os.environ}
    threads = int(number(config.get("threads"))) or 1
    steps = config.get("steps", named.template.defaults.get("steps"))
    return Order(asked, argv_of, flops, {"steps": steps if isinstance(steps, int) else None}, env, threads)


def _folders() -> list[Path]:
    """Where templates lie; the user's own go first."""
    own = os.environ.get(BACKENDS)
    return [*([Path(own)] if own else []), Path(str(files("agentlab.tools"))) / "backends"]


def _placeholders(text: str) -> Iterator[str]:
    for match in _PLACEHOLDER.finditer(text):
        if match.group(1):
            yield match.group(1)
        elif len(match.group()) == 1:
            raise AgentlabError(f"a single brace in {text!r}; write {{key}}, or {{{{ and }}}} for a brace")


def _first(error: ValidationError) -> str:
    """The first mistake in a template as one line."""
    one = error.errors()[0]
    where = ".".join(str(part) for part in one["loc"])
    if one["type"] == "extra_forbidden":
        known = [f.alias or k for model in (Template, Progress, Reading) for k, f in model.model_fields.items()]
        return f"{where} is no key of a template; {nearest(str(one['loc'][-1]), known)}"
    return f"{where}: {one['msg'].lower()}"


def _values(config: Fields, named: Named) -> dict[str, str]:
    """A text for every placeholder that the config fills."""
    keys = named.keys
    for key in config:
        if key not in keys and key not in named.template.defaults:
            raise ToolError(f"{key}: {named.name}.toml has no {{{key}}}; {nearest(key, keys)}")
    given = {**named.template.defaults, **config}
    for key in keys:
        if key not in given:
            raise ToolError(f"{{{key}}} of {named.name}.toml has no value in the config; {nearest(key, given)}")
    return {key: _text(key, value) for key, value in given.items()}


def _text(key: str, value: JsonValue) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        if not math.isfinite(value):
            raise ToolError(f"{key}: {value} is not finite; write a number")
        return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else json.dumps(value)
    if isinstance(value, str) and _WORD.fullmatch(value) and ".." not in value:
        return value
    raise ToolError(f"{key}: {str(value)[:40]!r} is no number or plain word; write letters, digits and . _ / : , + -")


def _fill(text: str, values: Mapping[str, str]) -> str:
    def one(match: re.Match[str]) -> str:
        return values[match.group(1)] if match.group(1) else match.group()[0]

    return _PLACEHOLDER.sub(one, text)


def _flops(named: Named, given: Mapping[str, JsonValue]) -> float | None:
    """The cost by the template's formula, or the `flops` that the command itself is told; None where neither is."""
    formula = named.template.flops
    if not formula:
        return number(given["flops"]) if "flops" in named.keys else None
    columns = {k: np.array([float(v)]) for k, v in given.items() if isinstance(v, int | float)}
    law = parse(formula, tuple(columns))  # a formula that is none was told when the template was read
    if law.params:
        raise ToolError(
            f"{named.name}.toml: flops needs a number for {law.params[0]}; {nearest(law.params[0], columns)}"
        )
    cost = float(np.ravel(law.evaluate(columns, np.array([])))[0])
    if not (math.isfinite(cost) and cost >= 0):
        raise ToolError(f"{named.name}.toml: flops is {cost} for this config; give sizes above 0")
    return cost


def _write_command(folder: Path, named: Named, values: Mapping[str, str]) -> list[str]:
    """Writes command.json for agentlab.tools._command, and what `cancel` is to run; returns the command of the job."""
    t = named.template
    known = {**values, "folder": str(folder), "job": folder.name, "python": sys.executable}
    steps = values.get("steps", "")
    command = Command(
        backend=named.name,
        argv=[_fill(item, known) for item in t.argv],
        cwd=_working_folder(_fill(t.cwd, known), named),
        environment={k: _fill(text, known) for k, text in t.environment.items()},
        steps=int(steps) if steps.isdigit() else None,
        patterns=t.progress.patterns,
        json=t.progress.json_fields,
        follow=_fill(t.progress.file, known),
        result_file=_fill(t.result.file, known),
        result_fields=t.result.fields,
    )
    if t.cancel:
        write_json(folder / CANCEL, {"argv": [_fill(item, known) for item in t.cancel], "variables": t.variables})
    argv: list[str] = prepare(folder, command)
    return argv


def _working_folder(text: str, named: Named) -> str:
    """The folder to run in; $NAME at the beginning is the value of that variable."""
    name = re.match(r"\$([A-Z][A-Z0-9_]*)", text)
    if name:
        if name.group(1) not in os.environ:
            raise ToolError(f"{named.name}.toml: {name.group()} is not set; let it name the trainer's checkout")
        text = os.environ[name.group(1)] + text[name.end() :]
    if not Path(text).is_dir():
        raise ToolError(f"{named.name}.toml: no folder {text} to run in; write the path of one in cwd")
    return text
