"""What a law must beat: baselines on the same hidden rows, and luck on shuffled targets."""

from dataclasses import replace

import numpy as np
from test_selection import planted

from agentlab import selection
from agentlab.law import parse
from agentlab.selection_rivals import LAW, Rival, beaten_by, luck, rivals, shuffled
from agentlab.types import Rows, Score

TRUE = "E + A/N**a + B/D**b"


def test_the_true_form_beats_every_baseline_beyond_the_cuts() -> None:
    task, rows = planted(60)
    judge = selection.problem(task, rows)
    found = rivals(parse(TRUE, task.names), judge, selection.search_options(task, 10))
    assert [r.name for r in found] == [LAW, "nearest neighbour", "group mean", "last rung"]
    assert beaten_by(found) == ""
    assert found[0].dev.n == found[1].dev.n == 15


def test_a_baseline_is_named_where_the_target_ignores_the_features() -> None:
    task, rows = planted(80)
    rng = np.random.default_rng(5)
    noise = replace(rows, targets={"loss": 2.0 * np.exp(0.1 * rng.normal(size=80))})
    judge = selection.problem(task, noise)
    law = parse("E + A*log(N) + B*log(N)**2 + C*log(D) + F*log(D)**2", task.names)
    assert beaten_by(rivals(law, judge, selection.search_options(task, 10))) == "group mean"


def test_a_law_must_lose_on_all_cuts_and_on_dev_to_be_beaten() -> None:
    good, bad = Score(0.9, 0.1, 0.1, 0.1, 0.1, 9), Score(0.1, 0.9, 0.9, 0.9, 0.9, 9)
    law = Rival(LAW, -4.0, bad)
    assert beaten_by([law, Rival("a", -5.0, good)]) == "a"
    assert beaten_by([law, Rival("a", -3.0, good)]) == ""
    assert beaten_by([Rival(LAW, -4.0, good), Rival("a", -5.0, bad)]) == ""
    flat = Score(-np.inf, np.inf, np.inf, 0.1, 0.1, 1)
    assert beaten_by([Rival(LAW, -4.0, flat), Rival("a", -5.0, replace(flat, mae=0.01))]) == "a"
    broken = Rival(LAW, float("nan"), Score(*(float("nan"),) * 5, 9))
    assert beaten_by([broken, Rival("a", 9.0, bad)]) == "a"


def test_luck_saves_little_where_the_law_saves_much() -> None:
    task, rows = planted(60)
    judge = selection.problem(task, rows)
    candidates = [parse(f, task.names) for f in (TRUE, "E + A*log(N)", "A*N**a*D**b")]
    options = selection.search_options(task, 8)
    found = luck(parse(TRUE, task.names), candidates, judge, options, seed=1)
    assert found.candidates == 3
    assert 0 <= found.gain < 0.5 < found.law_gain
    assert found.r2 < 0.5
    assert found == luck(parse(TRUE, task.names), candidates, judge, options, seed=1)


def test_shuffling_deals_targets_anew_within_groups_only() -> None:
    _, rows = planted(60, group=3)
    dealt = shuffled(rows, seed=2)
    for group in rows.groups:
        mine = rows.group == group
        assert sorted(dealt.targets["loss"][mine]) == sorted(rows.targets["loss"][mine])
    assert not np.array_equal(dealt.targets["loss"], rows.targets["loss"])


def test_a_feature_named_like_a_constant_changes_no_figure() -> None:
    task, rows = planted(40)
    named = Rows(
        {"E": rows.columns["N"], "D": rows.columns["D"]}, rows.targets, rows.group, rows.weight, rows.scale, rows.run
    )
    other = replace(task, features=tuple(replace(v, name={"N": "E"}.get(v.name, v.name)) for v in task.features))
    options = selection.search_options(task, 8)
    law, same = parse("c + A/N**a", task.names), parse("c + A/E**a", other.names)
    one = luck(law, [law], selection.problem(task, rows), options, 0)
    two = luck(same, [same], selection.problem(other, named), options, 0)
    assert (one.gain, one.law_gain) == (two.gain, two.law_gain)
