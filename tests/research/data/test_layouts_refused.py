"""Is a file that cannot be read without a guess refused in one sentence, and is what is hostile or packed twice never unpacked?"""

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from qtcore.types import NS_PER_DAY, NS_PER_HOUR
from research.data import load_bars, save_bars, simulate, stream_bars
from research.data.clock import interval_text, iso
from research.data.load import DataWarning, load
from research.data.quality import quality
from research.data.resample import bars_from_ticks, resample
from research.data.sources import symbol_of
from research.errors import UserError
from research.runs.config import Config
from research.workflow.backtest_job import Job
from tests.research.data.test_data import assert_same_bars, frame

HEAD = "timestamp,open,high,low,close,volume"
ROWS = ["2024-01-15 00:00,100.5,102.25,99.125,101.75,10", "2024-01-15 01:00,101.75,103.5,101.25,102.5,20"]


def put(path, *lines):
    path.write_text("".join(line + "\n" for line in lines))
    return path


REFUSED = {
    "order of day and month": (
        ["date,open,high,low,close,volume", "01/02/2024,1,2,1,1,5", "02/02/2024,1,2,1,1,5"],
        "must say which is the day and which the month, was '01/02/2024' and the like; write YYYY-MM-DD",
    ),
    "order of day and month, mixed": (
        ["date,open,high,low,close,volume", "13/02/2024,1,2,1,1,5", "02/14/2024,1,2,1,1,5"],
        "must have day and month in one order, was '13/02/2024' and '02/14/2024'; write YYYY-MM-DD",
    ),
    "commas that may be either": (
        ["date;open;high;low;close;volume", "13.02.2024;1,234;1,235;1,233;1,234;5"],
        "must say whether a comma is decimal or stands between thousands, was '1,234' and the like",
    ),
    "points and commas": (["date;open;high;low;close;volume", "13.02.2024;1,5;1.75;1,25;1,5;5"], "numbers written in one way"),
    "currency": (["date,open,high,low,close,volume", "2024-01-01,EUR 1,2,1,1,5"], "'EUR 1' in column open, row 1; correct that row"),
    "percent": (["date,open,high,low,close,volume", "2024-01-01,1%,2,1,1,5"], "'1%' in column open, row 1; correct that row"),
    "letters in a price": (["date,open,high,low,close,volume", "2024-01-01,1K,2K,1K,1K,5"], "'1K' in column open, row 1; correct that row"),
    "blanks between thousands": (["date;open;high;low;close;volume", "2024-01-01;1 000,5;2000;1000;1000;5"], "'1 000,5' in column open"),
    "everything at once": (["when,open,high,close", "x,1,2,y"], "missing: timestamp, low; found: when, open, high, close"),
    "times and numbers": (
        ["date,open,high,low,close,volume", "01/02/2024,1,2,1,1,x"],
        "write YYYY-MM-DD; also: x.csv must be a table of numbers, was not: 'x' in column volume, row 1",
    ),
    "twice and missing": (
        ["date,open,Open,high,close", "2024-01-01,1,1,2,1"],
        "high, close; x.csv must have one column open, was open and Open",
    ),
    "two volumes": (
        ["date,open,high,low,close,Volume ETH,Volume BTC", "2024-01-01,1,2,1,1,5,5"],
        "must have one volume in base units, was Volume ETH and Volume BTC; rename that one to volume",
    ),
    "a volume under a name that is not known": (
        ["date,open,high,low,close,volme", "2024-01-01,1,2,1,1,5"],
        "must have a column volume, was volme; rename the volume, or drop what is none",
    ),
    "an amount": (["date,open,high,low,close,Amount", "2024-01-01,1,2,1,1,5"], "must have a column volume, was Amount; rename the volume"),
    "digits, one cut": (
        [HEAD, *(f"20240101{h:02d}00,1,2,1,1,5" for h in range(5)), "20240101060,1,2,1,1,5"],
        "must hold dates or epochs, was 202401010000 (YYYYMMDDHHMM) and 20240101060",
    ),
    "digits, one longer": (
        [HEAD, *(f"20240101{h:02d}0000,1,2,1,1,5" for h in range(5)), "202401010600000,1,2,1,1,5"],
        "must hold dates or epochs, was 20240101000000 (YYYYMMDDHHMMSS) and 202401010600000",
    ),
    "digits among epochs": (
        [HEAD, *(f"{1704067200000 + 3600000 * h},1,2,1,1,5" for h in range(9)), "202401010900,1,2,1,1,5"],
        "must hold dates or epochs, was 202401010900 (YYYYMMDDHHMM) and 1704067200000",
    ),
    "digits with a fraction": ([HEAD, "202401010900.5,1,2,1,1,5", "1704067200000.0,1,2,1,1,5"], "must hold dates or epochs"),
    "epoch of 1970": ([HEAD, "7200000000,1,2,1,1,5", "10800000000,1,2,1,1,5"], "must lie in the years 1900 to 2199"),
    "a wider row": ([HEAD, ROWS[0] + ",7"], "Expected 6 columns, got 7"),
    "no header, other order": (
        ["1705276800,101.75,99.125,102.25,100.5,10", "1705280400,102.5,101.25,103.5,101.75,20"],
        "where no header names them, was '101.75', '99.125', '102.25', '100.5'; add a",
    ),
    "no header, unknown": (["1705276800,1,2,3", "1705280400,1,2,3"], "must have a header line or columns that are known without one"),
    "no header, no time": (["7,100.5,102.25,99.125,101.75,10", "8,100.5,102.25,99.125,101.75,10"], "must have a header line or columns"),
    "two-digit years": (
        ["date,open,high,low,close,volume", "15/01/24,1,2,1,1,5", "02/14/24,1,2,1,1,5"],
        "must have dates with a year of two digits in one order, was '15/01/24' and the like; write YYYY-MM-DD",
    ),
    "trades": (
        ["timestamp,symbol,price,size", "2024-01-15 00:00,SPY,1,5"],
        "x.csv must hold candles, was trades (columns price and size); "
        "`qt data resample DATA --interval 5m --out bars.parquet` makes bars of them",
    ),
    "mixed forms": ([HEAD, ROWS[0], "15.01.2024 01:00" + ROWS[1][16:]], "must hold times, was "),
    "an empty time": ([HEAD, ROWS[0], ROWS[1][16:]], "must have a time in every row, 1 are empty, the first is row 2"),
    "date that has a time": (
        ["date,time,open,high,low,close,volume", "2024-01-15 10:00,10:00,1,2,1,1,5"],
        "must be a date where a time of day stands beside it",
    ),
    "blank": (["", "  "], "was without a line of text"),
    "comments alone": (["# nothing", "# here"], "was without a line of a table"),
}


@pytest.mark.parametrize(("step", "length"), [("h", "1h"), ("D", "1d"), ("W-SUN", "1w"), ("M", "31d"), ("min", "1m")])
def test_a_period_index_comes_back_from_a_file_of_text(step, length, tmp_path):
    periods = pd.period_range("2023-01-02", periods=12, freq=step)
    rows = frame(12, ("AAA",)).drop(columns=["symbol", "timestamp"]).set_index(periods)
    rows.to_csv(tmp_path / "AAA.csv")
    bars = load(tmp_path / "AAA.csv").bars
    assert (bars.open_time.tolist(), interval_text(bars.interval)) == (periods.start_time.as_unit("ns").asi8.tolist(), length)
    assert_same_bars(load(rows, symbols=["AAA"]).bars, bars)


def test_a_damaged_arrow_file_is_refused(tmp_path):
    frame(30).to_feather(tmp_path / "x.feather")
    whole, rng = (tmp_path / "x.feather").read_bytes(), np.random.default_rng(0)
    assert load(tmp_path / "x.feather").bars.n == 30
    for _ in range(60):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), 3):
            data[at] = rng.integers(256)
        (tmp_path / "y.feather").write_bytes(bytes(data))
        try:
            load(tmp_path / "y.feather")
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017
    (tmp_path / "y.feather").write_bytes(whole[:-40])
    with pytest.raises(UserError, match=r"^y.feather must be a whole Arrow file"):
        load(tmp_path / "y.feather")


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_clear_is_refused_in_one_sentence(case, tmp_path):
    lines, text = REFUSED[case]
    with pytest.raises(UserError) as error:
        load(put(tmp_path / "x.csv", *lines))
    assert text in str(error.value)
    assert "\n" not in str(error.value)


def test_empty_cells_are_holes_and_never_zero(tmp_path):
    lines = [f"{t:%Y-%m-%d %H:%M},100.5,102.25,99.125,101.75,10" for t in pd.date_range("2024-01-15", periods=40, freq="1h")]
    clean = load(put(tmp_path / "x.csv", HEAD, *lines)).bars
    for word in ("-", "N/A", "null", "NaN", "", "None", "#N/A", "nan", "--"):
        holes = list(lines)
        holes[7] = f"2024-01-15 07:00,{word},{word},{word},{word},{word}"
        bars = load(put(tmp_path / "x.csv", HEAD, *holes), calendar="regular").bars
        assert np.isnan(bars.close[7, 0]), word
        assert np.isnan(bars.volume[7, 0]), word
        assert bars.close[8, 0] == clean.close[8, 0]
        part = list(lines)
        part[7] = f"2024-01-15 07:00,100.5,102.25,99.125,{word},10"
        assert load(put(tmp_path / "x.csv", HEAD, *part)).report.issues[0].problem == "incomplete"
    text = [f"2024-01-15 {h:02d}:00,1.005e2,+102.25,99.125,1.0175E+02,1e5" for h in range(3)]
    bars = load(put(tmp_path / "x.csv", HEAD, *text)).bars
    assert [float(getattr(bars, k)[0, 0]) for k in ("open", "high", "low", "close", "volume")] == [100.5, 102.25, 99.125, 101.75, 100_000.0]


def zipped(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), data)
    return path


def test_packed_files_that_are_hostile_or_broken_are_refused(tmp_path):
    text = "\n".join([HEAD, *ROWS]) + "\n"
    assert load(zipped(tmp_path / "A_1h.zip", a_dot_csv=text)).bars.symbols == ("A",)
    cases = {
        "must hold one text file, was 2 members": zipped(tmp_path / "two.zip", a_dot_csv=text, b_dot_csv=text),
        "must hold one text file, was 0 members": zipped(tmp_path / "none.zip"),
        "without a path, was '../a.csv'": zipped(tmp_path / "up.zip", **{"..__a_dot_csv": text}),
        "without a path, was 'data/a.csv'": zipped(tmp_path / "path.zip", data__a_dot_csv=text),
        "without a path, was 'a.exe'": zipped(tmp_path / "exe.zip", a_dot_exe=text),
        "without a path, was 'a.zip'": zipped(tmp_path / "nest.zip", a_dot_zip=text),
        "must unpack to 16,777,216 bytes at most": zipped(tmp_path / "bomb.zip", a_dot_csv=b"0" * 2**25),
    }
    (tmp_path / "bomb.csv.gz").write_bytes(gzip.compress(b"0" * 2**25))
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(text.encode())[:-9])
    (tmp_path / "junk.csv.gz").write_bytes(b"\x1f\x8bjunk")
    (tmp_path / "junk.zip").write_bytes(b"PK\x03\x04junk")
    whole = (tmp_path / "A_1h.zip").read_bytes()
    (tmp_path / "flip.zip").write_bytes(whole[:45] + bytes([whole[45] ^ 255]) + whole[46:])
    (tmp_path / "bytes.csv").write_bytes(bytes(range(256)) * 9)
    cases |= {
        "bomb.csv.gz must unpack to 16,777,216 bytes": tmp_path / "bomb.csv.gz",
        "cut.csv.gz must be a whole packed file": tmp_path / "cut.csv.gz",
        "junk.csv.gz must be a whole packed file": tmp_path / "junk.csv.gz",
        "junk.zip must be a whole packed file": tmp_path / "junk.zip",
        "flip.zip must be a whole packed file": tmp_path / "flip.zip",
        "bytes.csv must be text": tmp_path / "bytes.csv",
    }
    for sentence, path in cases.items():
        with pytest.raises(UserError) as error:
            load(path)
        assert sentence in str(error.value)


def test_symbols_of_file_names_and_time_frames():
    names = {"BTCUSDT-1M-2024.csv": "BTCUSDT", "BTCUSDT-1mo-2024-01.zip": "BTCUSDT", "EURUSD_M15_202401020000_202412312300.csv": "EURUSD",
             "EURUSD60.csv": "EURUSD", "XBTUSD_60.csv": "XBTUSD", "DAT_ASCII_EURUSD_M1_2023.csv": "EURUSD", "CN_600519.csv": "CN_600519",
             "0700.HK.csv": "0700.HK", "BRK.B.csv": "BRK.B", "1INCHUSDT-1h.csv": "1INCHUSDT", "GBPJPY240.feather": "GBPJPY",
             "EURUSD_Candlestick_1_Hour_BID_01.01.2023-31.12.2023.csv": "EURUSD", "BINANCE_BTCUSDT, 60.csv": "BINANCE_BTCUSDT"}  # fmt: skip
    from pathlib import Path

    assert {name: symbol_of(Path(name)) for name in names} == names


def test_adjusted_prices_only_when_asked(tmp_path):
    path = put(
        tmp_path / "SPY.csv",
        "Date,Open,High,Low,Close,Adj Close,Volume",
        "2024-01-15,100,104,98,102,51,7",
        "2024-01-16,102,106,100,104,104,8",
    )
    assert load(path).bars.close[:, 0].tolist() == [102.0, 104.0]
    bars = load(path, adjusted=True).bars
    assert bars.close[:, 0].tolist() == [51.0, 104.0]
    assert [bars.open[0, 0], bars.high[0, 0], bars.low[0, 0], bars.volume[0, 0]] == [50.0, 52.0, 49.0, 7.0]
    with pytest.raises(UserError, match="must have a column Adj Close to be read adjusted, was without; leave --adjusted out"):
        load(put(tmp_path / "x.csv", HEAD, *ROWS), adjusted=True)


def test_frames_of_several_symbols_with_two_levels_of_columns():
    rows = frame(30)
    wide = rows.pivot(index="timestamp", columns="symbol", values=["open", "high", "low", "close", "volume"])
    bars = load_bars(rows)
    for columns in (wide, wide.swaplevel(axis=1), wide.rename_axis(columns=["Price", "Ticker"])):
        assert_same_bars(load_bars(columns), bars)
    with pytest.raises(UserError, match="columns of two levels must be prices and symbols"):
        load_bars(wide.rename(columns={"close": "shut"}))


def test_a_text_or_period_index_is_the_time_and_another_index_is_not():
    rows = frame(30, ("AAA",)).drop(columns="symbol").set_index("timestamp")
    bars = load_bars(rows)
    text = rows.set_index(rows.index.strftime("%Y-%m-%d %H:%M"))
    periods = rows.set_index(rows.index.tz_localize(None).to_period("h"))
    for source in (text, text.rename_axis("whatever"), text.rename_axis("Date"), periods, periods.reset_index()):
        assert_same_bars(load_bars(source), bars)
    numbered = rows.reset_index()
    assert_same_bars(load_bars(numbered.set_index(numbered.index[::-1])), bars)
    with pytest.raises(UserError, match=r"must hold epoch times|missing: timestamp"):
        load_bars(rows.set_index(np.arange(5, 35)))


def test_streaming_reads_as_loading_or_refuses(tmp_path):
    rows = frame(60, ("AAA",))
    for form in ("%d.%m.%Y %H:%M", "%Y%m%d%H%M", "%Y-%m-%d %H:%M:%S+00:00"):
        path = tmp_path / "x.parquet"
        rows.assign(timestamp=rows["timestamp"].dt.strftime(form)).drop(columns="volume").to_parquet(path, row_group_size=7)
        whole = load(path).bars
        assert_same_bars(next(iter(stream_bars(path, block_rows=100))), whole)
    text = rows["timestamp"].dt.strftime("%Y-%m-%d %H:%M")
    text[40:] = text[40:] + ":00+00:00"
    rows.assign(timestamp=text).to_parquet(path, row_group_size=10)
    for read in (lambda: load(path), lambda: list(stream_bars(path))):
        with pytest.raises(
            UserError, match=r"must have one time zone, was mixed|must be written in one form, was ISO 8601, then ISO 8601 with"
        ):
            read()


# -- months and days ---------------------------------------------------------------------------------------------------------


def test_months_are_calendar_months_and_never_minutes(tmp_path):
    days = pd.date_range("2023-01-01", "2024-03-31", tz="UTC")
    rows = frame(len(days), ("AAA", "BBB"), step="1D", start="2023-01-01")
    bars = load_bars(rows)
    for text in ("1M", "1mo", "1 month"):
        months = resample(bars, text)
        assert [iso(t) for t in months.open_time] == [f"{m:%Y-%m-%d} 00:00" for m in pd.date_range("2023-01-01", periods=15, freq="MS")]
        assert [iso(t) for t in months.close_time] == [f"{m:%Y-%m-%d} 00:00" for m in pd.date_range("2023-02-01", periods=15, freq="MS")]
    wide = rows.pivot(index="timestamp", columns="symbol", values=["open", "high", "low", "close", "volume"]).resample("MS")
    for name, how in (("open", "first"), ("high", "max"), ("low", "min"), ("close", "last")):
        assert np.array_equal(getattr(months, name), getattr(wide, how)()[name].to_numpy()), name
    assert np.allclose(months.volume, wide.sum()["volume"].to_numpy(), rtol=1e-12)
    assert_same_bars(load_bars(save_bars(months, tmp_path / "m.parquet")), months)
    part = resample(bars[10:-1], "1M")
    assert (iso(part.open_time[0]), iso(part.open_time[-1])) == ("2023-02-01 00:00", "2024-02-01 00:00")  # the first and the last are cut
    assert iso(resample(bars, "3mo").close_time[-1]) == "2024-04-01 00:00"
    monthly = load(
        put(tmp_path / "BTCUSDT-1mo.csv", HEAD, *(f"{m:%Y-%m-%d},1,2,1,1,5" for m in pd.date_range("2023-01-01", periods=14, freq="MS")))
    )
    assert (monthly.bars.n, iso(monthly.bars.close_time[1]), iso(monthly.bars.close_time[-1])) == (
        14,
        "2023-03-01 00:00",
        "2024-03-01 00:00",
    )
    assert_same_bars(load(tmp_path / "BTCUSDT-1mo.csv", interval="1M").bars, monthly.bars)
    kline = [
        f"{int(m.timestamp())}000,1,2,1,1,5,{int((m + pd.DateOffset(months=1)).timestamp()) - 1}000,1,1,1,1,0" for m in days[days.day == 1]
    ]
    for n in (2, 3, 15):
        exchange = load(put(tmp_path / "BTCUSDT-1mo-2024.csv", *(row.replace("000,1,1,1,1,0", "999,1,1,1,1,0") for row in kline[:n]))).bars
        assert (exchange.symbols, exchange.n) == (("BTCUSDT",), n)
        assert [iso(t) for t in exchange.close_time] == [f"{m:%Y-%m-%d} 00:00" for m in pd.date_range("2023-02-01", periods=n, freq="MS")]
    with pytest.raises(UserError, match=r"bars must be of a day or a part of it to be gathered into months, was 1w"):
        resample(resample(bars, "1w"), "1M")
    with pytest.raises(UserError, match="ticks must be gathered into bars of one length first, was 1 calendar months"):
        bars_from_ticks(pd.DataFrame({"timestamp": days[:9], "price": 1.0, "size": 1.0}), "1M")
    with pytest.raises(UserError, match="interval must have one length here, was '1M'"):
        simulate("random_walk", n_bars=50, interval="1M")


def test_a_longer_bar_never_knows_more_than_its_close():
    """Days of foreign exchange begin at 17:00 in New York, so that a week and a month cut through one."""
    rows = frame(200, ("EURUSD",), step="1D", start="2024-01-01")
    rows = rows[rows["timestamp"].dt.weekday < 5].assign(timestamp=lambda f: f["timestamp"].dt.strftime("%Y-%m-%d"))
    bars = load_bars(rows, day_start="17:00 America/New_York")
    assert (iso(bars.open_time[0]), iso(bars.close_time[0])) == ("2023-12-31 22:00", "2024-01-01 22:00")
    assert set((bars.close_time - bars.open_time) // NS_PER_HOUR) == {24}  # the clock changes while the market is closed
    for text in ("1w", "1M"):
        longer = resample(bars, text)
        for t, close in zip(longer.close_time, longer.close[:, 0]):
            inside = bars.close[bars.close_time <= t, 0]
            assert np.isnan(close) or close == inside[-1]


# -- flags -------------------------------------------------------------------------------------------------------------------


def test_flags_reach_every_reader_and_the_command_that_a_run_keeps(tmp_path):
    path = put(tmp_path / "EURUSD.csv", HEAD, *(f"2024-01-15 {h:02d}:00,100.5,102.25,99.125,101.75,10" for h in range(24)))
    assert iso(load_bars(path, time_zone="Asia/Tokyo").open_time[0]) == "2024-01-14 15:00"
    assert quality(path, time_zone="Asia/Tokyo").n_rows == 24
    job = Job(str(path), Config(), time_label="close", time_zone="Asia/Tokyo", day_start="17:00 America/New_York", adjusted=True)
    flags = "--time-zone Asia/Tokyo --day-start '17:00 America/New_York' --time-label close --adjusted"
    assert job.command() == f"qt backtest {path} {flags} --profile default"
    assert load("simulated:random_walk?n_bars=50", time_zone="UTC").report.notes == [
        "--time-zone, --day-start and --adjusted were not needed: these bars are not read from a table"]  # fmt: skip
    with pytest.raises(
        UserError, match=r"day_start \(--day-start\) must go with bars that are dated by day, was with column timestamp of EURUSD"
    ):
        load(path, day_start="17:00 America/New_York")
    assert load(path, interval="1h").bars.interval == NS_PER_HOUR < NS_PER_DAY


def test_a_file_of_other_names_is_told_all_of_them_at_once(tmp_path):
    (tmp_path / "pko.csv").write_text("Data,Otwarcie,Najwyzszy,Najnizszy,Zamkniecie,Wolumen\n2024-01-15,1,2,1,2,5\n2024-01-16,1,2,1,2,5\n")
    with pytest.raises(UserError, match=r"missing: timestamp, open, high, low, close;.*; pko.csv must have a column volume, was Wolumen"):
        load_bars(tmp_path / "pko.csv")
    (tmp_path / "x.txt").write_text("date time open high low close\n2024-01-15 00:00 1 2 1 2\n2024-01-15 01:00 1 2 1\n")
    with pytest.raises(UserError, match=r"tabs, \| or in every line as many blanks between its columns, was 'date time open"):
        load_bars(tmp_path / "x.txt")


def test_only_what_holds_no_value_is_cut_from_the_end(tmp_path):
    head, rows = "date,open,high,low,close,volume\n", [f"2024-01-{day},1,2,1,2,5\n" for day in range(10, 20)]
    (tmp_path / "A.csv").write_text(head + "".join(rows) + ",,,,,\r\n ,,,,,\n\n")
    with pytest.warns(DataWarning, match="2 lines after the table skipped"):
        assert load_bars(tmp_path / "A.csv").n == 10
    for cut in (4, 10, 15):  # of the last row
        (tmp_path / "A.csv").write_text(head + "".join(rows)[: -len(rows[-1]) + cut])
        with pytest.raises(UserError, match=r"must be a table|must have"):
            load_bars(tmp_path / "A.csv")


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("last", [b"\n", b"\r"])
def test_lines_may_end_in_every_way_and_in_several(tmp_path, end, last):
    rows = [f"2024-01-{day},1,2,1,2,5".encode() for day in range(10, 20)]
    text = end.join([b"date,open,high,low,close,volume", *rows]) + last
    (tmp_path / "A.csv").write_bytes(text)
    assert load_bars(tmp_path / "A.csv").n == 10
    (tmp_path / "A.csv").write_bytes(text + b",,,,," + last + b"Data: as is" + end)
    with pytest.warns(DataWarning, match="2 lines after the table skipped"):
        assert load_bars(tmp_path / "A.csv").n == 10


def test_a_volume_that_is_partly_empty_is_no_volume_of_zero(tmp_path):
    rows = pd.DataFrame(
        {"date": pd.date_range("2024-01-01", periods=40), "open": 1.0, "high": 2.0, "low": 1.0, "close": 1.5, "volume": np.nan}
    )
    assert not load(rows).bars.volume.any()
    rows.loc[7, "volume"] = 3.0
    with pytest.raises(UserError, match="39 of 40 rows have some values empty"):
        load(rows)


@pytest.mark.parametrize(
    "name", ["DAT_ASCII_EURUSD_M1_202401.csv", "EURUSD-202401.csv", "EURUSD_60_2024-01-01_2024-02-01.csv", "EURUSD_M1_20240101.csv"]
)
def test_months_and_spans_are_no_part_of_a_symbol(name):
    assert symbol_of(Path(name)) == "EURUSD"


def test_halves_of_a_volume_and_what_else_a_folder_holds(tmp_path):
    (tmp_path / "in" / "BTC").mkdir(parents=True)
    with pytest.raises(UserError, match=r"a folder without any; folders in it .1. are not looked into, name one"):
        load_bars(tmp_path / "in")
    for name in ("AAA.csv", "._AAA.csv"):  # the second is what macOS keeps of the first
        (tmp_path / "in" / name).write_bytes(b"\0\5\x16\7" if name.startswith(".") else frame(5, ("AAA",)).to_csv(index=False).encode())
    assert load_bars(tmp_path / "in").symbols == ("AAA",)
    (tmp_path / "ES.txt").write_text("Date,Time,Open,High,Low,Close,Up,Down\n01/15/2024,09:00,1,2,1,2,3,4\n01/15/2024,10:00,1,2,1,2,3,4\n")
    with pytest.raises(UserError, match="must have a column volume, was Up or Down"):
        load_bars(tmp_path / "ES.txt")


@pytest.mark.parametrize(
    "header", ["timestamp,open,high,low,close,volume", "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>"]
)
def test_a_header_without_rows_is_refused(tmp_path, header):
    (tmp_path / "a.csv").write_text(f"{header}\n")
    with pytest.raises(UserError, match=r"^a\.csv must have rows, was a header alone$"):
        load_bars(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text(f"{header}\n")
    with pytest.raises(UserError, match=f"^{tmp_path.name} must have rows, was a folder of headers alone$"):
        load_bars(tmp_path)


def test_a_column_whose_name_does_not_say_what_it_is_is_told(tmp_path):
    rows = [f"2024-01-15 0{i}:00,BTC,{1 + i},{3 + i},1,{2 + i},2,7" for i in range(3)]
    path = put(tmp_path / "x.csv", "time,pair,open,high,low,last,price,tick_volume", *rows)
    said = ["close is column last; price is not read", "volume is column tick_volume"]
    assert load(path).report.notes == said
    assert load(pd.read_csv(path)).report.notes == said  # a frame
    pd.read_csv(path, parse_dates=["time"]).to_parquet(tmp_path / "x.parquet")
    assert load(tmp_path / "x.parquet").report.notes == said
    pd.read_csv(path, parse_dates=["time"]).to_feather(tmp_path / "x.feather")
    assert load(tmp_path / "x.feather").report.notes == said
    assert load(put(tmp_path / "y.csv", HEAD, *ROWS)).report.notes == []


def test_a_file_of_trades_is_sent_to_resample(tmp_path):
    path = put(tmp_path / "t.csv", "timestamp,symbol,price,size", "2024-01-15 00:00,SPY,1,5")
    pd.read_csv(path).to_parquet(tmp_path / "t.parquet")
    readers = [(path, load_bars), (path, quality), (tmp_path / "t.parquet", load_bars)]
    for source, read in [*readers, (tmp_path / "t.parquet", lambda file: list(stream_bars(file)))]:
        with pytest.raises(UserError, match=r"must hold candles, was trades \(columns price and size\); `qt data resample DATA"):
            read(source)


def test_a_cut_parquet_file_is_refused_in_a_whole_sentence(tmp_path):
    frame(50).to_parquet(tmp_path / "x.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "x.parquet").read_bytes()[:900])
    with pytest.raises(UserError, match=r"^cut.parquet must be a whole Parquet file, was not \(Parquet magic bytes .*\); write it again$"):
        load(tmp_path / "cut.parquet")


def test_a_symbol_that_only_the_user_names_is_told_and_files_of_a_folder_keep_their_own(tmp_path):
    for name in ("BTCUSDT.csv", "ETHUSDT.csv"):
        put(tmp_path / name, HEAD, *ROWS)
    told = "no column names the symbol; it is GOLD as it was asked for, and the file is called BTCUSDT.csv"
    assert load(tmp_path / "BTCUSDT.csv", ["GOLD"]).report.notes == [told]
    assert load(tmp_path / "BTCUSDT.csv", ["BTCUSDT"]).report.notes == []
    assert load(tmp_path, ["ETHUSDT"]).bars.symbols == ("ETHUSDT",)
    with pytest.raises(UserError, match=r"symbols \(--symbols\) must be in the data, was 'GOLD'; it has BTCUSDT, ETHUSDT"):
        load(tmp_path, ["GOLD"])
