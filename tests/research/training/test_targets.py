"""Are targets what their units say, do they read exactly their rows, and is every one of them purged by its end?"""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from qtcore.types import Bars
from research.errors import UserError
from research.training.labels import LABELS, Label, classify, fit_thresholds, get_label, look_ahead, make_labels, uniqueness, with_horizon
from research.training.plan import TrainingPlan
from research.training.splits import walk_forward
from research.training.targets import first_barrier, rank_in_row, trailing_volatility
from research.training.walk_forward import prepare
from tests.conftest import awkward_bars
from tests.naive import targets as naive
from tests.support import PUBLISHED

EVERY = ("L1", "L3@8", "L3:vol", "L3@8:vol", "L4", "L4:vol", "XS", "XS@1", "TB", "TB@12")


def rewritten(bars: Bars, row: int) -> Bars:
    """Let everything from a row on be another market."""
    rng = np.random.default_rng(row)
    planes = {}
    factor = np.exp(rng.normal(0.0, 0.1, bars.close.shape))
    for name in ("open", "high", "low", "close"):
        planes[name] = getattr(bars, name).copy()
        planes[name][row:] *= factor[row:]
    return dataclasses.replace(bars, **planes)


@pytest.mark.parametrize("name", ["L3:vol", "L4@8:vol", "XS", "XS@7", "TB", "TB@9"])
def test_targets_equal_the_walk_there_cell_by_cell(name):
    bars, rule = awkward_bars(300, n_symbols=7, seed=3), get_label(name)
    found, end = look_ahead(bars, rule)
    scale, h = trailing_volatility(bars), rule.horizon
    returns = np.array([[naive.forward_return(bars, t, s, h) for s in range(7)] for t in range(bars.n)])
    for t in range(bars.n):
        ranks = naive.rank_in_row(returns[t].tolist())
        for s in range(7):
            width = scale[t, s] * math.sqrt(h) if scale[t, s] > 0.0 else math.nan
            want, last = returns[t, s] / width, t + h
            if rule.unit == "rank":
                want = ranks[s]
            if rule.unit == "barrier":
                low, high = (bars.close[t, s] * (1.0 + level * width) for level in (rule.sell, rule.buy))
                side, last = naive.first_barrier(bars, t, s, h, low, high)
                want = side * rule.buy
            assert found[t, s] == pytest.approx(want, rel=1e-12, abs=1e-12, nan_ok=True), (t, s)
            assert end[t, s] == last or math.isnan(want), (t, s)
    known = found[np.isfinite(found)]
    assert len(known) > 500
    if rule.unit == "barrier":
        assert {*known.tolist()} == {-1.0, 0.0, 1.0}
        assert (end < np.arange(bars.n)[:, None] + h).any()


@given(st.lists(st.one_of(st.just(math.nan), st.integers(-3, 3).map(float)), min_size=0, max_size=60))
@settings(max_examples=200, deadline=None)
def test_ranks_of_a_row_are_counts_and_turn_round_exactly(values):
    row = np.array([values])
    found = rank_in_row(row)
    assert found[0].tolist() == pytest.approx(naive.rank_in_row(values), abs=1e-12, nan_ok=True)
    assert_array_equal(rank_in_row(-row), -found)


@pytest.mark.parametrize("name", EVERY)
def test_no_training_row_of_a_hundred_folds_reads_a_tested_bar(name):
    bars, rule = awkward_bars(420, n_symbols=6, seed=8), get_label(name)
    end = make_labels(bars, rule, (np.zeros(6), np.ones(6)))[1]
    ahead, decides = look_ahead(bars, rule)
    assert (decides <= end[:, None]).all()
    folds = [f for n, share in ((20, 0.3), (30, 0.4), (50, 0.5)) for f in walk_forward(end, n_folds=n, train_share=share, embargo=0)]
    assert len(folds) == 100
    for fold in folds:
        other = look_ahead(rewritten(bars, fold.boundary), rule)[0]
        assert_array_equal(other[fold.train], ahead[fold.train])
        pairs = [fit_thresholds(plane, rule, fold.train) for plane in (ahead, other)]
        assert_array_equal(pairs[0], pairs[1])
        stops = look_ahead(rewritten(bars, int(fold.valid[0])), rule)[0]
        assert_array_equal(stops[fold.fit], ahead[fold.fit])
    assert np.any(other[fold.boundary - rule.horizon : fold.boundary] != ahead[fold.boundary - rule.horizon : fold.boundary])


@pytest.mark.parametrize("name", EVERY)
def test_a_target_reads_its_rows_and_not_one_more(name):
    bars, rule = awkward_bars(200, n_symbols=6, seed=2), get_label(name)
    whole = look_ahead(bars, rule)[0]
    short = look_ahead(bars[:120], rule)[0]
    assert_array_equal(short[: 120 - rule.horizon], whole[: 120 - rule.horizon])
    late = short[120 - rule.horizon :]
    assert np.isnan(late).all() if rule.unit != "barrier" else set(late[np.isfinite(late)]) <= {-1.0, 1.0, 0.0}


def test_one_bar_that_touches_both_barriers_decides_for_neither_and_its_open_comes_first():
    close = np.full((4, 1), 100.0)

    def touched(open_: float, high: float, low: float) -> tuple[float, int]:
        planes = [close.copy() for _ in range(3)]
        for plane, price in zip(planes, (open_, high, low)):
            plane[1] = price
        bars = Bars(np.arange(4), np.arange(1, 5), *planes, close, close, ("A",), 1)
        side, row = first_barrier(bars, 2, close * 0.98, close * 1.02)
        return float(side[0, 0]), int(row[0, 0])

    assert touched(100.0, 101.0, 99.0) == (0.0, 2)
    assert touched(100.0, 102.0, 99.0) == (1.0, 1)
    assert touched(100.0, 101.0, 98.0) == (-1.0, 1)
    assert touched(100.0, 103.0, 97.0) == (0.0, 1)
    assert touched(102.5, 103.0, 97.0) == (1.0, 1)
    assert touched(98.0, 103.0, 97.0) == (-1.0, 1)


def test_late_listings_and_holes_do_not_shift_the_ranks_of_others():
    bars = awkward_bars(200, n_symbols=7, seed=1)
    late = bars.close.copy()
    late[:100, 6] = np.nan
    with_it = look_ahead(bars, LABELS["XS"])[0]
    without = look_ahead(dataclasses.replace(bars, close=late), LABELS["XS"])[0]
    six = look_ahead(dataclasses.replace(bars, close=np.ascontiguousarray(late[:, :6]), symbols=bars.symbols[:6]), LABELS["XS"])[0]
    assert np.isnan(without[:100, 6]).all()
    assert_array_equal(without[:100, :6], six[:100])
    assert_array_equal(without[100:], with_it[100:])


def test_ranks_know_neither_market_nor_scale_and_both_sides_are_as_many():
    bars, rule = awkward_bars(500, n_symbols=9, seed=4), get_label("XS")
    labels = make_labels(bars, rule)[0]
    whole = (labels >= 0).sum(axis=1) == 9
    assert whole.sum() > 100
    assert_array_equal((labels[whole] == 0).sum(axis=1), (labels[whole] == 2).sum(axis=1))
    drift = np.exp(0.001 * np.arange(bars.n))[:, None]
    moved = make_labels(dataclasses.replace(bars, close=bars.close * drift), rule)[0]
    assert np.mean(moved == labels) > 0.999


def test_ids_say_horizon_and_unit_and_read_back():
    assert [get_label(name).id for name in EVERY] == list(EVERY)
    assert get_label("L3@4:vol").id == "L3:vol"
    assert with_horizon(get_label("L1:vol"), 8) == get_label("L1@8:vol")
    assert (get_label("L1:vol").sell, get_label("L1:vol").buy) == (-1.5, 1.5)
    assert (get_label("L4:vol").sell, get_label("L4:vol").is_percentile) == (0.33, True)
    for name in EVERY:
        rule = get_label(name)
        assert Label.from_dict(rule.to_dict()) == rule
    old = {k: v for k, v in LABELS["L3"].to_dict().items() if k != "unit"}
    assert Label.from_dict(old) == LABELS["L3"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("L3:std", r"must end in :vol .*was L3:std"),
        ("L3:", r"must end in :vol .*was L3:"),
        ("XS:vol", r"fixed returns or percentiles, was XS, which has a unit of its own"),
        ("TB@8:vol", r"was TB@8, which has a unit"),
        ("L10:vol", r"was L10, which pays costs"),
        ("L3:vol@8", r"was L3:vol@8"),
        ("L3:vol:vol", r"was L3:vol:vol"),
        ("XS@0", r"at least 1 row, was 0"),
        ("xs", r"must be auto, .*XS or L10, was 'xs'"),
    ],
)
def test_what_is_no_label_is_refused_with_the_forms(name, text):
    with pytest.raises(UserError, match=text):
        get_label(name)


def test_units_and_barriers_that_make_no_sense_are_refused():
    with pytest.raises(UserError, match="unit of a label must be one of return, volatility, rank, barrier, was 'pips'"):
        Label("mine", 4, -1.0, 1.0, unit="pips")
    with pytest.raises(UserError, match=r"sell below 0 and buy above, .* of percentiles"):
        Label("mine", 4, -1.0, 1.0, is_percentile=True, unit="barrier")
    with pytest.raises(UserError, match=r"was sell=0\.5, buy=1\.0"):
        Label("mine", 4, 0.5, 1.0, unit="barrier")


def test_ranks_of_few_symbols_are_refused_by_name():
    with pytest.raises(UserError, match=r"label XS ranks .* must be 5 or more, was 4; give 5 symbols or more"):
        make_labels(awkward_bars(100, n_symbols=4), "XS")


def test_classes_of_volatility_labels_are_alike_in_calm_and_wild_symbols():
    rng, shape = np.random.default_rng(5), (6000, 2)
    close = 100.0 * np.exp(np.cumsum(rng.standard_normal(shape) * np.array([0.002, 0.02]), axis=0))
    time = np.arange(6000, dtype=np.int64) * 3_600_000_000_000
    bars = Bars(time, time + 3_600_000_000_000, close, close, close, close, np.ones(shape), ("CALM", "WILD"), 3_600_000_000_000)
    shares = {}
    for name in ("L3", "L3:vol", "TB"):
        labels = make_labels(bars, name)[0]
        shares[name] = [np.bincount(column[column >= 0], minlength=3) / np.count_nonzero(column >= 0) for column in labels.T]
    assert abs(shares["L3"][0][1] - shares["L3"][1][1]) > 0.5
    assert np.abs(shares["L3:vol"][0] - shares["L3:vol"][1]).max() < 0.03
    assert np.abs(shares["L3:vol"][0] - np.array([0.309, 0.383, 0.309])).max() < 0.04  # a normal beyond half a deviation
    assert np.abs(shares["TB"][0] - shares["TB"][1]).max() < 0.03


def test_percentiles_of_volatility_units_are_of_the_training_rows():
    bars, rule = awkward_bars(600, n_symbols=3, seed=6), get_label("L4:vol")
    ahead = look_ahead(bars, rule)[0]
    labels = classify(ahead, rule, *fit_thresholds(ahead, rule, np.arange(500)))
    for column in labels[:500].T:
        shares = np.bincount(column[column >= 0], minlength=3) / np.count_nonzero(column >= 0)
        assert shares == pytest.approx([0.33, 0.34, 0.33], abs=0.02)


def test_a_training_weighs_barriers_by_the_rows_that_decided_them():
    bars = awkward_bars(500, n_symbols=3, seed=2)
    plan = TrainingPlan.profile("default", models=("lgbm",), label="TB@12", params=PUBLISHED.flat(), n_folds=1)
    prepared = prepare(bars, plan)
    assert_array_equal(prepared.ends, look_ahead(bars, get_label("TB@12"))[1])
    fold = prepared.folds[0]
    labels = np.full_like(prepared.labels[0], -1)
    labels[fold.fit] = prepared.labels[0][fold.fit]
    weights = uniqueness(labels, prepared.ends)
    assert np.nanmax(weights) > 2.0 * np.nanmin(weights)
    fixed = uniqueness(labels, np.arange(500) + 12)
    assert np.nanmean(weights) > np.nanmean(fixed)
