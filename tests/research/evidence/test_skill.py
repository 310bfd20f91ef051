"""Are ranks, Sharpe ratios, costs and turnover what plain loops and other libraries say, and do their intervals cover?"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

import research
from qtcore.types import NS_PER_HOUR, Bars
from research.evidence.earnings import costs_by_bar, money_of, ranks_in_money, sharpe_interval
from research.evidence.skill import information, mean_probs, rank_correlations, skill_of
from research.runs import tables
from tests.support import PUBLISHED

CELL = st.one_of(st.just(math.nan), st.integers(-3, 3).map(float))


@given(st.integers(0, 9).flatmap(lambda m: st.tuples(*[st.lists(CELL, min_size=m, max_size=m)] * 2)))
@settings(max_examples=200, deadline=None)
def test_rank_correlations_are_spearmans_of_the_symbols_that_have_both(pair):
    x, y = (np.array(values, np.float64) for values in pair)
    both = ~(np.isnan(x) | np.isnan(y))
    found = rank_correlations(x[None], y[None])[0] if len(x) else math.nan
    if both.sum() < 5 or np.ptp(x[both]) == 0.0 or np.ptp(y[both]) == 0.0:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(spearmanr(x[both], y[both]).statistic, abs=1e-12)


def test_intervals_of_rank_correlations_cover_noise_and_find_what_was_planted():
    covered, found = 0, []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        lean = np.repeat(rng.standard_normal((100, 12)), 8, axis=0)  # opinions that last
        came = rng.standard_normal(lean.shape)
        low, high = information(lean, came)["ci95"]
        covered += low < 0.0 < high
        found.append(information(lean, 0.1 * lean + came)["value"])
    assert covered >= 54
    assert np.mean(found) == pytest.approx(6 / math.pi * math.asin(0.1 / math.sqrt(1.01) / 2), abs=0.01)  # Pearson's for Spearman's
    assert information(np.full((5, 3), 1.0), np.full((5, 3), 1.0)) is None


def test_a_sharpe_ratio_is_mean_over_deviation_and_its_interval_covers():
    rng, covered = np.random.default_rng(0), 0
    for _ in range(200):
        returns = rng.standard_t(5, 1_000) * 0.01 + 0.0005
        figure = sharpe_interval(returns, 365.0)
        assert figure["value"] == pytest.approx(returns.mean() / returns.std() * math.sqrt(365.0))
        low, high = figure["ci95"]
        covered += low < 0.0005 / (0.01 * math.sqrt(5 / 3)) * math.sqrt(365.0) < high
    assert covered >= 182
    assert sharpe_interval(np.zeros(10), 365.0) is None
    assert sharpe_interval(np.zeros(1), 365.0) is None


def test_what_a_run_earned_before_costs_is_what_it_earned_and_what_it_paid():
    bars = research.load_bars("simulated:macd?n_bars=1500&n_symbols=3&pull=0.2")
    run = research.backtest(bars, research.Predictions.random(bars, seed=1), PUBLISHED)
    rows = tables.tested_rows(run)
    found, fills = money_of(run, rows), run.result.fills
    inside = [f for f in fills if rows.start < f["bar"] < rows.stop]
    paid, traded = costs_by_bar(fills, bars.n)
    assert paid[rows][1:].sum() == pytest.approx(sum(f["fee"] + f["slippage"] for f in inside))
    assert traded[rows][1:].sum() == pytest.approx(sum(abs(f["qty"]) * f["price"] for f in inside))
    equity = run.result.equity[rows]
    net = np.diff(equity) / equity[:-1]
    gross = (np.diff(equity) + paid[rows][1:]) / equity[:-1]
    year = 365.0 * 24.0
    assert found["net"]["value"] == pytest.approx(net.mean() / net.std() * math.sqrt(year), rel=1e-6)
    assert found["gross"]["value"] == pytest.approx(gross.mean() / gross.std() * math.sqrt(year), rel=1e-6)
    assert found["net_return"] == pytest.approx(equity[-1] / equity[0] - 1.0)
    assert found["n_trades"] == sum(f["is_entry"] == 1 for f in inside)
    assert found["turnover"] == pytest.approx((traded[rows][1:] / equity[:-1]).sum() / (len(net) / 24.0))
    earned = equity[-1] - equity[0] + paid[rows][1:].sum()
    assert found["break_even"] == (pytest.approx(earned / traded[rows][1:].sum()) if earned > 0.0 else None)


def test_skill_is_told_of_the_mean_of_the_models_beside_what_volatility_knows():
    bars = research.load_bars("simulated:macd?n_bars=1800&n_symbols=5&pull=0.2")
    made = research.train(bars, ("xgb", "lgbm"), "L3", preset="tiny", n_folds=2, maps=False)
    both = mean_probs(made)
    each = made.probs[[made.names.index(name) for name in ("xgb", "lgbm")]]
    spoke = ~np.isnan(each).any(axis=(0, 3))
    assert both[spoke] == pytest.approx(each.mean(axis=0)[spoke])
    assert np.isnan(both[made.fold < 0]).all()
    found = skill_of(bars, made, None)
    assert found["gain"] is None
    assert found["balanced_ci95"][0] < found["balanced_accuracy"] < found["balanced_ci95"][1]
    assert found["n"] == np.count_nonzero(spoke & (made.labels >= 0))
    assert 1.0 < found["volatility_log_loss"] < 1.2
    assert found["information"]["ci95"][0] < found["information"]["value"]


def test_ranks_in_money_are_overlapping_portfolios_held_bar_by_bar():
    bars, h = research.load_bars("simulated:random_walk?n_bars=300&n_symbols=6&seed=4"), 4
    lean = np.random.default_rng(1).standard_normal(bars.close.shape)
    lean[:50], lean[60, 2], lean[280:] = np.nan, np.nan, np.nan
    found = ranks_in_money(bars, lean, h)
    shares = np.zeros(lean.shape)
    for t, row in enumerate(lean):
        known = np.flatnonzero(row == row)
        for place, s in enumerate(sorted(known, key=lambda s: row[s])):
            shares[t, s] = place / (len(known) - 1) - 0.5
        shares[t] /= np.abs(shares[t]).sum() or 1.0
    returns, traded, before = [], [], np.zeros(6)
    for t in range(50, 280):
        weights = sum(shares[t - k] for k in range(h)) / h
        returns.append(sum(weights[s] * (bars.open[t + 2, s] / bars.open[t + 1, s] - 1.0) for s in range(6)))
        traded.append(np.abs(weights - before).sum())
        before = weights
    returns = np.array(returns)
    assert found["gross"]["value"] == pytest.approx(returns.mean() / returns.std() * math.sqrt(365.0 * 24.0))
    assert found["turnover"] == pytest.approx(sum(traded) / (230 / 24.0))
    assert found["break_even"] == (pytest.approx(returns.sum() / sum(traded)) if returns.sum() > 0.0 else None)
    assert ranks_in_money(bars, np.full(lean.shape, np.nan), h) is None


def test_ranks_that_know_the_future_earn_what_grinold_says():
    """Sharpe ratio = IC sqrt(bets a year) of ranks over uncorrelated symbols, one bar ahead."""
    rng, n, m = np.random.default_rng(3), 6_000, 20
    step = rng.standard_normal((n, m)) * 0.01
    price = np.exp(np.cumsum(step, axis=0)) * 100.0
    time, names = np.arange(n, dtype=np.int64) * NS_PER_HOUR, tuple(f"S{i}" for i in range(m))
    bars = Bars(time, time + NS_PER_HOUR, price, price, price, price, np.ones((n, m)), names, NS_PER_HOUR)
    came = np.full((n, m), np.nan)
    came[:-2] = step[2:]  # from the next open to the one after
    lean = 0.1 * came / 0.01 + rng.standard_normal((n, m))
    ic = information(lean, came)["value"]
    expected = ic * math.sqrt((m - 1) * 24 * 365)
    assert ranks_in_money(bars, lean, 1)["gross"]["value"] == pytest.approx(expected, rel=0.1)
