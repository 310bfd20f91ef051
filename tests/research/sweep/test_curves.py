"""Are the curves of thresholds exact, and does the walk forward score what it has not seen?"""

import numpy as np
import pandas as pd
import pytest

import research
from research.errors import UserError
from research.evidence.finding import judge_picks
from research.sweep.curves import Curve, threshold_curve
from research.sweep.page import _curve_words
from research.sweep.walk import _from as since
from research.sweep.walk import pick_table, walk, walk_forward
from tests.support import PUBLISHED

BASE = PUBLISHED.with_values({"broker.max_holding_bars": 5, "governor.max_drawdown": 1.0})


@pytest.fixture(scope="module")
def world():
    bars = research.load_bars("simulated:random_walk?n_bars=500&n_symbols=2&seed=8")
    predictions = research.Predictions.random(bars, seed=3)
    predictions.confidence[:] = np.round(predictions.confidence, 2)  # figures that many cells share
    return bars, predictions


def calls(run, params):
    """Calls and right calls by their definition."""
    d, labels = run.result.decisions, run.labels
    marked = (d.raw_action != 1) & (d.raw_confidence >= params.governor.min_confidence) & (labels >= 0)
    return int(marked.sum()), int((marked & (d.raw_action == labels)).sum())


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("governor.min_confidence", 0.5, 0.9),
        ("arbiter.gate_confidence", 0.7, 1.0),
        ("arbiter.score_threshold", 0.0, 0.5),
        ("meta.low_confidence", 0.3, 1.0),
        ("meta.consensus_threshold", 0.0, 1.0),
        ("meta.disagreement_threshold", 0.0, 1.0),
    ],
)
def test_every_value_of_a_plateau_has_its_figures(world, name, low, high):
    curve = threshold_curve(*world, name, BASE, low=low, high=high)
    t = curve.table
    assert t["above"].iloc[0] == low
    assert t["to"].iloc[-1] == high
    assert np.array_equal(t["above"].iloc[1:], t["to"].iloc[:-1])
    rng = np.random.default_rng(0)
    rows = rng.choice(len(t), min(8, len(t)), replace=False)
    for row in rows:
        above, to = t["above"].iloc[row], t["to"].iloc[row]
        for value in (to, above + (to - above) * 0.5, np.nextafter(above, 2.0)):
            params = BASE.with_values({name: float(value)})
            run = research.backtest(*world, params)
            assert run.result.equity[-1] / 10_000.0 - 1.0 == t["total_return"].iloc[row], (name, value)
            assert np.count_nonzero(run.result.fills["is_entry"]) == t["n_trades"].iloc[row]
        params = BASE.with_values({name: float(to)})
        n, right = calls(research.backtest(*world, params), params)
        assert n == t["n_calls"].iloc[row]
        assert t["accuracy"].iloc[row] == pytest.approx(right / n if n else np.nan, nan_ok=True)


def test_plateau_and_cliff_of_the_chosen_value(world):
    curve = threshold_curve(*world, "governor.min_confidence", BASE, low=0.4, high=1.0)
    row = curve.table.iloc[curve.at]
    assert row["above"] < curve.chosen == 0.65 <= row["to"]
    assert curve.width == row["to"] - row["above"] > 0.0
    down, up = curve.cliff(0.005)
    for value, away in ((0.65 - down, -1e-9), (0.65 + up, 1e-9)):
        if np.isfinite(value):
            moved = research.backtest(*world, BASE.with_values({"governor.min_confidence": value + away if away > 0 else value}))
            assert moved.result.equity[-1] / 10_000.0 - 1.0 < row["total_return"] - 0.005
    assert curve.cliff(9.0) == (np.inf, np.inf)


@pytest.mark.parametrize(
    ("returns", "said"),
    [
        ([0.1, 0.1, 0.1], "nowhere does the return fall by more than 1 % of the initial equity."),
        ([0.0, 0.1, 0.1], "0.1000 below that value does the return fall by more than 1 % of the initial equity."),
        ([0.0, 0.1, 0.0], "0.1000 below and 0.1000 above that value does the return fall by more than 1 % of the initial equity."),
    ],
)
def test_where_the_return_falls_is_said_for_the_sides_where_it_does(returns, said):
    table = pd.DataFrame({"above": [0.0, 0.4, 0.6], "to": [0.4, 0.6, 1.0], "total_return": returns})
    words = _curve_words(Curve("governor.min_confidence", 0.5, table))
    assert words == f"3 plateaus. At 0.5 not one bit changes over a width of 0.2; {said}"


def test_the_nearest_breakpoints_are_a_part_of_the_curve(world):
    whole = threshold_curve(*world, "governor.min_confidence", BASE)
    part = threshold_curve(*world, "governor.min_confidence", BASE, nearest=8)
    assert len(part.table) <= 8 < len(whole.table)
    inner = part.table.iloc[1:-1]  # the first and the last plateau are cut
    assert len(inner) > 0
    assert whole.table[whole.table["to"].isin(inner["to"])].reset_index(drop=True).equals(inner.reset_index(drop=True))
    assert (part.width, part.chosen) == (whole.width, whole.chosen)


def test_other_parameters_have_no_exact_curve(world):
    with pytest.raises(UserError, match=r"an exact curve needs a threshold, was 'governor\.stop_loss'"):
        threshold_curve(*world, "governor.stop_loss", BASE)
    with pytest.raises(UserError, match=r"needs meta\.policy_base shared"):
        threshold_curve(*world, "meta.low_confidence", BASE.with_values({"meta.policy_base": "score"}))


def test_a_pick_is_scored_on_the_fold_after_it(world):
    bars, predictions = world
    grid = {"governor.min_confidence": [0.5, 0.6, 0.7], "arbiter.score_threshold": [0.05, 0.2]}
    picks = walk_forward(bars, predictions, grid, BASE, n_folds=4)
    assert len(picks) == 3
    for fold, pick in picks.iterrows():
        first, last, end = (125 * (fold + i) for i in range(3))
        trials = research.sweep(bars[:last], since(predictions[:last], first), grid, BASE, record=False)
        best = trials.best()
        assert pick["picked.sharpe"] == best["sharpe"]
        assert {name: pick[name] for name in grid} == trials.space.setting(int(best["trial"]))
        scored = research.backtest(bars[:end], since(predictions[:end], last), trials.params(int(best["trial"])))
        assert pick["scored.total_return"] == scored.result.equity[-1] / 10_000.0 - 1.0
        assert pick["start"] == pd.Timestamp(bars.open_time[last], tz="UTC")


def test_a_walk_is_judged_by_the_days_that_the_picks_had_not_seen(world):
    bars, predictions = world
    found = walk(bars, predictions, {"governor.min_confidence": [0.5, 0.6, 0.7]}, BASE, n_folds=4)
    whole = 1.0
    for total in found.table["scored.total_return"]:
        whole *= 1.0 + total
    assert np.prod(1.0 + found.returns) == pytest.approx(whole, rel=1e-12)
    assert found.verdict["verdict"] == "not enough data"  # 16 days
    assert found.verdict["n_trades"] == found.table["scored.n_trades"].sum()
    headers, rows = pick_table(found.table)
    assert [len(row) for row in rows] == [len(headers)] * 3


def test_an_adaptive_walk_scores_the_settings_it_tried(world):
    pytest.importorskip("optuna")
    grid = {"governor.min_confidence": "0.4:0.8"}
    picks = walk_forward(*world, grid, BASE, n_folds=2, search="adaptive", settings=5)
    trials = research.sweep(world[0][:250], world[1][:250], grid, BASE, search="adaptive", settings=5, record=False)
    assert picks["governor.min_confidence"].iloc[0] == trials.best()["governor.min_confidence"]
    whole = [world[0], since(world[1], 250)]
    scored = [research.backtest(*whole, trials.params(i)).result.equity[-1] / 10_000.0 - 1.0 for i in range(5)]
    assert picks["median.total_return"].iloc[0] == pytest.approx(np.median(scored), rel=1e-12)
    assert picks["scored.total_return"].iloc[0] in scored


def test_picks_are_judged_by_rules():
    rng = np.random.default_rng(0)
    noise = rng.normal(0.0, 0.01, 300)
    picks = pd.DataFrame({f"{name}.sharpe": [3.0, 1.0] for name in ("picked", "scored", "median")} | {"scored.n_trades": [20.0, 20.0]})
    assert judge_picks(picks, noise + 0.004, 60)["verdict"] == "paid"
    assert judge_picks(picks, noise - noise.mean(), 60)["verdict"] == "not shown to pay"
    assert judge_picks(picks, noise[:59] + 0.004, 60)["verdict"] == "not enough data"
    assert judge_picks(picks[:1], noise + 0.004, 60)["verdict"] == "not enough data"  # 20 trades
    assert judge_picks(pd.DataFrame(), np.empty(0), 60)["verdict"] == "not enough data"
    assert "2.00 where they were picked" in judge_picks(picks, noise + 0.004, 60)["sentence"]


def test_the_future_of_the_pick_changes_nothing_of_it(world):
    bars, predictions = world
    grid = {"governor.min_confidence": [0.5, 0.6, 0.7]}
    before = walk_forward(bars, predictions, grid, BASE, n_folds=4)
    changed = research.Predictions.random(bars, seed=9)
    for plane, other in ((predictions.action, changed.action), (predictions.confidence, changed.confidence)):
        other[:, :250] = plane[:, :250]
    after = walk_forward(bars, changed, grid, BASE, n_folds=4)
    assert before.iloc[0].equals(after.iloc[0])
    assert before["picked.sharpe"].iloc[1] == after["picked.sharpe"].iloc[1]


def test_too_few_bars_for_the_folds(world):
    for n_folds in (1, 20):
        with pytest.raises(UserError, match=f"--walk-forward must be 2 or more folds of 30 bars or more each, was {n_folds} over 500"):
            walk_forward(*world, {"governor.min_confidence": [0.5]}, BASE, n_folds=n_folds)
