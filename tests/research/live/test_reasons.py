"""Reasons with their numbers: log, pages of a journal and of a run, and the explanation say the same of the same decision."""

import re
from collections import Counter
from pathlib import Path

import pytest

from qtcore.rules import RULES, Reason
from research import backtest
from research.data import load_bars
from research.live.dashboard.server import page
from research.live.monitoring import cell_history
from research.live.monitoring.sources import open_source
from research.runs.config import Config
from research.runs.explain import explain_decision
from research.runs.reason_text import Asked, reason_text
from research.training.predictions import Predictions
from tests.support import PUBLISHED
from tests.support.live_world import WORLD, replay

TIGHT = {
    "governor.min_confidence": 0.55, "governor.max_exposure": 0.15, "governor.max_daily_trades": 8, "governor.cooldown_minutes": 300,
    "governor.max_drawdown": 0.003, "governor.drawdown_reset": "daily",
}  # fmt: skip
ORDERED = TIGHT | {"governor.order": "by_confidence", "governor.drawdown_basis": "balance", "governor.exposure_mode": "existing"}
REFUSED = re.compile(r"(\S+)Z \| \[GOVERNER\] (\S+) REJECTED: \w+ \S+ HOLD \| Reason: (.*)")
ARBITER = re.compile(r"(\S+)Z \| \[Arbiter\] (\S+) (?:OVERRIDE|DEFER): .* \| Reason: (.*)")
NUMBERED = ("LOW_CONFIDENCE", "MAX_DRAWDOWN_EXCEEDED", "DAILY_TRADE_LIMIT_REACHED", "MAX_EXPOSURE_EXCEEDED", "COOLDOWN_ACTIVE")


@pytest.fixture(scope="module", params=[TIGHT, ORDERED], ids=["by symbols", "by confidence"])
def world(request, tmp_path_factory) -> Path:
    """A folder with a run, the journal of the same decisions and its log."""
    folder, params = tmp_path_factory.mktemp("reasons"), PUBLISHED.with_values(request.param)
    bars = load_bars(WORLD)
    predictions = Predictions.random(bars, seed=4)
    predictions.save(folder / "predictions.parquet")
    backtest(bars, predictions, params).save(folder / "run", record=False)
    replay(folder, folder / "journal.sqlite", log=folder / "live.log", config=Config(params=params))
    return folder


def logged(folder: Path, pattern: re.Pattern) -> dict[tuple[str, str], str]:
    text = (folder / "live.log").read_text(encoding="utf-8")
    return {(f"{time}Z", symbol): reason for time, symbol, reason in pattern.findall(text)}


def test_every_refusal_has_its_numbers_in_the_log(world):
    said = Counter(reason.partition(" (")[0] for reason in logged(world, REFUSED).values() if " (" in reason)
    assert set(said) == set(NUMBERED)
    assert min(said.values()) > 2


@pytest.mark.parametrize("name", ["journal.sqlite", "run"])
def test_pages_say_what_the_log_says(world, name):
    rows = {(row["time"], row["symbol"]): row for row in open_source(world / name).last(10_000)}
    refused, answered = logged(world, REFUSED), logged(world, ARBITER)
    assert {key: rows[key]["governor"] for key in refused} == refused
    assert {key: rows[key]["arbiter"]["reason"] for key in answered if key in rows} == {k: v for k, v in answered.items() if k in rows}
    words = {v.partition(":")[0] for v in answered.values()}
    assert {"buy_signal", "sell_signal"} <= words
    assert any("macd" in v for v in answered.values())
    shown = page(open_source(world / name))
    assert shown["decisions"] == list(rows.values())[:12]
    assert shown["status"]["last_decision"] == shown["decisions"][0]


def test_the_explanation_says_what_the_log_says(world):
    refused, answered = logged(world, REFUSED), logged(world, ARBITER)
    seen = set()
    for (time, symbol), reason in refused.items():
        if (kind := reason.partition(" ")[0]) in seen:
            continue
        seen.add(kind)
        layers = {layer["name"]: layer for layer in explain_decision(world / "run", symbol, time)["layers"]}
        assert layers["governor"]["says"].endswith(f": {reason}")
    assert set(NUMBERED) <= seen
    for word in ("buy_signal", "defer_low_confidence"):
        (time, symbol), reason = next((key, v) for key, v in answered.items() if v.startswith(word))
        saw = {layer["name"]: layer for layer in explain_decision(world / "run", symbol, time)["layers"]}["arbiter"]["saw"]
        assert reason in (saw["reason"], saw["gate"].removeprefix("rejected: "))


def test_numbers_come_from_the_account_before_the_cell(world):
    """Exposure and drawdown are more than the limit, entries of the day are the limit itself; a halt that outlives its loss names none."""
    for reason in logged(world, REFUSED).values():
        found = [float(x) for x in re.findall(r"\d+\.?\d*", reason.partition("(")[2])]
        if found and reason.startswith(("MAX_EXPOSURE_EXCEEDED", "MAX_DRAWDOWN_EXCEEDED")):
            assert found[0] >= found[1]
        if reason.startswith("DAILY_TRADE_LIMIT_REACHED"):
            assert found == [8.0, 8.0]
        if reason.startswith("COOLDOWN_ACTIVE"):
            assert 0.0 < found[0] <= 300.0


def test_indicators_that_began_before_the_journal_are_not_guessed(world, monkeypatch, tmp_path):
    """A journal that begins in the middle of a market keeps no candles of its history: the signal stands alone until they are settled."""
    journal = tmp_path / "late.sqlite"
    replay(world, journal, live_from="2000-01-05", log=tmp_path / "live.log")
    reasons = {row["arbiter"]["reason"] for row in open_source(journal).last(1_000) if row["arbiter"]}
    assert {"buy_signal", "sell_signal"} <= reasons
    monkeypatch.setattr(cell_history, "SETTLED", 10)
    monkeypatch.setattr("research.live.monitoring.journal_source.SETTLED", 10)
    reasons = {row["arbiter"]["reason"] for row in open_source(journal).last(1_000) if row["arbiter"]}
    assert any(":" in reason for reason in reasons)


def test_every_sentence_of_the_table_can_be_said():
    asked = Asked(8_000.0, 8_100.0, 10_000.0, 4_500.0, 20, 0, 60_000_000_000, (0.55, 1.5))
    opinion = dict.fromkeys(("confidence", "ensemble_confidence", "meta_confidence", "arbiter_confidence", "arbiter_score"), 0.5)
    for rule in RULES:
        said = reason_text(rule.reason, PUBLISHED, opinion | asked.numbers(rule.reason, PUBLISHED, opinion))
        assert (said != rule.name) == bool(rule.text)
    assert reason_text(Reason.MAX_DRAWDOWN_EXCEEDED, PUBLISHED, asked.numbers(Reason.MAX_DRAWDOWN_EXCEEDED, PUBLISHED, opinion)) == (
        "MAX_DRAWDOWN_EXCEEDED (20.0% > 15.0%)"
    )
    assert reason_text(Reason.COOLDOWN_ACTIVE, PUBLISHED, {"cooldown_left": float("nan")}) == "COOLDOWN_ACTIVE"
