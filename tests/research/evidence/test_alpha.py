"""Is what was earned beyond the market skill alone: neither long books in a rising market, nor timing of one symbol taken away?"""

from dataclasses import replace

import numpy as np
import pytest

import research
from qtcore.types import NS_PER_DAY
from research.evidence.alpha import LEAST_BLOCKS, PIECES, Hedge
from research.evidence.sign_test import judge
from research.runs.benchmark import buy_and_hold, market_returns
from tests.verdict_rates import market_bars


def daily(days, seed=1):
    return market_bars(np.random.default_rng(seed), days)


def test_blocks_are_five_utc_days_whoever_asks():
    bars = daily(400)
    whole, part = (Hedge.of(bars, rows) for rows in (slice(60, bars.n), slice(173, bars.n - 31)))
    assert set(part.keys) <= set(whole.keys)
    assert (np.diff(whole.keys) == 1).all()
    day = (bars.close_time - 1) // NS_PER_DAY
    assert whole.keys[0] == day[60] // 5
    assert whole.is_daily
    assert len(whole.keys) >= LEAST_BLOCKS


@pytest.mark.parametrize("n", [200, 719, 2_000])
def test_a_short_test_is_cut_into_equal_pieces_of_time(n):
    bars = research.load_bars(f"simulated:random_walk?n_bars={n + 100}&n_symbols=2")
    hedge = Hedge.of(bars, slice(100, bars.n))
    assert not hedge.is_daily
    assert PIECES <= len(hedge.ends) <= 2 * PIECES
    assert len(hedge.keys) == -(-len(hedge.ends) // 3)
    assert hedge.keys[0] == bars.open_time[100]
    assert len(np.unique(np.diff(hedge.ends)[:-1])) == 1


def test_daily_sessions_have_blocks_of_fewer_days():
    bars = daily(900)
    weekdays = np.flatnonzero((bars.open_time // NS_PER_DAY + 3) % 7 < 5)
    bars = bars[weekdays[0] : weekdays[-1] + 1]
    keep = np.isin(bars.open_time // NS_PER_DAY % 7, np.unique(bars.open_time // NS_PER_DAY % 7)[:5])
    planes = {name: getattr(bars, name)[keep] for name in ("open_time", "close_time", "open", "high", "low", "close", "volume")}
    hedge = Hedge.of(replace(bars, **planes), slice(60, int(keep.sum())))
    assert hedge.per_year == pytest.approx(261, abs=2)
    assert 3.0 < len(hedge.ends) / len(hedge.keys) < 4.0


def test_the_market_is_the_mean_of_the_listed_symbols():
    close = np.array([[1.0, np.nan, 4.0], [2.0, 5.0, 4.0], [np.nan, 10.0, 2.0], [3.0, 10.0, np.nan]])
    assert market_returns(close, np.arange(4)).tolist() == [0.0, (1.0 + 0.0) / 2, (0.0 + 1.0 - 0.5) / 3, (0.5 + 0.0) / 2]


def test_buy_and_hold_is_the_market():
    bars = daily(500)
    hedge = Hedge.of(bars, slice(60, bars.n))
    wealth = buy_and_hold(bars.close[60:], 1.0)[hedge.ends - 60]
    found = hedge.outcome(wealth[None], np.array([bars.close[59, 0] / bars.close[60, 0]]))
    assert np.isnan(found.t).all()


def verdicts(books, days, n_worlds, first=0):
    """Share of worlds in which a book is called an edge. books(rng, returns, variance): share of wealth that is held over each day."""
    edges = 0
    for world in range(first, first + n_worlds):
        rng = np.random.default_rng([world, 9])
        bars = market_bars(rng, days)
        m = np.append(0.0, bars.close[1:, 0] / bars.close[:-1, 0] - 1.0)
        variance = np.full(len(m), 1e-4)
        for t in range(1, len(m)):
            variance[t] = 0.94 * variance[t - 1] + 0.06 * m[t - 1] ** 2
        hedge = Hedge.of(bars, slice(60, bars.n))
        equity = np.cumprod(1.0 + books(rng, m, variance)[60:] * m[60:])
        edges += judge(f"world {world}", hedge.outcome(equity[None], np.ones(1))).is_edge
    return edges / n_worlds


def spells(rng, m, variance):
    """In and out of the market at random, for some weeks."""
    return (rng.random(1 + len(m) // 20) < 0.5).repeat(20)[: len(m)].astype(float)


def by_volatility(rng, m, variance):
    return np.minimum(0.01 / np.sqrt(variance), 3.0)


def breaker(rng, m, variance):
    """Out of the market while it is 20 % below its peak of the last year."""
    wealth = np.cumprod(1.0 + m)
    peak = np.array([wealth[max(0, t - 250) : t + 1].max() for t in range(len(m))])
    return np.append(1.0, wealth[:-1] > 0.8 * peak[:-1])


@pytest.mark.parametrize("book", [spells, by_volatility, breaker])
def test_long_books_without_skill_are_no_edge_in_a_rising_market(book):
    """Eight years, market Sharpe ratio about 1: at most 9 % by far fewer than with the market alone (42 % for 1 / volatility)."""
    assert verdicts(book, 8 * 365, 60) <= 0.09 + 2.0 * 0.037


def test_timing_of_one_symbol_is_found():
    """Long before rises a little more often than by lot; hedged bar by bar against its own exposure nothing would be left."""

    def knows(rng, m, variance):
        return np.where(rng.random(len(m)) < 0.12, np.sign(m), rng.choice([-1.0, 1.0], len(m)))

    assert verdicts(knows, 8 * 365, 20) >= 0.8
    assert verdicts(lambda rng, m, variance: rng.choice([-1.0, 1.0], len(m)), 8 * 365, 20) <= 0.2
