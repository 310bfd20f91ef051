"""Is what a search is worth worked out from the trials' own returns?"""

import numpy as np
import pytest

import research
from research.evidence.overfitting import overfitting, superiority
from research.evidence.trials import daily_returns
from research.runs.space import BLOCK, Space
from research.sweep import search_significance
from tests.support import PUBLISHED

BASE = PUBLISHED.with_values({"broker.max_holding_bars": 5, "governor.max_drawdown": 1.0})
GRID = {"governor.min_confidence": "0.5:0.8:0.1", "arbiter.gate_confidence": [0.5, 0.7], "governor.max_daily_trades": [2, 20]}


@pytest.fixture(scope="module")
def world():
    bars = research.load_bars("simulated:random_walk?n_bars=1700&n_symbols=2&seed=4")
    predictions = research.Predictions.random(bars, seed=1)
    predictions.action[:, :150] = -1
    predictions.confidence[:, :150] = np.nan
    return bars, predictions


@pytest.fixture(scope="module")
def trials(world):
    return research.sweep(*world, GRID, BASE, record=False)


def test_returns_are_those_of_the_run(world, trials):
    ends, period = search_significance.periods(trials.case)
    assert period == "day"
    assert len(ends) == 1 + -(-(1_550 - 18) // 24)  # the first vote, bar 150, falls on 6:00
    got = search_significance.returns_of(trials, np.array([0, 5, 11]), ends)
    for column, trial in zip(got.T, (0, 5, 11), strict=True):
        run = research.backtest(*world, trials.params(trial))
        _, want = daily_returns(run.bars.close_time[trials.case.first :], run.result.equity[trials.case.first :])
        np.testing.assert_allclose(column, want, rtol=0, atol=1e-7)  # the ledger keeps them in single precision
        assert np.ptp(column) > 0.0


def test_settings_that_differ_in_nothing_are_judged_once(trials):
    chosen, n_distinct = search_significance.sample(trials)
    assert len(chosen) == n_distinct == trials.n_distinct == 8  # the gate differs in nothing
    assert len(trials) == 16


def test_a_large_sweep_is_judged_by_an_even_draw(trials, monkeypatch):
    monkeypatch.setattr(search_significance, "SAMPLE", 5)
    chosen, n_distinct = search_significance.sample(trials)
    assert (len(chosen), n_distinct) == (5, 8)
    assert np.all(np.diff(chosen) > 0)
    assert search_significance.sample(trials)[0].tolist() == chosen.tolist()


def test_a_sweep_is_judged_by_its_trials(world, trials):
    best = trials.best()
    run = research.backtest(*world, trials.params(int(best["trial"])))
    found = search_significance.judge(trials, run.summary["evidence"], run.params.broker.max_holding_bars)
    chosen, _ = search_significance.sample(trials)
    returns = search_significance.returns_of(trials, chosen, search_significance.periods(trials.case)[0])
    assert found["pbo"] == overfitting(returns, found["blocks"]).probability
    assert found["spa"] == superiority(returns, block=found["block"]).consistent
    assert found["deflated"] == run.summary["evidence"]["sharpe"]["deflated"]
    assert (found["sampled"], found["distinct"], found["period"]) == (8, 8, "day")
    assert found["minimum_track_record_bars"] is None or found["minimum_track_record_bars"] > 1


def test_a_short_test_is_cut_finer_than_days(world):
    bars, predictions = world
    case = research.sweep(bars[:400], predictions[:400], {"governor.min_confidence": [0.5, 0.6]}, BASE, record=False).case
    ends, period = search_significance.periods(case)
    assert period == "bar"
    assert len(ends) == 250
    assert ends[-1] == 249


def test_picked_settings_are_those_drawn():
    numbers = np.array([0, 3, BLOCK - 1, BLOCK, BLOCK + 7, 5_999])
    for search in ("grid", "random"):
        space = Space.of(
            BASE,
            {"governor.min_confidence": "0.5:0.8:0.0001", "governor.max_daily_trades": [2, 20]},
            search,
            0 if search == "grid" else 6_002,
            seed=7,
        )
        for row, number in enumerate(numbers):
            assert space.values(space.pick(numbers), row) == space.setting(int(number))
