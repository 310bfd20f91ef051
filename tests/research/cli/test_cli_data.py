"""Does `qt data` say what is so, exit with the right code, and leave nothing half-written?"""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from research.cli.common import guarded
from research.cli.data import data_app
from research.data import fingerprint, load_bars, simulate
from tests.research.data.test_data import assert_same_bars, frame


@pytest.fixture
def qt(capsys):
    """Run `qt data ...` in this process; return exit code, stdout, stderr."""

    def run(*words):
        code = guarded(lambda: data_app([str(word) for word in words], standalone_mode=False))
        out = capsys.readouterr()
        return code, out.out, out.err

    return run


@pytest.fixture
def candles(tmp_path):
    path = tmp_path / "candles.parquet"
    frame(300).to_parquet(path)
    return path


def test_check_passes_clean_candles(qt, candles):
    code, out, err = qt("check", candles)
    assert (code, err) == (0, "")
    assert out.strip() == "fit to run: 600 rows, 2 symbols, 0 findings"


def test_check_says_what_stops_a_run(qt, tmp_path):
    rows = frame(300)
    rows.loc[range(20, 40), "close"] = -1.0
    rows.loc[330, "volume"] = 0.0
    rows.loc[331, "high"] = np.inf
    rows.to_parquet(tmp_path / "bad.parquet")
    code, out, err = qt("check", tmp_path / "bad.parquet")
    assert (code, err) == (1, "")
    what = "AAA: 20 of 300 rows have a price of zero or below, the first at 2024-01-01 20:00"
    assert f"{what}; at most 3 may; correct or drop them, or leave AAA out" in out
    assert "a run stops: 600 rows, 2 symbols, 3 findings" in out
    code, out, _ = qt("check", tmp_path / "bad.parquet", "--json")
    report = json.loads(out)
    assert code == 1
    assert report["stops"] is True
    assert [(i["symbol"], i["problem"], i["count"], i["action"]) for i in report["issues"]] == [
        ("AAA", "not_positive", 20, "stops"),
        ("BBB", "not_finite", 1, "masked"),
        ("BBB", "zero_volume", 1, "told"),
    ]
    assert qt("check", tmp_path / "bad.parquet", "--symbols", "BBB")[0] == 0


def test_info_describes(qt, candles):
    code, out, _ = qt("info", candles, "--json", "--from", "2024-01-02", "--to", "2024-01-04")
    facts = json.loads(out)
    bars = load_bars(candles, start="2024-01-02", end="2024-01-04")
    assert code == 0
    assert facts["fingerprint"] == fingerprint(bars)
    expected = {"first_open": "2024-01-02 00:00", "last_close": "2024-01-04 00:00", "interval": "1h", "calendar": "regular", "rows": 48}
    assert {key: facts[key] for key in expected} == expected
    assert facts["bars_per_year"] == 8_760.0
    assert facts["symbols"]["AAA"] == {"bars": 48, "first": "2024-01-02 00:00", "last": "2024-01-03 23:00", "holes": 0}
    assert facts["warnings"] == []
    code, out, _ = qt("info", candles)
    assert code == 0
    assert fingerprint(load_bars(candles)) in out
    assert "regular, as 0.0% of a regular one is empty" in out


def test_simulate_writes_what_its_name_gives(qt, tmp_path):
    path = tmp_path / "made" / "x.parquet"
    code, out, _ = qt(
        "simulate", "planted_edge", "--out", path, "--bars", 1500, "--symbols", 2, "--seed", 3, "--set", "accuracy=0.55", "--quiet"
    )
    assert (code, out.strip()) == (0, str(path))
    assert_same_bars(load_bars(path), simulate("planted_edge", seed=3, n_bars=1_500, n_symbols=2, accuracy=0.55))
    code, out, _ = qt("simulate", "--list", "--json")
    assert {"random_walk", "planted_edge"} <= {row["name"] for row in json.loads(out)}
    code, out, _ = qt("simulate", "--list")
    assert (code, "planted_edge" in out) == (0, True)


def test_resample_writes_our_own_schema(qt, candles, tmp_path):
    code, out, _ = qt("resample", candles, "--interval", "4h", "--out", tmp_path / "y.parquet")
    assert code == 0
    assert out.split("\n")[:2] == ["what the data lacked: nothing that was noticed", "75 bars of 4h, 2 symbols"]
    names = ["open_time", "close_time", "symbol", "open", "high", "low", "close", "volume"]
    assert pq.read_schema(tmp_path / "y.parquet").names == names
    assert load_bars(tmp_path / "y.parquet").n == 75
    times = pd.date_range("2024-01-02 00:00:01", periods=4_000, freq="3s", tz="UTC")
    ticks = pd.DataFrame({"timestamp": times, "symbol": "SPY", "price": 100.0 + np.arange(4_000) % 7, "size": 1})
    ticks.to_parquet(tmp_path / "ticks.parquet")
    code, out, _ = qt("resample", tmp_path / "ticks.parquet", "--interval", "5m", "--out", tmp_path / "z.parquet", "--keep-incomplete")
    assert code == 0
    assert load_bars(tmp_path / "z.parquet").volume.sum() == 4_000


@pytest.mark.parametrize(("words", "text"), [
    (("info", "no.parquet"), "data must exist, was 'no.parquet' (not found); expected a Parquet or CSV file"),
    (("check", "simulated:no"), "world must be one of random_walk"),
    (("info", "sample", "--symbols", "GOLD"), "symbols (--symbols) must be in the data, was 'GOLD'; it has NASDAQ, SP500 (2)"),
    (("info", "sample", "--from", "yesterday"), "start (--from) must hold times, was 'yesterday'; use ISO 8601 in UTC"),
    (("info", "sample", "--to", "x"), "end (--to) must hold times, was 'x'"),
    (("info", "sample", "--from", "2030-01-01", "--to", "2029"), "end (--to) must hold"),
    (("info", "sample", "--time-label", "mid"), "time_label (--time-label) must be open or close, was 'mid'"),
    (("simulate", "random_walk", "--out", "x.parquet", "--bars", "0"), "n_bars (--bars) must be an int of at least 2, was 0"),
    (("simulate", "random_walk", "--out", "x.parquet", "--symbols", "0"), "n_symbols (--symbols) must be an int of at least 1, was 0"),
    (("simulate", "random_walk", "--bars", "x"),
     "--bars must be a whole number, was 'x'. `qt simulate --help` lists commands and flags."),
    (("info", "sample", "--from", "2030-01-01"), "start (--from) and end (--to) must meet the data, was 2030-01-01 00:00 to the end;"),
    (("resample", "sample", "--interval", "36h", "--out", "x.parquet"), "new interval must be a multiple of 1d above it, was 36h"),
    (("simulate", "random_walk"), "simulate needs a world and --out, was without --out"),
    (("simulate", "random_walk", "--out", "x.csv"), "output must end in .parquet, was 'x.csv'"),
    (("simulate", "random_walk", "--out", "x.parquet", "--set", "speed=1"), "parameter of random_walk must be one of volatility,"),
    (("simulate", "random_walk", "--out", "x.parquet", "--set", "n_bars=400"),
     "--set must name a parameter of the world's own, was n_bars; say it with --bars"),
])  # fmt: skip
def test_a_mistake_is_one_sentence_and_leaves_nothing(qt, words, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = qt(*words)
    assert (code, out) == (2, "")
    assert err.startswith(f"qt: {text}")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(qt, tmp_path, monkeypatch):
    def full(self, table):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    code, _, err = qt("simulate", "random_walk", "--out", tmp_path / "x.parquet")
    assert code == 2
    assert err == f"qt: {tmp_path / 'x.parquet'} must be writable, was not (No space left on device); free space or choose another place\n"
    assert list(tmp_path.iterdir()) == []
