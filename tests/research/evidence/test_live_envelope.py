"""Does the live envelope know a drifted market from the usual one, count as the backtest counts, and say when to train again?"""

import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtcore.types import NS_PER_DAY
from research import backtest
from research.data import load_bars
from research.data.frames import save_bars
from research.errors import UserError
from research.evidence.envelope import BINS, FILE, Envelope, band, envelope_of, figures, psi
from research.live.monitoring import retraining
from research.live.monitoring.health import status
from research.live.monitoring.journal_source import JournalSource
from research.live.monitoring.self_checks import LiveWindow, looked
from research.live.monitoring.sources import open_source
from research.live.start import LiveOptions, start_live
from research.training.predictions import Predictions
from tests.conftest import assert_same_bits, shared_data
from tests.research.live.test_live import run_live
from tests.support import PUBLISHED
from tests.support.as_published import CONFIG

COUNTS = st.lists(st.integers(0, 10_000), min_size=BINS, max_size=BINS).filter(lambda counts: sum(counts) > 0)


@settings(max_examples=50, deadline=None)
@given(COUNTS, COUNTS)
def test_drift_is_never_negative_and_that_of_a_sample_with_itself_is_zero(counts, others):
    a, b = np.array(counts, float), np.array(others, float)
    assert psi(a, b / b.sum()) >= 0.0
    assert psi(a, a / a.sum()) < 1e-12
    assert psi(a[::-1].copy(), (b / b.sum())[::-1].copy()) == pytest.approx(psi(a, b / b.sum()), rel=1e-9, abs=1e-12)


def test_drift_is_the_published_sum():
    a, e = np.array([2000.0, 3000.0, 5000.0]), np.array([0.25, 0.25, 0.5])
    assert psi(a, e) == pytest.approx(-0.05 * np.log(0.2 / 0.25) + 0.05 * np.log(0.3 / 0.25), rel=1e-3)  # half a count more in each bin


@settings(max_examples=50, deadline=None)
@given(st.floats(0.01, 0.99), st.integers(50, 5000), st.floats(0.0, 0.2), st.integers(8, 60))
def test_a_band_holds_the_usual_and_widens_with_spread_and_few_windows(share, n, sd, windows):
    known = {"value": share, "mean": float(np.arcsin(np.sqrt(share))), "sd": sd, "windows": windows}
    low, high = band("rate.escalation", known, n)
    assert 0.0 <= low <= share <= high <= 1.0
    wider = band("rate.escalation", known | {"sd": sd + 0.1}, n)
    longer = band("rate.escalation", known | {"windows": windows + 10}, n)
    assert wider[0] <= low <= longer[0]
    assert longer[1] <= high <= wider[1]
    assert band("rate.escalation", known, n / 2)[1] >= high  # at least binomial


def test_a_band_is_left_by_chance_as_rarely_as_it_says():
    rng = np.random.default_rng(0)
    outside = 0
    for _ in range(4000):
        windows = rng.binomial(400, 0.3, 21) / 400  # twenty of the backtest, one live
        y = np.arcsin(np.sqrt(windows[:20]))
        low, high = band("rate.defer", {"mean": y.mean(), "sd": y.std(ddof=1), "windows": 20}, 400)
        outside += not low <= windows[20] <= high
    assert outside <= 12  # 4 expected at level 0.001


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    """Eight months of real hourly candles: six are the backtest, two are live."""
    source = shared_data("crypto_spot_1h_wide.parquet")
    names = load_bars(source, start="2024-01-01", end="2024-01-02").symbols[:5]
    bars = load_bars(source, symbols=names, start="2024-01-01", end="2024-09-01")
    folder = tmp_path_factory.mktemp("market")
    predictions = Predictions.random(bars, seed=2)
    cut = bars.n - 61 * 24
    run = backtest(bars[:cut], predictions.align(bars[:cut]), PUBLISHED)
    envelope = envelope_of(run)
    return bars, predictions, cut, envelope, folder


def live_on(bars, predictions, cut, envelope, folder: Path, **how) -> Path:
    """Replay the live part, the backtest's as history, with the envelope beside the predictions."""
    folder.mkdir()
    save_bars(bars, folder / "bars.parquet")
    predictions.align(bars).save(folder / "predictions.parquet")
    if envelope is not None:
        envelope.save(folder)
    start = str(np.datetime64(int(bars.open_time[cut]), "ns"))
    how = {"config": CONFIG, "live_from": start, "how": {"symbols": list(bars.symbols)}, **how}
    run_live(LiveOptions(f"replay:{folder / 'bars.parquet'}", folder / "j", predictions=folder / "predictions.parquet", **how))
    return folder / "j"


def events(journal: Path, kind: str) -> list[str]:
    with sqlite3.connect(journal) as db:
        return [text for (text,) in db.execute("SELECT text FROM events WHERE kind = ? ORDER BY id", (kind,))]


def test_two_usual_months_raise_no_alarm(market):
    bars, predictions, cut, envelope, folder = market
    journal = live_on(bars, predictions, cut, envelope, folder / "usual")
    assert events(journal, "envelope") == []
    said = status(open_source(journal))
    assert said["envelope"]["rows"]
    assert {row["name"].partition(".")[0] for row in said["envelope"]["rows"]} == {"rate", "accuracy", "calibration", "drift"}
    assert said["envelope"]["out"] == {}
    assert said["retrain_due"] == []
    assert (said["budget"]["ms"], said["budget"]["bars"]) == (250.0, bars.n - cut)


def test_a_drifted_market_names_the_feature(market):
    bars, predictions, cut, envelope, folder = market
    wild = np.exp(5.0 * (np.log(bars.close / bars.close[cut]))) / (bars.close / bars.close[cut])
    wild[:cut] = 1.0
    planes = {name: np.ascontiguousarray(getattr(bars, name) * wild) for name in ("open", "high", "low", "close")}
    journal = live_on(replace(bars, **planes), predictions, cut, envelope, folder / "drifted")
    drifted = [text.split()[0] for text in events(journal, "envelope")]
    assert any(name in drifted for name in ("drift.bb_upper_rel", "drift.bb_lower_rel", "drift.ema_10_rel", "drift.momentum_10"))
    assert any("above its band of 0.000 to" in text for text in events(journal, "envelope"))
    assert any(text.startswith("retraining is due: the market is another one than in the backtest by") for text in events(journal, "due"))


def test_a_changed_rule_is_a_rate_out_of_its_band(market):
    bars, predictions, cut, envelope, folder = market
    from research.runs.config import load_config

    config = load_config("published", sets=["meta.disagreement_threshold=0.2", "meta.consensus_threshold=0.99"])
    journal = live_on(bars, predictions, cut, envelope, folder / "ruled", config=config)
    assert any(text.startswith(("rate.escalation is", "rate.defer is")) for text in events(journal, "envelope"))
    said = status(open_source(journal))
    assert {alarm["name"] for alarm in said["alarms"]} >= set(said["envelope"]["out"]) > set()


def test_live_counts_are_those_of_the_backtest_however_they_are_read(market):
    bars, predictions, _, envelope, folder = market
    journal = folder / "usual" / "j"
    source = JournalSource(journal)
    whole = LiveWindow(envelope, source).advance()
    (last,) = source.rows("SELECT MAX(bar) AS last_bar FROM bars")[0]
    parts = LiveWindow(envelope, source)
    real = source.rows
    for stop in (last - 400, last - 399, last - 30, last):
        source.rows = lambda query, *values, stop=stop: [(real(query)[0][0], stop)] if "MAX(bar)" in query else real(query, *values)
        counts = parts.advance()
    for name, part in whole.items():
        assert_same_bits(part, counts[name], name)
    run = backtest(bars, predictions, PUBLISHED)
    voted = run.result.decisions.n_voters[-envelope.window :] >= 2
    assert whole["rate.escalation"][:, 1].tolist() == voted.sum(axis=1).tolist()
    known = (run.labels >= 0) & (run.result.votes.action[0] >= 0)
    right = known & (run.labels == run.result.votes.action[0])
    h = envelope.horizon
    assert whole["voter.xgb"][:, 2].tolist() == right[-envelope.window - h : -h].sum(axis=1).tolist()


def test_an_envelope_survives_its_file_and_damage_is_told(market, tmp_path):
    envelope = market[3]
    envelope.save(tmp_path)
    assert Envelope.load(tmp_path / FILE) == envelope
    assert Envelope.load(tmp_path / "none.json") is None
    assert (tmp_path / FILE).stat().st_size < 30_000
    (tmp_path / FILE).write_text(json.dumps(envelope.document | {"schema_version": 9}))
    with pytest.raises(UserError, match="must be of schema 1, was 9"):
        Envelope.load(tmp_path / FILE)
    (tmp_path / FILE).write_text("{")
    with pytest.raises(UserError, match="must be the envelope of a run as the backtest wrote it, was no JSON"):
        Envelope.load(tmp_path / FILE)


def test_a_run_and_a_short_one(tmp_path):
    bars = load_bars("simulated:random_walk?n_bars=700&n_symbols=2")
    run = backtest(bars, Predictions.random(bars, seed=1), PUBLISHED)
    folder = run.save(tmp_path / "run", record=False)
    assert Envelope.load(folder / FILE).window == 24
    assert envelope_of(backtest(bars[:150], Predictions.random(bars[:150], seed=1), PUBLISHED)) is None


def test_what_was_noticed_survives_a_restart(market):
    bars, *_, folder = market
    journal = folder / "ruled" / "j"
    before = events(journal, "envelope")
    how = {"symbols": list(bars.symbols)}
    asked = LiveOptions(
        f"replay:{folder / 'ruled' / 'bars.parquet'}", journal, CONFIG, predictions=folder / "ruled" / "predictions.parquet", how=how
    )
    runner, close = start_live(asked)
    (looks,) = [duty for duty in runner.duties if hasattr(duty, "envelope_file")]
    runner._resume()
    list(looks.before(runner, runner._bar + 1, 0))
    assert looks._out == looked(JournalSource(journal))["envelope"]["out"] != {}
    close()
    assert events(journal, "envelope") == before


# ---------------------------------------------------------------- due


def models_of(last: int, hashes=("a",)):
    split = {"close_time": {"fit": [0, last - 5], "test": [last - 4, last]}}
    return SimpleNamespace(artefacts=[SimpleNamespace(slot="xgb", hash=h, meta={"split": split}) for h in hashes])


def test_training_is_due_for_each_cause_alone():
    row = {"name": "accuracy.xgb", "value": 0.40, "usual": 0.50, "is_out": True}
    drift = {"name": "drift.rsi", "value": 2.0, "usual": 0.1, "is_out": True}
    meta = SimpleNamespace(config={"base_artefacts": ["a"]})
    fresh = models_of(0)
    assert list(retraining.retrain_reasons(fresh, meta, [], 7 * NS_PER_DAY)) == []
    assert [cause for cause, _ in retraining.retrain_reasons(fresh, meta, [], 7 * NS_PER_DAY + 1)] == ["weekly"]
    assert [cause for cause, _ in retraining.retrain_reasons(models_of(0, ("b",)), meta, [], 0)] == ["base_retrained"]
    assert list(retraining.retrain_reasons(fresh, meta, [row], 0)) == [
        ("accuracy", "accuracy fell by more than 5 points: xgb 40.0% after 50.0%")
    ]
    assert list(retraining.retrain_reasons(fresh, meta, [row | {"value": 0.46}], 0)) == []  # outside its band, but less than 5 points
    assert list(retraining.retrain_reasons(fresh, meta, [row | {"is_out": False}], 0)) == []  # 5 points that chance explains
    assert [cause for cause, _ in retraining.retrain_reasons(None, None, [drift], 0)] == ["drift"]


def test_figures_of_nothing_are_none():
    assert figures({"rate.defer": np.zeros(2), "voter.xgb": np.zeros(3)}, {}) == {
        "rate.defer": (None, 0.0), "accuracy.xgb": (None, 0.0), "calibration.xgb": (None, 0.0)
    }  # fmt: skip
