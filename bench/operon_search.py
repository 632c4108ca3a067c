"""Searches by pyoperon, a program of its own: JSON tables in, their Pareto fronts as a JSON line out.

It imports nothing of agentlab, so that it runs in whatever Python has pyoperon. In: "seed", "evaluations" and "tables",
each with "columns" {name: values}, "y" and "noise" (the residual scale, without which description lengths mean
nothing). Out: "answers", one a table: "front" (each model with "formula" over X1, X2 .., "mdl", "mse", "length"),
"version" and "seconds".
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import sys
import time
from typing import Any

import numpy as np
from pyoperon.sklearn import SymbolicRegressor

SYMBOLS = "add,sub,mul,div,pow,exp,log,constant,variable"
SETTINGS: dict[str, Any] = {
    "allowed_symbols": SYMBOLS,
    "objectives": ["mse", "length"],
    "population_size": 500,
    "generations": 1000,
    "max_length": 40,
    "max_depth": 9,
    "optimizer_iterations": 5,
    "model_selection_criterion": "minimum_description_length",
    "n_threads": 1,
}


def search(told: dict[str, Any], seed: int, evaluations: int) -> dict[str, Any]:
    """The Pareto front of one search."""
    table = np.column_stack([np.asarray(values, dtype=np.float64) for values in told["columns"].values()])
    y = np.asarray(told["y"], dtype=np.float64)
    regressor = SymbolicRegressor(
        **SETTINGS,
        uncertainty=[float(told["noise"])],
        random_state=seed,
        max_evaluations=evaluations,
    )
    began = time.perf_counter()
    regressor.fit(table, y)
    seconds = time.perf_counter() - began
    front: list[dict[str, Any]] = [
        {
            "formula": regressor.get_model_string(model["tree"], 17),
            "mdl": float(model["minimum_description_length"]),
            "mse": float(model["mean_squared_error"]),
            "length": int(model["length"]),
        }
        for model in regressor.pareto_front_
    ]
    front = [model for model in front if math.isfinite(model["mdl"])]
    return {"front": front, "version": importlib.metadata.version("pyoperon"), "seconds": seconds}


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    answers = [search(table, int(asked["seed"]), int(asked["evaluations"])) for table in asked["tables"]]
    print(json.dumps({"answers": answers}))
