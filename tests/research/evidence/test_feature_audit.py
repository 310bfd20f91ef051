"""Does the feature audit find the family that knows something, and say nothing of the others?"""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import research
from qtcore.params import Params
from qtcore.types import Bars
from research.cli.app import app
from research.data.sketch import sketch
from research.errors import UserError
from research.evidence.feature_audit import audit_features
from research.evidence.ledger import Ledger
from research.evidence.skill import above_prior, mean_probs
from tests.support import PUBLISHED


def by_the_clock(n: int = 3_000, seed: int = 0) -> Bars:
    """Hourly candles that rise in the morning and fall in the evening, of all symbols alike."""
    bars = research.load_bars(f"simulated:random_walk?n_bars={n}&n_symbols=5&seed={seed}")
    hour = (bars.open_time // 3_600_000_000_000) % 24
    rise = np.cumsum(np.where(hour < 12, 0.004, -0.004))[:, None]
    planes = {name: getattr(bars, name) * np.exp(rise) for name in ("close", "high", "low", "open")}
    opens = np.vstack([planes["open"][:1], planes["close"][:-1]])
    high, low = np.maximum(planes["high"], opens), np.minimum(planes["low"], opens)
    return Bars(bars.open_time, bars.close_time, opens, high, low, planes["close"], bars.volume, bars.symbols, bars.interval)


@pytest.fixture(scope="module")
def found():
    return audit_features(by_the_clock(), "lgbm", "L1", ("clock", "flow"), PUBLISHED, preset="tiny", n_folds=2)


def test_the_clock_is_found_where_the_hour_knows_the_way(found):
    alone = {row["family"]: row["balanced_accuracy"] for row in found.rows if row["kind"] == "alone"}
    assert alone["clock"]["ci95"][0] > 0.02
    assert alone["flow"]["difference"] < 0.5 * alone["clock"]["difference"]
    beside = {row["family"]: row["balanced_accuracy"] for row in found.rows if row["kind"] == "beside"}
    assert beside["clock"]["ci95"][0] > 0.02
    assert [row["kind"] for row in found.rows] == ["alone", "alone", "beside", "beside", "all"]
    assert all(row["nanoseconds"] >= 0.0 for row in found.rows[:2])
    assert found.sentence.startswith("Of the families clock")
    assert "add to v5_rel; all of them give" in found.sentence
    json.dumps(found.to_dict(), allow_nan=False)


def test_every_training_counts_as_a_trial_of_the_market_once(tmp_path, monkeypatch):
    monkeypatch.setenv("QT_HOME", str(tmp_path))
    bars = research.load_bars("simulated:random_walk?n_bars=700&n_symbols=2")
    for _ in range(2):
        audit_features(bars, "lgbm", "L1", ("clock", "flow"), PUBLISHED, preset="tiny", n_folds=1)
        tried = Ledger().tried(sketch(bars[:300]))
        assert (tried.trials, tried.pending) == (4, 4)  # base, clock, flow, both


def test_a_class_is_said_where_it_is_likelier_than_usual():
    bars = research.load_bars("simulated:random_walk?n_bars=900&n_symbols=2")
    made = research.train(bars, ("lgbm",), "L1", PUBLISHED, preset="tiny", n_folds=2, maps=False)
    said = above_prior(mean_probs(made, ("lgbm",)), made)
    probs = made.probs[made.names.index("lgbm")]
    first = int(np.argmax(made.fold == 1))
    past = made.labels[: first - made.label.horizon]
    shares = np.array([(past == c).sum() for c in range(3)]) / (past >= 0).sum()
    rows = made.fold == 1
    known = ~np.isnan(probs[rows]).any(axis=-1)
    assert (said.action[rows][known] == np.argmax(probs[rows] / shares, axis=-1)[known]).all()
    assert (said.action[made.fold < 0] == -1).all()


def test_mistakes_are_told_before_a_training():
    bars = research.load_bars("simulated:random_walk?n_bars=300&n_symbols=2")
    for families, params, said in (
        (("clocks",), Params(), r"families \(--families\) must be among volatility, clock"),
        (("market",), Params(), "may hold market for 5 symbols"),
        (("clock",), Params().with_values({"features.sets": ["clock"]}), "must be others than features.sets alone, was clock"),
    ):
        with pytest.raises((UserError, ValueError), match=said):
            audit_features(bars, families=families, params=params)


def test_a_family_that_is_read_already_is_left_out(monkeypatch, tmp_path):
    monkeypatch.setenv("QT_HOME", str(tmp_path))
    params = PUBLISHED.with_values({"features.sets": ["v5_rel", "clock"]})
    found = audit_features(by_the_clock(2_000), "lgbm", "L1", ("clock",), params, preset="tiny", n_folds=2)
    assert [(row["family"], row["kind"]) for row in found.rows] == [("clock", "beside")]
    assert found.rows[0]["balanced_accuracy"]["ci95"][0] > 0.02
    assert found.rows[0]["nanoseconds"] >= 0.0
    assert found.sentence == "Left out of all, clock would be missed."


def test_the_command_shows_a_row_for_each(monkeypatch, tmp_path):
    monkeypatch.setenv("QT_HOME", str(tmp_path))
    words = [
        "audit",
        "features",
        "simulated:random_walk?n_bars=1200&n_symbols=2",
        "--families",
        "clock,flow",
        "--preset",
        "tiny",
        "--folds",
        "2",
    ]
    shown = CliRunner().invoke(app, [*words, "--label", "L1", "--out", str(tmp_path / "figures.json")])
    assert shown.exit_code == 0, shown.output
    assert "added to the base" in shown.stdout
    assert "against the base" in shown.stdout
    assert "added to all others" in shown.stdout
    assert [(r["family"], r["kind"]) for r in json.loads((tmp_path / "figures.json").read_text())["rows"]] == [
        ("flow", "alone"),
        ("clock", "beside"),
        ("all", "all"),
    ]
