"""Do candles of every habit stand on the rows that they mean?"""

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qtcore.types import NS_PER_DAY, NS_PER_HOUR, NS_PER_MINUTE, Bars
from research.data import bars_per_year, closes_of, grid, load, load_bars, machine, save_bars, simulate, stream_bars
from research.data.load import CLOSES, FIRSTS, DataWarning
from research.data.machine import memory
from research.data.quality import quality
from research.errors import UserError
from research.live.journal.journal import Journal
from tests.research.data.test_data import FIELDS, PLANES, assert_same_bars, frame


def joined(blocks) -> Bars:
    """One history of its blocks."""
    parts = list(blocks)
    planes = {name: np.concatenate([getattr(part, name) for part in parts]) for name in FIELDS}
    return Bars(**planes, symbols=parts[0].symbols, interval=parts[0].interval)


TICKS = (1, 1_000, 1_000_000, 1_000_000_000)


@pytest.mark.parametrize("tick", [0, *TICKS])
def test_a_stamp_just_before_a_close_means_it(tick):
    closes = np.array([1, 2, 3, 5, 6]) * NS_PER_HOUR
    assert (closes_of(closes - tick, closes, NS_PER_HOUR) == closes).all()


def test_stamps_beside_a_close_mean_themselves():
    closes = np.array([1, 2, 3, 5, 6]) * NS_PER_HOUR
    stamps = np.array([4 * NS_PER_HOUR, 2 * NS_PER_HOUR + 1, 2 * NS_PER_HOUR - 2, 7 * NS_PER_HOUR, np.iinfo(np.int64).min])
    assert (closes_of(stamps, closes, NS_PER_HOUR) == stamps).all()
    assert (closes_of(stamps, closes[:0], NS_PER_HOUR) == stamps).all()
    seconds = closes // 3_600  # bars of a second: a second earlier is another bar
    assert (closes_of(seconds - 10**9, seconds, 10**9) == seconds - 10**9).all()
    assert (closes_of(seconds - 10**6, seconds, 10**9) == seconds).all()


# bar length


def kline(n: int = 240, interval: str = "1h", tick: str = "1ms", gone: tuple[int, ...] = (3, 4)) -> pd.DataFrame:
    """Candles as an exchange writes them: the close a tick before the next open."""
    rows = frame(n, ("BTCUSDT",), interval).rename(columns={"timestamp": "open_time"})
    rows.insert(1, "close_time", rows["open_time"] + pd.Timedelta(interval) - pd.Timedelta(tick))
    return rows.drop(index=list(gone)).reset_index(drop=True)


@pytest.mark.parametrize("tick", ["1ns", "1us", "1ms", "1s"])
@pytest.mark.parametrize(("interval", "length"), [("15min", 15 * NS_PER_MINUTE), ("1h", NS_PER_HOUR), ("1D", NS_PER_DAY)])
def test_a_close_before_the_next_open_is_the_next_open(tick, interval, length):
    rows = kline(240, interval, tick)
    loaded = load(rows)
    assert loaded.bars.interval == length
    assert loaded.report.calendar == "regular"
    assert int(np.isnan(loaded.bars.close).sum()) == 2
    assert bars_per_year(loaded.bars) == pytest.approx(365 * NS_PER_DAY / length)
    assert_same_bars(loaded.bars, load_bars(rows.drop(columns="close_time")))
    only_close = load(rows.drop(columns="open_time"))
    assert_same_bars(only_close.bars, loaded.bars)
    assert_same_bars(load_bars(rows.drop(columns="open_time").rename(columns={"close_time": "timestamp"}), time_label="close"), loaded.bars)
    guessed = load(rows.drop(columns="open_time").rename(columns={"close_time": "timestamp"}))
    assert_same_bars(guessed.bars, loaded.bars)
    assert any("were read as closes" in text for text in guessed.report.warnings)


def test_epoch_klines_of_a_csv_and_of_mixed_units(tmp_path):
    rows = kline(48)
    for name in ("open_time", "close_time"):
        rows[name] = rows[name].astype("datetime64[ns, UTC]").astype("int64") // 10**6
    assert rows["close_time"].iloc[0] == 1704070799999
    rows.to_csv(tmp_path / "BTCUSDT.csv", index=False)
    bars = load_bars(tmp_path / "BTCUSDT.csv")
    assert (bars.interval, bars.n, bars_per_year(bars)) == (NS_PER_HOUR, 48, 8760.0)
    later = rows.copy()  # from 2025 on in microseconds
    later["open_time"] = (later["open_time"] + 48 * 3_600_000) * 1_000
    later["close_time"] = later["open_time"] + 3_600_000_000 - 1
    folder = tmp_path / "both"
    folder.mkdir()
    rows.to_csv(folder / "BTCUSDT-1h-2024-12.csv", index=False)
    later.to_csv(folder / "BTCUSDT-1h-2025-01.csv", index=False)
    bars = load_bars(folder)
    assert (bars.interval, bars.n, bars.symbols) == (NS_PER_HOUR, 96, ("BTCUSDT",))


def test_funding_at_eight_is_charged_on_klines():
    rates = pd.DataFrame({"timestamp": [pd.Timestamp("2024-01-01 08:00", tz="UTC")], "symbol": "BTCUSDT", "funding_rate": 1e-4})
    bars = load(kline(48), funding=rates).bars
    assert np.flatnonzero(bars.funding[:, 0]).tolist() == [7]


def test_an_own_file_of_an_early_close_is_read_as_it_was_meant(tmp_path):
    rows = kline(48)
    bars = load_bars(rows)
    early = replace(bars, close_time=bars.close_time - 10**6, interval=NS_PER_HOUR - 10**6)[np.flatnonzero(~np.isnan(bars.close[:, 0]))]
    path = save_bars(early, tmp_path / "early.parquet")
    assert json.loads(pq.ParquetFile(path).metadata.metadata[b"qtcore"]) == {
        "symbols": ["BTCUSDT"], "interval": 3_599_999_000_000, "calendar": "sessions"
    }  # fmt: skip
    assert_same_bars(load_bars(path), bars)
    assert_same_bars(joined(stream_bars(path, block_rows=7)), bars)


def test_a_journal_of_an_early_close_is_refused_in_one_sentence(tmp_path):
    about = {"symbols": ["BTCUSDT"], "interval": NS_PER_HOUR - 10**6, "feed": "replay:early"}
    Journal(tmp_path / "j.db", about).close()
    Journal(tmp_path / "j.db", about).close()  # in its own keys it goes on
    bars = load_bars(kline(48))
    text = r"journal must be of the same interval 1h, was 3599\.999s in .*; use a new --journal"
    with pytest.raises(UserError, match=text):
        Journal(tmp_path / "j.db", about | {"interval": bars.interval})


def parquet(rows: pd.DataFrame, path) -> str:
    pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), path, row_group_size=100)
    return str(path)


@pytest.mark.parametrize("columns", [("open_time", "close_time"), ("close_time",)])
@pytest.mark.parametrize("tick", ["1us", "1s"])
def test_streaming_reads_early_closes_alike(tmp_path, columns, tick):
    rows = kline(240, "1h", tick)
    path = parquet(rows[[*columns, *rows.columns[2:]]], tmp_path / "BTCUSDT.parquet")
    assert_same_bars(joined(stream_bars(path, block_rows=17)), load_bars(path))
    assert load_bars(path).interval == NS_PER_HOUR


# two lengths


def spliced(first: str, n: int, second: str, m: int, symbols: tuple[str, ...] = ("AAA",)) -> pd.DataFrame:
    head = frame(n, symbols, first)
    tail = frame(m, symbols, second, start=str(head["timestamp"].max() + pd.Timedelta(second))[:19])
    return pd.concat([head, tail]).sort_values(["symbol", "timestamp"], ignore_index=True)


@pytest.mark.parametrize(
    ("rows", "spans"),
    [
        (spliced("1h", 900, "1D", 800), ("1h (2024-01-01 00:00 to 2024-02-07 11:00)", "1d (2024-02-07 11:00 to 2026-04-17 11:00)")),
        (spliced("1D", 900, "1h", 800), ("1d (2024-01-01 00:00 to 2026-06-18 00:00)", "1h (2026-06-18 00:00 to")),
        (spliced("1min", 2_000, "5min", 300), ("1m (2024-01-01 00:00 to 2024-01-02 09:19)", "5m (2024-01-02 09:19 to")),
        (spliced("1D", 400, "7D", 60), ("1d (2024-01-01", "1w (2025-02-03")),
        (spliced("1h", 900, "1D", 5), ("1h (2024-01-01", "1d (2024-02-07 11:00 to 2024-02-12 11:00)")),
        (spliced("1D", 900, "1h", 6), ("1d (2024-01-01", "1h (2026-06-18 00:00 to 2026-06-18 06:00)")),
        (spliced("1h", 60, "1D", 10), ("1h (2024-01-01", "1d (2024-01-03 11:00 to 2024-01-13 11:00)")),
        (spliced("1h", 300, "4h", 50, ("AAA", "BBB")), ("1h (2024-01-01", "4h (2024-01-13 11:00 to")),
    ],
)  # fmt: skip
def test_two_lengths_of_a_symbol_are_refused(rows, spans, tmp_path):
    path = parquet(rows, tmp_path / "two.parquet")
    for read in (lambda: load_bars(rows), lambda: load_bars(rows[::-1]), lambda: list(stream_bars(path)), lambda: quality(rows)):
        with pytest.raises(UserError, match="must have bars of one length") as error:
            read()
        assert all(span in str(error.value) for span in spans), str(error.value)


def test_a_daily_series_among_an_hourly_one_is_refused(tmp_path):
    hourly, daily = frame(900, ("AAA",)), frame(37, ("AAA",), "1D")
    for rows in (pd.concat([hourly, daily]), pd.concat([hourly, daily]).sort_values("timestamp", kind="stable")):
        with pytest.raises(UserError, match="must have bars of one length") as error:
            load_bars(rows)
        assert "1h (2024-01-01 00:00 to 2024-02-07 11:00)" in str(error.value)
        assert "1d (2024-01-01 00:00 to 2024-02-06 00:00)" in str(error.value)


@pytest.mark.parametrize("n", [4, 10, 200])
def test_a_symbol_of_another_length_is_refused(n, tmp_path):
    rows = pd.concat([frame(900, ("AAA",)), frame(n, ("BBB",), "1D")], ignore_index=True)
    path = parquet(rows, tmp_path / "two.parquet")
    for read in (lambda: load_bars(rows), lambda: list(stream_bars(path))):
        with pytest.raises(UserError, match=r"one length.* 1d .*for BBB and 1h for most"):
            read()


def sparse(share: float, n: int = 5_000, step: str = "1min") -> pd.DataFrame:
    rows = frame(n, ("AAA",), step)
    return rows[np.random.default_rng(n).random(n) < share]


def at(times: pd.DatetimeIndex, symbols: tuple[str, ...] = ("AAA",)) -> pd.DataFrame:
    return pd.concat([frame(len(times), (name,)).assign(timestamp=times) for name in symbols], ignore_index=True)


NEW_YORK = "America/New_York"
HOURS = pd.date_range("2024-01-01 00:30", periods=9_000, freq="h", tz="UTC")


@pytest.mark.parametrize(
    "rows",
    [
        frame(500, ("AAA",)).drop(index=[*range(50, 90), 200, *range(300, 340)]),
        frame(500, ("AAA",)).drop(index=[*range(50, 64, 2), 100, 101, 103, 104, 106, 107]),
        *(sparse(share) for share in (0.97, 0.7, 0.5, 0.35)),
        at(pd.bdate_range("2020-01-01", periods=700, tz="UTC")),
        at(pd.date_range("2020-01-01", periods=400, freq="D", tz=NEW_YORK).tz_convert("UTC")),
        at(pd.date_range("2010-01-01", periods=170, freq="MS", tz="UTC")),
        at(pd.date_range("2010-01-01", periods=170, freq="BME", tz="UTC")),
        at(pd.date_range("2000-01-01", periods=100, freq="QS", tz="UTC")),
        at(pd.date_range("2010-01-04", periods=300, freq="7D", tz=NEW_YORK).tz_convert("UTC")),
        at(HOURS[(HOURS.tz_convert(NEW_YORK).hour >= 9) & (HOURS.tz_convert(NEW_YORK).hour < 16) & (HOURS.day_of_week < 5)]),
        at(HOURS[HOURS.hour.isin([8, 12]) & (HOURS.day_of_week < 5)]),
        at(HOURS[(HOURS.day_of_week < 5) & (HOURS.hour != 22)], ("EURUSD", "GBPUSD")),
    ],
)  # fmt: skip
def test_gaps_sessions_and_the_calendar_are_no_second_length(rows):
    assert load(rows).bars.n > 90


# holes


@pytest.mark.parametrize("share", [0.02, 0.2, 0.6])
@pytest.mark.parametrize("symbols", [("AAA",), ("AAA", "BBB")])
def test_empty_rows_are_rows_that_are_not_there(share, symbols, tmp_path):
    rows = frame(600, symbols)
    gone = np.random.default_rng(3).random(len(rows)) < share
    gone[:2] = gone[-1] = True  # also at the edges
    empty = rows.copy()
    empty.loc[gone, list(PLANES)] = np.nan
    absent = rows[~gone]
    whole, less = load(empty), load(absent)
    assert_same_bars(whole.bars, less.bars)
    assert whole.report.calendar == less.report.calendar == ("regular" if share < 0.05 else less.report.calendar)
    assert whole.report.issues == less.report.issues
    for label, given in (("empty", empty), ("absent", absent)):
        path = parquet(given, tmp_path / f"{label}.parquet")
        assert_same_bars(joined(stream_bars(path, block_rows=31)), less.bars)
        assert_same_bars(load_bars(path), less.bars)


def test_an_empty_row_beside_a_full_one_is_no_conflict():
    rows = frame(60, ("AAA",))
    empty = rows.copy()
    empty[list(PLANES)] = np.nan
    assert_same_bars(load_bars(pd.concat([rows, empty])), load_bars(rows))


def test_an_own_file_keeps_its_rows_and_a_rate_its_hole(tmp_path):
    rows = frame(400, ("AAA",))
    rows = rows[np.random.default_rng(1).random(400) < 0.5]
    bars = load_bars(rows, calendar="regular")
    assert_same_bars(load_bars(save_bars(bars, tmp_path / "own.parquet")), bars)
    charged = frame(60, ("AAA",)).assign(funding_rate=0.0)
    charged.loc[8, [*PLANES, "funding_rate"]] = [np.nan] * 5 + [1e-4]
    assert load_bars(charged).funding[8, 0] == 1e-4


@pytest.mark.parametrize("seed", range(8))
def test_the_length_of_sparse_candles_is_found(seed):
    rows = frame(2_000, ("AAA", "BBB", "CCC"))
    rows = rows[np.random.default_rng(seed).random(len(rows)) < 0.16]
    assert load_bars(rows).interval == NS_PER_HOUR


MONTHS = pd.date_range("2015-01-01", periods=60, freq="MS", tz="UTC")
NEXT = MONTHS + pd.offsets.MonthBegin(1)


@pytest.mark.parametrize("label", ["open", "close"])
@pytest.mark.parametrize("ends", [NEXT - pd.Timedelta("1D"), NEXT - pd.Timedelta("1ms"), pd.date_range(MONTHS[0], NEXT[-1], freq="BME")])
def test_months_dated_by_their_ends_open_at_their_beginnings(ends, label, tmp_path):
    """Told by what stands in the column, and never known before the month has ended, whole or streamed."""
    rows = at(ends)
    loaded = load(rows, time_label=label)
    assert loaded.bars.open_time.tolist() == MONTHS.as_unit("ns").asi8.tolist()
    assert loaded.bars.close_time.tolist() == NEXT.as_unit("ns").asi8.tolist()
    assert (CLOSES in loaded.report.notes) == (label == "open")
    rows.to_parquet(tmp_path / "AAA.parquet")
    streamed = list(stream_bars(tmp_path / "AAA.parquet", block_rows=7, time_label=label))
    assert np.concatenate([bars.open_time for bars in streamed]).tolist() == loaded.bars.open_time.tolist()


@pytest.mark.parametrize(
    ("column", "label", "is_told"), [("timestamp", "open", True), ("open_time", "open", False), ("timestamp", "close", False)]
)
def test_months_dated_by_first_days_are_told_to_be_read_as_opens_unless_that_is_said(column, label, is_told, tmp_path):
    rows = at(NEXT).rename(columns={"timestamp": column})
    loaded = load(rows, time_label=label)
    assert loaded.bars.open_time.tolist() == (MONTHS if label == "close" else NEXT).as_unit("ns").asi8.tolist()
    assert (FIRSTS in loaded.report.lacked) == is_told
    rows.to_parquet(tmp_path / "AAA.parquet")
    if is_told:
        with pytest.warns(DataWarning, match="dated by first days"):
            list(stream_bars(tmp_path / "AAA.parquet"))
    assert FIRSTS not in load(save_bars(loaded.bars, tmp_path / "own.parquet")).report.lacked


@pytest.mark.parametrize(("step", "n"), [("MS", 1), ("QS", 3), ("2QS", 6)])
def test_closes_at_the_beginning_of_the_next_month_are_months(step, n):
    opens = pd.date_range("2000-01-01", periods=24, freq=step, tz="UTC")
    bars = load(at(opens + pd.DateOffset(months=n)).rename(columns={"timestamp": "close_time"})).bars
    assert bars.open_time.tolist() == opens.as_unit("ns").asi8.tolist()
    assert bars.close_time.tolist() == (opens + pd.DateOffset(months=n)).as_unit("ns").asi8.tolist()


@pytest.mark.parametrize("days", [lambda day: day % 2 == 1, lambda day: day % 7 >= 5, lambda day: np.isin(day, [9, 23, 41])])
@pytest.mark.parametrize("market", ["random_walk", "jumps"])
def test_daily_rows_one_by_one_among_hourly_ones_are_refused_and_holes_are_not(days, market):
    """Where a day is one row, its daily candle is refused, and its first hour alone is a hole after it."""
    bars = simulate(market, seed=5, n_bars=60 * 24, n_symbols=1)
    rows = pd.DataFrame({name: getattr(bars, name)[:, 0] for name in PLANES}).assign(timestamp=bars.open_time)
    day = np.arange(len(rows)) // 24
    whole = {"timestamp": "first", "open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    is_daily, is_first = days(day), np.arange(len(rows)) % 24 == 0
    daily = rows.groupby(day).agg(whole)
    hole = rows[~is_daily | is_first]
    assert load(hole).bars.close[~np.isnan(load(hole).bars.close)].tolist() == hole["close"].tolist()
    mixed = pd.concat([rows[~is_daily], daily[days(daily.index.to_numpy())]]).sort_values("timestamp")
    with pytest.raises(
        UserError, match=r"must have bars of one length, was 1h \(.*\) and 1d \(.*\), \d+ of these among the others; keep the rows"
    ):
        load(mixed)


# size


def candles(times, symbol: str = "BTCUSDT") -> pd.DataFrame:
    close = 100.0 + np.arange(len(times)) % 7 * 0.1
    values = {"open": close, "high": close + 0.2, "low": close - 0.2, "close": close, "volume": 1.0}
    return pd.DataFrame({"timestamp": times, "symbol": symbol, **values})


def minutes(start: str, n: int) -> pd.DatetimeIndex:
    return pd.date_range(start, periods=n, freq="1min", tz="UTC")


def refused(call) -> str:
    """What is said, and that hardly anything was allocated by then."""
    tracemalloc.start()
    try:
        with pytest.raises(UserError) as error:
            call()
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()
    return str(error.value)


def test_one_time_in_another_century_makes_no_grid_of_millions_of_holes(tmp_path):
    rows = pd.concat([candles(minutes("1999-01-01", 1)), candles(minutes("2024-01-01", 20_000))], ignore_index=True)
    rows.to_parquet(tmp_path / "candles.parquet")
    for call in (
        lambda: load_bars(rows, calendar="regular"),
        lambda: quality(rows, calendar="regular"),
        lambda: stream_bars(tmp_path / "candles.parquet", calendar="regular"),
    ):
        assert refused(call) == (
            "candles must fill 1% of the grid from 1999-01-01 00:00 to 2024-01-14 21:19, were 20,001 in 13,168,640 rows of 1m x 1 "
            "symbol, none between 1999-01-01 00:00 and 2024-01-01 00:00; "
            "leave out times that are wrong (--from, --to), or use --calendar sessions"
        )
    assert load_bars(rows).close.shape == load_bars(rows, calendar="sessions").close.shape == (20_001, 1)
    assert load_bars(rows, calendar="regular", start="2000-01-01").close.shape == (20_000, 1)


def test_symbols_that_share_no_time_make_no_grid_of_millions_of_holes():
    rows = pd.concat([candles(minutes("2024-01-01", 200) + pd.Timedelta(days=i), f"S{i:03}") for i in range(150)], ignore_index=True)
    said = refused(lambda: load_bars(rows, calendar="sessions"))
    assert "were 30,000 in 30,000 rows of 1m x 150 symbols, " in said
    assert said.endswith("; leave out times that are wrong (--from, --to), or load fewer symbols")
    assert load_bars(rows[rows.symbol < "S090"], calendar="sessions").close.shape == (18_000, 90)


def test_years_of_holes_and_short_sessions_are_read_as_before():
    years = pd.concat([candles(minutes(f"{year}-06-01", 20_000)) for year in (2016, 2020, 2024)], ignore_index=True)
    loaded = load(years, calendar="regular")  # 8 years with 6 weeks of candles
    assert int((~np.isnan(loaded.bars.close)).sum()) == 60_000
    crypto = minutes("2024-01-01", 60 * 24 * 28)
    session = crypto[(crypto.day_of_week < 5) & (crypto.hour >= 14) & (crypto.hour < 20)]
    both = load(pd.concat([candles(crypto), candles(session, "SPY")], ignore_index=True))
    assert both.report.calendar == "regular"
    assert (~np.isnan(both.bars.close)).sum(axis=0).tolist() == [len(crypto), len(session)]


def test_bars_that_no_memory_holds_are_refused_and_streamed(tmp_path, monkeypatch):
    rows = candles(minutes("2024-01-01", 5_000))
    rows.to_parquet(tmp_path / "candles.parquet")
    monkeypatch.setattr(grid, "memory", lambda: 2**18)
    said = refused(lambda: load_bars(rows))
    assert said == (
        "bars must fit into 50% of the memory here (0.0 GiB), would take 0.0 GiB for 5,000 rows of 1m x 1 symbol from 2024-01-01 00:00 to "
        "2024-01-04 11:19; load a shorter span, fewer symbols or longer bars"
    )
    assert load_bars(rows, end="2024-01-02").n == 1_440
    streamed = joined(stream_bars(tmp_path / "candles.parquet", block_rows=500))
    monkeypatch.setattr(grid, "memory", lambda: None)  # a system that does not say
    assert_same_bars(streamed, load_bars(rows))


def test_a_container_may_have_less_memory_than_its_machine(tmp_path, monkeypatch):
    whole = memory()
    assert whole is None or whole > 2**28
    limits = tmp_path / "max", tmp_path / "none", tmp_path / "limit"
    limits[0].write_text("max\n")
    limits[2].write_text("1048576\n")
    monkeypatch.setattr(machine, "LIMITS", limits[:2])
    assert whole is None or memory() >= whole
    monkeypatch.setattr(machine, "LIMITS", limits)
    assert memory() in (2**20, None)
