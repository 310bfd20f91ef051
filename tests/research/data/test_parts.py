"""Are parts of one symbol never two symbols: partitioned tables, downloads twice, quarters, names with blanks, the same candles twice?"""

import numpy as np
import pytest

from research.data import load, load_bars
from research.data.sources import symbol_of
from research.errors import UserError
from tests.research.data.test_data import assert_same_bars, frame

ROWS = frame(40, ("BTCUSDT",)).drop(columns="symbol")
WHOLE = load_bars(frame(40, ("BTCUSDT",)))


def put(folder, **parts):
    """Write frames into a folder."""
    folder.mkdir(parents=True)
    for name, rows in parts.items():
        rows.to_parquet(folder / f"{name}.parquet", index=False)
    return folder


@pytest.mark.parametrize("key", ["symbol", "ticker", "Symbol", "pair"])
def test_the_folder_of_a_partitioned_table_names_the_symbol(key, tmp_path):
    folder = put(tmp_path / f"{key}=BTC%2FUSDT", **{"part-0": ROWS[:20], "part-1": ROWS[20:]})
    want = load_bars(frame(40, ("BTC/USDT",)))
    assert_same_bars(load(folder).bars, want)
    assert symbol_of(folder / "year=2024" / "part-0.parquet") == "BTC/USDT"
    assert load(folder / "part-0.parquet").bars.symbols == ("BTC/USDT",)


@pytest.mark.parametrize(
    "names",
    [("part-0", "part-1"), ("part-00000-a1-c000.snappy", "part-00001-b2-c000.snappy"), ("BTCUSDT_2024_Q1", "BTCUSDT_2024_Q2"),
     ("BTC_Jan2024", "BTC_Feb2024"), ("candles1", "candles2"), ("00000000", "00000001")],
)  # fmt: skip
def test_parts_without_a_symbol_are_refused(names, tmp_path):
    folder = put(tmp_path / "candles", **{names[0]: ROWS[:20], names[1]: ROWS[20:]})
    with pytest.raises(
        UserError, match=r"^candles must have a column symbol, .* was parts alone \(.*; name parts of one symbol with a date"
    ):
        load(folder)
    named = put(tmp_path / "named", **{name: rows.assign(symbol="BTCUSDT") for name, rows in zip(names, (ROWS[:20], ROWS[20:]))})
    assert_same_bars(load(named).bars, WHOLE)


def test_symbols_of_one_time_may_differ_in_numbers(tmp_path):
    assert load(put(tmp_path / "codes", **{"600519": ROWS, "000001": ROWS})).bars.symbols == ("000001", "600519")
    assert load(put(tmp_path / "later", ESH24=ROWS[:20], NQM24=ROWS[20:])).bars.symbols == ("ESH24", "NQM24")


def test_a_second_download_is_the_same_symbol(tmp_path):
    loaded = load(put(tmp_path / "candles", **{"BTCUSDT-1h": ROWS, "BTCUSDT-1h (1)": ROWS}))
    assert_same_bars(loaded.bars, WHOLE)
    assert any("40 of 80 rows repeat another row" in text for text in loaded.report.lacked)


def test_blanks_around_a_symbol_are_no_part_of_it():
    assert_same_bars(load(ROWS.assign(symbol=["BTCUSDT", "BTCUSDT ", " BTCUSDT", "BTCUSDT\t"] * 10)).bars, WHOLE)


def test_the_same_candles_under_two_names_are_told(tmp_path):
    loaded = load(put(tmp_path / "candles", **{"BTCUSDT": ROWS, "BTC-USDT": ROWS, "ETHUSDT": frame(40, ("A", "ETHUSDT")).iloc[40:, :]}))
    told = [text for text in loaded.lacks() if "have the closes of another symbol" in text]
    assert told == ["BTCUSDT: 40 of 40 rows have the closes of another symbol, the first at 2024-01-01 00:00"]
    still = ROWS.assign(open=1.0, high=1.0, low=1.0, close=1.0)
    assert not any("another symbol" in text for text in load(put(tmp_path / "still", A=still, B=still)).lacks())


def test_a_volume_of_minus_one_throughout_is_none():
    loaded = load(ROWS.assign(volume=-1.0))
    assert np.all(loaded.bars.volume == 0.0)
    assert "column volume is -1 in every row; volume is read as 0" in loaded.report.lacked
    with pytest.raises(UserError, match="have a volume below zero"):
        load(ROWS.assign(volume=[-1.0] * 39 + [5.0]))
