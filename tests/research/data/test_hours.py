"""Are trading hours those in which a symbol has bars, and are symbols of other hours kept apart by name?"""

import numpy as np
import pytest

import research
from qtcore.types import NS_PER_HOUR, Bars
from research.data.hours import check_same_hours, trading_hours
from research.errors import DataError
from tests.conftest import START, awkward_bars, shared_data
from tests.support import PUBLISHED

WEEK = 168


def market(n_weeks: int, **hours) -> Bars:
    """Hourly bars from a Monday on; each symbol has a bar in the given hours of the week, Monday's first is 0."""
    first = START // (WEEK * NS_PER_HOUR) * WEEK * NS_PER_HOUR + 4 * 24 * NS_PER_HOUR  # 1970-01-05 was a Monday
    n = n_weeks * WEEK
    open_time = first + NS_PER_HOUR * np.arange(n, dtype=np.int64)
    rng = np.random.default_rng(0)
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.01, (n, len(hours))), axis=0))
    for s, traded in enumerate(hours.values()):
        close[~np.isin(np.arange(n) % WEEK, list(traded)), s] = np.nan
    return Bars(open_time, open_time + NS_PER_HOUR, close, close, close, close, close, tuple(hours), NS_PER_HOUR)


SESSION = [24 * day + hour for day in range(5) for hour in range(14, 21)]


def test_hours_are_those_with_bars_whatever_is_missing_now_and_then():
    bars = market(30, ALL=range(WEEK), STOCK=SESSION)
    bars.close[5 * WEEK : 6 * WEEK, 0] = np.nan  # an outage of a week
    bars.close[: 12 * WEEK, 1] = np.nan  # a late listing
    found = trading_hours(bars)
    assert found[:, 0].all()
    assert np.flatnonzero(found[:, 1]).tolist() == SESSION


def test_symbols_of_other_hours_are_refused_with_both_names():
    others = {f"S{i}": SESSION for i in range(4)}
    check_same_hours(market(20, **others), "market")
    with pytest.raises(DataError, match=r"market for symbols of the same trading hours, was with S0 \(35 .*\) and BTC \(168\); leave"):
        check_same_hours(market(20, **others, BTC=range(WEEK)), "market")
    with pytest.raises(DataError, match="was with EU"):
        check_same_hours(market(20, **others, EU=[h - 6 for h in SESSION]), "cross_section")


def test_a_training_refuses_to_compare_them_and_does_without():
    bars = market(14, **{f"S{i}": SESSION for i in range(4)}, BTC=range(WEEK))
    sets = ["v5_rel", "clock", "cross_section"]
    with pytest.raises(DataError, match="may hold cross_section for symbols of the same trading hours"):
        research.train(bars, ("lgbm",), "L3", PUBLISHED.with_values({"features.sets": sets}), preset="tiny", n_folds=1)


def test_symbols_of_one_market_with_everything_that_hurts_are_compared():
    check_same_hours(awkward_bars(1500), "cross_section")


@pytest.mark.parametrize("name", ["us_equity_1h", "fx_1h", "crypto_spot_1h_long"])
def test_real_markets_are_of_one_kind(name):
    check_same_hours(research.load_bars(shared_data(f"{name}.parquet")), "cross_section")
