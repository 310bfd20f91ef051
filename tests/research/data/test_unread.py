"""Are series that a column tells apart never merged, and is a candle that had not closed never used?"""

import json

import numpy as np
import pandas as pd
import pytest

from research.data import load, save_bars, stream_bars
from research.data.unread import CLOSED, FORMING
from research.errors import UserError
from tests.research.data.test_data import assert_same_bars, frame

NAMES = ("AAA", "BBB")


def written(rows: pd.DataFrame, folder) -> list[object]:
    """The rows in every form that they can come in."""
    rows.to_csv(folder / "dump.csv", index=False)
    rows.to_parquet(folder / "dump.parquet", index=False)
    rows.to_feather(folder / "dump.feather")
    (folder / "dump.json").write_text(json.dumps(rows.assign(timestamp=rows["timestamp"].astype(str)).to_dict("records")))
    return [rows, *(folder / f"dump.{kind}" for kind in ("csv", "parquet", "feather", "json"))]


@pytest.mark.parametrize("name", ["s", "sym", "market", "product_id", "code", "isin", "underlying", "security", "base", "Market Name"])
def test_a_column_that_can_only_name_the_symbol_is_read_as_it_and_told(name, tmp_path):
    rows = frame(40, NAMES)
    rows = rows[(rows["symbol"] == "AAA") == (rows["timestamp"] < rows["timestamp"][20])].reset_index(drop=True)  # one after the other
    want = load(rows).bars
    for source in written(rows.rename(columns={"symbol": name}), tmp_path):
        loaded = load(source)
        assert_same_bars(loaded.bars, want)
        assert f"symbol is column {name}" in loaded.report.lacked


@pytest.mark.parametrize(("name", "values"), [("s", [1.0, 2.0]), ("base", [12.5, 0.25]), ("market", ["", ""])])
def test_numbers_and_nothing_name_no_symbol(name, values, tmp_path):
    rows = frame(40, ("dump",)).drop(columns="symbol")
    for source in written(rows.assign(**{name: values * 20}), tmp_path)[1:]:
        loaded = load(source)
        assert_same_bars(loaded.bars, load(frame(40, ("dump",))).bars)
        assert loaded.report.warnings == [f"column {name} names no symbol and is not read"]


def test_rows_of_one_time_that_a_text_tells_apart_are_refused(tmp_path):
    for source in written(frame(40, NAMES).sort_values("timestamp").rename(columns={"symbol": "what"}).reset_index(drop=True), tmp_path):
        with pytest.raises(UserError, match="was 'AAA' and 'BBB' in column what at 2024-01-01 00:00; call that column symbol") as error:
            load(source)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="call that column symbol"):
        list(stream_bars(tmp_path / "dump.parquet"))


def test_series_that_a_number_tells_apart_are_refused_with_the_remedy(tmp_path):
    rows = frame(40, NAMES).rename(columns={"symbol": "permno"})
    for source in written(rows.assign(permno=[10001] * 40 + [10002] * 40), tmp_path):
        with pytest.raises(
            UserError, match=r"row of other values, .* keep one row per symbol and time \(a column symbol tells them apart\)"
        ):
            load(source)


def test_a_text_that_is_not_read_is_told_where_it_may_name_the_symbol(tmp_path):
    rows = frame(40, ("dump",)).drop(columns="symbol")
    ask = "is not read; where {} symbol{}, call the column symbol"
    for source in written(
        rows.assign(what=["AAA"] * 20 + ["BBB"] * 20, length="1h", day="2024-01-01", empty="NaN", venue="dump"), tmp_path
    )[1:]:
        assert load(source).report.warnings == [f"column what holds 'AAA', 'BBB' and {ask.format('these are', 's')}"]
    for source in written(rows.assign(what="ETHUSDT"), tmp_path)[1:]:
        assert load(source).report.warnings == [f"column what holds 'ETHUSDT' alone and {ask.format('that is the', '')}"]


@pytest.mark.parametrize("name", [*CLOSED, *FORMING, "isClosed", "Is Final"])
def test_a_candle_that_had_not_closed_is_left_out_and_counted(name, tmp_path):
    rows = frame(40, ("dump",)).drop(columns="symbol")
    want = load(frame(40, ("dump",)).iloc[:39]).bars
    yes = name in FORMING
    if name == "x":  # a flag only beside a stream's letters
        rows = rows.rename(columns={word: word[0] for word in ("open", "high", "low", "close", "volume")})
    for values in ([not yes] * 39 + [yes], [int(not yes)] * 39 + [int(yes)], [str(not yes)] * 39 + [str(yes)]):
        for source in written(rows.assign(**{name: values}), tmp_path)[1:]:
            loaded = load(source)
            assert_same_bars(loaded.bars, want)
            assert len(loaded.report.warnings) == 1
            assert loaded.report.warnings[0].startswith(f"1 candle had not closed when the data was made ({name} ")


def test_what_is_no_flag_is_left_alone_and_what_leaves_nothing_is_refused(tmp_path):
    rows = frame(40, ("dump",)).drop(columns="symbol")
    for source in written(rows.assign(x=np.arange(40) % 3, closed=""), tmp_path)[1:]:
        assert load(source).bars.n == 40
    for source in written(rows.assign(x=np.arange(40) % 2), tmp_path)[1:]:
        assert load(source).bars.n == 40
    for source in written(rows.assign(closed=False), tmp_path)[1:]:
        with pytest.raises(UserError, match="must have candles that have closed, was column closed of false alone; drop it"):
            load(source)


def test_our_own_file_with_a_flag_added_is_cut_too(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    save_bars(load(frame(40, NAMES)).bars, tmp_path / "own.parquet")
    table = pq.read_table(tmp_path / "own.parquet")
    pq.write_table(table.append_column("closed", pa.array([True] * 78 + [False] * 2)), tmp_path / "own.parquet")
    assert load(tmp_path / "own.parquet").bars.n == 39
