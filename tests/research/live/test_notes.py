"""Does paper trading of files say what a backtest says of how they were read: in the terminal, in JSON and in the journal?"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from research.cli.app import app
from research.cli.common import guarded
from research.live.monitoring.journal_source import JournalSource

N = 200


@pytest.fixture
def files(tmp_path) -> tuple[Path, Path]:
    """Candles without volume, and predictions in per cent of which half match no bar."""
    rng, time = np.random.default_rng(0), pd.date_range("2024-01-01", periods=N, freq="h", tz="UTC")
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.005, N)))
    candles = pd.DataFrame({"timestamp": time, "symbol": "BTCUSD", "open": close, "high": close, "low": close, "close": close})
    candles["volume"] = np.where(np.arange(N) % 50 == 9, 0.0, 10.0)
    candles.loc[60:80, ["open", "high", "low", "close"]] = 100.0  # prices that stand still
    candles.drop(index=[20, 21, 22]).to_csv(tmp_path / "candles.csv", index=False)
    p = 100.0 * rng.dirichlet([1.0, 1.0, 1.0], 2 * N)
    said = pd.DataFrame({"close_time": pd.date_range("2024-01-01 01:00", periods=2 * N, freq="h", tz="UTC"), "symbol": "BTCUSD"})
    said[["xgb_p_sell", "xgb_p_hold", "xgb_p_buy"]] = p
    said.to_csv(tmp_path / "predictions.csv", index=False)
    return tmp_path / "candles.csv", tmp_path / "predictions.csv"


def qt(*words: object) -> int:
    return guarded(lambda: app(list(map(str, words)), standalone_mode=False))


def test_live_says_of_its_files_what_a_backtest_says(files, tmp_path, capsys):
    candles, predictions = files
    words = ["--feed", f"replay:{candles}", "--predictions", predictions, "--journal"]
    assert qt("backtest", candles, "--predictions", predictions, "--no-verify", "--json", "--out", tmp_path / "run") == 0
    lacked = json.loads(capsys.readouterr().out)["data"]["lacked"]
    assert any("200 of 400 rows match no bar" in text for text in lacked)
    assert qt("live", *words, tmp_path / "people") == 0
    out = capsys.readouterr().out
    assert "no order was sent: no map of a layer that acts knows an edge; an order needs one" in out  # votes without content
    assert qt("live", *words, tmp_path / "json", "--json") == 0
    told = json.loads(capsys.readouterr().out)["lacked"]
    events = JournalSource(tmp_path / "people").events(50)
    assert told == lacked
    assert all(f"  - {text}" in out for text in told)
    assert 2 <= len({event["text"] for event in events if event["kind"] == "note"} & set(told)) < len(told)


def test_a_journal_that_goes_on_does_not_note_them_again(files, tmp_path, capsys):
    candles, predictions = files
    for _ in range(2):
        assert qt("live", "--feed", f"replay:{candles}", "--predictions", predictions, "--journal", tmp_path / "j") == 0
        assert "200 of 400 rows match no bar" in capsys.readouterr().out
    notes = [event["text"] for event in JournalSource(tmp_path / "j").events(50) if event["kind"] == "note"]
    assert len(notes) == len(set(notes)) > 0


def test_what_is_set_and_not_read_is_told_by_backtest_and_live(files, tmp_path, capsys):
    candles, predictions = files
    words = ["--predictions", predictions, "--profile=published", "--set", "meta.v5_threshold=0.7"]
    sentence = "meta.v5_threshold is set and not read where meta.mode is policy; set meta.mode=v5"
    assert qt("backtest", candles, *words, "--no-verify", "--out", tmp_path / "run") == 0
    assert sentence in capsys.readouterr().out
    told = {name: json.loads((tmp_path / "run" / f"{name}.json").read_text(encoding="utf-8")) for name in ("manifest", "summary")}
    assert sentence in told["manifest"]["notes"]
    assert told["summary"]["assumptions"]["unread"] == [sentence]
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert sentence in page
    assert "meta confidence from which override mode acts; not read in this run" in page
    for _ in range(2):
        assert qt("live", "--feed", f"replay:{candles}", *words, "--journal", tmp_path / "j") == 0
        assert sentence in capsys.readouterr().out
    assert [event["text"] for event in JournalSource(tmp_path / "j").events(50)].count(sentence) == 1
    assert qt("live", "set", tmp_path / "j", "meta.override_threshold=0.7", "meta.low_confidence=0.5") == 0
    said = capsys.readouterr().out
    assert "meta.override_threshold is set and not read where meta.mode is policy; set meta.mode=override" in said
    assert "meta.low_confidence" not in said
