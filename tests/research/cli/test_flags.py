"""Is a mistake in the flags told in one sentence, which names the flag, before anything is trained or written?"""

import pytest

from research.cli.app import app
from research.cli.common import guarded
from research.data import load
from research.training import walk_forward

DATA = "simulated:random_walk?n_bars=600&n_symbols=2&seed=2"
LIVE = ["live", "--feed", f"replay:{DATA}", "--journal", "journal"]


def test_flags_that_made_candles_do_not_need_are_told():
    found = load(DATA, calendar="sessions", time_label="close").report.lacked
    assert found == ["--time-label, --calendar and --interval were not needed: these bars are not read from a table"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["audit", "leakage", DATA, "--model", "nhits"], "model (--model) must look at one row, was nhits; take xgb or lgbm"),
        (["audit", "leakage", DATA, "--model", "tft"], "models must be among xgb, lgbm, nhits, patchtst, linear, was 'tft'"),
        (["audit", "leakage", DATA, "--preset", "slow"], "preset (--preset) must be one of"),
        (["audit", "leakage", DATA, "--label", "L77"], "label (--label, run.label) must be auto, L1"),
        (["audit", "leakage", DATA, "--seed", "-1"], "run.seed (--seed) must be an int in [0, 4294967295], was '-1'"),
        (["audit", "leakage", DATA, "--out", "."], "--out must be a file that can be written, was ., a folder"),
        (
            ["audit", "cpcv", DATA, "--out", "none/figures.json"],
            "--out must be a file that can be written, was none/figures.json, in a folder",
        ),
        (["audit", "cpcv", DATA, "--seed", "-1"], "run.seed (--seed) must be an int in"),
        (["audit", "nullworlds", DATA, "--worlds", "0"], "--worlds must be at least 1, was '0'"),
        (["audit", "nullworlds", DATA, "--folds", "0"], "--folds must be at least 1, was '0'"),
        (["audit", "nullworlds", DATA, "--kind", "shuffle"], "kind (--kind) must be one of sign_flip, phase, bootstrap, was 'shuffle'"),
        (["audit", "nullworlds", DATA, "--block", "0"], "block (--block) must be 1 row or more, was 0"),
        (["audit", "nullworlds", DATA, "--seed", "-1"], "run.seed (--seed) must be an int in"),
        (["backtest", DATA, "--set", "run.meta=svm"], "run.meta must be auto, none or one of"),
        (["backtest", DATA, "--set", "run.meta_vector=meta1"], "run.meta_vector must be auto or one of"),
        (["backtest", DATA, "--set", "run.meta_calibration=x"], "run.meta_calibration must be auto or one of"),
        (["backtest", DATA, "--calendar", "lunar"], "calendar (--calendar) must be one of regular, sessions, was 'lunar'"),
        (["train", DATA, "--out", "models", "--set", "run.meta=svm"], "run.meta must be auto, none or one of"),
        (["train", DATA, "--out", "models", "--engine", "spark"], "--engine must be one of local, ray, was 'spark'"),
        ([*LIVE, "--speed", "fast"], "--speed must be max, or bars a second above 0, was 'fast'; e.g. 2.5"),
        ([*LIVE, "--speed", "0"], "--speed must be max, or bars a second above 0, was '0'"),
        ([*LIVE, "--live-from", "noon"], "--live-from must hold times, was 'noon'"),
        ([*LIVE, "--timeframe", "1h"], "--timeframe must go with ccxt:EXCHANGE, was given with 'replay:simulated"),
        ([*LIVE, "--poll", "3"], "--poll must go with ccxt:EXCHANGE, was given with 'replay:simulated"),
        ([*LIVE, "--log-json"], "--log-json must come with --log, was without"),
    ],
)
def test_a_mistake_is_told_before_anything_is_read_or_trained(monkeypatch, tmp_path, capsys, words, sentence):
    def begins(*_, **__):
        raise AssertionError("the work began")

    monkeypatch.setenv("QT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(walk_forward, "_answers", begins)
    monkeypatch.setattr("research.live.feeds.feeds.ReplayFeed.__init__", begins)
    assert guarded(lambda: app(words, standalone_mode=False)) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
