"""Does the best of 100 settings fool the verdict on fair prices, and is a planted Sharpe ratio found? Worlds with a known answer."""

import numpy as np
import pytest

from research.evidence import sharpe as sr
from research.runs.benchmark import bar_returns
from tests.support.search_worlds import DAYS, fair_worlds, judge, planted_worlds, power_curve, trade_all, votes_of, world


def test_luck_looks_significant_and_is_not_believed():
    found = fair_worlds(8)
    assert sum(j.probabilistic > 0.95 for j in found) >= 1
    assert sum(j.verdict == "edge" for j in found) == 0


def test_a_planted_sharpe_ratio_is_found():
    """Knowledge worth a net Sharpe ratio of about 3.5 a year, over 5 years."""
    assert sum(j.verdict == "edge" for j in planted_worlds(0.25, 3)) >= 2


@pytest.mark.slow
def test_forty_fair_worlds():
    """Done when: the naive best looks significant in at least 9 of 40 worlds, the deflated verdict in at most 2."""
    found = fair_worlds(40)
    assert sum(j.probabilistic > 0.95 for j in found) >= 9
    assert sum(j.deflated > 0.95 for j in found) <= 2
    assert sum(j.verdict == "edge" for j in found) <= 2
    assert 0.5 < np.mean([j.sharpe for j in found]) < 2.0


@pytest.mark.slow
def test_the_power_curve():
    """Done when: a planted net Sharpe ratio of 2.7 a year over 5 years is found in at least 36 of 40 worlds."""
    curve = power_curve()
    assert curve[2.7] >= 36
    assert curve[3.5] >= curve[2.7] >= curve[2.0] >= curve[1.0]


@pytest.mark.parametrize("seed", range(3))
def test_an_absurd_corner_of_a_grid_does_not_sink_its_winner(seed):
    """One setting that pays 2 % a day makes the ratios scatter, and with them the luck that a deflated ratio allows for."""
    bars = world(seed, 5 * 365)
    votes = votes_of(bars, 0.25, seed)
    grid = trade_all(bars, votes, {})
    corner = trade_all(bars, votes, {"broker.fee_rate": 0.01}, ((0.5, 1),))
    alone, beside = judge(bars, grid), judge(bars, grid + corner)
    assert sr.moments(bar_returns(corner[0].equity)).sharpe * DAYS**0.5 < -10.0
    assert beside.deflated < 0.95 < alone.deflated
    assert (alone.verdict, beside.verdict, beside.sharpe) == ("edge", "edge", alone.sharpe)
