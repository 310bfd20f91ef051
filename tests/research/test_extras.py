"""Does the core run without its extras, and does each say which one is missing?"""

import sys
import tomllib
from pathlib import Path

import pytest

import research
from research.errors import EXTRAS, UserError, need
from tests.research.cli.test_cli import qt
from tests.support import PUBLISHED

ROOT = Path(__file__).resolve().parents[2]
CANDLES = "simulated:random_walk?n_bars=600&n_symbols=2"
SINCE = ("--from", "2024-01-01", "--out", "candles")


def test_extras_are_those_of_the_distribution() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for library, extra in EXTRAS.items():
        assert any(wanted.startswith((f"{library}>", f"{library}[")) for wanted in declared[extra]), library
    assert set(declared) - {"dev", "fuzz"} == {*EXTRAS.values()}
    assert any(all(extra in wanted for extra in EXTRAS.values()) for wanted in declared["dev"] if wanted.startswith("qtcore["))


def test_need_is_quiet_about_what_is_there() -> None:
    need("torch", "the test")


@pytest.mark.parametrize(
    ("library", "words", "wish"),
    [
        ("torch", ["backtest", CANDLES, "--set", "run.models=nhits"], "the model NHiTS"),
        ("torch", ["backtest", CANDLES, "--set", "run.models=lgbm,patchtst"], "the model PatchTST"),
        ("safetensors", ["train", CANDLES, "--out", "models"], "the model NHiTS"),
        ("torch", ["audit", "leakage", CANDLES, "--model", "nhits"], "the model NHiTS"),
        (
            "ccxt",
            ["data", "fetch", "binance", "--symbols", "BTC/USDT", "--timeframe", "1h", "--from", "2024-01-01", "--out", "c"],
            "exchange binance",
        ),
        ("ccxt", ["live", "--feed", "ccxt:binance", "--journal", "j", "--models", "m", "--symbols", "BTC/USDT"], "exchange binance"),
        ("optuna", ["sweep", CANDLES, "--grid", "governor.min_confidence=0.5,0.6", "--search", "adaptive"], "--search adaptive"),
        ("ray", ["sweep", CANDLES, "--grid", "governor.min_confidence=0.5,0.6", "--engine", "ray"], "--engine ray"),
        ("ray", ["train", CANDLES, "--out", "models", "--engine", "ray"], "--engine ray"),
    ],
)
def test_a_command_names_its_missing_extra(library, words, wish, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.startswith(("research.training.models.n", "research.training.models.patchtst"))]:
        monkeypatch.delitem(sys.modules, name)  # as a process that has not imported them yet
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, library, None)
    assert qt(*words, monkeypatch=monkeypatch) == 2
    said = capsys.readouterr().err
    assert said.splitlines()[-1] == f"qt: {wish} needs the {library} library, was not installed; pip install 'qtcore[{EXTRAS[library]}]'"


def test_the_network_of_the_meta_layer_names_its_missing_extra(monkeypatch) -> None:
    bars = research.load_bars(CANDLES)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=r"^the meta model mlp needs the torch library, was not installed; pip install 'qtcore\[neural\]'$"):
        research.train_meta(bars, research.Predictions.random(bars), PUBLISHED, kind="mlp")
