"""Does the meta layer learn from a live journal's own outcomes what it learns from the same rows in a log?"""

import json
import sqlite3

import numpy as np
import pandas as pd
import pytest

from qtcore.rules import Reason
from research import backtest
from research.cli.app import app
from research.cli.common import guarded
from research.data import simulate
from research.data.frames import save_bars
from research.errors import UserError
from research.live.journal.outcomes import read_outcomes
from research.live.start import LiveOptions
from research.runs.config import Config
from research.runs.prediction_log import export_log
from research.training.meta import MetaSchedule, read_log, train_from_log
from research.training.predictions import Predictions
from tests.conftest import assert_same_bits
from tests.research.live.test_live import run_live
from tests.research.training.test_meta_logs import BUSY
from tests.support import FLAG, PUBLISHED
from tests.support.as_published import CONFIG

ISO = "%Y-%m-%dT%H:%M:%SZ"


@pytest.fixture(scope="module")
def traded(tmp_path_factory):
    """A replay's journal, and the log and outcomes that a backtest of the same bars exports."""
    folder = tmp_path_factory.mktemp("traded")
    bars = simulate("planted_edge", n_bars=1200, n_symbols=3)
    predictions = Predictions.random(bars, seed=1)
    save_bars(bars, folder / "bars.parquet")
    predictions.save(folder / "predictions.parquet")
    how = {"symbols": list(bars.symbols)}
    stored = folder / "predictions.parquet"
    run_live(LiveOptions(f"replay:{folder / 'bars.parquet'}", folder / "journal.sqlite", Config(BUSY), predictions=stored, how=how))
    run = backtest(bars, predictions, BUSY)
    return folder / "journal.sqlite", run, *export_log(run, folder)


def without_unfinished(run, log, outcomes, folder):
    """The exported log less the lines whose trade or order is open at the end: nobody live knows their outcome yet."""
    trades = run.trades.reset_index()
    open_ = trades[trades["exit_reason"] == Reason.END_OF_DATA]
    gone = {(time.isoformat().replace("+00:00", "Z"), symbol) for time, symbol in zip(open_["decision_time"], open_["symbol"])}
    last = pd.Timestamp(run.bars.close_time[-1], tz="UTC").isoformat().replace("+00:00", "Z")
    gone |= {(last, symbol) for symbol, notional, _ in run.result.orders if notional}
    lines = [line for line in log.read_text().splitlines() if (json.loads(line)["timestamp"], json.loads(line)["symbol"]) not in gone]
    rows = [row for row in outcomes.read_text().splitlines() if tuple(row.split(",")[:2]) not in gone]
    (folder / "log.jsonl").write_text("\n".join(lines))
    (folder / "outcomes.csv").write_text("\n".join(rows))
    return folder / "log.jsonl", folder / "outcomes.csv", gone


def test_a_journal_teaches_what_its_own_rows_teach_as_a_log(traded, tmp_path):
    journal, run, log, outcomes = traded
    log, outcomes, gone = without_unfinished(run, log, outcomes, tmp_path)
    mine, theirs = read_log(read_outcomes(journal)), read_log(log, outcomes)
    assert len(gone) > 0
    assert mine.counts["unfinished trades, left out"] == len(gone)
    assert mine.counts["outcomes"] == theirs.counts["outcomes"] == int((run.result.fills["is_entry"] == 0).sum())
    assert mine.counts["outcomes without a line"] == 0
    for name in ("close_time", "labels", "end", "regime", "ensemble_action"):
        assert_same_bits(getattr(mine, name), getattr(theirs, name), name)
    assert_same_bits(mine.votes.confidence, theirs.votes.confidence, "confidence")
    live, counts = train_from_log(read_outcomes(journal), params=PUBLISHED)
    assert live.hash == train_from_log(log, outcomes, PUBLISHED)[0].hash
    assert counts == mine.counts


def test_the_view_shows_the_same_rows(traded):
    journal, *_ = traded
    _, lines, outcomes, counts, *_ = read_outcomes(journal)
    with sqlite3.connect(journal) as db:
        shown = pd.read_sql("SELECT * FROM metav2_decisions", db)
    assert len(shown) == counts["decisions"]
    known = shown[shown["actual_outcome"].notna()]
    opened = zip(outcomes["timestamp"].dt.strftime(ISO), outcomes["symbol"])
    assert set(zip(known["timestamp"], known["symbol"])) == set(opened)
    assert dict(zip(("SELL", "BUY"), known["decision"].value_counts().reindex(["SELL", "BUY"]))) == {
        "SELL": int((outcomes["traded"] == 0).sum()), "BUY": int((outcomes["traded"] == 2).sum())
    }  # fmt: skip
    first = lines.iloc[0]
    row = shown[(shown["timestamp"] == first["timestamp"].strftime(ISO)) & (shown["symbol"] == first["symbol"])].iloc[0]
    features = json.loads(row["features"])
    assert features["base_predictions"]["xgb"]["confidence"] == pytest.approx(first["said"][1, 0], rel=1e-14)


def test_the_command_takes_a_journal_alone(traded, tmp_path, capsys):
    journal, _, log, outcomes = traded
    words = ["train", FLAG, "--from-log", str(journal), "--out", str(tmp_path / "meta")]
    assert guarded(lambda: app(words, standalone_mode=False)) == 0
    said = capsys.readouterr().out
    assert "unfinished trades, left out" in said
    assert "orders never filled" in said
    stored = MetaSchedule.load(tmp_path / "meta")
    assert stored.hash == train_from_log(read_outcomes(journal), params=PUBLISHED)[0].hash
    assert stored.config["label"]["id"] == "L6"
    for bad in (["--from-log", str(journal), "--outcomes", str(outcomes)], ["--from-log", str(log)]):
        assert guarded(lambda bad=bad: app(["train", FLAG, *bad, "--out", str(tmp_path / "no")], standalone_mode=False)) == 2
        assert "must be a journal of `qt live`, or JSON lines that come with --outcomes" in capsys.readouterr().err


def test_a_holed_market_leaves_orders_that_were_never_filled(traded, tmp_path):
    bars = simulate("planted_edge", n_bars=400, n_symbols=2)
    planes = {name: getattr(bars, name).copy() for name in ("open", "high", "low", "close", "volume")}
    for plane in planes.values():
        plane[200:230:3] = np.nan
    holed = type(bars)(bars.open_time, bars.close_time, **planes, symbols=bars.symbols, interval=bars.interval)
    predictions = Predictions.random(holed, seed=1)
    save_bars(holed, tmp_path / "bars.parquet")
    predictions.save(tmp_path / "predictions.parquet")
    how = {"symbols": list(bars.symbols)}
    run_live(
        LiveOptions(f"replay:{tmp_path / 'bars.parquet'}", tmp_path / "j", CONFIG, predictions=tmp_path / "predictions.parquet", how=how)
    )
    counts = read_outcomes(tmp_path / "j").counts
    approved = int((backtest(holed, predictions, PUBLISHED).result.governor_reason == Reason.APPROVED).sum())
    assert sum(counts[name] for name in ("outcomes", "unfinished trades, left out", "orders never filled")) == approved
    assert counts["orders never filled"] > 0


def test_what_is_no_journal_is_refused(traded, tmp_path):
    with sqlite3.connect(tmp_path / "other") as db:
        db.execute("CREATE TABLE t (x)")
    with pytest.raises(UserError, match="must be a file that `qt live` wrote, was another SQLite file"):
        read_outcomes(tmp_path / "other")
    with pytest.raises(UserError, match="must have lines of predictions, was without a usable one"):
        train_from_log(read_outcomes(traded[0]), params=PUBLISHED, min_date="2030-01-01")
