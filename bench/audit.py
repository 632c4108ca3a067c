"""What `agentlab audit` says of the Chinchilla runs: `python bench/audit.py`.

Rows: Epoch's digitised runs under $AGENTLAB_DATA without the five outliers (240), Huber's loss with delta .001 on log
residuals, as in Besiroglu et al. (2024, arXiv 2404.10102). To be reproduced: their refit and its intervals; parameters
that are not identified; a decision at 5.76e23 FLOP that moves from 2.4 to 17.9 tokens per parameter with the cut, while
the error stays near 1%. The bar for time is a minute on one core.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from machine import RESULTS, about, save

from agentlab.audit import Settings, audit
from agentlab.audit_files import write
from agentlab.audit_records import Card, Case
from agentlab.audit_words import beside
from agentlab.fitting_bootstrap import bootstrap_draws
from agentlab.law import parse
from agentlab.table import intake
from agentlab.types import RunConfig

CHINCHILLA = "E + A/n_params**a + B/tokens**b"
EPOCH = {"E": 1.8172, "A": 482.01, "a": 0.3478, "B": 2085.43, "b": 0.3658}
EPOCH_INTERVALS = {"a": (0.317, 0.373), "b": (0.331, 0.415)}
DECISIONS = (2.4, 4.9, 9.1, 17.9)
DELTA, FLOPS, DRAWS = 1e-3, 5.76e23, 4000
SEEDS = (0, 1, 2)
CONFIG = RunConfig(
    data="laws/chinchilla_epoch/data.csv",
    target="loss",
    features="n_params,tokens",
    scale="compute_train",
    where="is_outlier_besiroglu==0",
    residual="log",
    robust="huber",
)


def audited() -> tuple[Card, Case, dict[str, float]]:
    """The card, its case, and seconds of processor and of wall time."""
    taken = intake(CONFIG)
    law = parse(CHINCHILLA, taken.task.names)
    known = beside(CONFIG, taken.task, len(taken.rows))
    settings = Settings(delta=DELTA, flops=FLOPS, filters={"where": str(CONFIG.where)})
    cpu, wall = time.process_time(), time.perf_counter()
    card, case = audit(law, taken.task, taken.rows, settings, known)
    spent = {"processor": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    return card, case, {k: round(v, 2) for k, v in spent.items()}


def intervals(case: Case) -> dict[str, list[tuple[float, float]]]:
    """95% intervals from DRAWS draws, a seed each, by parameter."""
    out: dict[str, list[tuple[float, float]]] = {name: [] for name in case.law.params}
    for seed in SEEDS:
        drawn = bootstrap_draws(case.law, case.rows, case.fit, draws=DRAWS, seed=seed, options=case.options)
        for name, (low, high) in zip(case.law.params, np.percentile(drawn[case.focus], [2.5, 97.5], 0).T, strict=True):
            out[name].append((round(float(low), 4), round(float(high), 4)))
    return out


def huber(case: Case, params: dict[str, float]) -> float:
    """The mean loss of parameters, delta^2 rho, as the fit minimises it."""
    theta = np.array([params[p] for p in case.law.params])
    z = np.abs(np.log(case.law.evaluate(case.rows.columns, theta)) - np.log(case.rows.targets["loss"])) / DELTA
    return float(DELTA**2 * np.mean(np.where(z <= 1, z**2, 2 * z - 1)))


def compared(card: Card, case: Case, seconds: dict[str, float]) -> dict[str, Any]:
    """The figures beside those that were published."""
    ours = {p.name: p.value for p in card.parameters}
    tied = {f"{c.a}, {c.b}": round(c.bootstrap, 4) for c in card.correlations if abs(c.bootstrap) > 0.9}
    moved = [None if c.decision is None or c.decision.ratio is None else round(c.decision.ratio, 2) for c in card.cuts]
    return {
        "bench": "audit",
        "rows": card.rows,
        "seconds": seconds,
        "parameters": {"ours": ours, "epoch": EPOCH},
        "loss_of_the_fit": {"ours": huber(case, ours), "epoch": huber(case, EPOCH)},
        "intervals95": {"ours": intervals(case), "epoch": EPOCH_INTERVALS, "draws": DRAWS, "seeds": SEEDS},
        "not_identified": [p.name for p in card.parameters if p.unidentified],
        "correlations": tied,
        "decision": {
            "tokens_per_parameter": moved,
            "published": DECISIONS,
            "error_beyond": [c.error_beyond for c in card.cuts],
            "regret_percent_of_compute": [c.decision.regret if c.decision else None for c in card.cuts],
        },
        "coverage90": {f"{f.factor:g}": [f.coverage90, f.test] for f in card.factors},
        "battery": [asdict(v) for v in card.battery],
        "verdict": card.verdict,
    }


def table(found: dict[str, Any]) -> str:
    """The figures as Markdown."""
    ours, epoch, ends = found["parameters"]["ours"], found["parameters"]["epoch"], found["intervals95"]
    lines = ["# What the audit says of the Chinchilla runs", "", f"{about()}", ""]
    lines += [f"`{CHINCHILLA}`, {found['rows']} rows; {found['seconds']['processor']} s of one core.", ""]
    lines += [
        "| parameter | ours | Epoch | 95% interval, ours, a seed each | Epoch's | not identified |",
        "|---|" + "---|" * 5,
    ]
    for name, value in ours.items():
        mine = ", ".join(f"{low:.4g} .. {high:.4g}" for low, high in ends["ours"][name])
        theirs = " .. ".join(str(v) for v in ends["epoch"].get(name, ())) or "-"
        mark = "yes" if name in found["not_identified"] else "no"
        lines.append(f"| {name} | {value:.5g} | {epoch[name]:.5g} | {mine} | {theirs} | {mark} |")
    cost = found["loss_of_the_fit"]
    lines += ["", f"Mean Huber loss at our parameters {cost['ours']:.6e}, at Epoch's {cost['epoch']:.6e}."]
    lines += ["", f"Correlations: {found['correlations']}.", ""]
    lines += ["| lowest rows by compute | tokens per parameter | published | error beyond | regret, % of compute |"]
    lines += ["|---|" + "---|" * 4]
    decided = found["decision"]
    shares = zip(("50%", "70%", "90%", "100%"), decided["tokens_per_parameter"], decided["published"], strict=True)
    for (share, mine, theirs), error, lost in zip(
        shares, decided["error_beyond"], decided["regret_percent_of_compute"], strict=True
    ):
        lines.append(f"| {share} | {mine} | {theirs} | {'-' if error is None else f'{error:.2%}'} | {lost:.3g} |")
    lines += ["", "The whole card is `agentlab audit` with these words. Its verdict:", ""]
    return "\n".join([*lines, *(f"- {text}" for text in found["verdict"])]) + "\n"


def main() -> None:
    """Audit, compare, keep; with a folder as argument the whole card is written there."""
    card, case, seconds = audited()
    found = compared(card, case, seconds)
    save(found)
    text = table(found)
    (RESULTS / "audit.md").write_text(text)
    if sys.argv[1:]:
        write(card, case, Path(sys.argv[1]))
    print(text)
    print(json.dumps({k: v for k, v in found.items() if k not in ("battery", "verdict")}))


if __name__ == "__main__":
    main()
