"""Are hedged block sums those of a regression, exact in single precision, and the same whoever stands beside an account?"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtcore.sweep.hedge import Hedged, hedge_rows
from research.evidence.alpha import _factors, _hedge_of, unit_of
from tests.conftest import assert_same_bits
from tests.naive import hedge as naive

DECAY = 0.94


def world(seed, n, p, length, kind="normal"):
    """Market returns [n], equity of p accounts [p, n], and blocks of `length`."""
    rng = np.random.default_rng(seed)
    market = 0.01 * rng.standard_normal(n)
    own = {"normal": rng.standard_normal((p, n)), "sparse": rng.standard_normal((p, n)) * (rng.random((p, n)) < 0.1)}[kind]
    returns = 0.5 * market * rng.random((p, 1)) + 0.01 * own + 0.0005
    edges = np.append(np.arange(0, n, length), n)
    return market, 10_000.0 * np.cumprod(1.0 + returns, axis=1), edges


def hedged(equity, market, edges, length):
    basis, weights = _hedge_of(_factors(market, DECAY))
    sums, measured = np.empty((len(equity), len(edges) - 1), np.int32), np.empty((len(equity), len(Hedged)))
    first = np.full(len(equity), 10_000.0)
    hedge_rows(np.ascontiguousarray(equity), first, basis, weights, edges, length, float(unit_of(len(edges) - 1)), sums, measured)
    return sums, measured


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(60, 400), st.integers(2, 6), st.sampled_from(["normal", "sparse"]))
def test_the_kernel_is_its_twin(seed, n, length, kind):
    market, equity, edges = world(seed, n, 3, length, kind)
    sums, measured = hedged(equity, market, edges, length)
    twins = naive.hedge_rows(equity.tolist(), [10_000.0] * 3, _factors(market, DECAY), edges.tolist(), length, unit_of(len(edges) - 1))
    for row, found, (units, t, alpha) in zip(sums, measured, twins, strict=True):
        assert np.abs(row - np.array(units)).max() <= 1  # a sum between two whole numbers may fall to either side
        assert found[Hedged.T] == pytest.approx(t, abs=1e-3)
        assert found[Hedged.ALPHA] == pytest.approx(alpha, abs=1e-9)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 7))
def test_an_account_has_the_same_bits_whoever_stands_beside_it(seed, cut):
    market, equity, edges = world(seed, 200, 8, 5)
    sums, measured = hedged(equity, market, edges, 5)
    parts = [hedged(part, market, edges, 5) for part in (equity[:cut], equity[cut:])]
    assert_same_bits(sums, np.concatenate([part[0] for part in parts]))
    assert_same_bits(measured, np.concatenate([part[1] for part in parts]))


@pytest.mark.parametrize("n_blocks", [1, 2, 15, 16, 17, 581, 4_097])
def test_signed_sums_of_blocks_are_exact_in_single_precision(n_blocks):
    rng = np.random.default_rng(n_blocks)
    sums = rng.standard_t(2, n_blocks)
    units = np.rint(sums / np.sqrt((sums**2).sum()) * unit_of(n_blocks)).astype(np.int64)
    assert np.abs(units).sum() < 2**24
    signs = rng.choice([-1, 1], (50, n_blocks))
    assert ((signs.astype(np.float32) @ units.astype(np.float32)).astype(np.int64) == signs @ units).all()
    assert abs((units**2).sum() / unit_of(n_blocks) ** 2 - 1.0) < 2e-3


def test_the_market_and_what_never_moved_have_no_t_value():
    market, _, edges = world(1, 300, 1, 5)
    own = np.random.default_rng(2).standard_normal((1, 300)) * 0.01
    returns = np.concatenate([0.3 * market[None], np.zeros((1, 300)), 0.3 * market[None] + own])
    sums, measured = hedged(10_000.0 * np.cumprod(1.0 + returns, axis=1), market, edges, 5)
    assert np.isnan(measured[:2, Hedged.T]).all()
    assert not sums[:2].any()
    assert not np.isnan(measured[2, Hedged.T])


def test_an_account_that_lost_everything_earns_nothing_after():
    market, equity, edges = world(3, 300, 2, 5)
    equity[0, 150:] = 0.0
    sums, measured = hedged(equity, market, edges, 5)
    assert np.isfinite(measured).all()
    assert sums[0, :30].any()


def test_skewness_and_autocorrelation_make_a_t_value_smaller():
    rng = np.random.default_rng(44)
    market, _, edges = world(4, 1_000, 1, 5)
    shocks = rng.standard_normal(1_000) + 0.1
    persistent = np.array([shocks[max(0, i - 5) : i + 1].mean() for i in range(1_000)])
    tails = np.where(rng.random(1_000) < 0.02, -5.0, 0.2)
    returns = 0.01 * np.stack([shocks, persistent, tails])
    _, measured = hedged(10_000.0 * np.cumprod(1.0 + returns, axis=1), market, edges, 5)
    assert measured[1, Hedged.T] < 0.8 * measured[1, Hedged.T_RAW]
    assert measured[1, Hedged.LAG] > 0.5
    assert (measured[:, Hedged.T] <= measured[:, Hedged.T_RAW]).all()
