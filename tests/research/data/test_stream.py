"""Does a file that is read in blocks give the bars and the sentences of one that is read whole?"""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtcore.types import Bars
from research.data import fingerprint, load, load_bars, save_bars, stream_bars
from research.data.load import DataWarning
from research.errors import UserError
from tests.conftest import awkward_bars
from tests.research.data.test_data import assert_same_bars, frame


def long_file(rows: pd.DataFrame, path, by: list[str], group: int):
    rows.sort_values(by, kind="stable").to_parquet(path, row_group_size=group, index=False)
    return path


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 99), st.integers(1, 130), st.sampled_from([["symbol", "timestamp"], ["timestamp", "symbol"]]), st.integers(7, 200),
       st.booleans(), st.booleans())  # fmt: skip
def test_stream_gives_the_bars_of_load(tmp_path_factory, seed, block_rows, by, group, sessions, dirty):
    rng = np.random.default_rng(seed)
    rows = frame(160, ("CCC", "AAA", "BBB"))
    rows = rows[rng.random(len(rows)) > 0.03]
    if sessions:
        rows = rows[rows["timestamp"].dt.hour >= 3]
    if dirty:
        rows.iloc[5, 3] = -1.0
        rows.iloc[100, 0] += pd.Timedelta("3min")
        rows.iloc[200, 0] = pd.Timestamp("2150-01-01", tz="UTC")
        rows.iloc[201, 0] = pd.Timestamp(0, tz="UTC")
        rows = pd.concat([rows, rows[40:42]])
    path = long_file(rows, tmp_path_factory.mktemp("s") / "x.parquet", by, group)
    for options in (
        {},
        {"symbols": ["BBB", "CCC"]},
        {"start": "2024-01-02", "end": "2024-01-05"},
        {"calendar": "regular"},
        {"time_label": "close"},
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            whole = load_bars(path, **options)
        said, at = told(caught), 0
        blocks, said_of_blocks = streamed(path, block_rows, **options)
        assert said_of_blocks == said
        for block in blocks:
            assert_same_bars(block, whole[at : at + block_rows])
            at += block.n
        assert at == whole.n
    assert fingerprint(streamed(path, block_rows)[0]) == fingerprint(load(path).bars)


def told(caught) -> list[str]:
    """The sentences of every DataWarning, without the lines that name the file."""
    return sorted(line for one in caught if one.category is DataWarning for line in str(one.message).split("\n")[1:])


def streamed(path, block_rows: int, **options) -> tuple[list[Bars], list[str]]:
    """Stream a file; returns the blocks and what was told."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        return list(stream_bars(path, block_rows=block_rows, **options)), told(caught)


def test_stream_tells_what_load_tells(tmp_path):
    rows = frame(400, ("CCC", "AAA", "BBB"))
    rows.loc[[5, 390], "close"] = -1.0
    rows.loc[700, "timestamp"] += pd.Timedelta("3min")
    rows = pd.concat([rows, rows[rows.index % 100 == 40]]).drop(columns="volume")
    rows = rows[(rows["symbol"] != "BBB") | (rows["timestamp"] >= "2024-01-05")]
    path = long_file(rows, tmp_path / "x.parquet", ["symbol", "timestamp"], 90)
    for options in ({}, {"end": "2024-01-04"}, {"symbols": ["AAA"]}):
        with pytest.warns(DataWarning) as caught:
            load_bars(path, **options)
        said = told(caught)
        assert len(said) >= 2
        for block_rows in (33, 10_000):
            assert streamed(path, block_rows, **options)[1] == said
    assert any("no column of volume" in line for line in said)


def test_a_stream_that_is_left_early_tells_what_it_came_to(tmp_path):
    rows = frame(400)
    rows.loc[5, "close"] = -1.0
    rows.loc[390, "close"] = -1.0
    blocks = stream_bars(long_file(rows, tmp_path / "x.parquet", ["timestamp"], 90), block_rows=50)
    next(blocks)
    with pytest.warns(DataWarning, match="AAA: 1 of 400 rows have a price of zero or below"):
        blocks.close()


def test_stream_tells_of_bars_that_have_not_closed(tmp_path):
    now = pd.Timestamp.now("UTC").floor("h")
    rows = frame(100, ("AAA",))
    rows["timestamp"] = pd.date_range(end=now, periods=100, freq="h")
    path = long_file(rows, tmp_path / "x.parquet", ["timestamp"], 90)
    with pytest.warns(DataWarning, match="AAA: 1 of 100 rows close after the present time") as caught:
        load_bars(path)
    assert streamed(path, 30)[1] == told(caught)


@pytest.mark.parametrize(
    ("times", "options", "first"),
    [
        (pd.date_range("2024-01-02 09:30", periods=200, freq="15min"), {"time_zone": "America/New_York"}, "2024-01-02 14:30"),
        (pd.date_range("2024-01-02", periods=200, freq="D"), {"day_start": "17:00 America/New_York"}, "2024-01-01 22:00"),
        (pd.date_range("2024-01-02", periods=200, freq="D").strftime("%Y-%m-%d"), {"time_zone": "Asia/Tokyo"}, "2024-01-01 15:00"),
        (pd.date_range("2024-01-02", periods=200, freq="h"), {"adjusted": True}, "2024-01-02 00:00"),
    ],
)
def test_a_stream_reads_zones_days_and_adjusted_prices_as_loading_does(tmp_path, times, options, first):
    rows = frame(200, ("AAA",))
    rows = rows.assign(timestamp=times, **{"Adj Close": rows["close"] * np.linspace(0.5, 1.0, 200)})
    path = long_file(rows, tmp_path / "x.parquet", ["timestamp"], 70)
    with pytest.warns(DataWarning) as caught:
        whole = load_bars(path, **options)
    blocks, said = streamed(path, 64, **options)
    assert whole.open_time[0] == pd.Timestamp(first, tz="UTC").as_unit("ns").value
    for block, at in zip(blocks, range(0, 200, 64), strict=True):
        assert_same_bars(block, whole[at : at + 64])
    assert said == told(caught)


def test_a_stream_refuses_an_hour_that_the_clock_shows_twice(tmp_path):
    rows = frame(200, ("AAA",)).assign(timestamp=pd.date_range("2024-11-01", periods=200, freq="h"))
    path = long_file(rows, tmp_path / "x.parquet", ["timestamp"], 70)
    with pytest.raises(UserError, match="shows once to be read in parts, was 2024-11-03 01:00; load_bars reads it, or write times in UTC"):
        stream_bars(path, time_zone="America/New_York")
    with pytest.raises(UserError, match=r"time_zone \(--time-zone\) must be a name of the IANA database"):
        stream_bars(path, time_zone="Nowhere")


def test_stream_reads_own_files_and_refuses_what_is_not_sorted_or_sound(tmp_path):
    bars = awkward_bars(300)
    funded = Bars(**{**vars(bars), "funding": np.ones(bars.close.shape)})
    path = save_bars(funded, tmp_path / "own.parquet")
    for block, at in zip(stream_bars(path, block_rows=100), range(0, 300, 100)):
        assert_same_bars(block, funded[at : at + 100])
    shuffled = frame(50).sample(frac=1.0, random_state=0)
    shuffled.to_parquet(tmp_path / "s.parquet")
    with pytest.raises(UserError, match=r"^s.parquet must be sorted by symbol and time to be streamed, was not; sort it, or use load_bars"):
        stream_bars(tmp_path / "s.parquet")
    broken = frame(50)
    broken.loc[range(20, 30), "close"] = -1.0
    broken.to_parquet(tmp_path / "b.parquet")
    with pytest.raises(UserError, match=r"^AAA: 10 of 50 rows have a price of zero or below"):
        list(stream_bars(tmp_path / "b.parquet"))
    with pytest.raises(UserError, match=r"symbols \(--symbols\) must be in the data, was 'ZZZ'"):
        stream_bars(path, symbols=["ZZZ"])
    with pytest.raises(UserError, match="stream_bars needs one Parquet file"):
        stream_bars(tmp_path)
    with pytest.raises(UserError, match="block_rows must be at least 1, was 0"):
        stream_bars(path, block_rows=0)
