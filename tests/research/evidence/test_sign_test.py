"""Do sign flips depend on lineage, block and draw alone, and does the step-down find what stands above luck?"""

import math

import numpy as np
import pytest
from scipy.stats import norm

from research.evidence.alpha import Outcome, unit_of
from research.evidence.sign_test import ALONE, DRAWS, Judged, critical, drawn, independent, judge, maxima, p_value
from tests.conftest import assert_same_bits


def outcome(seed, n_accounts, first=100, n_blocks=120, shift=0.0):
    """Accounts whose block sums are normal, `shift` deviations above 0."""
    sums = np.random.default_rng(seed).standard_normal((n_accounts, n_blocks)) + shift
    size = np.sqrt((sums**2).sum(axis=1))
    measured = np.zeros((n_accounts, 7))
    measured[:, 0] = sums.sum(axis=1) / size
    return Outcome(first + np.arange(n_blocks), np.rint(sums / size[:, None] * unit_of(n_blocks)).astype(np.int32), measured)


def test_a_sign_is_that_of_its_block_whoever_asks_for_which_blocks():
    one = np.eye(120, dtype=np.int32) * unit_of(120)
    whole = drawn("market", 100 + np.arange(120), one)
    assert set(np.unique(whole)) == {-1.0, 1.0}
    part = drawn("market", 130 + np.arange(20), np.eye(20, dtype=np.int32) * unit_of(20))
    assert_same_bits(np.ascontiguousarray(whole[:, 30:50]), part)
    assert abs(whole.mean()) < 4.0 / math.sqrt(whole.size)
    assert abs(np.corrcoef(whole.T) - np.eye(120)).max() < 0.12
    assert (drawn("another", 100 + np.arange(120), one) != whole).mean() == pytest.approx(0.5, abs=0.01)


def test_maxima_do_not_depend_on_order_or_cutting():
    found = outcome(1, 700)
    whole = maxima("market", found.keys, found.units)
    order = np.random.default_rng(2).permutation(700)
    known = ALONE
    for part in np.array_split(order, 13):
        known = maxima("market", found.keys, found.units[part], known)
    assert_same_bits(known, whole)
    assert_same_bits(maxima("market", found.keys, found.units[:300], known), whole)  # entering one twice changes nothing
    assert_same_bits(whole, drawn("market", found.keys, found.units).max(axis=1))


def test_the_critical_value_is_that_of_a_normal_family():
    found = outcome(3, 100)
    assert critical(drawn("m", found.keys, found.units[:1])[:, 0]) == pytest.approx(norm.ppf(0.95), abs=0.12)
    assert critical(maxima("m", found.keys, found.units)) == pytest.approx(norm.ppf(0.95**0.01), abs=0.15)
    assert critical(independent("m", 100)) == pytest.approx(norm.ppf(0.95**0.01), abs=0.15)
    assert critical(np.arange(DRAWS, dtype=np.float32)) == math.ceil(0.95 * (DRAWS + 1)) - 1


def test_more_trials_ask_for_more():
    limits = [critical(independent("m", n)) for n in (1, 10, 100, 10_000, 1_000_000)]
    assert limits == sorted(limits)
    assert (independent("m", 0) == -np.inf).all()


def test_a_p_value_is_never_below_what_the_draws_can_show():
    highest = np.zeros(DRAWS, np.float32)
    assert p_value(9.0, highest) == 1 / (DRAWS + 1)
    assert p_value(-1.0, highest) == 1.0


def test_one_trial_is_the_plain_test():
    mine = outcome(4, 1, shift=0.3)
    found = judge("m", mine)
    alone = drawn("m", mine.keys, mine.units)[:, 0]
    assert found == Judged(bool(mine.t[0] > critical(alone)), critical(alone), p_value(float(mine.t[0]), alone))


def test_edges_above_leave_the_family():
    luck, mine, strong = outcome(5, 60), outcome(6, 1, shift=0.26), outcome(7, 40, shift=1.0)
    among = judge("m", mine, [luck, strong])
    assert among.n_edges >= 40
    assert among.critical < critical(maxima("m", luck.keys, np.concatenate([luck.units, strong.units])))
    assert among == Judged(**(vars(judge("m", mine, [luck])) | {"n_edges": among.n_edges}))
    held = maxima("m", strong.keys, strong.units)
    assert judge("m", mine, [luck], held).critical > among.critical  # what was not kept cannot leave


def test_a_lost_cause_beside_it_changes_nothing_much():
    """One absurd corner of a grid used to raise the ratio that luck reaches, and sank every winner."""
    mine, luck, absurd = outcome(8, 1, shift=0.35), outcome(9, 20), outcome(10, 1, shift=-5.0)
    assert judge("m", mine, [luck]).is_edge
    assert judge("m", mine, [luck, absurd]).critical <= judge("m", mine, [luck, outcome(11, 1)]).critical + 0.1


def test_an_account_without_a_t_value_is_no_edge():
    mine = outcome(12, 1)
    mine.measured[:, 0] = np.nan
    assert not judge("m", mine, [outcome(13, 5)]).is_edge
