"""The results of bench/laws.py as a table for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from machine import RESULTS, about, save


def report(answers: Sequence[Mapping[str, Any]], words: Mapping[str, Any]) -> None:
    """Print the table and one JSON line; keep both under bench/results, or under `out` after an inner split."""
    kept = {k: words[k] for k in ("candidates", "seed", "dev")}
    good = sum(a["verdict"] in ("first", "tied") for a in answers)
    summary = {"first_or_tied": good, "of": len(answers), **kept}
    everything = {"bench": "laws", **summary, "sets": list(answers)}
    text = markdown(answers, summary)
    if words["dev"]:
        folder = Path(words["out"])
        (folder / "dev.json").write_text(json.dumps(everything | {"machine": about()}, indent=1) + "\n")
        (folder / "dev.md").write_text(text)
    else:
        save(everything)
        (RESULTS / "laws.md").write_text(text)
    print(text)
    print(json.dumps({"bench": "laws", **summary, "verdicts": {a["set"]: a["verdict"] for a in answers}}))


def markdown(answers: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> str:
    """One section a set; a comparator a line."""
    machine = about()
    split = "the inner split of the training rows" if summary["dev"] else "the primary split of each set"
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
    about_all = (
        f"First or tied on {summary['first_or_tied']} of {summary['of']} sets. Rows to predict: {split}. All see the "
        "same training rows; published forms are fitted by our fitter with the same residual and loss. "
        f"{summary['candidates']} candidates, seed {summary['seed']}. Difference: (our MSE - theirs)/var(y) with its "
        "paired-bootstrap 90% interval by run; tied = it holds 0. A prediction that is not finite is a failure."
    )
    where = f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}, {versions}."
    title = "# Laws of real runs: ours against published forms, a power law, pyoperon and baselines"
    lines = [title, "", about_all, "", where, ""]
    for answer in answers:
        lines += _section(answer)
    return "\n".join(lines)


def _section(answer: Mapping[str, Any]) -> list[str]:
    lines = [f"## {answer['set']}: {answer['verdict']}", ""]
    if "table" not in answer:
        return [*lines, answer["reason"], ""]
    law, looks = answer["law"], answer["looks"]
    summary = (
        f"`{law['formula']}` ({law['n_params']} parameters a group, at most {law['max_params']}; law {law['sha']}; "
        f"{law['seconds']:.0f} s). Split opened {looks['openings']} time(s), for {looks['laws']} law(s). "
        f"{answer['rows']} rows of {answer['runs']} runs to predict: {answer['split'][1]}."
    )
    lines += [summary, "", "| | R2 | MAE | ARE | ours - theirs | ours is |", "|---|---|---|---|---|---|"]
    for name, row in answer["table"].items():
        ours = row["ours"]
        difference = f"{ours['difference']:.3g} [{ours['low']:.3g}, {ours['high']:.3g}]" if ours else ""
        word = ours["word"] if ours else row["reason"]
        cells = [_number(row["r2"], "{:.4f}"), _number(row["mae"], "{:.4g}"), _number(row["are"], "{:.2%}")]
        lines.append(f"| {name} | {' | '.join(cells)} | {difference} | {word} |")
    notes = sorted({f"{name}: {row['note']}" for name, row in answer["table"].items() if row["note"]})
    return [*lines, "", *([f"({'; '.join(notes)})", ""] if notes else [])]


def _number(value: float | None, pattern: str) -> str:
    return "failed" if value is None else pattern.format(value)
