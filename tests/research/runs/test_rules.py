"""Table of rules: every reason declared once and whole, and one more appears everywhere without touching anything else."""

import io
import re
from collections import Counter

import numpy as np
import pytest

import research
from qtcore import Params
from qtcore.params import MetaMode
from qtcore.types import Action, Reason
from research.cli.terminal import Terminal
from research.evidence import reachability
from research.evidence.finding import no_trades
from research.live.dashboard.monitor import screen
from research.live.dashboard.server import WEB, page
from research.live.monitoring.metrics import metrics_text
from research.live.monitoring.sources import open_source
from research.report import build
from research.report.attribution_table import earned_table
from research.report.terms import limits_text
from research.runs.rules import RULES, refusals, rule_of, rules_of
from research.workflow.recording import save_certificate, save_run
from tests.support.fake_run import fake_run
from tests.support.pretend import NAME, pretend_rule


@pytest.mark.parametrize("reason", list(Reason), ids=lambda reason: reason.name)
def test_every_reason_has_one_rule(reason):
    assert [rule.reason for rule in RULES].count(reason) == 1
    assert rule_of(reason).layer in ("meta", "arbiter", "governor", "exit", "word")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.reason.name)
def test_what_a_rule_declares_exists(rule):
    values = Params().flat()
    assert bool(rule.modes) <= (rule.layer == "meta")
    assert not rule.parameter or rule.parameter in values
    assert (rule.off is None) or Params().with_values({rule.parameter: rule.off}).flat()[rule.parameter] == rule.off
    assert not rule.never or not rule.parameter or rule.off is not None
    assert not rule.limit or rule.is_threshold


def test_every_code_that_the_chain_writes_stands_in_the_layer_that_asks():
    ranges = {"meta": range(36), "arbiter": range(40, 48), "governor": range(60, 72)}
    for layer, within in ranges.items():
        missing = {r for r in Reason if r in within} - {rule.reason for rule in rules_of(layer)}
        assert missing <= {Reason.TIE, Reason.NEUTRAL_MARKET}
    assert {Reason.ZERO_SIZE, Reason.LIQUIDATED, Reason.GOVERNOR_ERROR} <= {rule.reason for rule in refusals()}
    assert all(rules_of("meta", mode) for mode in MetaMode)


def test_names_in_the_attribution_are_unique():
    names = Counter(rule.switch[0] for rule in RULES if rule.switch)
    assert set(names.values()) == {1}


def test_one_more_rule_is_counted_measured_and_shown(monkeypatch, tmp_path):
    """What a newcomer adds to the table reaches every table of a run's summary and its page."""
    rule = pretend_rule(monkeypatch)
    monkeypatch.setenv("QT_HOME", str(tmp_path / "home"))
    run = fake_run(seed=1)
    d, reasons = run.result.decisions, run.result.governor_reason
    wished = (d.n_voters > 0) & (d.raw_action != Action.HOLD) & (reasons == Reason.LOW_CONFIDENCE)
    reasons[wished] = rule.reason
    n = int(np.count_nonzero(wished))
    assert n > 100
    summary = run.summary
    assert summary["rates"]["counts"][f"veto.{NAME}"] == n
    assert summary["rates"]["veto"][NAME] > 0.0
    assert next(row for row in summary["rules"]["governor"] if row["rule"] == NAME)["decided"] == n
    (row,) = [row for row in summary["dead"]["thresholds"] if row["parameter"] == rule.parameter]
    assert (row["decided"], row["status"]) == (n, reachability.DECIDED)
    assert f"the rule {NAME} blocked" in no_trades(summary["rates"]["counts"], 0)
    assert f"; {rule.parameter} sets it" in no_trades(summary["rates"]["counts"], 0)
    assert "25 % of pretence" in limits_text(run.params.flat())
    folder = save_run(run, tmp_path / "run-20240101")
    save_certificate(folder, {"passed": True, "checks": [], "covers": [], "not_covered": []})
    html = build(folder).read_text(encoding="utf-8")
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))
    assert text.count("pretended rule") == 2  # the rates and the rules
    assert rule.parameter in text
    assert "25 % of pretence" in text


def test_one_more_rule_is_seen_by_whoever_watches(monkeypatch, tmp_path):
    """Status, the data of the dashboard's page, the terminal and Prometheus, of what one and the same run refused."""
    rule = pretend_rule(monkeypatch)
    monkeypatch.setenv("QT_HOME", str(tmp_path / "home"))
    run = fake_run(n=300, seed=1)
    run.result.governor_reason[run.result.governor_reason == Reason.LOW_CONFIDENCE] = rule.reason
    source = open_source(save_run(run, tmp_path / "run-20240101"))
    shown = {row["label"]: row for row in page(source)["status"]["governor"]["rules"]}
    assert list(shown) == [known.words for known in refusals()]
    row = shown["pretended rule"]
    assert (row["reason"], row["parameter"], row["value"]) == (NAME, "governor.kelly_fraction", 0.25)
    assert row["refused"] == source.tally().refusals[rule.reason] > 10
    console = Terminal(width=100, file=io.StringIO())
    console.print(screen(source))
    assert f"refused: pretended rule {row['refused']:,}" in console.file.getvalue()
    assert f'governor_rejections_total{{reason="{NAME}"}} {row["refused"]}.0' in metrics_text(source)


def test_the_page_names_no_rule_of_its_own():
    text = (WEB / "app.js").read_text(encoding="utf-8")
    assert [rule.words for rule in refusals() if rule.reason.name in text or (rule.label and rule.label in text)] == []


def test_one_more_rule_is_a_step_of_the_ladder(monkeypatch):
    pretend_rule(monkeypatch)
    bars = research.simulate("gaps", seed=3, n_bars=400, n_symbols=2)
    run = research.backtest(bars, research.Predictions.random(bars, seed=1))
    names = [row["layer"] for row in run.summary["attribution"]["layers"]]
    assert names[names.index("cooldown") + 1] == "kelly_fraction"
    assert "+ pretended rule" in [row[0] for row in earned_table(run.summary["attribution"]["layers"]).rows]
