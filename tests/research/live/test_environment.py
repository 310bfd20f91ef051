"""Does `qt live` read every variable of the original (`spec` 11.3), in the right order, and fail open or closed as told?"""

import json
import sqlite3
from pathlib import Path

import pytest

from qtcore.rules import Reason
from qtcore.types import Action, Source, Verdict
from research.cli.app import app
from research.cli.common import guarded
from research.data import load_bars
from research.live.monitoring.health import status
from research.live.monitoring.sources import open_source
from research.training.predictions import Predictions
from tests.research.live.test_live import planes_of
from tests.support import FLAG

WORLD = "simulated:random_walk?n_bars=90&n_symbols=2"
VARIABLES = {
    "META_AGENT_ENABLED": ("no", "meta.enabled", False),
    "META_OVERRIDE_THRESHOLD": ("0.71", "meta.override_threshold", 0.71),
    "META_V5_THRESHOLD": ("0.61", "meta.v5_threshold", 0.61),
    "META_FAIL_OPEN": ("FALSE", "meta.fail_open", False),
    "ARBITER_ENABLED": ("0", "arbiter.enabled", False),
    "ARBITER_THRESHOLD": ("0.8", "arbiter.gate_confidence", 0.8),
    "GOVERNOR_MAX_DAILY_TRADES": ("7", "governor.max_daily_trades", 7),
}


@pytest.fixture(scope="module")
def predictions(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("world") / "predictions.parquet"
    Predictions.random(load_bars(WORLD), seed=1).save(path)
    return path


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch):
    for name in (*VARIABLES, "META_V2_MODEL_DIR"):
        monkeypatch.delenv(name, raising=False)


def live(journal: Path, predictions: Path, *words: str) -> int:
    told = ["live", FLAG, "--feed", f"replay:{WORLD}", "--journal", str(journal), "--predictions", str(predictions), "--quiet", *words]
    return guarded(lambda: app(told, standalone_mode=False))


def params_of(journal: Path) -> dict:
    with sqlite3.connect(journal) as db:
        return json.loads(db.execute("SELECT params FROM versions ORDER BY id DESC").fetchone()[0])


def test_every_variable_is_read_and_a_flag_or_a_file_beats_it(predictions, tmp_path, monkeypatch):
    assert live(tmp_path / "plain", predictions) == 0
    plain = params_of(tmp_path / "plain")
    for name, (text, parameter, value) in VARIABLES.items():
        assert plain[parameter] != value
        monkeypatch.setenv(name, text)
    assert live(tmp_path / "set", predictions) == 0
    assert {parameter: params_of(tmp_path / "set")[parameter] for _, parameter, _ in VARIABLES.values()} == {
        parameter: value for _, parameter, value in VARIABLES.values()
    }
    (tmp_path / "qt.toml").write_text("[governor]\nmax_daily_trades = 9\n")
    words = ["--config", str(tmp_path / "qt.toml"), "--set", "arbiter.gate_confidence=0.9", "--set", "meta.enabled=true"]
    assert live(tmp_path / "flags", predictions, *words) == 0
    found = params_of(tmp_path / "flags")
    assert (found["governor.max_daily_trades"], found["arbiter.gate_confidence"], found["meta.enabled"]) == (9, 0.9, True)
    assert found["arbiter.enabled"] is False  # what no flag names, the environment still says


def test_the_environment_beats_a_profile_and_only_what_is_set_counts(predictions, tmp_path, monkeypatch):
    assert live(tmp_path / "original", predictions, "--profile", "original") == 0
    assert [params_of(tmp_path / "original")[name] for name in ("meta.enabled", "arbiter.enabled")] == [False, False]
    monkeypatch.setenv("META_AGENT_ENABLED", "True")
    assert live(tmp_path / "on", predictions, "--profile", "original") == 0
    assert [params_of(tmp_path / "on")[name] for name in ("meta.enabled", "arbiter.enabled")] == [True, False]


def test_research_reads_no_environment(monkeypatch):
    from research.runs.config import load_config

    for name, (text, _, _) in VARIABLES.items():
        monkeypatch.setenv(name, text)
    assert load_config("published").params.meta.enabled


def test_the_folder_of_the_meta_layer_comes_from_the_environment_unless_named(predictions, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("META_V2_MODEL_DIR", str(tmp_path / "from_environment"))
    assert live(tmp_path / "j", predictions) == 2
    assert "from_environment" in capsys.readouterr().err
    assert live(tmp_path / "j", predictions, "--meta", str(tmp_path / "named")) == 2
    said = capsys.readouterr().err
    assert "named" in said
    assert "from_environment" not in said


@pytest.mark.parametrize("is_open", [True, False])
def test_without_a_model_the_override_mode_fails_as_told(predictions, tmp_path, monkeypatch, is_open):
    monkeypatch.setenv("META_FAIL_OPEN", str(is_open))
    assert live(tmp_path / "j", predictions, "--set", "meta.mode=override") == 0
    planes = planes_of(tmp_path / "j", 2)
    judged = planes["n_voters"] >= 2
    assert judged.sum() > 50
    assert (planes["meta_reason"][judged] == Reason.MODEL_NOT_LOADED).all()
    if is_open:
        assert (planes["raw_action"][judged] == planes["ensemble_action"][judged]).all()
        assert (planes["source"][judged] == Source.ENSEMBLE).all()
    else:
        assert (planes["raw_action"][judged] == Action.HOLD).all()
        assert (planes["raw_confidence"][judged] == 0.0).all()
    told = status(open_source(tmp_path / "j"))
    assert (told["meta_overrides"], told["override_rate"]) == (0, 0.0)  # no model said a word
    assert told["fallback_reasons"] == {"model_not_loaded": judged.sum()}
    assert told["meta_failed_closed"] == (0 if is_open else judged.sum())
    assert ("meta layer" in {alarm["name"] for alarm in told["alarms"]}) != is_open
    assert (planes["verdict"][judged] == Verdict.DEFER).all()


def test_a_bet_layer_without_its_model_is_told_at_the_start_and_fails_the_validation(predictions, tmp_path, capsys):
    words = ["--feed", f"replay:{WORLD}", "--journal", str(tmp_path / "j"), "--predictions", str(predictions)]
    assert guarded(lambda: app(["live", *words], standalone_mode=False)) == 0
    sentence = "no meta model is served, so the meta layer says nothing; serve one with --meta RUN/models/meta"
    assert sentence in capsys.readouterr().out
    assert [event["text"] for event in open_source(tmp_path / "j").events(20) if event["text"].startswith(sentence)]
    assert status(open_source(tmp_path / "j"))["layers"]["meta"]["word"] == "no model"
    assert live(tmp_path / "off", predictions, "--profile=default", "--set", "meta.enabled=false") == 0
    assert not [event for event in open_source(tmp_path / "off").events(20) if event["text"].startswith(sentence)]


def test_a_variable_out_of_bounds_is_named(predictions, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ARBITER_THRESHOLD", "2")
    assert live(tmp_path / "j", predictions) == 2
    assert "environment variable ARBITER_THRESHOLD" in capsys.readouterr().err
