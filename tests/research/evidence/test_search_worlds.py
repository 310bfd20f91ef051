"""Does the best of 100 settings fool the verdict on fair prices, and is a planted Sharpe ratio found? Worlds with a known answer."""

import numpy as np
import pytest

from tests.support.search_worlds import fair_worlds, planted_worlds, power_curve


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
