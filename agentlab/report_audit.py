"""The sections of a report that the audit tells: decision, findings, intervals, battery, and the checklist."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from agentlab.report_parts import BLANK, Block, Bullets, Code, Grid, Heading, Para, Part, Row, Source, Sourced
from agentlab.trace import number
from agentlab.types import ALL

Card = Mapping[str, Any]
"""audit.json."""

MOST_ROWS = 80


def decision(card: Card) -> list[Part]:
    """What the law tells one to do."""
    chosen = card["decision"]
    if chosen is None:
        return ["The law has no decision to make: its features leave nothing to choose."]
    told = Source(card, "a:", fields=True)
    group, target = card["focus"]
    parts: list[Part] = ["Decision for ", Code(target), ": "]
    if group != ALL:
        parts[1:1] = ["group ", Code(group), ", "]
    if card["compute"] is not None:
        parts += ["with ", told.of("compute", ".3g") or BLANK, " FLOPs, "]
    for i, name in enumerate(chosen["config"]):
        parts += [", " if i else "take ", Code(name), " = ", told.of(f"decision.config.{name}", ".4g") or BLANK]
    if chosen["ratio"] is not None:
        parts += [" (", told.of("decision.ratio", ".3g") or BLANK, " tokens per parameter"]
        if chosen["ratio90"] is not None:
            parts += [", from ", told.of("decision.ratio90.0", ".3g") or BLANK]
            parts += [" to ", told.of("decision.ratio90.1", ".3g") or BLANK]
        parts.append(")")
    if chosen["edge"]:
        parts += ["; at the edge of what may be chosen: ", *_listed(chosen["edge"])]
    if card["decision_regret90"] is not None:
        parts += ["; if a law of the bootstrap is the true one it costs "]
        parts += [_share(card["decision_regret90"][0], "a:decision_regret90.0"), " of the compute (median), "]
        parts += [_share(card["decision_regret90"][1], "a:decision_regret90.1"), " at worst but for one in twenty"]
    return [*parts, "."]


def _listed(names: Sequence[str]) -> list[Part]:
    parts: list[Part] = []
    for i, name in enumerate(names):
        parts += [", ", Code(name)] if i else [Code(name)]
    return parts


def _share(value: object, ref: str) -> Sourced:
    return Sourced(f"{number(value):.3g}%", ref)


def findings(card: Card) -> list[Block]:
    """What the audit found, sentence by sentence."""
    items: list[list[Part]] = [[Sourced(text, f"a:verdict.{i}")] for i, text in enumerate(card["verdict"])]
    return [Heading(["What the audit found"]), Bullets(items)]


def fitted(card: Card) -> list[Block]:
    """Why parameters are not identified, how the fit converged, what is left in the residuals."""
    parameters = []
    for i, p in enumerate(card["parameters"][:MOST_ROWS]):
        ref = f"a:parameters.{i}"
        told = Source(p, ref)
        why = [Sourced("; ".join(p["unidentified"]), ref)] if p["unidentified"] else ["identified"]
        parameters.append(
            Row(
                [
                    Code(p["group"]), Code(p["target"]), Code(p["name"]), told.of("value"), told.of("interval95.0"),
                    told.of("interval95.1"), told.of("halved", ".3g"), told.of("doubled", ".3g"), *why,
                ],
                ref,
            )
        )  # fmt: skip
    residuals = []
    for i, r in enumerate(card["residuals"]):
        ref = f"a:residuals.{i}"
        told = Source(r, ref)
        trend = "yes" if r["trend"] else "no"
        residuals.append(Row([Code(r["name"]), told.of("correlation", ".3f"), told.of("p", ".2g"), trend], ref))
    return [
        Heading(["Parameters and residuals"]),
        Grid(
            [
                "group",
                "target",
                "parameter",
                "value",
                "wide interval: low",
                "high",
                "deviance at half",
                "at twice",
                "why",
            ],
            parameters,
        ),
        Heading(["Residuals against every input"], 3),
        Grid(["input", "rank correlation", "by chance", "a trend"], residuals),
    ]


def extrapolation(card: Card) -> list[Block]:
    """Errors by factor beyond the fit, rivals on the same rows, and the decision by cut."""
    factors, rivals, cuts = [], [], []
    for i, f in enumerate(card["factors"]):
        ref = f"a:factors.{i}"
        told = Source(f, ref)
        counts = [told.of("factor", "g"), told.of("train", ".0f"), told.of("test", ".0f")]
        figures = [told.of("are", percent=True), told.of("coverage90", ".0%"), told.of("bias", ".3g")]
        factors.append(Row([*counts, *figures, _note(f["blank"], ref)], ref))
    for i, r in enumerate(card["rivals"]):
        ref = f"a:rivals.{i}"
        told = Source(r, ref)
        rivals.append(
            Row(
                [Sourced(r["name"], ref), told.of("are", percent=True), told.of("r2", ".4f"), _note(r["blank"], ref)],
                ref,
            )
        )
    for i, c in enumerate(card["cuts"]):
        ref = f"a:cuts.{i}"
        told = Source(c, ref)
        errors = [told.of("error_inside", percent=True), told.of("error_beyond", percent=True)]
        cuts.append(Row([told.of("share", ".0%"), told.of("n", ".0f"), *errors, *_decided(c["decision"], ref)], ref))
    return [
        Heading(["Beyond the fit"]),
        Grid(
            [
                "fitted below the largest scale divided by",
                "rows",
                "rows beyond",
                "mean relative error",
                "coverage",
                "bias",
                "note",
            ],
            factors,
        ),
        Heading(["Others on the same hidden rows"], 3),
        Grid(["predicts the top quarter by scale", "mean relative error", "R²", "note"], rivals),
        Heading(["The decision by how much is fitted"], 3),
        Para(["The decision: ", Sourced(card["question"], "a:question")]),
        Grid(["lowest rows by scale", "rows", "error inside", "error beyond", "decision", "regret"], cuts),
    ]


def _note(text: str, ref: str) -> Part:
    return Sourced(text, ref) if text else ""


def _decided(chosen: Mapping[str, Any] | None, ref: str) -> list[Part | None]:
    if chosen is None:
        return [None, None]
    if chosen["ratio"] is not None:
        what = "none inside" if chosen["loose"] else f"{number(chosen['ratio']):.3g} tokens per parameter"
    else:
        what = ", ".join(f"{k} {number(v):.4g}" for k, v in chosen["config"].items())
    lost, unit = (chosen["regret"], "%") if chosen["regret"] is not None else (chosen["shortfall"], "% of the target")
    if lost is None:
        return [Sourced(what, ref), None]
    bounded = math.isfinite(number(lost))
    return [Sourced(what, ref), Sourced(f"{number(lost):.3g}{unit}" if bounded else "without bound", ref)]


def battery(card: Card) -> list[Block]:
    """The choices made otherwise."""
    rows = []
    for i, v in enumerate(card["battery"][:MOST_ROWS]):
        ref = f"a:battery.{i}"
        told = Source(v, ref)
        rows.append(
            Row(
                [
                    v["axis"], Sourced(v["name"], ref), told.of("n", ".0f") if v["n"] else None,
                    told.of("error", percent=True), *_decided(v["decision"], ref), _note(v["blank"], ref),
                ],
                ref,
            )
        )  # fmt: skip
    head = ["choice", "made otherwise", "rows", "error beyond the inner cut", "decision", "regret", "why blank"]
    text = "Every choice that changes the conclusions of published fits, made otherwise, one at a time."
    return [Heading(["The battery"]), Para([text]), Grid(head, rows)]


def checklist(card: Card) -> list[Block]:
    """What a reader must know; what nobody says is blank."""
    rows, blank = [], 0
    for i, fact in enumerate(card["facts"]):
        ref = f"a:facts.{i}"
        blank += not fact["value"]
        value = Sourced(fact["value"], ref) if fact["value"] else BLANK
        rows.append(Row([Code(fact["name"]), value, fact["source"] or "nobody says it"], ref))
    text: list[Part] = [
        "What a reader must know to use the law. ",
        Sourced(str(blank), "a:facts"),
        " of them nobody says.",
    ]
    return [Heading(["Checklist"]), Para(text), Grid(["fact", "value", "from"], rows)]
