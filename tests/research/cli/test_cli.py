import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import research
from qtcore import Params
from research.cli.app import app
from research.cli.common import guarded
from research.runs.config import RunOptions
from research.runs.folder import read_run
from research.runs.search_plan import SearchPlan
from research.runs.study_plan import StudyPlan
from tests.support import FLAG

SMALL = [FLAG, "--set", "run.models=lgbm", "--set", "run.folds=2"]
WORLD = "simulated:planted_edge?n_bars=1200&n_symbols=2"


def qt(*words: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["qt", *words])
    return guarded(lambda: app(standalone_mode=False))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small run through the real command line, proof and report included."""
    home = tmp_path_factory.mktemp("home")
    folder = home / "run"
    command = [sys.executable, "-m", "research", "backtest", WORLD, *SMALL, "--out", str(folder), "--export-log"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "QT_HOME": str(home)}, check=False)
    assert done.returncode == 0, done.stderr
    (home / "stdout").write_text(done.stdout)
    assert done.stderr == ""
    return folder


def test_backtest_prints_the_table_the_proof_the_verdict_and_the_path(finished: Path) -> None:
    text = (finished.parent / "stdout").read_text()
    assert re.search(r"verdict: (Edge|No edge|Not enough data)", text)
    assert re.search(r"verified: \d+ checks passed", text)
    assert str(finished / "report.html") in text


def test_the_folder_is_complete(finished: Path) -> None:
    names = "report.html summary.json decisions.parquet trades.parquet fills.parquet equity.parquet predictions.parquet bars.parquet"
    expected = {*names.split(), "manifest.json", "verify.json", "predictions.jsonl", "outcomes.csv"}
    assert expected <= {path.name for path in finished.iterdir()}
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["evidence"]["verdict"] in ("edge", "no edge", "not enough data")
    assert summary["verify"]["passed"] is True
    words = shlex.split(json.loads((finished / "manifest.json").read_text())["command"])
    assert words[:3] == ["qt", "backtest", "simulated:planted_edge?n_bars=1200&n_symbols=2"]
    assert words[3:] == ["--profile", "published", "--set", "run.models=lgbm", "--set", "run.folds=2"]


def test_verify_passes_and_fails_with_exit_code_1(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    import shutil

    import pandas as pd

    assert qt("verify", str(finished), monkeypatch=monkeypatch) == 0
    broken = tmp_path / "broken"
    shutil.copytree(finished, broken)
    equity = pd.read_parquet(broken / "equity.parquet")
    equity.loc[equity.index[700], "equity"] += 1e-9
    equity.to_parquet(broken / "equity.parquet")
    capsys.readouterr()
    assert qt("verify", str(broken), monkeypatch=monkeypatch) == 1
    assert "equity" in capsys.readouterr().out


def test_explain_tells_each_layer(finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    trade = pd.read_parquet(finished / "trades.parquet").reset_index().iloc[0]
    bars = pd.read_parquet(finished / "bars.parquet", columns=["open_time", "close_time"]).drop_duplicates()
    decided = bars[bars["open_time"] < trade["entry_time"]].iloc[-1]
    assert qt("explain", str(finished), trade["symbol"], str(decided["close_time"]), "--json", monkeypatch=monkeypatch) == 0
    told = json.loads(capsys.readouterr().out)
    names = [layer["name"] for layer in told["layers"]]
    assert names[0] == "market"
    assert names[-5:] == ["ensemble", "meta", "arbiter", "governor", "trade"]
    voted = next(layer["saw"] for layer in told["layers"] if layer["name"].startswith("model") and layer["says"] != "absent")
    probs = [float(voted[f"p({name})"]) for name in ("SELL", "HOLD", "BUY")]
    assert float(voted["their deviation"]) == pytest.approx(np.std(probs), abs=1e-4)
    assert "APPROVED" in told["layers"][-2]["says"]
    assert f"PnL {trade['pnl']:+.2f}" in told["layers"][-1]["says"]
    assert qt("explain", str(finished), "NOPE", "2024-01-01", monkeypatch=monkeypatch) == 2
    assert "symbol must be one of the run's" in capsys.readouterr().err


def test_explain_rounds_what_it_shows_and_keeps_all_digits_in_json(finished, monkeypatch, capsys):
    trade = pd.read_parquet(finished / "trades.parquet").reset_index().iloc[0]
    words = ["explain", str(finished), trade["symbol"], str(trade["decision_time"])]
    assert qt(*words, "--json", monkeypatch=monkeypatch) == 0
    saw = json.loads(capsys.readouterr().out)["layers"][-1]["saw"]
    assert saw["entry_price"] == trade["entry_price"]
    assert qt(*words, monkeypatch=monkeypatch) == 0
    shown = re.search(r"entry_price +(\S+)\n", capsys.readouterr().out)[1]
    assert shown == f"{trade['entry_price']:.8g}" != str(trade["entry_price"])


@pytest.mark.parametrize("when", ["1990-01-01", "2050-01-01"])
def test_explain_of_a_time_outside_the_run_says_its_span(finished, monkeypatch, capsys, when):
    times = pd.read_parquet(finished / "bars.parquet", columns=["open_time", "close_time"])
    assert qt("explain", str(finished), read_run(finished).symbols[0], when, monkeypatch=monkeypatch) == 2
    span = f"{times['open_time'].min()} to {times['close_time'].max()}"
    assert f"time must lie in the run's bars, {span}, was {when} 00:00:00\n" in capsys.readouterr().err


def test_the_table_of_trials_is_whole_in_80_columns(finished, monkeypatch, capsys):
    monkeypatch.setenv("QT_HOME", str(finished.parent))
    monkeypatch.setenv("COLUMNS", "80")
    assert qt("trials", monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out
    words = ("market", "candles", "among them", "effective", "best Sharpe", "deflated", "passed", "highest t", "needed")
    assert all(word in shown for word in words)
    assert f"best of market 1: qt backtest '{WORLD}'" in shown
    tables = shown.split("highest t: of what")[0].splitlines()
    assert max(map(len, tables)) <= 80
    assert "\u2026" not in shown


def test_report_is_rebuilt(finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    (finished / "report.html").unlink()
    assert qt("report", str(finished), monkeypatch=monkeypatch) == 0
    assert "<html" in Path(capsys.readouterr().out.split()[-1]).read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["backtst"], "No such command 'backtst'. Did you mean 'backtest'? `qt"),
        (["backtest", "none.parquet"], "was 'none.parquet'"),
        (["backtest", "sample", "--set", "governor.max_daily=1"], "did you mean governor.max_daily_trades"),
        (["backtest", "sample", "--knows-until", ""], "--knows-until must be a time, was empty"),
        (["backtest", "sample", "--set", "governor.max_exposure=-1"], "governor.max_exposure must be a number in"),
        (["backtest", "sample", "--profile", "best"], "profile (--profile) must be one of default, published, original"),
        (["backtest", "sample", "--symbols", "ABC"], "was 'ABC'"),
        (["backtest", "sample", "--from", "2031-01-01"], "was 2031-01-01"),
        (["backtest", "sample", "--from", "2018-12-01"], "must have more bars than the warm-up"),
        (["backtest", "sample", "--predictions", "a", "--models", "b"], "exclude each other"),
        (["backtest", "sample", "--out", __file__], "--out must be a folder"),
        (["backtest", "sample", "--out", f"{__file__}/x"], "--out must be writable"),
        (["backtest", "sample", "--out", "/proc/x"], "--out must be writable"),
        (["train", "sample", "--out", "/proc/x"], "--out must be writable"),
        (["verify", "nowhere"], "was nowhere"),
        (["explain", __file__, "AAA", "2024-01-01"], f"of a journal `qt status {__file__} --export FOLDER` makes one"),
        (["scenarios", "nowhere.json"], "nowhere.json"),
        (
            ["scenarios", __file__, "--profile", "default"],
            "no case is about another, was 'default'; leave --profile out",
        ),
        (["scenarios", __file__], "write {schema_version: 1, cases: [{id, title, component, switches, config, input, expected}, ...]}"),
        (["backtest", "sample", "--seed", "x"], "--seed must be a whole number, was 'x'. `qt backtest --help`"),
        (["audit", "leakage", "sample", "--folds", "0"], "--folds must be at least 1, was '0'"),
        (["live", "--budget", "x"], "--budget must be a number, was 'x'"),
        (["live", "stage", "journal", "5"], "number must be at most 3, was '5'"),
        (["live", "--feed", "replay:sample"], "qt live must have --feed and --journal, was without --journal; see"),
        (["live", "--journal", "j"], "qt live must have --feed and --journal, was without --feed; see"),
        (["live"], "qt live must have --feed and --journal, was without --feed and --journal; see"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("QT_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert qt(*words, monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("qt: ")
    assert error.count("\n") == 1
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_own_predictions_go_in_and_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QT_HOME", str(tmp_path / "home"))
    bars = research.load_bars("simulated:random_walk?n_bars=400&n_symbols=2")
    research.Predictions.random(bars, seed=1).save(tmp_path / "mine.parquet")
    words = ["backtest", "simulated:random_walk?n_bars=400&n_symbols=2", "--predictions", str(tmp_path / "mine.parquet")]
    assert qt(*words, "--no-verify", "--quiet", "--out", str(tmp_path / "run"), monkeypatch=monkeypatch) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["verify"]["passed"] is None
    assert summary["assumptions"]["profile"] == "default"
    assert any("The ensemble made no trade because" in sentence for sentence in summary["traders"]["sentences"])


@pytest.mark.parametrize("profile", ["default", "published"])
def test_train_writes_models_that_backtest_serves(
    profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    models, world = str(tmp_path / "models"), "simulated:planted_edge?n_bars=900&n_symbols=2"
    assert qt("train", world, *SMALL[1:], "--profile", profile, "--out", models, monkeypatch=monkeypatch) == 0
    told = capsys.readouterr().out
    assert re.search(r"lgbm +1 +\d+ +\d+\.\d% ", told)
    assert told.strip().endswith(models)
    words = ["backtest", world, "--models", models, "--profile", profile, "--no-verify", "--json", "--out", str(tmp_path / "run")]
    assert qt(*words, monkeypatch=monkeypatch) == 0
    assert json.loads(capsys.readouterr().out)["models"]["lgbm"]["n"] > 0
    for wrong, said in (
        (
            [*words, "--set", "run.label=L3"],
            "run.label must be that of the models, L1, was L3; leave it out, or train with run.label=L3",
        ),
        (["backtest", world.replace("900", "250"), *words[2:]], "from where on the models serve, was to 2000-01-11T10:00; give later bars"),
    ):
        assert qt(*wrong, "--out", str(tmp_path / "refused"), monkeypatch=monkeypatch) == 2
        assert said in capsys.readouterr().err
        assert not (tmp_path / "refused").exists()


def test_our_fault_is_exit_code_3(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def broken() -> None:
        raise KeyError("inside")

    assert guarded(broken) == 3
    assert "our fault, KeyError" in capsys.readouterr().err


def test_doctor_lists_machine_and_parameters(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    assert qt("doctor", "--json", monkeypatch=monkeypatch) == 0
    assert json.loads(capsys.readouterr().out)["versions"]["numba"]
    assert qt("doctor", "--params", "--json", monkeypatch=monkeypatch) == 0
    rows = json.loads(capsys.readouterr().out)
    names = {row["name"] for row in rows}
    run = {f"{plan.TABLE}.{name}" for plan in (RunOptions, SearchPlan, StudyPlan) for name in plan.declared()}
    assert names == set(Params().flat()) | run | {"stages"}
    monkeypatch.setenv("COLUMNS", "80")
    assert qt("doctor", "--params", monkeypatch=monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [row["name"] for row in rows]
    for line, row in zip(lines, rows, strict=True):
        assert line.endswith(f"({row['allowed']})  {row['meaning']}" + (f"; read where {row['read']}" if row["read"] else ""))
