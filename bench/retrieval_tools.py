"""A thousand made-up tools for bench/retrieval.py: 20 domains x 5 objects x 10 verbs, near-duplicates on purpose.

Each tool has nine others about the same object and ninety-nine with the same verb; objects such as "report" stand in
several domains. Descriptions, argument names and the style of the names vary with the seed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from agentlab.tool_records import Tool

ID = r"[A-Z]{2}-\d{4}"
FORMATS = ("csv", "pdf", "json")

_DOMAINS = """
calendar: event reminder attendee room holiday
mail: message thread attachment label template
storage: file folder version backup quota
spreadsheet: sheet cell formula chart template
payments: invoice refund charge payout dispute
weather: forecast station alert record map
repository: branch commit issue release comment
helpdesk: ticket agent queue answer comment
music: playlist track album artist lyric
contacts: person group company note label
database: table index view user backup
cluster: node container job volume secret
laboratory: sample assay instrument report reagent
translation: glossary phrase language project memory
pictures: image gallery frame caption filter
staff: employee shift salary review report
warehouse: item shelf supplier pallet count
shipping: parcel route carrier address customs
survey: question response panel segment report
models: checkpoint dataset experiment metric prediction
"""
DOMAINS = {line.partition(": ")[0]: tuple(line.partition(": ")[2].split()) for line in _DOMAINS.strip().splitlines()}

_DESCRIPTIONS = {
    "get": ("Return one {o} of the {d} by its identifier.", "Get the details of a single {o}."),
    "list": ("List every {o} of the {d} with its status.", "Return all entries of type {o}, newest first."),
    "create": ("Create a {o} in the {d} under a title.", "Add a new {o} and return its identifier."),
    "update": ("Change the title of a {o} in the {d}.", "Update an existing {o} in place."),
    "delete": ("Delete a {o} from the {d} for good.", "Remove one {o}; it cannot be restored."),
    "search": ("Search the {d} for any {o} whose text matches.", "Full text search over each {o}."),
    "export": ("Export a {o} of the {d} in a chosen format.", "Download one {o} as csv, pdf or json."),
    "share": ("Share a {o} of the {d} with another account by mail address.", "Grant someone read rights on a {o}."),
    "schedule": ("Schedule a {o} of the {d} for a date.", "Set the date on which a {o} takes place."),
    "compare": ("Compare two {o} entries of the {d} field by field.", "Report what is different in two {o} entries."),
}
VERBS = tuple(_DESCRIPTIONS)
_REMARKS = ("", "Returns JSON.", "Needs a signed in account.", "Limited to one hundred calls a minute.")


@dataclass(frozen=True, slots=True)
class Made:
    """A made-up tool and the words it was made of."""

    tool: Tool
    domain: str
    object: str
    verb: str


def made_tools(seed: int = 0) -> list[Made]:
    """All thousand, in the order of the domains."""
    rng = random.Random(seed)  # noqa: S311 -- no secrets here
    return [_made(d, o, v, rng) for d, objects in DOMAINS.items() for o in objects for v in VERBS]


def _made(domain: str, thing: str, verb: str, rng: random.Random) -> Made:
    text = rng.choice(_DESCRIPTIONS[verb]).format(o=thing, d=domain)
    remark = rng.choice(_REMARKS)
    camel = list(DOMAINS).index(domain) % 2
    name = f"{verb}{thing.title()}" if camel else f"{verb}_{thing}"
    tool = Tool(domain, name, f"{text} {remark}".strip(), _schema(thing, verb, rng), {})
    return Made(tool, domain, thing, verb)


def _schema(thing: str, verb: str, rng: random.Random) -> dict[str, Any]:
    """Arguments by verb: what is required is what the queries of that verb give."""
    one: dict[str, Any] = {
        "type": "string",
        "pattern": ID,
        "description": f"Identifier of the {thing}, such as AB-1234.",
    }
    text: dict[str, Any] = {"type": "string", "description": f"Title of the {thing}, in quotation marks."}
    needs = {
        "get": {f"{thing}_id": one},
        "list": {},
        "create": {"title": text},
        "update": {f"{thing}_id": one, "title": text},
        "delete": {f"{thing}_id": one},
        "search": {"text": {"type": "string", "description": "Text in quotation marks that must occur."}},
        "export": {f"{thing}_id": one, "format": {"type": "string", "enum": list(FORMATS)}},
        "share": {f"{thing}_id": one, "address": {"type": "string", "format": "email"}},
        "schedule": {f"{thing}_id": one, "date": {"type": "string", "format": "date"}},
        "compare": {"first_id": one, "second_id": one},
    }[verb]
    optional: dict[str, dict[str, Any]] = {}
    if rng.random() < 0.5:
        optional["limit"] = {"type": "integer", "description": "Entries at most."}
    if rng.random() < 0.3:
        optional["dry_run"] = {"type": "boolean", "description": "Only tell what would happen."}
    return {"type": "object", "properties": needs | optional, "required": list(needs)}
