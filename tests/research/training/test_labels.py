"""Are the labels what the specification says, and do they look forward by exactly their horizon?"""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtcore.rules import Broker
from qtcore.types import Bars
from research.errors import UserError
from research.evidence.envelope import Envelope
from research.training.labels import (
    LABELS,
    Label,
    cost_label,
    fit_thresholds,
    get_label,
    label_end,
    limits,
    make_labels,
    outcome_labels,
    resolve_label,
    score_labels,
    uniqueness,
    with_horizon,
)
from research.training.targets import forward_return
from tests.conftest import START, awkward_bars
from tests.naive import labels as naive

HOUR = 3_600_000_000_000


def bars_of(close) -> Bars:
    close = np.ascontiguousarray(close, dtype=np.float64)
    close = close[:, None] if close.ndim == 1 else close
    time = START + HOUR * np.arange(len(close), dtype=np.int64)
    symbols = tuple(f"S{i}" for i in range(close.shape[1]))
    return Bars(time, time + HOUR, close, close, close, close, np.ones_like(close), symbols, HOUR)


@pytest.mark.parametrize("name", ["L1", "L2", "L3", "L5", "L10"])
def test_fixed_labels_equal_the_plain_loop(name):
    bars = awkward_bars(400, seed=3)
    rule = get_label(name)
    labels, end = make_labels(bars, rule)
    n_symbols = len(bars.symbols)
    want = naive.make_labels(bars.close.tolist(), rule.horizon, [rule.sell] * n_symbols, [rule.buy] * n_symbols, rule.is_inclusive)
    assert labels.dtype == np.int8
    assert labels.tolist() == want
    assert end.tolist() == [t + rule.horizon for t in range(400)]
    assert set(np.unique(labels)) == {-1, 0, 1, 2}


@pytest.mark.parametrize("name", ["L4", "L4_75"])
def test_percentiles_are_fitted_per_symbol_on_training_rows_only(name):
    bars = awkward_bars(900, seed=5)
    rule, rows = LABELS[name], np.arange(360)
    low, high = fit_thresholds(forward_return(bars.close, rule.horizon), rule, rows)
    want = naive.fit_thresholds(bars.close.tolist(), rule.horizon, rule.sell, rule.buy, rows.tolist(), 100)
    np.testing.assert_allclose([low, high], want, rtol=1e-12)
    labels, _ = make_labels(bars, rule, (low, high))
    assert labels.tolist() == naive.make_labels(bars.close.tolist(), rule.horizon, low.tolist(), high.tolist(), True)
    changed = dataclasses.replace(bars, close=np.where(np.arange(900)[:, None] >= 360 + rule.horizon, bars.close * 3.0, bars.close))
    again = fit_thresholds(forward_return(changed.close, rule.horizon), rule, rows)
    assert low.tobytes() == again[0].tobytes()
    assert high.tobytes() == again[1].tobytes()


def test_a_symbol_with_few_training_returns_takes_the_percentiles_of_all():
    bars = awkward_bars(600, seed=1)
    returns, rule = forward_return(bars.close, 4), LABELS["L4"]
    low, _ = fit_thresholds(returns, rule, np.arange(200))  # symbol 1 is listed in row 150
    known = returns[:200][~np.isnan(returns[:200])]
    assert low[1] == np.quantile(known, 0.33)
    assert low[0] != low[1]


def test_percentiles_without_any_return_give_no_labels():
    bars = bars_of(np.r_[np.full(50, np.nan), np.linspace(1.0, 2.0, 50)])
    rule = LABELS["L4"]
    thresholds = fit_thresholds(forward_return(bars.close, 4), rule, np.arange(50))
    assert np.isnan(thresholds[0]).all()
    assert (make_labels(bars, rule, thresholds)[0] == -1).all()


@pytest.mark.parametrize(("name", "edge"), [("L2", 1), ("L3", 2)])
def test_a_return_on_the_threshold_counts_only_where_the_rule_says_so(name, edge):
    assert LABELS[name].is_inclusive == (name == "L3")
    exact = dataclasses.replace(LABELS[name], horizon=1, sell=-0.5, buy=0.5)  # 3 / 2 - 1 and 1 / 2 - 1 are exact
    assert make_labels(bars_of([2.0, 3.0]), exact)[0][0, 0] == edge
    assert make_labels(bars_of([2.0, 1.0]), exact)[0][0, 0] == (1 if edge == 1 else 0)


def test_rows_without_a_bar_exactly_h_rows_ahead_are_invalid_never_hold():
    labels, _ = make_labels(bars_of([1.0, 1.0, np.nan, 1.0, 1.0, 1.0]), LABELS["L5"])
    assert labels[:, 0].tolist() == [1, -1, -1, 1, 1, -1]


def test_a_price_that_does_not_move_is_hold_even_where_both_percentiles_claim_it():
    bars = bars_of(np.ones(300))
    thresholds = fit_thresholds(forward_return(bars.close, 4), LABELS["L4"], np.arange(200))
    assert set(make_labels(bars, LABELS["L4"], thresholds)[0][:296, 0]) == {1}


@given(move=st.floats(-0.01, 0.01), fee=st.floats(0.0, 0.003), slippage=st.floats(0.0, 0.003))
def test_l10_says_which_trade_pays_after_costs(move, fee, slippage):
    rule = cost_label(Broker(fee_rate=fee, slippage_rate=slippage), horizon=1)
    start, stop = 100.0, 100.0 * (1.0 + move)
    long = stop * (1 - slippage) * (1 - fee) - start * (1 + slippage) * (1 + fee)
    short = start * (1 - slippage) * (1 - fee) - stop * (1 + slippage) * (1 + fee)
    label = make_labels(bars_of([start, stop]), rule)[0][0, 0]
    if min(abs(long), abs(short)) > 1e-9:
        assert label == (2 if long > 0 else 0 if short > 0 else 1)


def test_l10_takes_its_costs_from_the_broker():
    assert get_label("L10", Broker(fee_rate=0.01)).buy > get_label("L10", Broker(fee_rate=0.001)).buy > 0.0


def test_auto_takes_l1_where_every_class_has_five_percent_of_the_training_rows():
    busy, calm = awkward_bars(600, seed=0), awkward_bars(600, seed=0)
    calm = dataclasses.replace(calm, close=100.0 + (calm.close - 100.0) * 1e-6)
    assert resolve_label(busy, "auto", np.arange(200)).id == "L1"
    assert resolve_label(calm, "auto", np.arange(200)).id == "L4"
    assert resolve_label(calm, "L1", np.arange(200)).id == "L1"
    only_later = dataclasses.replace(busy, close=np.where(np.arange(600)[:, None] < 210, 1.0, busy.close))
    assert resolve_label(only_later, "auto", np.arange(200)).id == "L4"
    nothing = dataclasses.replace(busy, close=np.full_like(busy.close, np.nan))
    assert resolve_label(nothing, "auto", np.arange(200)).id == "L4"


def test_imported_predictions_are_scored_on_thresholds_of_the_first_part():
    bars = awkward_bars(600, seed=0)
    calm = dataclasses.replace(bars, close=100.0 + (bars.close - 100.0) * 1e-6)
    labels, rule = score_labels(calm, "auto")
    later = dataclasses.replace(calm, close=np.where(np.arange(600)[:, None] > 300, calm.close * 2.0, calm.close))
    assert rule.id == "L4"
    assert (score_labels(later, "auto")[0][:290] == labels[:290]).all()
    assert score_labels(bars, "L3")[1] == LABELS["L3"]


def test_outcomes_become_the_traded_action_where_they_won_and_nothing_else_is_labelled():
    row, column = np.array([0, 1]), np.array([0, 0])
    action, won, end = np.array([2, 0], np.int8), np.array([True, False]), np.array([2, 5])
    labels, last = outcome_labels((3, 2), row, column, action, won, end)
    assert labels.tolist() == [[2, -1], [1, -1], [-1, -1]]
    assert last.tolist() == [2, 5, 2]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(-1, 2), min_size=2, max_size=2), min_size=1, max_size=25), st.integers(1, 6))
def test_uniqueness_equals_counting(labels, horizon):
    end = np.arange(len(labels)) + horizon
    got = uniqueness(np.array(labels, np.int8), end)
    np.testing.assert_allclose(
        got, naive.uniqueness(labels, [[t, t] for t in end.tolist()]), rtol=1e-12
    )  # cumulative sums against direct ones


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(-1, 2), st.integers(1, 7)), min_size=3, max_size=3), min_size=1, max_size=25))
def test_uniqueness_of_labels_that_end_each_in_its_own_row_equals_counting(cells):
    labels = np.array([[label for label, _ in row] for row in cells], np.int8)
    end = np.array([[t + length for _, length in row] for t, row in enumerate(cells)])
    got = uniqueness(labels, np.where(labels >= 0, end, -9))  # where there is no label, its end is not read
    np.testing.assert_allclose(got, naive.uniqueness(labels.tolist(), end.tolist()), rtol=1e-12)


def test_uniqueness_by_hand():
    """Two labels of two bars that share one bar: each is alone on one, shares the other; a third stands apart."""
    labels = np.array([[1], [1], [-1], [-1], [1], [-1], [-1]], np.int8)
    assert uniqueness(labels, np.arange(7) + 2)[[0, 1, 4], 0].tolist() == [0.75, 0.75, 1.0]


def test_labels_do_look_forward_by_their_horizon_and_no_further():
    bars = awkward_bars(300, seed=2)
    changed = dataclasses.replace(bars, close=np.where(np.arange(300)[:, None] >= 200, bars.close * 1.5, bars.close))
    before, after = make_labels(bars, "L1")[0], make_labels(changed, "L1")[0]
    assert (before[:195] == after[:195]).all()
    assert (before[195:200] != after[195:200]).any()


def test_mistakes_are_told_in_a_sentence():
    with pytest.raises(UserError, match=r"must be auto, L1, .* or L10, was 'L99'"):
        get_label("L99")
    with pytest.raises(UserError, match="outcome_labels"):
        get_label("L6")
    with pytest.raises(ValueError, match="fit_thresholds"):
        make_labels(awkward_bars(50), "L4")
    with pytest.raises(UserError, match="at least 1 row, was 0"):
        with_horizon(LABELS["L3"], 0)
    assert with_horizon(LABELS["L3"], 8).id == "L3@8"
    assert get_label("L3@8") == with_horizon(LABELS["L3"], 8)
    with pytest.raises(UserError, match="at least 1 row, was 0"):
        get_label("L3@soon")
    assert with_horizon(LABELS["L3"], 4) is LABELS["L3"]
    assert Label(**LABELS["L4"].to_dict()) == LABELS["L4"]
    assert label_end(3, LABELS["L5"]).tolist() == [1, 2, 3]


def test_a_symbol_without_fitted_thresholds_has_the_rules_own_or_no_label():
    bars, known = bars_of(np.cumprod(np.full((50, 2), 1.01), axis=0)), {"sell": {"S0": -0.001}, "buy": {"S0": 0.001}}
    for name, want in (("L3", 2), ("L4", -1)):
        low, high = limits(LABELS[name], known, bars.symbols)
        assert (low[0], high[0]) == (-0.001, 0.001)
        said = Envelope({"label": LABELS[name].to_dict(), "thresholds": known}).labels(bars, np.ones(bars.close.shape))
        assert said[0].tolist() == [2, want], name
