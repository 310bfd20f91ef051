"""Are two bar lengths in one symbol refused with both spans, and is nothing honest refused with them?"""

import numpy as np
import pandas as pd
import pytest

from research.data import load, simulate
from research.errors import UserError
from tests.conftest import shared_data

PLANES = ("open", "high", "low", "close", "volume")
WHOLE = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
NEW_YORK = "America/New_York"


def hours(is_kept, market="random_walk", days=430) -> pd.DataFrame:
    """Candles of every hour from 2024-01-01 on of which `is_kept` says, by their times in New York, that the market was open."""
    bars = simulate(market, seed=7, n_bars=24 * days, n_symbols=1)
    time = pd.date_range("2024-01-01", periods=bars.n, freq="1h", tz="UTC")
    rows = pd.DataFrame({name: getattr(bars, name)[:, 0] for name in PLANES}).assign(timestamp=time)
    return rows[is_kept(time.tz_convert(NEW_YORK))].reset_index(drop=True)


def sessions(time):
    """Weekdays from 9 to 16, some half days and holidays."""
    is_half, is_holiday = time.dayofyear % 60 == 5, time.dayofyear % 45 == 3
    return (time.dayofweek < 5) & (time.hour >= 9) & (time.hour < np.where(is_half, 13, 16)) & ~is_holiday


def week(time):
    """From Sunday to Friday, 17 o'clock."""
    weekday, hour = time.dayofweek, time.hour
    return (weekday < 4) | ((weekday == 4) & (hour < 17)) | ((weekday == 6) & (hour >= 17))


def daily(rows: pd.DataFrame, zone: str = "UTC") -> pd.DataFrame:
    """One row a day that has any."""
    days = rows.set_index(rows["timestamp"].dt.tz_convert(zone)).resample("1D").agg(WHOLE).dropna()
    return days.rename_axis("timestamp").reset_index().assign(timestamp=lambda f: f["timestamp"].dt.tz_convert("UTC"))


def refused(rows: pd.DataFrame) -> str:
    with pytest.raises(UserError, match="must have bars of one length, was 1h") as error:
        load(rows)
    return str(error.value)


@pytest.mark.parametrize("zone", ["UTC", NEW_YORK])
@pytest.mark.parametrize("market", [sessions, week])
@pytest.mark.parametrize("n", [40, 150])
def test_days_before_or_after_hours_with_holes_are_refused_with_both_spans(market, zone, n):
    rows = hours(market)
    cut = rows["timestamp"].iloc[-1].floor("1D") - pd.Timedelta(days=200)
    early, late = rows[rows["timestamp"] < cut], rows[rows["timestamp"] >= cut + pd.Timedelta("1D")]
    days = daily(late, zone).iloc[:n]
    said = refused(pd.concat([early, days]))
    assert f"1h ({early['timestamp'].iloc[0]:%Y-%m-%d %H:%M} to {early['timestamp'].iloc[-1]:%Y-%m-%d %H:%M})" in said
    assert f"1d ({days['timestamp'].iloc[0]:%Y-%m-%d %H:%M} to {days['timestamp'].iloc[-1]:%Y-%m-%d %H:%M})" in said
    days = daily(early, zone).iloc[-n:]
    said = refused(pd.concat([days, late]))
    assert f"1d ({days['timestamp'].iloc[0]:%Y-%m-%d %H:%M} to {days['timestamp'].iloc[-1]:%Y-%m-%d %H:%M})" in said


def test_days_on_weekends_of_hours_are_refused_wherever_they_close():
    rows = hours(week)
    days = daily(rows).set_index("timestamp").shift(3)
    weekends = days.reindex(pd.date_range("2024-01-06", "2025-02-01", tz="UTC"), method="ffill").rename_axis("timestamp").reset_index()
    weekends = weekends[weekends["timestamp"].dt.dayofweek == 5]
    assert "of these among the others" in refused(pd.concat([rows, weekends]).sort_values("timestamp"))


def test_days_at_times_of_their_own_are_refused_with_both_spans():
    rows = hours(lambda time: time.hour >= 0)
    days = daily(rows)
    days = days[days["timestamp"].dt.dayofweek < 5].assign(timestamp=lambda f: f["timestamp"] + pd.Timedelta("30min"))
    said = refused(pd.concat([rows, days]))
    assert "1h (2024-01-01 00:00 to 2025-03-05 23:00) and 1d (2024-01-01 00:30 to 2025-03-05 00:30); keep the rows of one" in said


def test_sessions_of_one_hour_for_a_while_are_read():
    """The times are those of days; the range is that of an hour."""
    rows = hours(sessions)
    thin = rows["timestamp"] >= pd.Timestamp("2024-10-01", tz="UTC")
    first = ~rows["timestamp"].dt.tz_convert(NEW_YORK).dt.date.duplicated()
    kept = rows[~thin | first]
    close = load(kept).bars.close
    assert close[~np.isnan(close)].tolist() == kept["close"].tolist()


@pytest.mark.parametrize("share", [0.25, 0.5, 0.8, 0.97])
@pytest.mark.parametrize("market", [sessions, week, lambda time: time.hour >= 0])
def test_hours_that_are_missing_here_and_there_are_read(market, share):
    rows = hours(market)
    rows = rows[np.random.default_rng(3).random(len(rows)) < share] if share < 0.9 else rows
    close = load(rows).bars.close
    assert close[~np.isnan(close)].tolist() == rows["close"].tolist()


@pytest.mark.parametrize("name", ["us_equity_1h", "fx_1h", "crypto_spot_1h_long", "crypto_spot_1h_wide", "crypto_perp_1h"])
def test_real_candles_have_one_length(name):
    """Sessions, half days, holidays, outages, changes of the clock; each symbol by itself too."""
    rows = pd.read_parquet(shared_data(f"{name}.parquet"))
    assert load(rows).bars.interval == 3_600_000_000_000
    for _, own in list(rows.groupby("symbol"))[:13]:
        assert np.isfinite(load(own).bars.close).sum() == len(own)


@pytest.mark.parametrize(("name", "symbol", "cut"), [("us_equity_1h", "SPY", "2013-01-01"), ("fx_1h", "AUDJPY", "2016-01-01")])
def test_days_beside_real_hours_are_refused(name, symbol, cut):
    rows = pd.read_parquet(shared_data(f"{name}.parquet"))
    rows = rows[rows["symbol"] == symbol].drop(columns="symbol")
    edge = pd.Timestamp(cut, tz="UTC")
    year = pd.Timedelta(days=365)
    early = rows[(rows["timestamp"] < edge) & (rows["timestamp"] >= edge - year)]
    late = rows[(rows["timestamp"] >= edge) & (rows["timestamp"] < edge + year)]
    for mixed in ([early, daily(late, NEW_YORK)], [daily(early, NEW_YORK), late]):
        assert "and 1d (" in refused(pd.concat(mixed))
