"""Table of rules: one more rule appears everywhere without touching anything else."""

import io
import re

import numpy as np

import research
from qtcore.rules import Reason, refusals
from qtcore.types import Action
from research.cli.terminal import Terminal
from research.evidence import reachability
from research.evidence.finding import no_trades
from research.live.dashboard.monitor import screen
from research.live.dashboard.server import WEB, page
from research.live.monitoring.metrics import metrics_text
from research.live.monitoring.sources import open_source
from research.report import build
from research.report.attribution_table import earned_table
from research.report.terms import limits
from research.workflow.recording import save_certificate, save_run
from tests.support import PUBLISHED
from tests.support.fake_run import fake_run
from tests.support.pretend import NAME, pretend_rule


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
    assert "25 % of pretence" in limits(run.params.flat())
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
    run = research.backtest(bars, research.Predictions.random(bars, seed=1), PUBLISHED)
    names = [row["layer"] for row in run.summary["attribution"]["layers"]]
    assert names[names.index("cooldown") + 1] == "kelly_fraction"
    assert "+ pretended rule" in [row[0] for row in earned_table(run.summary["attribution"]["layers"]).rows]
