"""Do candles become the right bars, whatever they come in, and is what cannot be used refused in one sentence?"""

import errno
from datetime import UTC, date, datetime
from itertools import pairwise

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtcore.types import NS_PER_DAY, NS_PER_HOUR, NS_PER_MINUTE, Bars
from research.data import bars_per_year, fingerprint, load, load_bars, sample, save_bars, simulate, stream_bars, to_pandas, to_polars
from research.data.clock import interval_text, iso, parse_interval, parse_time
from research.data.funding import add_funding
from research.data.load import DataWarning
from research.data.quality import quality
from research.errors import UserError
from tests.conftest import assert_same_bits, awkward_bars, shared_data

PLANES = ("open", "high", "low", "close", "volume")
FIELDS = ("open_time", "close_time", *PLANES)


def assert_same_bars(a: Bars, b: Bars) -> None:
    assert a.symbols == b.symbols
    assert a.interval == b.interval
    for name in FIELDS:
        assert_same_bits(getattr(a, name), getattr(b, name), name)
    assert (a.funding is None) == (b.funding is None)
    if a.funding is not None:
        assert_same_bits(a.funding, b.funding, "funding")


def frame(n: int = 48, symbols: tuple[str, ...] = ("AAA", "BBB"), step: str = "1h", start: str = "2024-01-01") -> pd.DataFrame:
    """A clean long frame: symbol, then time."""
    rng = np.random.default_rng(n)
    parts = []
    for name in symbols:
        close = 100.0 + np.cumsum(rng.normal(size=n))
        open_ = close + rng.normal(size=n) * 0.1
        parts.append(
            pd.DataFrame(
                {
                    "timestamp": pd.date_range(start, periods=n, freq=step, tz="UTC"),
                    "symbol": name,
                    "open": open_,
                    "high": np.maximum(open_, close) + 0.5,
                    "low": np.minimum(open_, close) - 0.5,
                    "close": close,
                    "volume": rng.random(n) * 100.0,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def sane_bars(n: int, n_symbols: int, seed: int) -> Bars:
    """Bars whose first and last row have a candle, so that a frame of their candles alone spans the same grid."""
    bars = simulate("gaps", seed=seed, n_bars=n, n_symbols=n_symbols, holes=0.03, outage=n + 1, listing=n // 3)
    for name in PLANES:
        plane = getattr(bars, name)
        plane[-1] = simulate("random_walk", seed=seed, n_bars=2, n_symbols=n_symbols).close[-1]
    bars.high[-1] *= 1.1
    bars.low[-1] *= 0.9
    return bars


# -- what goes in ------------------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(st.integers(40, 160), st.integers(1, 4), st.integers(0, 99), st.booleans(), st.booleans())
def test_pandas_polars_and_numpy_give_the_same_bars(n, n_symbols, seed, with_holes, shuffle_symbols):
    bars = sane_bars(n, n_symbols, seed)
    table = to_pandas(bars)
    if not with_holes:
        table = table[table["close"].notna()]
    if shuffle_symbols:
        table = table.sort_values("symbol", kind="stable")
    plain = table.reset_index().drop(columns="close_time")
    columns = {name: plain[name].to_numpy() for name in plain.columns if name != "open_time"}
    times = plain["open_time"].dt.tz_localize(None).to_numpy()
    wide = {name: getattr(bars, name) for name in PLANES}
    for source in (
        table,
        plain,
        plain.set_index(["open_time", "symbol"]),
        plain.rename(columns={"open_time": "Date", "volume": "VOLUME"}),
        pl.from_pandas(plain),
        pl.from_pandas(plain).lazy(),
        pl.from_pandas(plain).with_columns(pl.col("symbol").cast(pl.Categorical)),
        pa.Table.from_pandas(plain, preserve_index=False),
        {"timestamp": times, **columns},
        {"timestamp": times.astype("datetime64[ms]").astype(np.int64), **columns},
        {"open_time": bars.open_time, "symbols": np.array(bars.symbols), **wide},
    ):
        assert_same_bars(load_bars(source, calendar="regular"), bars)


@settings(max_examples=8, deadline=None)
@given(st.integers(30, 120), st.integers(1, 3), st.integers(0, 99))
def test_files_give_the_same_bars(tmp_path_factory, n, n_symbols, seed):
    bars = sane_bars(n, n_symbols, seed)
    folder = tmp_path_factory.mktemp("files")
    table = to_pandas(bars).reset_index()
    whole = table[table["close"].notna()].drop(columns="close_time")
    whole.to_csv(folder / "a.csv", index=False)
    whole.to_csv(folder / "b.csv.gz", index=False, sep=";")
    whole.sort_values(["symbol", "open_time"]).to_parquet(folder / "c.parquet")
    assert_same_bars(load_bars(save_bars(bars, folder / "d.parquet")), bars)
    for name in ("a.csv", "b.csv.gz", "c.parquet"):
        assert_same_bars(load_bars(str(folder / name), calendar="regular"), bars)
    one_each = folder / "each"
    one_each.mkdir()
    for i, (name, rows) in enumerate(whole.groupby("symbol")):
        rows = rows.drop(columns="symbol")
        rows.to_csv(one_each / f"{name}_1h.csv", index=False) if i % 2 else rows.to_parquet(one_each / f"{name}-1h.parquet")
    assert_same_bars(load_bars(one_each, calendar="regular"), bars)


def test_load_is_a_pivot_on_a_date_range():
    rows = frame(60).drop(index=[5, 70, 71])
    rows = rows.drop(rows.index[rows["timestamp"] == rows["timestamp"][30]])
    bars = load_bars(rows)
    span = pd.date_range(rows["timestamp"].min(), rows["timestamp"].max(), freq="1h")
    for name in PLANES:
        assert_same_bits(rows.pivot(index="timestamp", columns="symbol", values=name).reindex(span).to_numpy(), getattr(bars, name), name)
    assert_same_bits(bars.open_time, span.as_unit("ns").asi8)
    assert_same_bits(bars.close_time, bars.open_time + NS_PER_HOUR)


def test_frames_of_bars_load_as_the_bars():
    bars = awkward_bars(200)
    assert_same_bars(load_bars(to_pandas(bars)), load_bars(bars, symbols=sorted(bars.symbols)))
    assert_same_bars(load_bars(to_polars(bars)), load_bars(bars, symbols=sorted(bars.symbols)))
    assert to_pandas(bars).index.tz is not None
    assert load_bars(bars).symbols == bars.symbols


def test_own_file_keeps_order_grid_and_funding(tmp_path):
    bars = awkward_bars(300)
    funded = Bars(**{**vars(bars), "funding": np.random.default_rng(0).random(bars.close.shape)})
    assert_same_bars(load_bars(save_bars(funded, tmp_path / "a.parquet")), funded)
    blocks = (funded[i : i + 37] for i in range(0, funded.n, 37))
    assert_same_bars(load_bars(save_bars(blocks, tmp_path / "b.parquet")), funded)
    picked = load_bars(tmp_path / "a.parquet", symbols=["XRPUSDT", "BTCUSDT"])
    assert_same_bits(picked.close, np.ascontiguousarray(bars.close[:, [3, 0]]))
    daily = sample()
    assert_same_bars(load_bars(save_bars((daily[:6], daily[6:11]), tmp_path / "c.parquet")), daily[:11])


def test_load_keeps_the_order_of_symbols_and_the_span():
    rows = frame(48, ("CCC", "AAA", "BBB"))
    assert load_bars(rows).symbols == ("AAA", "BBB", "CCC")
    assert load_bars(rows, symbols=("CCC", "AAA")).symbols == ("CCC", "AAA")
    assert load_bars(rows, symbols="BBB,AAA").symbols == ("BBB", "AAA")
    whole = load_bars(rows)
    part = load_bars(rows, start="2024-01-01 10:00", end="2024-01-01 20:00")
    assert_same_bars(part, whole[10:20])
    assert_same_bars(load_bars(whole, start="2024-01-01 10:00", end="2024-01-01 20:00"), whole[10:20])
    assert load_bars(rows[rows["symbol"] == "AAA"].drop(columns="symbol"), symbols=["MINE"]).symbols == ("MINE",)
    late = rows[(rows["symbol"] != "CCC") | (rows["timestamp"] >= "2024-01-02")]
    loaded = load(late, end="2024-01-01 12:00")
    assert loaded.bars.symbols == ("AAA", "BBB")
    assert loaded.report.warnings == ["CCC: no bars in the span; left out"]


NOON = 1_706_706_000  # 2024-01-31 13:00 UTC
TIMES = ["2024-01-31 13:00", "2024-01-31T13:00:00Z", "2024-01-31 14:00+01:00", NOON, NOON * 10**3, NOON * 10**6, NOON * 10**9]
TIMES += [datetime(2024, 1, 31, 13), datetime(2024, 1, 31, 13, tzinfo=UTC), np.datetime64("2024-01-31T13", "h")]
TIMES += [pd.Timestamp("2024-01-31 08:00", tz="America/New_York")]


@pytest.mark.parametrize("value", TIMES)
def test_a_time_is_read_in_utc(value):
    assert parse_time(value) == NOON * 10**9


def test_time_is_read_from_dates_and_texts():
    assert parse_time(date(2024, 1, 31)) == parse_time("2024-01-31") == parse_time("20240131") == 1_706_659_200_000_000_000
    assert iso(1_706_659_200_000_000_000) == "2024-01-31 00:00"
    assert iso(1_706_659_201_500_000_000) == "2024-01-31 00:00:01.500000000"
    assert [parse_interval(t) for t in ("90s", "5m", "1 hour", "1d", "2w")] == [
        90 * 10**9,
        5 * NS_PER_MINUTE,
        NS_PER_HOUR,
        NS_PER_DAY,
        14 * NS_PER_DAY,
    ]
    assert [interval_text(parse_interval(t)) for t in ("60m", "24h", "7d", "90s")] == ["1h", "1d", "1w", "90s"]


@pytest.mark.parametrize(
    "form", ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S+00:00", "%Y.%m.%d %H:%M", "%Y%m%d %H%M%S", "epoch"]
)
def test_texts_of_time_in_csv(tmp_path, form):
    rows = frame(30)
    bars = load_bars(rows)
    stamps = rows["timestamp"].astype("datetime64[ms, UTC]")
    rows["timestamp"] = stamps.astype(np.int64) if form == "epoch" else stamps.dt.strftime(form)
    rows.to_csv(tmp_path / "x.csv", index=False)
    assert_same_bars(load_bars(tmp_path / "x.csv"), bars)
    assert_same_bars(load_bars(rows), bars)


def test_one_zone_that_is_not_utc_is_converted():
    rows = frame(30)
    bars = load_bars(rows)
    assert_same_bars(load_bars(rows.assign(timestamp=rows["timestamp"].dt.tz_convert("Asia/Tokyo"))), bars)
    text = rows["timestamp"].dt.tz_convert("Asia/Tokyo").map(lambda t: t.isoformat())
    assert_same_bars(load_bars(rows.assign(timestamp=text)), bars)
    assert_same_bars(load_bars(rows.assign(timestamp=rows["timestamp"].astype(object))), bars)


# -- the grid ----------------------------------------------------------------------------------------------------------------


def test_few_empty_rows_are_holes_and_many_are_sessions():
    rows = frame(200)
    outage = rows["timestamp"].isin(pd.date_range("2024-01-03", periods=9, freq="1h", tz="UTC"))
    loaded = load(rows[~outage])
    assert (loaded.report.calendar, loaded.bars.n, round(loaded.report.empty_share, 3)) == ("regular", 200, 0.045)
    assert np.isnan(loaded.bars.close[48:57]).all()
    night = rows["timestamp"].dt.hour < 2
    loaded = load(rows[~night])
    assert loaded.report.calendar == "sessions"
    assert loaded.bars.n == (~night).sum() // 2
    assert_same_bits(loaded.bars.close_time, loaded.bars.open_time + NS_PER_HOUR)
    assert load(rows[~night], calendar="regular").bars.n == 198
    assert load(rows[~outage], calendar="sessions").bars.n == 191


def test_close_labels_are_turned_into_opens():
    rows = frame(30)
    bars = load_bars(rows)
    shifted = rows.assign(timestamp=rows["timestamp"] + pd.Timedelta("1h"))
    assert_same_bars(load_bars(shifted, time_label="close"), bars)
    assert_same_bars(load_bars(shifted.rename(columns={"timestamp": "close_time"})), bars)
    assert_same_bars(load_bars(shifted, time_label="close", start="2024-01-01 05:00"), bars[5:])


def test_a_day_of_23_hours_closes_when_the_next_opens():
    rows = frame(30, step="1D").assign(timestamp=list(pd.date_range("2024-02-26", periods=30, freq="1D", tz="America/New_York")) * 2)
    loaded = load(rows)
    assert (loaded.report.calendar, loaded.bars.interval) == ("sessions", NS_PER_DAY)
    length = loaded.bars.close_time - loaded.bars.open_time
    assert sorted(set(length // NS_PER_HOUR)) == [23, 24]
    assert np.all(loaded.bars.close_time[:-1] <= loaded.bars.open_time[1:])
    months = frame(24, ("AAA",), step="MS")
    assert load(months).bars.n == 24


def test_the_source_may_say_how_long_a_bar_is():
    rows = frame(2, step="3D")
    assert load_bars(rows.assign(open_time=rows["timestamp"], close_time=rows["timestamp"] + pd.Timedelta("1D"))).interval == NS_PER_DAY
    assert load_bars(rows, interval="1d").interval == NS_PER_DAY
    assert load_bars(rows).interval == 3 * NS_PER_DAY


def test_funding_is_due_after_the_open_and_until_the_close():
    bars = load_bars(frame(24))
    times = pd.to_datetime(
        ["2024-01-01 08:00", "2024-01-01 08:00:00.003", "2024-01-01 08:30", "2024-01-01 23:59:59", "2025-01-01"], utc=True, format="ISO8601"
    )
    rates = pd.DataFrame({"timestamp": times, "symbol": ["AAA", "BBB", "AAA", "AAA", "AAA"], "funding_rate": [0.1, 0.2, 0.4, 0.8, 1.6]})
    loaded = load(frame(24), funding=rates)
    expected = np.zeros((24, 2))
    expected[7] = 0.1, 0.2
    expected[8, 0], expected[23, 0] = 0.4, 0.8
    assert_same_bits(loaded.bars.funding, expected)
    assert loaded.report.warnings[1:] == [
        "1 of 5 funding rates are due before the first bar or after the last; left out",
        "BBB: 2024-01-01 08:00 has the only funding rate; whether others are missing cannot be told",
    ]
    assert "read as fractions, not per cent" in loaded.report.warnings[0]
    assert load(frame(24), funding=rates[rates["symbol"] == "AAA"]).report.warnings[2:] == ["BBB: no funding rates; counted as 0"]
    assert_same_bits(add_funding(bars, rates).funding, expected)


# -- bad rows ----------------------------------------------------------------------------------------------------------------


BAD_CELLS = {
    "not_positive": ({"open": 0.0}, "have a price of zero or below"),
    "incomplete": ({"close": np.nan}, "have some values empty, but not all"),
    "not_finite": ({"high": np.inf}, "have an infinite value"),
    "negative_volume": ({"volume": -1.0}, "have a volume below zero"),
    "high_below_low": ({"high": 1.0, "low": 2.0, "open": 1.5, "close": 1.5}, "have a high below the low"),
    "outside_range": ({"open": 1.0, "high": 200.0, "low": 90.0, "close": 100.0}, "have an open or close outside low to high"),
}


@pytest.mark.parametrize("problem", BAD_CELLS)
def test_few_bad_rows_are_masked_and_many_stop(problem):
    cells, text = BAD_CELLS[problem]
    rows = frame(500)
    clean = load_bars(rows)
    bad = rows.copy()
    bad.loc[[7, 8, 9, 10, 11], list(cells)] = list(cells.values())
    loaded = load(bad)
    for name in PLANES:
        expected = getattr(clean, name).copy()
        expected[7:12, 0] = np.nan
        assert_same_bits(getattr(loaded.bars, name), expected)
    assert loaded.report.warnings == [f"AAA: 5 of 500 rows {text}, the first at 2024-01-01 07:00; masked"]
    with pytest.warns(DataWarning, match="AAA: 5 of 500 rows"):
        load_bars(bad)
    bad.loc[range(20, 26), list(cells)] = list(cells.values())
    remedy = "fill or drop them" if problem == "incomplete" else "correct or drop them"
    with pytest.raises(UserError) as error:
        load_bars(bad)
    sentence = f"AAA: 11 of 500 rows {text}, the first at 2024-01-01 07:00; at most 5 may; {remedy}, or leave AAA out"
    assert str(error.value) == sentence
    assert load(bad, symbols=["BBB"]).report.warnings == []
    assert quality(bad).stops


def test_rounding_of_an_adjusted_price_is_no_broken_candle():
    rows = frame(50)
    rows.loc[3, "close"] = rows.loc[3, "high"] * (1.0 + 1e-12)
    assert load(rows).report.warnings == []


def test_exact_duplicates_are_dropped_and_conflicts_stop():
    rows = frame(40)
    bars = load_bars(rows)
    twice = pd.concat([rows, rows[:30], rows[50:55]]).sort_values(["symbol", "timestamp"])
    loaded = load(twice)
    assert_same_bars(loaded.bars, bars)
    assert loaded.report.warnings[0] == "AAA: 30 of 70 rows repeat another row, the first at 2024-01-01 00:00; dropped"
    conflict = pd.concat([rows, rows[5:6].assign(volume=1.0)]).sort_values(["symbol", "timestamp"])
    with pytest.raises(UserError) as error:
        load_bars(conflict)
    what = "AAA: 1 of 41 rows share their timestamp with a row of other values, the first at 2024-01-01 05:00"
    assert str(error.value) == what + "; keep one row per symbol and time (a column symbol tells them apart), or leave AAA out"


def test_few_unsorted_rows_are_sorted_and_many_stop():
    rows = frame(40)
    bars = load_bars(rows)
    swapped = rows.copy()
    swapped.iloc[[4, 5]] = rows.iloc[[5, 4]].to_numpy()
    loaded = load(swapped.assign(timestamp=pd.to_datetime(swapped["timestamp"])))
    assert_same_bars(loaded.bars, bars)
    assert loaded.report.warnings == ["AAA: 1 of 40 rows are earlier than the row before them, the first at 2024-01-01 04:00; sorted"]
    with pytest.raises(
        UserError, match=r"AAA: \d+ of 40 rows are earlier .*; at most 3 may; sort by symbol and timestamp, or leave AAA out"
    ):
        load_bars(rows.sample(frac=1.0, random_state=0).sort_values("symbol", kind="stable"))
    for turned in (rows[::-1], rows.sort_values("timestamp", ascending=False), rows.sort_values(["timestamp", "symbol"])[::-1]):
        assert load(turned).report.warnings == ["the newest row stands first; read from the last to the first"]
        assert_same_bars(load(turned).bars, bars)
    assert_same_bars(load_bars(rows.sort_values("timestamp", kind="stable")), bars)


def test_rows_off_the_grid_or_in_the_future_are_dropped_or_stop():
    rows = frame(300)
    off = rows.copy()
    off.loc[[10, 11], "timestamp"] += pd.Timedelta("7min")
    loaded = load(off)
    assert np.isnan(loaded.bars.close[[10, 11], 0]).all()
    assert loaded.report.warnings == ["AAA: 2 of 300 rows are off the common grid of timestamps, the first at 2024-01-01 10:07; dropped"]
    off.loc[range(50, 60), "timestamp"] += pd.Timedelta("1s")
    with pytest.raises(
        UserError, match=r"AAA: 12 of 300 rows are off the common grid .*; round the timestamps or resample, or leave AAA out"
    ):
        load_bars(off)
    future = rows.copy()
    future.loc[299, "timestamp"] = pd.Timestamp("2150-01-01", tz="UTC")
    loaded = load(future)
    assert loaded.bars.n == 300
    assert loaded.report.warnings == [
        "AAA: 1 of 300 rows open after the present time, or at 1970-01-01 00:00, the first at 2150-01-01 00:00; dropped"
    ]


# -- refusals ----------------------------------------------------------------------------------------------------------------


def refused(text: str, *args, **kwargs) -> None:
    with pytest.raises(UserError) as error:
        load_bars(*args, **kwargs)
    assert str(error.value) == text


def test_frames_that_are_no_candles_are_refused():
    rows = frame(30)
    need = "the data must have the columns timestamp, symbol, open, high, low, close, volume"
    refused(f"{need}; missing: low; found: timestamp, symbol, open, high, close", rows.drop(columns=["low", "volume"]))
    refused(f"{need}; missing: timestamp, close; found: when, symbol, open, high, low, final, volume",
            rows.rename(columns={"timestamp": "when", "close": "final"}))  # fmt: skip
    refused("the data must have one column close, was close and Close; rename or drop one", rows.assign(Close=1.0))
    name = "column date of the data"
    refused(f"{name} must be a date where a time of day stands beside it, was not so; keep one time column, named timestamp",
            rows.rename(columns={"timestamp": "date"}).assign(time="10:00"))  # fmt: skip
    refused("symbols (--symbols) must be in the data, was 'ZZZ'; it has AAA, BBB (2)", rows, symbols=["AAA", "ZZZ"])
    refused("symbols must be named once each, was AAA, AAA", rows, symbols=["AAA", "AAA"])
    refused("symbols must name at least one, was empty", rows, symbols=[])
    refused(
        "start (--from) must be before end (--to), was 2024-02-01 00:00 and 2024-01-01 00:00", rows, start="2024-02-01", end="2024-01-01"
    )
    refused("start (--from) and end (--to) must meet the data, was 2025-01-01 00:00 to the end; "
            "it spans 2024-01-01 00:00 to 2024-01-02 05:00",
            rows, start="2025-01-01")  # fmt: skip
    late = rows[(rows["symbol"] == "AAA") | (rows["timestamp"] > "2024-01-01 20:00")]
    text = "every symbol must have bars in the span, was none of BBB; leave it out or widen the span"
    refused(text, late, symbols=["AAA", "BBB"], end="2024-01-01 10:00")
    refused("funding must have the columns timestamp, symbol, funding_rate; missing: funding_rate; found: timestamp, price",
            rows, funding=pd.DataFrame({"timestamp": [1], "price": [2]}))  # fmt: skip
    empty = rows.copy()
    empty.loc[rows["symbol"] == "BBB", list(PLANES)] = np.nan
    refused("every symbol must have candles, was none that can be used of BBB; leave it out with --symbols", empty)
    refused("data must have rows, was an empty table", rows[:0])
    refused("data must have at least 2 bars of a symbol, was 1; give more history", rows[:1])
    refused("data must have at least 2 bars, was 1 (at 2024-01-01 00:00); give more history", rows[:1], interval="1h")
    refused("start (--from) must hold times, was 'yesterday'; use ISO 8601 in UTC (2024-01-31T13:00:00Z) or whole epoch s, ms, us or ns",
            rows, start="yesterday")  # fmt: skip
    refused("time_label (--time-label) must be open or close, was 'middle'", rows, time_label="middle")
    refused("calendar (--calendar) must be one of regular, sessions, was 'lunar'", rows, calendar="lunar")
    refused("interval must be a number and s, m, h, d, w or mo such as 15m, 4h or 1mo, was '1x'", rows, interval="1x")
    expected = "expected a Parquet or CSV file, a folder of them, sample, simulated:NAME, or a pandas or polars frame"
    refused(f"data must be candles, was int; {expected}", 5)


def test_times_that_are_not_clear_are_refused():
    rows = frame(30)
    remedy = "use ISO 8601 in UTC (2024-01-31T13:00:00Z) or whole epoch s, ms, us or ns"
    text = rows["timestamp"].map(lambda t: t.isoformat())
    mixed = text.copy()
    name = "column timestamp of the data"
    mixed[3] = "2024-01-01T03:00:00"
    refused(f"{name} must have one time zone, was mixed (+00:00, none); convert it to UTC first", rows.assign(timestamp=mixed))
    objects = rows["timestamp"].astype(object)
    objects[3] = objects[3].tz_convert("Asia/Tokyo")
    assert_same_bars(load_bars(rows.assign(timestamp=objects)), load_bars(rows))
    objects[3] = objects[3].tz_localize(None)
    refused(
        "column timestamp must have one time zone, was mixed; use pd.to_datetime(column, utc=True) first", rows.assign(timestamp=objects)
    )
    ints = rows["timestamp"].astype("datetime64[ms, UTC]").astype(np.int64)
    units = ints.copy()
    units[40:] *= 1000
    with pytest.raises(UserError, match=r"must have one unit, was mixed \(from 1704067200000 to 1704171600000000\); use ISO"):
        load_bars(rows.assign(timestamp=units))
    refused(f"{name} must hold dates, was 20241301 (read as YYYYMMDD); {remedy}", rows.assign(timestamp=20241301))
    gone = rows["timestamp"].copy()
    gone[[4, 9]] = pd.NaT
    refused(f"{name} must have a time in every row, 2 are empty, the first is row 5", rows.assign(timestamp=gone))
    refused(f"{name} must hold times, was 'noon'; {remedy}", rows.assign(timestamp="noon"))
    nameless = rows["symbol"].copy()
    nameless[7] = None
    refused("the data: column symbol must name every row, 1 are empty, the first is row 8", rows.assign(symbol=nameless))
    with pytest.raises(UserError, match=r"the data must be a table of numbers, was not: 'dear' in column close, row 1; correct that row"):
        load_bars(rows.assign(close="dear"))


def test_bars_that_do_not_fit_together_are_refused():
    hourly, daily = frame(240, ("AAA",)), frame(30, ("BBB",), step="1D")
    refused(
        "symbols must have bars of one length, was 1d for BBB and 1h for most; resample first, or leave BBB out", pd.concat([hourly, daily])
    )
    double = pd.concat([hourly, hourly.assign(timestamp=hourly["timestamp"] + pd.Timedelta("30min"), symbol="BBB")])
    with pytest.raises(UserError, match=r"BBB: 240 of 240 rows are off the common grid"):
        load_bars(double)


def test_files_that_are_no_candles_are_refused(tmp_path):
    expected = "expected a Parquet or CSV file, a folder of them, sample, simulated:NAME, or a pandas or polars frame"
    refused(f"data must exist, was '{tmp_path}/no.parquet' (not found); {expected}", tmp_path / "no.parquet")
    (tmp_path / "empty.csv").touch()
    refused("empty.csv must hold candles, was an empty file (0 bytes)", tmp_path / "empty.csv")
    (tmp_path / "text.parquet").write_text("hello, this is no parquet")
    with pytest.raises(
        UserError,
        match=r"^text.parquet must be a whole Parquet file, was not \(Parquet magic bytes not found in footer\); write it again",
    ):
        load_bars(tmp_path / "text.parquet")
    frame(500).to_parquet(tmp_path / "cut.parquet")
    whole = (tmp_path / "cut.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        UserError, match=r"^cut.parquet must be a whole Parquet file, was not \(Parquet magic bytes not found in footer\); write it again"
    ):
        load_bars(tmp_path / "cut.parquet")
    (tmp_path / "names.parquet").write_bytes(whole.replace(b"volume", b"vol\xe7me"))
    for read in (load_bars, lambda path: list(stream_bars(path))):
        with pytest.raises(UserError, match=r"^names.parquet must be a whole Parquet file, was not \('utf-8' codec can't decode byte 0xe7"):
            read(tmp_path / "names.parquet")
    (tmp_path / "notes.doc").write_text("x")
    with pytest.raises(
        UserError,
        match=r"^notes.doc must end in .parquet, .pq, .csv, .csv.gz, .txt, .tsv, .zip, .*ndjson, was .doc; expected",
    ):
        load_bars(tmp_path / "notes.doc")
    (tmp_path / "sub").mkdir()
    refused(f"{tmp_path / 'sub'} must hold .parquet or .csv files, was a folder without any", tmp_path / "sub")
    rows = frame(5).astype({"close": object})
    rows.loc[3, "close"] = "dear"
    rows.to_csv(tmp_path / "word.csv", index=False)
    with pytest.raises(UserError, match=r"^word.csv must be a table of numbers, was not: 'dear' in column close, row 4; correct that row"):
        load_bars(tmp_path / "word.csv")
    (tmp_path / "header.csv").write_text("timestamp,symbol,open,high,low,close,volume\n")
    refused("header.csv must have rows, was a header alone", tmp_path / "header.csv")


def test_output_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    bars = simulate("random_walk", n_bars=50)
    with pytest.raises(UserError, match=r"output must end in .parquet, was 'x.csv'"):
        save_bars(bars, tmp_path / "x.csv")

    def full(self, table):
        raise OSError(errno.ENOSPC, "No space left on device")

    save_bars(bars, tmp_path / "x.parquet")
    before = (tmp_path / "x.parquet").read_bytes()
    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    text = r"x.parquet must be writable, was not \(No space left on device\); free space or choose another place"
    with pytest.raises(UserError, match=text):
        save_bars(bars, tmp_path / "x.parquet")
    assert (tmp_path / "x.parquet").read_bytes() == before
    with pytest.raises(UserError):
        save_bars(bars, tmp_path / "y.parquet")
    monkeypatch.undo()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="must be writable, was not"):
        save_bars(bars, tmp_path / "file" / "x.parquet")
    blocks = iter([bars, "not bars"])
    with pytest.raises(AttributeError):
        save_bars(blocks, tmp_path / "z.parquet")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["file", "x.parquet"]


# -- facts -------------------------------------------------------------------------------------------------------------------


@given(cuts=st.lists(st.integers(1, 199), unique=True, max_size=6))
@settings(max_examples=20, deadline=None)
def test_the_fingerprint_knows_no_blocks(cuts):
    bars = awkward_bars(200)
    edges = [0, *sorted(cuts), 200]
    assert fingerprint(bars[a:b] for a, b in pairwise(edges)) == fingerprint(bars)


def test_the_fingerprint_sees_every_change():
    bars = awkward_bars(200)
    seen = {
        fingerprint(bars),
        fingerprint(bars[1:]),
        fingerprint(bars[:-1]),
        fingerprint(Bars(**{**vars(bars), "symbols": bars.symbols[::-1]})),
    }
    for name in FIELDS:
        changed = getattr(bars, name).copy()
        changed.flat[500 % changed.size] += 1
        seen.add(fingerprint(Bars(**{**vars(bars), name: changed})))
    seen.add(fingerprint(Bars(**{**vars(bars), "funding": np.zeros(bars.close.shape)})))
    assert len(seen) == 4 + len(FIELDS) + 1
    with pytest.raises(ValueError, match="blocks must have the same symbols"):
        fingerprint([bars, load_bars(bars, symbols=bars.symbols[:2])])


def test_the_annual_factor_is_measured():
    assert bars_per_year(load_bars(frame(48))) == 8_760.0
    assert bars_per_year(load_bars(frame(48, step="5min"))) == 105_120.0
    assert bars_per_year(sample()) == pytest.approx(251.6, abs=0.1)
    assert bars_per_year(sample()[:6]) == pytest.approx(5 * 365.25 / 7)


@pytest.mark.parametrize(("name", "shape", "calendar", "per_year"), [
    ("crypto_spot_1h_long.parquet", (58_440, 13), "regular", 8_760.0), ("fx_1h.parquet", (40_504, 7), "sessions", 6_193.0),
    ("us_equity_1h.parquet", (28_549, 3), "sessions", 1_758.0)])  # fmt: skip
def test_load_reads_real_candles(name, shape, calendar, per_year):
    loaded = load(shared_data(name))
    assert (loaded.bars.close.shape, loaded.report.calendar, loaded.report.warnings) == (shape, calendar, [])
    assert bars_per_year(loaded.bars) == pytest.approx(per_year, abs=0.5)
    assert fingerprint(stream_bars(shared_data(name))) == fingerprint(loaded.bars)
