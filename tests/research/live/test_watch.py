"""Do the windows into paper trading show what is in the journal, and is nothing let in that should stay out?"""

import io
import json
import re
import sqlite3
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qtcore import Params
from qtcore.choices import MetaMode
from qtcore.rules import Reason
from qtcore.types import Action, Verdict
from research import backtest
from research.cli.app import app
from research.cli.common import guarded
from research.cli.terminal import Terminal
from research.data import load_bars, save_bars, to_pandas
from research.data.load import DataWarning
from research.errors import UserError
from research.live.dashboard.monitor import _bands, screen
from research.live.dashboard.server import page
from research.live.monitoring.counts import COUNTED, LiveCounts
from research.live.monitoring.envelope_view import written
from research.live.monitoring.gap import live_gap
from research.live.monitoring.governor_export import export_governor, governor_state
from research.live.monitoring.health import health, status, validate, worst
from research.live.monitoring.journal_source import JournalSource
from research.live.monitoring.run_source import RunSource
from research.live.monitoring.sources import open_source
from research.live.session.governor_file import read_governor
from research.live.start import LiveOptions, start_live
from research.runs.tables import decision_planes
from research.training.predictions import Predictions
from research.workflow.run import Run
from tests.support import PUBLISHED
from tests.support.as_published import CONFIG
from tests.support.live_world import WORLD, replay, traded


@pytest.fixture(scope="module")
def watched(tmp_path_factory) -> tuple[Path, Path, Run]:
    return traded(tmp_path_factory.mktemp("watched"))


def test_journal_and_run_folder_show_the_same(watched):
    journal, folder, run = watched
    live, done = open_source(journal), open_source(folder)
    assert isinstance(live, JournalSource)
    assert isinstance(done, RunSource)
    assert live.tally() == done.tally()
    a, b = live.book(), done.book()
    for name in ("balance", "equity", "exposure", "trades_today", "total_trades"):
        assert getattr(a, name) == getattr(b, name), name
    assert [p["symbol"] for p in a.positions] == [p["symbol"] for p in b.positions]
    assert a.recent == b.recent
    assert live.last(5) == done.last(5)
    assert np.array_equal(live.equity()[1], done.equity()[1])
    assert a.equity == run.result.equity[-1]
    assert live.params() == done.params()


def test_counts_are_those_of_the_decisions(watched):
    journal, _, run = watched
    tally, d = JournalSource(journal).tally(), run.result.decisions
    assert tally.cells == int((d.n_voters > 0).sum())
    assert tally.escalated == int((d.verdict == Verdict.ESCALATE).sum())
    assert tally.called == int((d.arbiter_action >= 0).sum())
    assert tally.approved == int((run.result.governor_reason == Reason.APPROVED).sum())
    assert tally.sources.total() == tally.cells
    confidence = d.ensemble_confidence[d.n_voters > 0]
    assert tally.confidence_std == pytest.approx(float(confidence.std()), rel=1e-9)  # two ways of summing


def test_counts_in_parts_are_counts_of_the_whole(watched):
    planes = {name: plane for name, plane in decision_planes(watched[2]).items() if name in COUNTED}
    whole, parts = LiveCounts(), LiveCounts()
    bar = np.broadcast_to(np.arange(300)[:, None], planes["verdict"].shape)
    whole.add(planes, bar)
    for a, b in ((0, 7), (7, 8), (8, 300)):
        parts.add({name: plane[a:b] for name, plane in planes.items()}, bar[a:b])
    assert (parts.last_vote, parts.newest) == (whole.last_vote, whole.newest)
    assert parts.counts() == whole.counts()
    assert parts.rates() == whole.rates()


def tally_of(**counts) -> LiveCounts:
    return replace(LiveCounts(cells=1000, judged=1000, called=1000, accepted=400, arbiter_holds=10, escalated=250), **counts)


@pytest.mark.parametrize(
    ("counts", "name", "level"),
    [
        ({}, "escalation rate", "healthy"),
        ({"escalated": 450}, "escalation rate", "healthy"),  # between the bands: the milder neighbour
        ({"escalated": 501}, "escalation rate", "warning"),
        ({"escalated": 801}, "escalation rate", "critical"),
        ({"judged": 49, "escalated": 49}, "escalation rate", "unknown"),
        ({"accepted": 99}, "arbiter override rate", "warning"),
        ({"accepted": 0, "arbiter_holds": 1000}, "arbiter override rate", "critical"),
        ({"errors": 1}, "errors", "warning"),
        ({"errors": 11}, "errors", "critical"),
        ({"feature_errors": 1}, "feature errors", "healthy"),
        ({"feature_errors": 2}, "feature errors", "warning"),
        ({"overridden": 401}, "override rate", "warning"),
    ],
)
def test_health_has_the_bands_of_the_specification(counts, name, level):
    rows = {row["name"]: row for row in health(tally_of(**counts), MetaMode.OVERRIDE)}
    assert rows[name]["level"] == level


def test_rates_have_no_band_where_opinions_have_a_price():
    rows = {row["name"]: row for row in health(tally_of(escalated=900, accepted=0, arbiter_holds=1000, overridden=600), MetaMode.BET)}
    assert [rows[name]["said"] for name in ("without an edge", "arbiter accepted", "shrunk or left out by the meta layer")] == [
        "90 %",
        "0 %",
        "60 %",
    ]
    assert worst(list(rows.values())) == "healthy"
    assert worst(health(tally_of(errors=20), MetaMode.BET)) == "critical"


@pytest.mark.parametrize(
    ("counts", "name", "said"),
    [
        ({"accepted": 651}, "arbiter override rate", "65.1 %, outside 30-60 %"),  # not worth a warning, but not within either
        ({}, "arbiter override rate", "40 %, within 30-60 %"),
        ({"escalated": 67}, "escalation rate", "6.7 %, outside 15-35 %"),
        ({"judged": 49, "escalated": 12}, "escalation rate", "24.5 %, too few to judge"),
        ({"judged": 0, "escalated": 0}, "escalation rate", "n/a"),
        ({}, "errors", "0 %, as it should be"),
        ({"errors": 4}, "errors", "0.4 %, should be 0 %"),
    ],
)
def test_a_rate_says_how_it_lies_to_its_band(counts, name, said):
    assert {row["name"]: row["said"] for row in health(tally_of(**counts))}[name] == said


def test_monitor_page_and_alarms_say_the_same_of_a_rate(watched):
    source = open_source(watched[1])
    source._tally = tally_of(accepted=651, escalated=501)
    said = page(source)["status"]
    rows = {row["name"]: row for row in said["health"]["rows"]}
    assert rows["arbiter override rate"]["said"] == "65.1 %, outside 30-60 %"
    assert {"level": "warning", "name": "escalation rate", "text": "50.1 %, outside 15-35 %"} in said["alarms"]
    terminal = Terminal(file=io.StringIO(), width=160)
    terminal.print(screen(source))
    drawn = terminal.file.getvalue()
    assert "65.1 %, outside 30-60 %" in drawn
    assert "50.1 %, outside 15-35 %" in drawn
    assert "healthy" not in drawn


def test_80_columns_cut_no_band_and_no_judgement():
    row = {"name": "patchtst: confidence above accuracy", "kind": "gap", "is_out": True}
    row |= {"value": 0.142, "low": -0.616, "high": 0.568, "usual": -0.025}
    due = {"cause": "weekly", "rule": "seldom", "text": "", "since": ""}
    terminal = Terminal(file=io.StringIO(), width=80)
    terminal.print(*_bands({"due": [due], "rows": [row], "inside": 0, "text": "last 24 bars"}))
    drawn = terminal.file.getvalue()
    assert "\u2026" not in drawn
    assert all(text in drawn for text in (written(row, "high"), written(row, "usual"), " out "))


@pytest.mark.parametrize(
    ("mode", "counted", "n", "passes"),
    [("policy", "escalations", 801, False), ("policy", "escalations", 500, True), ("override", "overrides", 401, False)],
)
def test_status_and_validation_count_the_same_overrides(watched, monkeypatch, mode, counted, n, passes):
    source = open_source(watched[1])
    source._tally = tally_of(**{"escalated" if counted == "escalations" else "overridden": n})
    params = source.params().with_values({"meta.mode": mode})
    monkeypatch.setattr(source, "params", lambda: params)
    said, check = status(source), validate(source)["validation"]["checks"]["meta"]
    assert (said["meta_overrides"], said["meta_overrides_count"], said["override_rate"]) == (n, counted, n / 1000)
    assert (check["value"], check["passed"]) == (n / 1000, passes)
    assert counted in check["rule"]


def test_the_worst_level_counts():
    assert worst(health(tally_of())) == "healthy"
    assert worst(health(tally_of(errors=20))) == "critical"
    assert worst(health(LiveCounts())) == "unknown"


def test_validation_passes_and_fails(watched):
    folder = watched[1]
    report = validate(open_source(folder))
    json.dumps(report, allow_nan=False)
    assert report["validation"]["verdict"] == ("PARTIAL" if open_source(folder).book().is_halted else "PASSED")
    assert report["active_agents"] == 4
    assert report["metrics"]["confidence_std"] > 0.02
    source = JournalSource(watched[0])
    source._tally, source._seen = LiveCounts(cells=10), 10**9
    assert validate(source)["validation"]["verdict"] == "FAILED"


@pytest.mark.parametrize(("leans", "passes"), [({-1: 600, 1: 400}, True), ({0: 600, 1: 400}, False), ({}, False)])
def test_an_opinion_with_a_price_must_lean_to_both_sides(watched, monkeypatch, leans, passes):
    source = open_source(watched[1])
    source._tally = tally_of(ensemble=Counter({Action.HOLD: 1000}), leans=Counter(leans))
    monkeypatch.setattr(source, "params", lambda: Params())
    check = validate(source)["validation"]["checks"]["signal_variety"]
    assert check == {"passed": passes, "value": len({*leans} - {0}), "rule": "leans to both sides"}


def test_the_status_has_the_documented_keys(watched):
    said = status(open_source(watched[0]))
    json.dumps(said, allow_nan=False)
    documented = "version model_ready total_predictions meta_overrides override_rate fallback_reasons meta_threshold consensus_threshold"
    assert set(documented.split()) <= set(said)
    assert said["latency_seconds"]["median"] > 0.0
    assert status(open_source(watched[1]))["latency_seconds"] is None


def test_what_a_meta_layer_without_a_seat_says_of_a_bet_is_advice_and_no_threshold_is_shown_that_none_reads(watched, monkeypatch):
    source = open_source(watched[1])
    source._tally = tally_of(defer_reasons=Counter({Reason.BET_SKIPPED: 900, Reason.NONE: 100}))
    assert set(status(source)) >= {"meta_threshold", "consensus_threshold"}
    monkeypatch.setattr(source, "params", lambda: Params())
    said = status(source)
    assert (said["defer_reasons"], said["advice"]) == ({"none": 100}, {"bet_skipped": 900})
    assert not {"meta_threshold", "consensus_threshold"} & set(said)
    assert "confidence_threshold" not in said["arbiter"]
    assert said["layers"]["arbiter"] == {"word": "advises", "text": "no seat: no map is known yet"}
    console = Terminal(width=80, record=True, file=io.StringIO())
    console.print(screen(source))
    assert "SEATS OF THE LAYERS" in console.export_text()


def test_the_head_speaks_of_rates_alone_since_alarms_may_stand_beside_it(watched, monkeypatch):
    source = open_source(watched[1])
    source._tally = tally_of()
    monkeypatch.setattr(source, "allowed", lambda: {"unskilled": ["xgb"]})
    console = Terminal(width=120, record=True, file=io.StringIO())
    console.print(screen(source))
    text = console.export_text()
    assert "  no rate warns\n" in text
    assert "! models: xgb: served without skill" in text
    assert "no warning" not in text
    assert "SEATS OF THE LAYERS" not in text  # as published, what is on acts


@pytest.mark.parametrize(("mode", "word"), [("bet", "warns"), ("override", "fails"), ("policy", "passes")])
def test_a_meta_layer_that_had_no_model_is_told(watched, monkeypatch, mode, word):
    """In mode `bet` the map's bets are made as they are, which is no fault; policies are rules of their own."""
    source = open_source(watched[1])
    source._tally = tally_of(meta_reasons=Counter({Reason.CLEAR_ENSEMBLE_NO_MODEL if mode == "policy" else Reason.MODEL_NOT_LOADED: 1000}))
    params = Params() if mode == "bet" else source.params().with_values({"meta.mode": mode})
    monkeypatch.setattr(source, "params", lambda: params)
    check = validate(source)["validation"]["checks"]["meta"]
    assert (check["passed"], check["warning"]) == (word != "fails", word == "warns")
    assert (check["value"] == "no model") == (mode != "policy")
    assert status(source)["layers"]["meta"]["word"] == ("on" if mode == "policy" else "no model")


def test_a_page_over_a_growing_journal_follows(watched, tmp_path):
    replay(watched[0].parent, tmp_path / "j", until=50)
    source = open_source(tmp_path / "j")
    first = page(source)["status"]["total_predictions"]
    replay(watched[0].parent, tmp_path / "j", until=120)
    assert page(source)["status"]["total_predictions"] > first
    replay(watched[0].parent, tmp_path / "j")
    assert source.tally().counts() == open_source(watched[0]).tally().counts()


def test_a_source_that_is_none_is_refused(tmp_path):
    with pytest.raises(UserError, match="was missing"):
        open_source(tmp_path / "none")
    (tmp_path / "x").write_bytes(b"\xffno journal\0" * 500)
    with pytest.raises(UserError, match="damaged"):
        open_source(tmp_path / "x")


# the governor's file


def test_the_governor_file_goes_out_and_comes_in(watched, tmp_path):
    source = JournalSource(watched[0])
    state = json.loads(export_governor(source, tmp_path / "g.json").read_text())
    assert state == governor_state(source) | {"last_updated": state["last_updated"]}
    assert state["current_balance"] == source.book().balance
    assert len(state["trade_history"]) == min(100, source.book().total_trades)
    state |= {"active_positions": {}, "current_balance": 8000.0, "peak_balance": 9000.0}
    (tmp_path / "in.json").write_text(json.dumps(state))
    replay(watched[0].parent, tmp_path / "j", until=100, import_governor=tmp_path / "in.json")
    taken = JournalSource(tmp_path / "j")
    assert taken.rows("SELECT equity FROM bars ORDER BY bar LIMIT 1")[0][0] == 8000.0
    assert taken.book().peak >= 9000.0
    assert taken.rows("SELECT COUNT(*) AS n FROM events WHERE kind = 'mismatch'")[0][0] == 0
    assert live_gap(tmp_path / "j")["identical"]
    with pytest.raises(UserError, match="empty journal"):
        replay(watched[0].parent, tmp_path / "j", import_governor=tmp_path / "in.json")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "was no JSON"),
        ("[]", "schema 1"),
        ('{"schema_version": 2}', "schema 1"),
        ('{"current_balance": -1}', "current_balance must be a positive number"),
        ('{"peak_balance": "much"}', "peak_balance"),
        ('{"active_positions": {"A": 5}}', "flat account"),
    ],
)
def test_an_unreadable_governor_file_is_refused(tmp_path, text, expected):
    (tmp_path / "g.json").write_text(text)
    with pytest.raises(UserError, match=expected):
        read_governor(tmp_path / "g.json")


# why live and backtest differ


def test_a_journal_is_its_own_backtest(watched):
    report = live_gap(watched[0])
    assert report["identical"]
    assert report["broker_mismatches"] == 0


def test_a_changed_decision_is_found(watched, tmp_path):
    replay(watched[0].parent, tmp_path / "j", until=80)
    with sqlite3.connect(tmp_path / "j") as db:
        db.execute("UPDATE decisions SET raw_confidence = raw_confidence + 1e-15 WHERE cell = 200")
    assert "raw_confidence" in live_gap(tmp_path / "j")["first_difference"]


def test_changed_parameters_are_replayed_too(watched, tmp_path):
    from research.live.session.controls import command, command_set

    folder = watched[0].parent
    replay(folder, tmp_path / "j", until=90)
    command(tmp_path / "j", command_set(["governor.min_confidence=0.5", "meta.enabled=false"]))
    replay(folder, tmp_path / "j")
    assert live_gap(tmp_path / "j")["identical"]


def faulty(bars, fault: str):
    """Bars as live may have seen them, against which `bars` is the reference."""
    planes = {name: getattr(bars, name).copy() for name in ("open", "high", "low", "close", "volume")}
    rows = np.arange(40, 280, 6)
    for name, plane in planes.items():
        if fault == "missing":
            plane[rows, 1] = np.nan
        elif name != "volume":
            plane[rows] *= 1.004
    return replace(bars, **planes)


@pytest.mark.parametrize(("fault", "bucket"), [("missing", "missing_candles"), ("revised", "revised_candles")])
def test_a_fault_lands_in_its_bucket(watched, tmp_path, fault, bucket):
    reference = load_bars(WORLD)
    save_bars(faulty(reference, fault), tmp_path / "bars.parquet")
    how = {"symbols": list(reference.symbols)}
    runner, close = start_live(
        LiveOptions(
            f"replay:{tmp_path / 'bars.parquet'}", tmp_path / "j", CONFIG, predictions=watched[0].parent / "predictions.parquet", how=how
        )
    )
    runner.run()
    close()
    report = live_gap(tmp_path / "j", reference)
    pnl = report["pnl"]
    assert report["identical"]
    assert sum(pnl["parts"].values()) == pytest.approx(pnl["difference"], abs=1e-6)
    assert [name for name, value in pnl["parts"].items() if value != 0.0] == [bucket]
    expected = (
        backtest(reference, Predictions.load(watched[0].parent / "predictions.parquet"), PUBLISHED).result.equity[-1]
        - PUBLISHED.broker.initial_cash
    )
    assert pnl["reference"] == pytest.approx(expected)


def late_entries(broker) -> None:
    """Make a broker that gets each entry order one bar late."""
    held, submit = [], broker.submit

    def late(orders):
        submit(held + [order for order in orders if order.kind == "exit"])
        held[:] = [order for order in orders if order.kind == "entry"]

    broker.submit = late


@pytest.mark.parametrize("fault", ["fees", "fills", "latency"])
def test_what_the_broker_does_otherwise_lands_in_its_bucket(watched, tmp_path, fault):
    runner, close = start_live(
        LiveOptions(f"replay:{WORLD}", tmp_path / "j", CONFIG, predictions=watched[0].parent / "predictions.parquet")
    )
    if fault == "latency":
        late_entries(runner.broker)
    else:
        runner.broker.params = runner.broker.params.with_values({f"broker.{'fee' if fault == 'fees' else 'slippage'}_rate": 0.002})
    runner.run()
    balance, held = runner.broker.balance, runner.broker._state["positions"]
    bars = runner.feed.bars
    close()
    report = live_gap(tmp_path / "j", load_bars(WORLD))
    pnl, parts = report["pnl"], report["pnl"]["parts"]
    assert report["identical"]
    assert report["broker_mismatches"] > 0
    open_ = sum(p["qty"] * (bars.close[-1, bars.symbols.index(name)] - p["entry_price"]) - p["entry_fee"] for name, p in held.items())
    assert pnl["live"] == pytest.approx(balance + open_ - PUBLISHED.broker.initial_cash, abs=1e-6)  # the broker's own books
    assert sum(parts.values()) == pytest.approx(pnl["difference"], abs=1e-6)
    assert parts[fault] < -1.0 or fault == "latency"
    others = sum(abs(value) for name, value in parts.items() if name != fault)
    assert abs(parts[fault]) > 20.0 * others
    assert report["broker"] == {name: parts[name] for name in ("fills", "fees", "latency")}


def test_a_lost_order_is_a_matter_of_fills(watched, tmp_path):
    runner, close = start_live(
        LiveOptions(f"replay:{WORLD}", tmp_path / "j", CONFIG, predictions=watched[0].parent / "predictions.parquet")
    )
    submit, lost = runner.broker.submit, []

    def lose_one(orders):
        if not lost:
            lost.extend(order for order in orders if order.kind == "entry")
        submit([order for order in orders if order not in lost])

    runner.broker.submit = lose_one
    runner.run()
    close()
    parts = live_gap(tmp_path / "j")["broker"]
    assert lost
    assert parts["fills"] != 0.0
    assert parts["fees"] == pytest.approx(0.0, abs=1e-9)
    assert parts["latency"] == 0.0


def test_decisions_after_the_next_close_are_counted(watched, tmp_path):
    replay(watched[0].parent, tmp_path / "j", until=20)
    with sqlite3.connect(tmp_path / "j") as db:
        db.execute("UPDATE bars SET received = close_time + 1")
        db.execute("UPDATE bars SET received = close_time + 3600000000000 WHERE bar IN (3, 4)")
        assert live_gap(tmp_path / "j")["late_bars"] == 0  # a replay is never late
        db.execute("UPDATE about SET value = 'false' WHERE key = 'is_replay'")
        db.commit()
        assert live_gap(tmp_path / "j")["late_bars"] == 2
        db.execute("DELETE FROM about WHERE key = 'is_replay'")  # a journal of before
        db.commit()
        assert live_gap(tmp_path / "j")["late_bars"] == 0
        db.execute("UPDATE about SET value = '\"ccxt:binance\"' WHERE key = 'feed'")
        db.commit()
    assert live_gap(tmp_path / "j")["late_bars"] == 2


def test_a_reference_of_another_market_is_refused(watched):
    other = load_bars("simulated:random_walk?n_bars=300&n_symbols=2")
    with pytest.raises(UserError, match="--reference must hold"):
        live_gap(watched[0], other)


def test_the_commands_answer(watched, tmp_path, capsys):
    journal, folder = str(watched[0]), str(watched[1])
    for words in (["status", journal], ["status", folder], ["live-gap", journal, "--json"], ["validate", folder, "--json"]):
        code = guarded(lambda words=words: app(words, standalone_mode=False))
        assert code in (0, 1)
        json.loads(capsys.readouterr().out)
    assert guarded(lambda: app(["monitor", journal, "--once"], standalone_mode=False)) == 0
    assert guarded(lambda: app(["status", journal, "--governor", str(tmp_path / "g.json")], standalone_mode=False)) == 0
    assert (tmp_path / "g.json").exists()
    assert guarded(lambda: app(["status", str(tmp_path / "none")], standalone_mode=False)) == 2


def test_live_gap_tells_what_the_reference_lacks(watched, tmp_path, capsys):
    now = to_pandas(load_bars(WORLD)).reset_index().sort_values(["symbol", "open_time"], ignore_index=True)
    now.drop(index=[40, 41]).to_csv(tmp_path / "now.csv", index=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        assert guarded(lambda: app(["live-gap", str(watched[0]), "--reference", str(tmp_path / "now.csv")], standalone_mode=False)) == 0
    head = capsys.readouterr().out
    assert head.startswith("what the data lacked: ")
    assert re.search(r"  - .*2 of 300 rows have no candle between the first and the last", head)
