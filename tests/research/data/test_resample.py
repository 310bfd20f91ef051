"""Do longer bars hold what the shorter ones held, and does the quality report count what is there?"""

import numpy as np
import pandas as pd
import pytest

from qtcore.types import NS_PER_DAY, NS_PER_HOUR
from research.data import load_bars, simulate
from research.data.clock import iso, parse_interval
from research.data.load import DataWarning
from research.data.quality import quality, rows_from
from research.data.resample import bars_from_ticks, known_rows, resample
from research.errors import UserError
from tests.conftest import assert_same_bits, awkward_bars
from tests.research.data.test_data import PLANES, assert_same_bars, frame

# -- quality -----------------------------------------------------------------------------------------------------------------


def test_quality_counts_what_is_told():
    rows = frame(400)
    rows.loc[[3, 4, 5], "volume"] = 0.0
    rows.loc[range(100, 400), ["open", "high", "low", "close"]] *= 2.0
    rows.loc[range(200, 212), ["open", "high", "low", "close"]] = 900.0
    rows = rows.drop(index=[50, 51, 350])
    report = quality(rows)
    assert not report.stops
    counts = report.table().loc["AAA"]
    assert counts[counts > 0].to_dict() == {"gap": 3, "zero_volume": 3, "jump": 3, "split": 2, "frozen": 12}
    assert report.table().loc["BBB"].sum() == 0
    first = {issue["problem"]: issue["first"] for issue in report.to_dict()["issues"]}
    assert first["gap"] == "2024-01-03 02:00"
    assert first["split"] == "2024-01-05 04:00"
    assert quality(simulate("random_walk", n_bars=100)).issues == ()


def test_rows_from_bars_and_back():
    bars = awkward_bars(100)
    assert_same_bits(rows_from(bars).values[3].reshape(100, -1), bars.close)


# -- longer bars -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interval", ["2h", "4h", "24h"])
def test_resampling_is_what_pandas_does(interval):
    bars = awkward_bars(500)
    longer = resample(bars, interval, keep_incomplete=True)
    rule = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    for s, name in enumerate(bars.symbols):
        table = pd.DataFrame({k: getattr(bars, k)[:, s] for k in PLANES}, index=pd.to_datetime(bars.open_time, utc=True)).dropna()
        expected = table.resample(interval).agg(rule).reindex(pd.to_datetime(longer.open_time, utc=True))
        for k in PLANES:
            ours = getattr(longer, k)[:, s]
            np.testing.assert_array_equal(np.isnan(ours), expected["close"].isna(), err_msg=name)
            np.testing.assert_allclose(
                ours, expected[k].where(expected["close"].notna()), rtol=1e-14 if k == "volume" else 0.0, err_msg=name
            )
    strict = resample(bars, interval)
    whole = ~np.isnan(strict.close)
    n = parse_interval(interval) // NS_PER_HOUR
    assert strict.close_time[0] - strict.open_time[0] == n * NS_PER_HOUR
    for t in range(strict.n):
        inside = (bars.open_time >= strict.open_time[t]) & (bars.open_time < strict.close_time[t])
        np.testing.assert_array_equal(whole[t], (~np.isnan(bars.close[inside])).sum(axis=0) == n)


def test_sessions_become_days():
    rows = frame(24 * 14, ("AAA",))
    rows = rows[rows["timestamp"].dt.hour.between(14, 20) & (rows["timestamp"].dt.day_of_week < 5)]
    daily = resample(load_bars(rows), "1d")
    assert (daily.n, daily.interval) == (10, NS_PER_DAY)
    assert resample(load_bars(rows[:-2]), "1d").n == 9
    assert resample(load_bars(rows[:-2]), "1d", keep_incomplete=True).n == 10
    weekly = resample(daily, "1w")
    assert [iso(t) for t in weekly.open_time] == ["2024-01-01 00:00", "2024-01-08 00:00"]
    with pytest.raises(UserError, match="new interval must be a multiple of 1d above it, was 4h; choose another"):
        resample(daily, "4h")


def test_a_longer_bar_is_known_at_its_close():
    bars = simulate("random_walk", n_bars=48)
    longer = resample(bars, "4h")
    row = known_rows(longer, bars.close_time)
    assert row[:8].tolist() == [-1, -1, -1, 0, 0, 0, 0, 1]
    assert np.all(longer.close_time[row[3:]] <= bars.close_time[3:])


def test_trades_become_bars():
    rng = np.random.default_rng(0)
    times = pd.to_datetime("2024-01-02", utc=True) + pd.to_timedelta(np.sort(rng.integers(0, 6 * 3_600_000, 5_000)), unit="ms")
    ticks = pd.DataFrame(
        {"timestamp": times, "symbol": "SPY", "price": 100.0 + np.cumsum(rng.normal(size=5_000)) * 0.01, "size": rng.integers(1, 9, 5_000)}
    )
    bars = bars_from_ticks(ticks, "5m", keep_incomplete=True)
    indexed = ticks.set_index("timestamp")
    expected = indexed["price"].resample("5min").ohlc().assign(volume=indexed["size"].resample("5min").sum())
    for name in PLANES:
        np.testing.assert_array_equal(getattr(bars, name)[:, 0], expected[name])
    assert_same_bars(bars_from_ticks(ticks, "5m"), bars[1:-1])
    with pytest.warns(DataWarning, match="the newest row stands first; read from the last to the first"):
        assert_same_bars(bars_from_ticks(ticks[::-1], "5m"), bars[1:-1])
    with pytest.raises(UserError, match=r"SPY: [\d,]+ of 5,000 rows are earlier"):
        bars_from_ticks(ticks.sample(frac=1.0, random_state=0), "5m")
