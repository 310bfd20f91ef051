"""Is an exported journal a run like any other, proven where it can be, and does it say why where it cannot?"""

import json
from pathlib import Path

import pytest

from research import backtest
from research.cli.app import app
from research.cli.common import guarded
from research.data import load_bars
from research.errors import UserError
from research.live.session.controls import command
from research.live.start import LiveOptions, start_live
from research.report.compare import compare
from research.runs.explain import explain_decision
from research.runs.folder import read_run
from research.training.predictions import Predictions
from research.workflow.load import export_run
from research.workflow.recording import verify_run
from tests.conftest import assert_same_bits
from tests.research.live.test_live import run_live
from tests.support import PUBLISHED
from tests.support.as_published import CONFIG

WORLD = "simulated:planted_edge?n_bars=420&n_symbols=3"


@pytest.fixture(scope="module")
def replayed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("replayed")
    Predictions.random(load_bars(WORLD), seed=4).save(folder / "predictions.parquet")
    run_live(LiveOptions(f"replay:{WORLD}", folder / "journal.sqlite", CONFIG, predictions=folder / "predictions.parquet"))
    return folder


def test_a_plain_journal_is_exported_as_the_backtest_and_proven(replayed, tmp_path, capsys):
    bars = load_bars(WORLD)
    words = ["status", str(replayed / "journal.sqlite"), "--export", str(tmp_path / "live")]
    assert guarded(lambda: app(words, standalone_mode=False)) == 0
    assert json.loads(capsys.readouterr().out)["is_live"]
    run = backtest(bars, Predictions.random(bars, seed=4), PUBLISHED)
    run.save(tmp_path / "run", record=False)
    live, back = read_run(tmp_path / "live"), read_run(tmp_path / "run")
    mine, theirs = live.decisions(), back.decisions()
    for name in theirs:
        if name != "label":  # a backtest's own label is a matter of its predictions
            assert_same_bits(mine[name], theirs[name], name)
    for table in ("fills", "equity"):
        assert live.frame(table).equals(back.frame(table))
    assert live.frame("trades")["pnl"].tolist() == back.frame("trades")["pnl"].tolist()
    certificate = verify_run(tmp_path / "live")
    assert certificate["passed"] is True
    assert (tmp_path / "live" / "report.html").stat().st_size > 10_000
    table = compare([tmp_path / "live", tmp_path / "run"])
    assert table.loc["data"].nunique() == 1
    assert explain_decision(tmp_path / "live", bars.symbols[0], str(load_bars(WORLD).close_time[300].astype("M8[ns]")))


def test_what_changed_on_the_way_is_said_and_not_proven(replayed, tmp_path):
    bars = load_bars(WORLD)
    journal = tmp_path / "j"
    late = str(bars.open_time[100].astype("M8[ns]"))
    runner, close = start_live(
        LiveOptions(f"replay:{WORLD}", journal, CONFIG, predictions=replayed / "predictions.parquet", live_from=late)
    )
    values = {"do": "set", "values": {"arbiter.enabled": False}}
    runner.watchers = (lambda entry: command(journal, values) if entry.bar == 300 else None,)
    runner.run()
    close()
    run = export_run(journal, tmp_path / "run")
    assert run.own_layers == ("history before the journal", "sequence of parameters")
    trades = read_run(tmp_path / "run").frame("trades")
    assert trades["bars"].max() <= run.params.broker.max_holding_bars
    certificate = verify_run(tmp_path / "run")
    assert certificate["passed"] is None
    said = "the decisions: the run used an own history before the journal, sequence of parameters, which the folder does not hold"
    assert certificate["not_covered"][0].startswith(said)


def test_what_cannot_be_exported_is_told(replayed, tmp_path, capsys):
    _, close = start_live(LiveOptions(f"replay:{WORLD}", tmp_path / "j", CONFIG, predictions=replayed / "predictions.parquet"))
    close()
    with pytest.raises(UserError, match="must be a journal of `qt live` or a run's folder, was missing"):
        export_run(tmp_path / "j", tmp_path / "run")
    export_run(replayed / "journal.sqlite", tmp_path / "run")
    words = ["status", str(tmp_path / "run"), "--export", str(tmp_path / "again")]
    assert guarded(lambda: app(words, standalone_mode=False)) == 2
    assert "is a run's folder already" in capsys.readouterr().err
