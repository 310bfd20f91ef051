"""Does paper trading do what the backtest did, bar by bar, and does it go on where it stopped?"""

import json
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import qtcore as qt
import research
from qtcore.rules import Reason
from qtcore.types import FILL, MODELS, NS_PER_HOUR, Bars
from research import backtest
from research.cli.app import app
from research.cli.common import guarded
from research.data import load_bars
from research.errors import UserError
from research.live.broker.paper import PaperBroker, difference
from research.live.feeds.feeds import Arrival, Assembler, ReplayFeed, parse_speed
from research.live.feeds.registry import open_feed
from research.live.journal.journal import Journal
from research.live.monitoring.gap import live_gap
from research.live.monitoring.health import status, validate
from research.live.monitoring.journal_source import JournalSource
from research.live.records import Order
from research.live.session import controls
from research.live.session.runner import Options, Runner
from research.live.start import LiveOptions, start_live
from research.live.storage.codec import cell_names, hash_state, pack_state, unpack_state
from research.runs.config import load_config
from research.runs.tables import decision_planes
from research.training.meta import MetaSchedule, train_meta
from research.training.predictions import Predictions
from tests.conftest import START, assert_same_bits, awkward_bars, shared_data
from tests.support import FLAG, PUBLISHED
from tests.support.as_published import CONFIG
from tests.support.live_market import content, events_of, make_market, replay_of, run_live


@pytest.fixture(scope="module")
def market(tmp_path_factory) -> tuple[Bars, Predictions, Path]:
    folder = tmp_path_factory.mktemp("market")
    return *make_market(folder, 260), folder


def wish(folder: Path, bars: Bars, journal: Path, **how) -> LiveOptions:
    return replay_of(folder, journal, how={"symbols": list(bars.symbols)}, **how)


def planes_of(path: Path, n_symbols: int) -> dict[str, np.ndarray]:
    with sqlite3.connect(path) as db:
        table = np.array(db.execute(f"SELECT {', '.join(cell_names(MODELS))} FROM decisions ORDER BY cell").fetchall(), float)
    return {name: table[:, k].reshape(-1, n_symbols) for k, name in enumerate(cell_names(MODELS))}


def check_against(run, journal: Path) -> None:
    """Decisions, orders, fills and equity of a journal are those of a backtest, bit for bit."""
    n_symbols = len(run.bars.symbols)
    planes = planes_of(journal, n_symbols)
    expected = decision_planes(run)
    for name in cell_names(MODELS):
        assert_same_bits(planes[name] + 0.0, expected[name].astype(float) + 0.0, name)
    with sqlite3.connect(journal) as db:
        lines = np.array(db.execute("SELECT equity, balance, exposure FROM bars ORDER BY bar").fetchall())
        for k, name in enumerate(("equity", "balance", "exposure")):
            assert_same_bits(lines[:, k], getattr(run.result, name), name)
        names = FILL.names or ()
        fills = db.execute(f"SELECT {', '.join(names)} FROM fills ORDER BY seq").fetchall()
        ours = [tuple(None if x != x else x for x in fill.tolist()) for fill in run.result.fills]
        assert fills == ours
        entries = db.execute("SELECT COUNT(*) FROM orders WHERE kind = 'entry'").fetchone()[0]
        assert entries == int((run.result.governor_reason == Reason.APPROVED).sum())
        assert db.execute("SELECT COUNT(*) FROM events WHERE kind = 'mismatch'").fetchone()[0] == 0


@pytest.fixture(scope="module")
def whole(market, tmp_path_factory):
    """An uninterrupted replay: (journal, hash of the state, backtest)."""
    bars, predictions, folder = market
    journal = tmp_path_factory.mktemp("whole") / "journal.sqlite"
    outcome, state = run_live(wish(folder, bars, journal))
    assert outcome.bars == bars.n
    return journal, state, backtest(bars, predictions, PUBLISHED)


def test_a_replay_is_the_backtest(whole):
    journal, state, run = whole
    assert len(run.result.fills) > 50
    check_against(run, journal)
    engine = qt.Engine(run.params)
    engine.run(run.bars, run.result.votes)
    assert hash_state(engine.state) == state


def test_a_replay_of_real_candles_is_the_backtest(tmp_path):
    source = shared_data("crypto_spot_1h_wide.parquet")
    names = load_bars(source, start="2024-03-01", end="2024-03-02").symbols[:19]
    bars = load_bars(source, symbols=names, start="2024-03-01", end="2024-04-01")
    predictions = Predictions.random(bars, seed=2)
    predictions.save(tmp_path / "predictions.parquet")
    how = {"symbols": list(names), "start": "2024-03-01", "end": "2024-04-01"}
    outcome, _ = run_live(
        LiveOptions(f"replay:{source}", tmp_path / "journal.sqlite", CONFIG, predictions=tmp_path / "predictions.parquet", how=how)
    )
    assert outcome.bars == bars.n == 744
    check_against(backtest(bars, predictions, PUBLISHED), tmp_path / "journal.sqlite")


def test_funding_is_the_same_too(tmp_path, market):
    bars, predictions, _ = market
    rng = np.random.default_rng(0)
    bars = replace(bars, funding=np.where(np.isnan(bars.close), np.nan, rng.normal(0.0, 1e-4, bars.close.shape)))
    journal = Journal(tmp_path / "j", {"symbols": bars.symbols, "interval": bars.interval}, durable=False)
    run = backtest(bars, predictions, PUBLISHED)
    broker = PaperBroker(tmp_path / "b", bars.symbols, run.params)
    runner = Runner(run.params, ReplayFeed(bars), journal, broker, predictions, options=Options(snapshot_bars=50, fills_gaps=False))
    runner.run()
    assert broker.balance == run.result.balance[-1]
    journal.close()
    check_against(run, tmp_path / "j")


def test_a_stopped_replay_goes_on_where_it_stood(market, whole, tmp_path):
    bars, _, folder = market
    journal, state, _ = whole
    for until in (1, 37, 38, 200, None):
        _, found = run_live(wish(folder, bars, tmp_path / "j"), until)
    assert found == state
    assert content(tmp_path / "j") == content(journal)
    outcome, _ = run_live(wish(folder, bars, tmp_path / "j"))
    assert (outcome.bars, outcome.resumed) == (0, bars.n)


def test_history_goes_through_as_one_block(market, tmp_path):
    bars, predictions, folder = market
    run_live(wish(folder, bars, tmp_path / "j", live_from=str(np.datetime64(int(bars.open_time[100]), "ns"))))
    late = replace(predictions, action=predictions.action.copy(), confidence=predictions.confidence.copy(), probs=None)
    late.action[:, :100], late.confidence[:, :100] = -1, np.nan
    equity = backtest(bars, late, PUBLISHED).result.equity
    with sqlite3.connect(tmp_path / "j") as db:
        assert [e for (e,) in db.execute("SELECT equity FROM bars ORDER BY bar")] == equity[100:].tolist()


def test_a_broker_that_lost_its_file_is_told_everything_again(market, whole, tmp_path):
    bars, _, folder = market
    run_live(wish(folder, bars, tmp_path / "j"), 120)
    for path in tmp_path.glob("j.paper*"):
        path.unlink()
    run_live(wish(folder, bars, tmp_path / "j"))
    assert content(tmp_path / "j") == content(whole[0])
    with sqlite3.connect(tmp_path / "j") as db:
        assert db.execute("SELECT COUNT(*) FROM events WHERE kind = 'mismatch'").fetchone()[0] == 0


def test_a_doubled_order_shows(market, tmp_path):
    bars, _, folder = market
    runner, close = start_live(wish(folder, bars, tmp_path / "j"))
    submit = runner.broker.submit
    runner.broker.submit = lambda orders: submit([*orders, *(replace(o, id=o.id + "-again", notional=2 * o.notional) for o in orders)])
    runner.run()
    close()
    with sqlite3.connect(tmp_path / "j") as db:
        assert db.execute("SELECT COUNT(*) FROM events WHERE kind = 'mismatch'").fetchone()[0] > 0


def test_orders_and_bars_are_taken_once(market, tmp_path):
    bars, _, _ = market
    params = PUBLISHED
    broker = PaperBroker(tmp_path / "b", bars.symbols, params)
    order = Order("A-1-entry", bars.symbols[0], "entry", 500.0, int(Reason.APPROVED))
    for _ in range(3):
        broker.submit([order])
    row = next(t for t in range(bars.n) if bars.open[t, 0] == bars.open[t, 0])
    first, again = (broker.advance(bars[row : row + 1], params) for _ in range(2))
    assert len(first) == 1
    assert difference(first, again) == ""
    broker.submit([order])
    assert len(broker.advance(bars[row + 1 : row + 2], params)) in (0, 1)
    assert broker.db.execute("SELECT COUNT(*) FROM fills WHERE order_id = 'A-1-entry'").fetchone()[0] == 1


def test_a_broker_at_the_close_is_refused(tmp_path):
    with pytest.raises(UserError, match="next_open"):
        PaperBroker(tmp_path / "b", ("A",), PUBLISHED.with_values({"broker.fill": "close"}))
    with pytest.raises(UserError, match=r"broker\.impact must be 0 in live trading, was 0\.1"):
        PaperBroker(tmp_path / "b", ("A",), PUBLISHED.with_values({"broker.impact": 0.1}))


# the journal's refusals


def small_journal(path: Path, symbols=("A", "B")) -> Journal:
    return Journal(path, {"symbols": symbols, "interval": NS_PER_HOUR}, durable=False)


def test_a_journal_in_use_is_refused(tmp_path):
    first = small_journal(tmp_path / "j")
    with pytest.raises(UserError, match="one runner at a time"):
        small_journal(tmp_path / "j")
    first.close()
    small_journal(tmp_path / "j").close()


def test_other_symbols_are_refused(tmp_path):
    small_journal(tmp_path / "j").close()
    with pytest.raises(UserError, match="same symbols"):
        small_journal(tmp_path / "j", ("B", "A"))


def test_another_version_and_other_files_are_refused(tmp_path):
    small_journal(tmp_path / "j").close()
    with sqlite3.connect(tmp_path / "j") as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(UserError, match="schema 2, was 99"):
        small_journal(tmp_path / "j")
    (tmp_path / "text").write_text("no database at all, only words" * 200)
    with pytest.raises(UserError, match="was a text file"):
        small_journal(tmp_path / "text")
    with sqlite3.connect(tmp_path / "other") as db:
        db.execute("CREATE TABLE x (y)")
    with pytest.raises(UserError, match="another SQLite file"):
        small_journal(tmp_path / "other")


def test_a_damaged_snapshot_gives_way_to_the_one_before(market, tmp_path):
    bars, _, folder = market
    run_live(wish(folder, bars, tmp_path / "j"), 100)
    with sqlite3.connect(tmp_path / "j") as db:
        db.execute("UPDATE snapshots SET state = zeroblob(1000) WHERE bar = (SELECT MAX(bar) FROM snapshots)")
    outcome, _ = run_live(wish(folder, bars, tmp_path / "j"), 101)
    assert outcome.resumed == 100
    with sqlite3.connect(tmp_path / "j") as db:
        db.execute("UPDATE snapshots SET state = zeroblob(1000)")
    with pytest.raises(UserError, match="intact snapshot"):
        run_live(wish(folder, bars, tmp_path / "j"))


def test_a_full_disk_loses_nothing(market, whole, tmp_path):
    bars, _, folder = market
    runner, close = start_live(wish(folder, bars, tmp_path / "j"))
    runner.options.snapshot_bars = 10_000
    pages = runner.journal.db.execute("PRAGMA page_count").fetchone()[0]
    runner.journal.db.execute(f"PRAGMA max_page_count = {pages + 250}")
    with pytest.raises(UserError, match="must fit on the disk"):
        runner.run()
    close()
    outcome, state = run_live(wish(folder, bars, tmp_path / "j"))
    assert 0 < outcome.resumed < bars.n
    assert state == whole[1]
    assert content(tmp_path / "j") == content(whole[0])


def test_a_state_survives_its_bytes():
    engine = qt.Engine(PUBLISHED)
    engine.run(awkward_bars(50))
    assert hash_state(unpack_state(pack_state(engine.state))) == hash_state(engine.state)


# feeds

A, B = ("A", "B"), 2


def candle(price_a: float, price_b: float = np.nan) -> np.ndarray:
    return np.array([[p, p, p, p, 1.0 + 0.0 * p] for p in (price_a, price_b)]).T


def assembler(**how) -> Assembler:
    return Assembler(A, NS_PER_HOUR, NS_PER_HOUR // 60, **how)


def at(hours: float) -> int:
    return START + int(hours * NS_PER_HOUR)


def test_a_bar_waits_for_every_symbol_or_the_grace_time():
    made = assembler()
    made.add(Arrival(at(1.0), at(0), candle(10.0)))
    assert made.ready(at(1.0)) is None
    made.add(Arrival(at(1.001), at(0), candle(np.nan, 20.0)))
    bars, events = made.ready(at(1.001))
    assert bars.close.tolist() == [[10.0, 20.0]]
    assert events == []
    made.add(Arrival(at(2.0), at(1), candle(11.0)))
    assert made.ready(at(2.0)) is None
    bars, events = made.ready(at(2.02))
    assert np.isnan(bars.close[0, 1])
    assert [(e.kind, e.symbol) for e in events] == [("missing", "B")]


def test_candles_out_of_order_are_decided_in_order():
    made = assembler()
    made.add(Arrival(at(1.0), at(0), candle(1.0, 1.0)))
    assert made.ready(at(1.0))[0].open_time[0] == at(0)
    made.add(Arrival(at(3.0), at(2), candle(3.0, 3.0)))
    made.add(Arrival(at(3.0), at(1), candle(2.0, 2.0)))
    assert [made.ready(at(3.0))[0].close[0, 0] for _ in range(2)] == [2.0, 3.0]


def test_a_bar_of_nobody_is_a_row_of_holes():
    made = assembler()
    made.add(Arrival(at(1.0), at(0), candle(1.0, 1.0)))
    made.ready(at(1.0))
    made.add(Arrival(at(4.0), at(3), candle(4.0, 4.0)))
    rows = [made.ready(at(4.0))[0] for _ in range(3)]
    assert [int(r.open_time[0]) for r in rows] == [at(1), at(2), at(3)]
    assert np.isnan(rows[0].close).all()
    assert np.isnan(rows[1].close).all()


def test_what_comes_after_the_decision_is_noted_and_not_used():
    made = assembler()
    made.add(Arrival(at(1.0), at(0), candle(10.0)))
    made.ready(at(1.5))
    for prices in (candle(10.0), candle(10.5), candle(np.nan, 20.0)):
        made.add(Arrival(at(1.6), at(0), prices))
    assert [(e.kind, e.symbol) for e in made.settle()] == [("late", "B"), ("duplicate", "A"), ("revised", "A")]
    made.add(Arrival(at(2.0), at(1), candle(11.0, 21.0)))
    assert made.ready(at(2.0))[0].close.tolist() == [[11.0, 21.0]]


def test_the_first_closed_candle_counts_before_the_decision_too():
    made = assembler()
    made.add(Arrival(at(1.0), at(0), candle(10.0)))
    made.add(Arrival(at(1.0), at(0), candle(12.0)))
    made.add(Arrival(at(1.0), at(0), candle(np.nan, 20.0)))
    bars, events = made.ready(at(1.0))
    assert bars.close.tolist() == [[10.0, 20.0]]
    assert [e.kind for e in events] == ["revised"]
    assert "share their timestamp with a row of other values" in events[0].text


def test_a_candle_of_the_future_and_an_impossible_one_are_refused():
    made = assembler()
    made.add(Arrival(at(0.5), at(0), candle(10.0, 20.0)))
    made.add(Arrival(at(1.0), at(0), candle(-10.0, 20.0)))
    made.add(Arrival(at(1.0), at(0), candle(10.0)))
    bars, events = made.ready(at(1.0))
    assert [(e.kind, e.symbol) for e in events] == [("skew", "A,B"), ("bad", "A"), ("revised", "A")]
    np.testing.assert_array_equal(bars.close, [[np.nan, 20.0]])


def test_a_feed_is_named_or_refused(market):
    bars, _, folder = market
    assert open_feed(f"replay:{folder / 'bars.parquet'}").bars.n == bars.n
    for text in ("replay:", "stream:x"):
        with pytest.raises(UserError, match="--feed must be"):
            open_feed(text)
    for text in ("fast", "0", "-1"):
        with pytest.raises(UserError, match="--speed"):
            parse_speed(text)


# steering


def test_the_kill_switch_blocks_entries_and_survives_a_restart(market, tmp_path):
    bars, _, folder = market
    journal = tmp_path / "j"
    run_live(wish(folder, bars, journal), 80)
    controls.command(journal, {"do": "stop", "now": False})
    run_live(wish(folder, bars, journal), 120)
    run_live(wish(folder, bars, journal), 160)
    with sqlite3.connect(journal) as db:
        entries = [b for (b,) in db.execute("SELECT bar FROM orders WHERE kind = 'entry'")]
        assert entries
        assert max(entries) < 80
        filled = db.execute("SELECT MAX(bar) FROM fills WHERE is_entry = 1").fetchone()[0]
        assert filled < 80, "a pending entry must be dropped, not filled"
        assert db.execute("SELECT COUNT(*) FROM events WHERE kind = 'mismatch'").fetchone()[0] == 0
        assert db.execute("SELECT COUNT(*) FROM decisions WHERE bar > 80 AND governor_reason = 63").fetchone()[0] > 0
    controls.command(journal, {"do": "lift"})
    run_live(wish(folder, bars, journal), 230)
    with sqlite3.connect(journal) as db:
        assert db.execute("SELECT COUNT(*) FROM orders WHERE kind = 'entry' AND bar >= 160").fetchone()[0] > 0


def test_stop_now_closes_everything_at_the_next_open(market, tmp_path):
    bars, _, folder = market
    journal = tmp_path / "j"
    run_live(wish(folder, bars, journal), 80)
    controls.command(journal, {"do": "stop", "now": True})
    runner, close = start_live(wish(folder, bars, journal))
    runner.watchers = (lambda entry: runner.stop() if entry.bar >= 84 else None,)
    runner.run()
    assert not runner.broker.positions
    assert float(runner.engine.account.account["exposure"][0]) == 0.0
    close()


def test_the_kill_file_acts_while_it_exists(market, tmp_path):
    bars, _, folder = market
    journal = tmp_path / "j"
    runner, close = start_live(wish(folder, bars, journal))
    kill = controls.kill_file_of(journal)

    def watch(entry) -> None:
        if entry.bar == 80:
            kill.touch()
        if entry.bar == 120:
            kill.unlink()

    runner.watchers = (watch,)
    runner.run()
    close()
    with sqlite3.connect(journal) as db:
        entries = [b for (b,) in db.execute("SELECT bar FROM orders WHERE kind = 'entry'")]
    assert not [b for b in entries if 80 < b <= 120]
    assert [b for b in entries if b > 120]


def test_a_rollback_holds_from_the_next_bar_and_touches_no_position(market, tmp_path):
    bars, predictions, folder = market
    journal = tmp_path / "j"
    run_live(wish(folder, bars, journal), 100)
    controls.command(journal, controls.command_set(["meta.enabled=false", "arbiter.enabled=off"]))
    run_live(wish(folder, bars, journal))
    since = str(np.datetime64(int(bars.close_time[100]), "ns"))
    staged = backtest(bars, predictions, PUBLISHED, stages=[(since, False, False)])
    check_against(staged, journal)


def test_stages_ahead_of_time_are_those_of_a_backtest(market, tmp_path):
    bars, predictions, folder = market
    times = [str(np.datetime64(int(bars.close_time[t]), "ns")) for t in (60, 150)]
    run_live(wish(folder, bars, tmp_path / "j", stages=f"{times[0]}=0,{times[1]}=2"))
    check_against(backtest(bars, predictions, PUBLISHED, stages=[(times[0], False, False), (times[1], True, True)]), tmp_path / "j")


def test_features_and_costs_cannot_change_while_running():
    for text in ("features.warmup=3", "broker.fee_rate=0", "meta.enabled"):
        with pytest.raises(UserError, match="a running chain takes"):
            controls.command_set([text])


def test_weights_that_cannot_hold_with_the_voters_are_refused_at_once(market, tmp_path, capsys):
    bars, predictions, folder = market
    journal = tmp_path / "j"
    run_live(wish(folder, bars, journal), 10)

    def qt_set(*words: str) -> int:
        return guarded(lambda: app(["live", "set", str(journal), *words], standalone_mode=False))

    first, *others = (f"ensemble.weights.{name}=0" for name in predictions.slots)
    assert qt_set("ensemble.weights.wood=0.9") == 2
    assert "ensemble.weights must name voters of this run, " in (said := capsys.readouterr().err)
    assert "was with 'wood'; correct it" in said
    assert qt_set(*others) == 0
    assert qt_set(first) == 2, "with the commands before it nobody is left"
    assert "must have a sum above 0 over the voters" in capsys.readouterr().err
    run_live(wish(folder, bars, journal), 20)
    assert qt_set(first) == 2, "also once those are in effect"
    with sqlite3.connect(journal) as db:
        assert db.execute("SELECT COUNT(*), COUNT(applied_bar) FROM control").fetchone() == (1, 1)


def test_regime_weights_by_name_hold_from_the_next_bar(market, tmp_path):
    bars, predictions, folder = market
    journal = tmp_path / "j"
    run_live(wish(folder, bars, journal), 10)
    name = f"ensemble.regime_weights.trend_uptrend.{predictions.slots[0]}"
    controls.command(journal, controls.command_set([f"{name}=0.5"]))
    runner, close = start_live(wish(folder, bars, journal))
    runner.run()
    close()
    assert 0.5 in runner.params.ensemble.regime_factors


WOOD = {"do": "set", "values": {"ensemble.weights.wood": 0.9, "arbiter.enabled": False}}


def test_a_stored_command_that_cannot_hold_ends_nothing_and_is_told_once(market, whole, tmp_path):
    bars, _, folder = market
    journal = tmp_path / "j"
    run_live(wish(folder, bars, journal), 100)
    with sqlite3.connect(journal) as db:  # as an earlier release took it
        db.execute("INSERT INTO control (time, command) VALUES (1, ?)", (json.dumps(WOOD),))
    run_live(wish(folder, bars, journal), 150)
    run_live(wish(folder, bars, journal))
    assert content(journal) == content(whole[0])
    with sqlite3.connect(journal) as db:
        assert db.execute("SELECT applied_bar FROM control").fetchall() == [(100,)]
        ((bar, time_, text),) = db.execute("SELECT bar, time, text FROM events WHERE kind = 'refused'").fetchall()
    assert (bar, time_) == (100, bars.close_time[100])
    assert text.startswith("command: set {'ensemble.weights.wood': 0.9, ")
    assert ": refused, ensemble.weights must name voters of this run, " in text


def test_a_command_that_a_restart_with_other_parameters_cannot_take_is_refused(market, tmp_path):
    bars, predictions, folder = market
    first, *others = predictions.slots
    journal = tmp_path / "j"
    run_live(wish(folder, bars, journal), 10)
    controls.command(journal, controls.command_set([f"ensemble.weights.{first}=0"]))
    only_first = load_config("published", sets=[f"ensemble.weights.{name}=0" for name in others])
    voting = []
    for until, config in ((20, load_config("published")), (30, only_first), (40, load_config("published"))):
        runner, close = start_live(wish(folder, bars, journal, config=config))
        runner.watchers = (lambda entry, runner=runner, until=until: runner.stop() if entry.bar + 1 >= until else None,)
        runner.run()
        close()
        voting.append([name for name, weight in zip(predictions.names, runner.params.ensemble.weights) if weight > 0.0])
    assert voting == [others, [first], others]
    assert events_of(journal, "refused") == 1


def test_explicit_beats_environment_beats_default():
    environment = {
        "META_AGENT_ENABLED": "TRUE", "ARBITER_ENABLED": "yes", "ARBITER_THRESHOLD": "0.9", "META_OVERRIDE_THRESHOLD": "0.7",
        "META_FAIL_OPEN": "False", "GOVERNOR_MAX_DAILY_TRADES": "7", "META_V5_THRESHOLD": "0.61", "PATH": "x",
    }  # fmt: skip
    said = controls.from_environment(environment)
    found = load_config("published", environment=said).params
    assert (found.meta.enabled, found.arbiter.enabled, found.meta.fail_open) == (True, False, False)
    assert (found.arbiter.gate_confidence, found.meta.override_threshold, found.meta.v5_threshold) == (0.9, 0.7, 0.61)
    assert found.governor.max_daily_trades == 7
    explicit = load_config("published", sets=["governor.max_daily_trades=20", "arbiter.enabled=on"], environment=said).params
    assert (explicit.governor.max_daily_trades, explicit.arbiter.enabled) == (20, True)
    assert load_config("published", environment=controls.from_environment({})).params == PUBLISHED
    with pytest.raises(UserError, match="GOVERNOR_MAX_DAILY_TRADES"):
        controls.from_environment({"GOVERNOR_MAX_DAILY_TRADES": "-1"})


# the command


def qt_live(*words: str, **how) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "research", "live", FLAG, *words], capture_output=True, text=True, **how)


def is_under_way(journal: Path, n_bars: int) -> bool:
    try:
        with sqlite3.connect(f"file:{journal}?mode=ro", uri=True) as db:
            return db.execute("SELECT COUNT(*) FROM bars").fetchone()[0] >= n_bars
    except sqlite3.OperationalError:
        return False


def test_the_command_stops_cleanly_and_goes_on(market, whole, tmp_path):
    bars, _, folder = market
    words = ["--feed", f"replay:{folder / 'bars.parquet'}", "--journal", str(tmp_path / "j"), "--symbols", ",".join(bars.symbols)]
    words += ["--predictions", str(folder / "predictions.parquet")]
    process = subprocess.Popen([sys.executable, "-m", "research", "live", FLAG, *words, "--speed", "40"], stdout=subprocess.PIPE, text=True)
    while not is_under_way(tmp_path / "j", 3):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "stopped" in said
    done = qt_live(*words, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["resumed"] >= 3
    assert content(tmp_path / "j") == content(whole[0])


def test_a_mistake_is_one_sentence(tmp_path, capsys):
    for words, expected in (
        (["live"], "--feed and --journal"),
        (["live", FLAG, "--feed", "replay:sample", "--journal", str(tmp_path / "j")], "--predictions or --models"),
        (["live", "stop", str(tmp_path / "none")], "was missing"),
        (["live", "stage", str(tmp_path / "none"), "1"], "was missing"),
    ):
        assert guarded(lambda words=words: app(words, standalone_mode=False)) == 2
        assert expected in capsys.readouterr().err


def test_models_served_bar_by_bar_are_those_of_the_backtest(tmp_path, capsys):
    world = "simulated:random_walk?n_bars=500&n_symbols=2"
    bars = load_bars(world)
    trained = research.train(bars, models=("lgbm",), n_folds=2, profile="published")
    trained.models.save(tmp_path / "models")
    train_meta(bars, Predictions.random(bars, seed=8), PUBLISHED, kind="logistic").save(tmp_path / "models" / "meta")
    asked = LiveOptions(
        f"replay:{world}", tmp_path / "j", CONFIG, models=str(tmp_path / "models"), allow_rejected=True, allow_synthetic=True
    )
    run_live(asked, until=350)
    run_live(asked)
    meta = MetaSchedule.load(tmp_path / "models" / "meta")  # lies with the models, so it is served with them
    run = backtest(bars, Predictions.from_models(tmp_path / "models", bars), PUBLISHED, meta=meta)
    check_against(run, tmp_path / "j")
    assert start_live(replace(asked, journal=tmp_path / "k"))[0].meta.hash == meta.hash
    source = JournalSource(tmp_path / "j")
    assert source.allowed() == {"unskilled": ["lgbm"]}
    told = {"level": "warning", "name": "models", "text": "lgbm: served without skill"}
    assert told in status(source)["alarms"]
    assert validate(source)["allowed"] == [told["text"]]
    guarded(lambda: app(["validate", str(tmp_path / "j")], standalone_mode=False))
    said = capsys.readouterr().out
    assert f"allowed  {told['text']}\nlayers: " in said
    assert said.endswith(", with models that are not accepted\n")


def test_a_learned_meta_layer_is_that_of_the_backtest(tmp_path):
    world = "simulated:random_walk?n_bars=900&n_symbols=3"
    bars = load_bars(world)
    predictions = Predictions.random(bars, seed=8)
    predictions.save(tmp_path / "predictions.parquet")
    config = load_config("published", sets=["meta.mode=override", "meta.override_threshold=0.3"])
    meta = train_meta(bars, predictions, config.params, kind="logistic")
    meta.save(tmp_path / "meta")
    asked = LiveOptions(f"replay:{world}", tmp_path / "j", config, tmp_path / "predictions.parquet", meta=tmp_path / "meta")
    with pytest.raises(
        UserError, match=r"the meta layer must be accepted to go live, was not: unskilled: .*; where decide.rule is edge it advises"
    ):
        start_live(asked)
    asked = replace(asked, allow_rejected=True)
    run_live(asked, until=700)
    run_live(asked)
    run = backtest(bars, predictions, config.params, meta=meta)
    assert (run.result.decisions.meta_action >= 0).any()
    check_against(run, tmp_path / "j")
    assert live_gap(tmp_path / "j", meta=meta)["identical"]


def test_a_slow_bar_is_noted_and_the_commit_counts(market, tmp_path):
    bars, _, folder = market
    runner, close = start_live(wish(folder, bars, tmp_path / "j"))
    runner.options.budget = 1
    runner.watchers = (lambda entry: runner.stop() if entry.bar == 9 else None,)
    outcome = runner.run()
    close()
    with sqlite3.connect(tmp_path / "j") as db:
        stored = [ns for (ns,) in db.execute("SELECT latency FROM bars ORDER BY bar")]
        assert stored[:-1] == list(outcome.latency[:-1])
        assert stored[-1] < outcome.latency[-1]
        assert db.execute("SELECT COUNT(*) FROM events WHERE kind = 'slow'").fetchone()[0] == 10
