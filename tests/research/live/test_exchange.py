"""Does paper trading on an exchange's candles see what closed, when it closed, and nothing else, whatever the exchange does?

The exchange is a local one that speaks Binance's protocol; the client is ccxt as it is.
"""

import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

import research
from qtcore.types import MODELS, NS_PER_MINUTE, Bars
from research import backtest
from research.data import save_bars, simulate
from research.errors import UserError
from research.live.feeds.feeds import GRACE, Assembler
from research.live.feeds.registry import open_feed
from research.live.feeds.trades import TradeBars
from research.live.monitoring.gap import live_gap
from research.live.start import LiveOptions, start_live
from research.live.storage.codec import cell_names, joined
from research.runs.tables import decision_planes
from research.training.predictions import Predictions
from tests.conftest import START, assert_same_bits
from tests.naive import live as naive
from tests.research.live.test_live import planes_of
from tests.support import FLAG, PUBLISHED
from tests.support.as_published import CONFIG
from tests.support.local_exchange import LocalExchange, Row, market_id

HERE = Path(__file__).resolve().parents[2] / "support"
MS = 1_000_000
MINUTE = 60_000
NAMES = ("BTC/USDT", "ETH/USDT", "SOL/USDT")
FIRST = START // MS


def market(n: int = 260, world: str = "random_walk", seed: int = 3) -> Bars:
    bars = simulate(world, n_bars=n, n_symbols=3, interval="1m", seed=seed)
    shift = START - int(bars.open_time[0])
    return replace(bars, open_time=bars.open_time + shift, close_time=bars.close_time + shift, symbols=NAMES)


@pytest.fixture(scope="module")
def bars() -> Bars:
    return market()


def key(name: str, bar: int) -> tuple[str, int]:
    return name + "USDT", FIRST + bar * MINUTE


def revise(exchange: LocalExchange, name: str, bar: int, at: float, factor: float = 1.01) -> Row:
    """Let a candle say something else from bar number `at` on; returns what."""
    market, open_ms = key(name, bar)
    t, o, h, low, c, v = exchange.rows[market][bar]
    row = (t, o, h * factor, low, c * factor, v)
    exchange.faults.revised[market, open_ms] = (FIRST + int(at * MINUTE), row)
    return row


def outage(first: float, last: float, answer: int | str = 503) -> tuple[int, int, int | str]:
    return FIRST + int(first * MINUTE), FIRST + int(last * MINUTE), answer


def watch(feed, n: int, decided=lambda n: None):
    """Let a runner's assembler take n bars; `decided` is told after each.

    Returns history, the bars, seconds from close to decision, and events (kind, symbol, bar).
    """
    history = feed.history()
    assembler = Assembler(feed.symbols, feed.interval, GRACE)
    assembler.clock = None if history is None else int(history.close_time[-1])
    rows, delays, events = [], [], []
    deadline = time.monotonic() + 300.0
    for arrival in feed.arrivals(assembler.clock or 0):
        assembler.add(arrival)
        new = list(arrival.events)
        while len(rows) < n and (ready := assembler.ready(arrival.now)) is not None:
            rows.append(ready[0])
            delays.append((arrival.now - int(ready[0].close_time[0])) / 1e9)
            new += ready[1]
            decided(len(rows))
        events += [(e.kind, e.symbol, (e.time // MS - FIRST) // MINUTE) for e in new]
        if len(rows) == n:
            return history, joined(rows), delays, events
        assert time.monotonic() < deadline, (len(rows), events)
    raise AssertionError("the feed ended")


def opened(kind: str = "", **how):
    return open_feed(f"ccxt:binance{kind}", symbols=list(NAMES), exchange={"timeframe": "1m", "poll": 0.005, **how})


def check_bars(found: Bars, bars: Bars, holes: set[tuple[int, int]] = frozenset()) -> None:
    """The bars are those of the market to the bit, with these holes (row of the market, symbol)."""
    first = int((found.open_time[0] // MS - FIRST) // MINUTE)
    expected = {name: getattr(bars, name)[first : first + found.n].copy() for name in ("open", "high", "low", "close", "volume")}
    for name, plane in expected.items():
        for t, s in holes:
            plane[t - first, s] = np.nan
        assert_same_bits(getattr(found, name), plane, name)
    assert_same_bits(found.close_time, found.open_time + NS_PER_MINUTE)


@pytest.mark.parametrize(("kind", "step"), [("", 10_000), (",ws", 5_000)])
def test_every_fault_has_its_rule(bars, monkeypatch, kind, step):
    with LocalExchange(bars, FIRST + 100 * MINUTE + 1_000, step=step) as exchange:
        monkeypatch.setenv("QT_EXCHANGE_URL", exchange.url)
        faults, faults.retry_after = exchange.faults, 0.01
        faults.late[key("ETH", 103)] = 150_000
        faults.late[key("BTC", 104)] = 15_000
        faults.missing.add(key("SOL", 105))
        revise(exchange, "BTC", 106, at=108.5)
        faults.doubled.add(key("ETH", 108))
        faults.ahead.add(key("ETH", 250))
        faults.outages.append(outage(109.3, 119.3))
        faults.ws_cuts += [FIRST + int(102.5 * MINUTE), FIRST + 121 * MINUTE + 500]
        feed = opened(kind)
        history, found, delays, events = watch(feed, 24)
        feed.close()
        check_bars(history, bars)
        check_bars(found, bars, {(103, 1), (105, 2)})
        assert (history.n, found.n) == (100, 24)
        kinds = [(k, symbol) for k, symbol, _ in events]
        assert ("skew", "") in kinds, "this machine does not live in 2024"
        assert ("skew", "ETH/USDT") in kinds, "a candle of the future is refused"
        assert [symbol for k, symbol, _ in events if k == "missing"] == ["ETH/USDT", "SOL/USDT"]
        assert [symbol for k, symbol, _ in events if k == "late"] == ["ETH/USDT"]
        assert [symbol for k, symbol, _ in events if k == "revised"] == ["BTC/USDT"]
        after = dict(zip(range(100, 124), delays))
        assert all(after[t] >= 30.0 for t in (103, 105)), "grace"
        assert 15.0 <= after[104] < 30.0
        assert all(1.0 <= after[t] < 15.0 for t in after if t not in (103, 104, 105) and not 109 <= t < 119)
        assert all(after[t] > (119.3 - t - 1) * 60 for t in range(109, 119)), "missed bars are decided when the exchange is back"
        lost = [t for k, _, t in events if k == "lost"]
        if kind:
            assert exchange.connections >= 2
            assert 102 in lost
        else:
            assert lost == [109]
            assert [(k, symbol) for k, symbol in kinds if k == "duplicate"] == [("duplicate", "ETH/USDT")]
        assert ("back", "", 119) in events


def test_a_stream_is_used_and_the_forming_candle_is_not(bars, monkeypatch):
    with LocalExchange(bars, FIRST + 100 * MINUTE + 1_000, step=2_000) as exchange:
        monkeypatch.setenv("QT_EXCHANGE_URL", exchange.url)
        feed = opened(",ws")
        _, found, delays, _ = watch(feed, 8)
        feed.close()
        check_bars(found, bars)
        asked = [q for q in exchange.asked("api/v3/klines") if int(q["limit"]) < 1_000]
        assert len(asked) < 12, "of 24 candles most come by the stream"
        assert min(delays) < 4.0


def test_one_symbol_that_fails_does_not_hold_the_others(bars, monkeypatch):
    with LocalExchange(bars, FIRST + 100 * MINUTE + 1_000, step=5_000) as exchange:
        monkeypatch.setenv("QT_EXCHANGE_URL", exchange.url)
        feed = opened()

        def change(n: int) -> None:
            if n == 2:
                exchange.faults.gone.add("SOLUSDT")
            if n == 7:
                exchange.faults.gone.clear()

        _, found, delays, events = watch(feed, 25, change)
        feed.close()
        n_gone = int(np.isnan(found.close[:, 2]).sum())
        assert n_gone >= 5
        check_bars(found, bars, {(t, 2) for t in range(102, 102 + n_gone)})
        assert max(delays) < 60.0
        assert [(k, s) for k, s, _ in events if k in ("lost", "back")] == [("lost", "SOL/USDT"), ("back", "SOL/USDT")]
        assert [s for k, s, _ in events if k == "late"] == ["SOL/USDT"] * n_gone


def test_what_is_no_answer_is_waited_out(bars, monkeypatch):
    with LocalExchange(bars, FIRST + 100 * MINUTE + 1_000, step=5_000) as exchange:
        monkeypatch.setenv("QT_EXCHANGE_URL", exchange.url)
        exchange.faults.retry_after = 0.01
        monkeypatch.setattr("research.live.feeds.exchange.FIRST_PATIENCE", 0.015)
        exchange.faults.answers.extend([503] * 6)
        with pytest.raises(UserError, match="binance must answer"):
            opened()
        feed = opened(patience=math.inf)  # what a known journal has
        exchange.faults.answers.extend([429, "drop", 503, 418, 200, 429, "drop"])
        _, found, _, _ = watch(feed, 5)
        feed.close()
        check_bars(found, bars)


# trades


def ticks(rng: np.random.Generator, n: int, first: int, span: int) -> list[tuple[int, int, float, float]]:
    """Seeded trades, many at one time."""
    times = np.sort(rng.integers(0, span, n)) // 40 * 40 + first
    price = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 1e-4, n)))
    return [(i, int(ms), float(p), float(q)) for i, (ms, p, q) in enumerate(zip(times, price, rng.lognormal(0.0, 2.0, n)))]


@pytest.mark.parametrize("page", [1, 7, 1_000])
def test_trades_become_bars_however_they_are_cut(page):
    trades = ticks(np.random.default_rng(1), 3_000, FIRST, 30 * MINUTE)
    trades = [t for t in trades if not 5 * MINUTE <= t[1] - FIRST < 8 * MINUTE]
    made = TradeBars(MINUTE, FIRST)
    left = iter(trades)
    while part := list(islice(left, page)):
        made.add([(str(i), *rest) for i, *rest in part])
        made.add([(str(i), *rest) for i, *rest in part[-3:]])  # asked for again: counted once
    assert made.candles(FIRST) == naive.trade_bars(trades, MINUTE)
    assert len(made.candles(FIRST)) == 27


def test_a_feed_of_trades_is_their_bars_and_holes(bars, monkeypatch):
    rng = np.random.default_rng(2)
    trades = {name.replace("/", ""): ticks(rng, 6_000, FIRST + 98 * MINUTE, 15 * MINUTE) for name in NAMES}
    quiet = range(FIRST + 103 * MINUTE, FIRST + 105 * MINUTE)
    trades["ETHUSDT"] = [t for t in trades["ETHUSDT"] if t[1] not in quiet]
    with LocalExchange(bars, FIRST + 100 * MINUTE + 1_000, step=5_000, trades=trades) as exchange:
        monkeypatch.setenv("QT_EXCHANGE_URL", exchange.url)
        exchange.faults.retry_after = 0.01
        exchange.faults.outages.append(outage(106.3, 108.3))
        feed = opened(",trades")
        _, found, _, events = watch(feed, 10)
        feed.close()
    assert [e[1] for e in events if e[0] == "missing"] == ["ETH/USDT"]
    for s, name in enumerate(NAMES):
        expected = {row[0]: row[1:] for row in naive.trade_bars(trades[name.replace("/", "")], MINUTE)}
        for t in range(found.n):
            values = tuple(float(getattr(found, p)[t, s]) for p in ("open", "high", "low", "close", "volume"))
            open_ms = int(found.open_time[t]) // MS
            if name == "ETH/USDT" and open_ms in quiet:
                assert all(math.isnan(x) for x in values)
            else:
                assert values == expected[open_ms]


# the command, as a process

EAGER = {"governor.min_confidence": 0.34, "governor.max_daily_trades": 1_000, "governor.cooldown_minutes": 1}  # so that there are trades


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> tuple[Bars, Path]:
    """A market of 700 minutes and models that learned on its first 500."""
    folder = tmp_path_factory.mktemp("world")
    bars = market(760, "planted_edge", seed=5)
    research.train(bars[:500], models=("lgbm",), n_folds=2, profile="published").models.save(folder / "models")
    return bars, folder / "models"


def qt_live(exchange: LocalExchange, models: Path, journal: Path, kind: str) -> subprocess.Popen:
    words = ["live", FLAG, "--feed", f"ccxt:binance{kind}", "--symbols", ",".join(NAMES), "--timeframe", "1m", "--poll", "0.005"]
    words += ["--models", str(models), "--journal", str(journal), "--allow-rejected", "--allow-synthetic", "--json"]
    words += [word for name, value in EAGER.items() for word in ("--set", f"{name}={value}")]
    words += ["--alert", f"{sys.executable} {HERE / 'live_alert.py'} {journal}.alerts"]
    environment = {**os.environ, "QT_EXCHANGE_URL": exchange.url}
    program = [sys.executable, "-m", "tests.support.live_told", str(journal.with_name("told"))]
    return subprocess.Popen([*program, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def n_bars(journal: Path) -> int:
    try:
        with sqlite3.connect(f"file:{journal}?mode=ro", uri=True) as db:
            return db.execute("SELECT COUNT(*) FROM bars").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


def run_until(process: subprocess.Popen, journal: Path, n: int, number: int = signal.SIGINT) -> str:
    deadline = time.monotonic() + 400.0
    while n_bars(journal) < n and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=200)
    assert process.returncode == (0 if number == signal.SIGINT else -number), err
    assert number != signal.SIGINT or err == ""
    return out


def killed_and_gone_on(exchange: LocalExchange, models: Path, journal: Path, kind: str) -> None:
    """Run the command, kill it when 33 bars are there, let seven minutes pass, run it again to 60 bars or a few more."""
    exchange.pause = FIRST + 635 * MINUTE  # a busy machine may let this test look late: the process must not have run far ahead
    run_until(qt_live(exchange, models, journal, kind), journal, 33, signal.SIGKILL)
    exchange.now += 7 * MINUTE  # nobody was there
    exchange.pause = FIRST + 700 * MINUTE
    told = json.loads(run_until(qt_live(exchange, models, journal, kind), journal, 60))
    assert told["resumed"] >= 33
    assert told["stopped"] is True
    said = [json.loads(line) for line in journal.with_name("told").read_text().splitlines()]
    synced = {"synchronous": 2, "journal_mode": "wal"}  # FULL: a bar counts when it is on the disk; the paper account can be told again
    assert said == [{"journal": synced, "paper": synced | {"synchronous": 1}}] * 2


def check_backtest(bars: Bars, known: dict[str, np.ndarray], models: Path, journal: Path) -> Bars:
    """The journal's decisions and equity are those of the backtest over the candles as they were known; returns those."""
    first = 600
    as_known = replace(bars, **known)[: first + n_bars(journal)]
    predictions = Predictions.from_models(models, as_known)
    predictions.action[:, :first], predictions.confidence[:, :first] = -1, np.nan
    run = backtest(as_known, predictions, PUBLISHED.with_values(EAGER))
    assert len(run.result.fills) > 4
    planes, expected = planes_of(journal, len(NAMES)), decision_planes(run)
    for name in cell_names(MODELS):
        assert_same_bits(planes[name] + 0.0, expected[name][first:].astype(float) + 0.0, name)
    with sqlite3.connect(journal) as db:
        lines = np.array(db.execute("SELECT equity, balance FROM bars ORDER BY bar").fetchall())
        assert_same_bits(lines[:, 0].copy(), run.result.equity[first:].copy(), "equity")
    return as_known


def notes_of(journal: Path, kind: str) -> list[str]:
    with sqlite3.connect(journal) as db:
        return [symbol for (symbol,) in db.execute("SELECT symbol FROM events WHERE kind = ? ORDER BY id", (kind,))]


def planes_known(bars: Bars) -> dict[str, np.ndarray]:
    return {name: getattr(bars, name).copy() for name in ("open", "high", "low", "close", "volume")}


@pytest.mark.parametrize("kind", ["", pytest.param(",ws", marks=pytest.mark.slow)])
def test_the_command_decides_what_the_backtest_decides_on_what_was_known(world, tmp_path, kind):
    bars, models = world
    journal = tmp_path / "journal.sqlite"
    with LocalExchange(bars, FIRST + 600 * MINUTE + 1_000, step=10_000) as exchange:
        faults, faults.retry_after = exchange.faults, 0.01
        for bar in (603, 640):
            faults.late[key("ETH", bar)] = 150_000
        faults.missing.add(key("SOL", 605))
        revised = {bar: revise(exchange, "BTC", bar, at=bar + 2.5) for bar in (607, 609)}
        early = revise(exchange, "SOL", 611, at=0.0, factor=1.002)  # revised before anybody saw it
        faults.doubled.add(key("ETH", 612))
        faults.outages += [outage(614.3, 624.3), outage(628.2, 628.7, "drop"), outage(628.7, 629.2)]
        faults.ws_cuts += [FIRST + int(602.5 * MINUTE), FIRST + 626 * MINUTE]
        killed_and_gone_on(exchange, models, journal, kind)
        today = exchange.now // MINUTE * MINUTE
        seen = {name: exchange.known(name.replace("/", ""), today) for name in NAMES}
    known = planes_known(bars)
    for plane in known.values():
        plane[[603, 640], 1] = plane[605, 2] = np.nan
    known["high"][611, 2], known["close"][611, 2] = early[2], early[4]
    as_known = check_backtest(bars, known, models, journal)
    assert notes_of(journal, "late") == ["ETH/USDT"] * 2
    assert len(notes_of(journal, "revised")) == 2
    with sqlite3.connect(journal) as db:
        notes = db.execute("SELECT kind, symbol, time / 1000000, bar, text FROM events ORDER BY id").fetchall()
    reached = [kind for kind, symbol, *_ in notes if kind in ("lost", "back") and not symbol]
    assert reached[:4] == ["lost", "back"] * 2 or kind, notes
    assert reached.count("back") >= 2
    alerts = [json.loads(line) for line in Path(f"{journal}.alerts").read_text().splitlines()]
    losses = [(alert["text"], alert["time"]) for alert in alerts if alert["kind"] == "feed_loss"]
    assert sum("binance does not answer" in text for text, _ in losses) == 1, "of the ten minutes, not of the one"
    began = next(time for kind, symbol, time, _, text in notes if kind == "lost" and "does not answer" in text) * MS
    assert losses[0][1] >= str(np.datetime64(began, "ns").astype("M8[s]"))
    check_gap(journal, as_known, seen, {"missing": 2, "revised": len(revised), "gone": 0}, tmp_path)


@pytest.mark.slow
def test_the_command_on_trades_decides_what_the_backtest_decides(world, tmp_path):
    """Four trades a minute make the candles of the market; some are shown late, so that a bar is decided without them."""
    bars, models = world
    journal = tmp_path / "journal.sqlite"
    trades = {market_id(name): trades_of(bars, s, range(600, bars.n)) for s, name in enumerate(NAMES)}
    quiet = FIRST + 605 * MINUTE
    trades["SOLUSDT"] = [trade for trade in trades["SOLUSDT"] if not quiet <= trade[1] < quiet + MINUTE]
    with LocalExchange(bars, FIRST + 600 * MINUTE + 1_000, step=10_000, trades=trades) as exchange:
        faults, faults.retry_after = exchange.faults, 0.01
        for market, *minutes in (("ETHUSDT", 603, 604.75, 604.75), ("BTCUSDT", 607.5, 608.8, 608.8)):
            faults.lags.append((market, *(FIRST + int(minute * MINUTE) for minute in minutes)))
        faults.outages += [outage(614.3, 624.3), outage(628.2, 628.7, "drop")]
        killed_and_gone_on(exchange, models, journal, ",trades")
        today = exchange.now // MINUTE * MINUTE
    known = planes_known(bars)
    for plane in known.values():
        plane[603, 1] = plane[605, 2] = np.nan
    half = naive.trade_bars([t for t in trades["BTCUSDT"] if 607 * MINUTE <= t[1] - FIRST < 607.5 * MINUTE], MINUTE)[0]
    for name, value in zip(known, half[1:]):
        known[name][607, 0] = value
    as_known = check_backtest(bars, known, models, journal)
    assert notes_of(journal, "missing") == ["ETH/USDT", "SOL/USDT"]
    assert notes_of(journal, "late") == ["ETH/USDT"]
    assert notes_of(journal, "revised") == ["BTC/USDT"]
    seen = {name: naive.trade_bars([t for t in trades[market_id(name)] if t[1] < today], MINUTE) for name in NAMES}
    for s, name in enumerate(NAMES):
        past = zip(range(600), *(getattr(bars, plane)[:, s] for plane in known))
        seen[name] = [(FIRST + t * MINUTE, *row) for t, *row in past] + seen[name]
    check_gap(journal, as_known, seen, {"missing": 1, "revised": 1, "gone": 0}, tmp_path)


def trades_of(bars: Bars, s: int, minutes: range) -> list[tuple[int, int, float, float]]:
    """Four trades a minute, a quarter of the volume each, at the four prices of the candle: their bars are the candles, to the bit."""
    prices = zip(*(getattr(bars, name)[minutes.start : minutes.stop, s].tolist() for name in ("open", "high", "low", "close", "volume")))
    made = [(FIRST + t * MINUTE + k * 15_000, row[k], row[4] / 4.0) for t, row in zip(minutes, prices) for k in range(4)]
    return [(i, *trade) for i, trade in enumerate(made)]


def check_gap(journal: Path, as_known: Bars, seen: dict[str, list[Row]], counts: dict[str, int], folder: Path) -> None:
    """The gap report against the candles as the exchange shows them today (`seen`) finds each fault in its bucket."""
    planes = {name: np.full(as_known.close.shape, np.nan) for name in ("open", "high", "low", "close", "volume")}
    for s, name in enumerate(NAMES):
        for row in seen[name]:
            t = (row[0] - FIRST) // MINUTE
            if t < as_known.n:
                for k, plane in enumerate(planes.values()):
                    plane[t, s] = row[1 + k]
    today = replace(as_known, **planes)
    save_bars(today, folder / "today.parquet")
    report = live_gap(journal, today)
    assert report["identical"], report["first_difference"]
    assert report["broker_mismatches"] == 0
    assert report["pnl"]["counts"] == counts
    assert sum(report["pnl"]["parts"].values()) == pytest.approx(report["pnl"]["difference"], abs=1e-6)
    assert report["pnl"]["parts"]["fills"] == 0.0


# mistakes


def test_a_mistake_is_one_sentence(bars, tmp_path, monkeypatch):
    with LocalExchange(bars, FIRST + 100 * MINUTE) as exchange:
        monkeypatch.setenv("QT_EXCHANGE_URL", exchange.url)
        for text, how, expected in (
            ("ccxt:", {}, "--feed must be replay:FILE or ccxt:EXCHANGE"),
            ("ccxt:nowhere", {}, "exchange must be one that ccxt knows"),
            ("ccxt:binance,fast", {}, "--feed must be ccxt:EXCHANGE"),
            ("ccxt:binance", {"speed": "2"}, "--speed must go with replay:FILE"),
            ("ccxt:binance", {"end": "2024-01-02"}, "--to must go with replay:FILE"),
            ("ccxt:binance", {"symbols": []}, "was without any"),
            ("ccxt:binance", {"symbols": ["BTC/EUR"]}, "symbols must be markets of binance, was 'BTC/EUR'"),
        ):
            with pytest.raises(UserError, match=expected):
                open_feed(text, **{"symbols": list(NAMES), **how})
        asked = LiveOptions("ccxt:binance", tmp_path / "j", CONFIG, predictions=tmp_path / "p.parquet", how={"symbols": list(NAMES)})
        with pytest.raises(UserError, match="--predictions must go with replay:FILE"):
            start_live(asked)
    monkeypatch.setattr("research.live.feeds.exchange.FIRST_PATIENCE", 0.1)
    with pytest.raises(UserError, match=r"binance must answer, did not within 0\.1 s"):
        opened()
