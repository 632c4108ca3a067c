"""Runs whose curve has already answered are stopped; others go on."""

from __future__ import annotations

import numpy as np
import pytest

from agentlab.experiments_stop import FEW, Curves

SHARES = (0.25, 0.5, 0.75, 1.0)


def curve(final: float, rng: np.random.Generator, scatter: float) -> list[tuple[float, float]]:
    """A loss that falls to `final`, with values on the way that tell it up to `scatter`."""
    return [(f, final * (2 - f) * float(np.exp(scatter * rng.standard_normal()))) for f in SHARES[:-1]]


def curves(scatter: float, count: int = 12, noise: float = 0.01) -> Curves:
    """Curves of runs that went to their end."""
    rng = np.random.default_rng(1)
    return Curves([(curve(final, rng, scatter), final) for final in np.linspace(1.5, 2.5, count)], noise)


def test_a_curve_that_tells_its_end_is_stopped_at_once_and_predicts_it() -> None:
    found = curves(1e-4).answered(curve(2.0, np.random.default_rng(2), 1e-4))
    assert found is not None
    assert found.share == 0.25
    assert found.value == pytest.approx(2.0, rel=1e-3)


def test_a_curve_that_scatters_more_than_seeds_do_goes_on_to_the_end() -> None:
    assert curves(0.05).answered(curve(2.0, np.random.default_rng(2), 0.05)) is None


def test_the_later_the_point_the_better_it_must_tell() -> None:
    """At 3/4 of the way a scatter of .58 of the noise is allowed, at 1/4 one of 1.73."""
    some = curves(0.012, 60)
    found = some.answered(curve(2.0, np.random.default_rng(3), 0.012))
    assert found is not None
    assert found.share == 0.25
    assert some.answered(curve(2.0, np.random.default_rng(3), 0.012)[2:]) is None


def test_nothing_is_stopped_before_some_runs_went_to_their_end() -> None:
    assert curves(1e-4, FEW - 1).answered(curve(2.0, np.random.default_rng(2), 1e-4)) is None


def test_runs_that_were_stopped_teach_nothing() -> None:
    told = {"kind": "measured", "status": "ok", "curve": [[0.5, 2.0]], "targets": {"loss": 1.9}}
    assert len(Curves.of([told, told | {"stopped": 0.5}, {"kind": "measured", "status": "rejected"}], 0.01).known) == 1
