"""Does a bad candle cost the same money live and in a backtest, and is it told in the same words?

The candles come from a local exchange, from a replayed file, and from a table that a backtest reads.
"""

import sqlite3
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from qtcore.types import NS_PER_MINUTE, Bars
from research import backtest
from research.data import Loaded, load
from research.data.rules import PROBLEMS, VALUE_RULES
from research.errors import UserError
from research.live.broker.paper import PaperBroker
from research.live.feeds.feeds import Arrival, Assembler, ReplayFeed
from research.live.journal.journal import Journal
from research.live.monitoring.alerts import TOLD
from research.live.monitoring.health import status
from research.live.monitoring.journal_source import JournalSource
from research.live.session.runner import Options, Runner
from research.training.predictions import Predictions
from tests.conftest import START, assert_same_bits
from tests.research.live.test_exchange import FIRST, MINUTE, NAMES, key, market, opened
from tests.support import PUBLISHED
from tests.support.local_exchange import LocalExchange, Row, market_id

LIVE = 100  # first bar that is not history
VALUES = {"governor.max_daily_trades": 1_000, "governor.cooldown_minutes": 0, "broker.max_holding_bars": 4, "governor.max_drawdown": 1.0}
NAN, INF = float("nan"), float("inf")

# (symbol, bar) of a candle, what is wrong with it, and the place of the value that says so: open, high, low, close, volume.
BAD = {
    ("BTC", 104): ("not_finite", 1, INF),
    ("ETH", 106): ("not_positive", 2, -1.0),
    ("SOL", 108): ("not_positive", 3, 0.0),
    ("BTC", 110): ("high_below_low", 1, 1e-3),
    ("ETH", 112): ("incomplete", 0, NAN),
    ("SOL", 114): ("incomplete", 4, NAN),
    ("BTC", 116): ("negative_volume", 4, -5.0),
    ("ETH", 118): ("too_large", 1, 1e300),
    ("SOL", 120): ("outside_range", 3, 1e9),
    ("BTC", 40): ("not_finite", 4, INF),  # in the history
}
STEP = ("SOL", 130)  # from here on a thousand times the price
TWICE, OFF = ("ETH", 124), ("BTC", 126)  # a second candle that says something else; one that opens half a bar late


@pytest.fixture(scope="module")
def rows() -> dict[str, list[Row]]:
    """Candles by symbol, the bad ones among them; no second row of one time."""
    bars = market()
    table: dict[str, list[Row]] = {}
    for s, name in enumerate(NAMES):
        planes = np.stack([getattr(bars, plane)[:, s] for plane in ("open", "high", "low", "close", "volume")])
        if name.startswith(STEP[0]):
            planes[:4, STEP[1] :] *= 1_000.0
        for (symbol, bar), (_, place, value) in BAD.items():
            if name.startswith(symbol):
                planes[place, bar] = value
        table[name] = [(FIRST + t * MINUTE, *planes[:, t].tolist()) for t in range(bars.n)]
        if name.startswith(OFF[0]):
            row = table[name][OFF[1]]
            table[name].insert(OFF[1] + 1, (row[0] + MINUTE // 2, *row[1:]))
    return table


@pytest.fixture(scope="module")
def loaded(rows) -> Loaded:
    """What a backtest reads of the same rows."""
    parts = [
        pd.DataFrame(rows[name], columns=["timestamp", "open", "high", "low", "close", "volume"]).assign(symbol=name) for name in NAMES
    ]
    return load(pd.concat(parts).astype({"timestamp": "datetime64[ms]"}), symbols=list(NAMES))


def voted(bars: Bars) -> Predictions:
    """Random votes; nobody votes in the history, where live decides nothing."""
    predictions = Predictions.random(bars, seed=4)
    predictions.action[:, :LIVE], predictions.confidence[:, :LIVE] = -1, np.nan
    return predictions


def live(folder: Path, feed, predictions: Predictions, n: int, **how) -> Path:
    """Decide n bars of a feed; returns the journal."""
    journal = Journal(folder / "j", {"symbols": feed.symbols, "interval": feed.interval}, durable=False)
    params = PUBLISHED.with_values(VALUES)
    runner = Runner(params, feed, journal, PaperBroker(folder / "b", feed.symbols, params), predictions, options=Options(**how))
    runner.watchers = (lambda entry: runner.stop() if entry.bar + 1 == LIVE + n else None,)
    runner.run()
    feed.close()
    journal.close()
    return folder / "j"


def notes(journal: Path) -> list[tuple[str, str, str]]:
    """Events but for those of the clock: a bar that a busy machine was late with."""
    with sqlite3.connect(journal) as db:
        return db.execute("SELECT kind, symbol, text FROM events WHERE kind != 'slow' ORDER BY id").fetchall()


def check_money(journal: Path, loaded: Loaded, n: int) -> None:
    """Candles and account of the journal are those of the backtest, to the bit."""
    run = backtest(loaded.bars, voted(loaded.bars), PUBLISHED.with_values(VALUES))
    with sqlite3.connect(journal) as db:
        lines = np.array(db.execute("SELECT equity, balance, exposure FROM bars ORDER BY bar").fetchall())
        candles = [np.frombuffer(blob).reshape(-1, len(NAMES))[:5] for (blob,) in db.execute("SELECT candles FROM bars ORDER BY bar")]
    for k, name in enumerate(("equity", "balance", "exposure")):
        assert_same_bits(lines[:, k].copy(), getattr(run.result, name)[LIVE : LIVE + n].copy(), name)
    for k, name in enumerate(("open", "high", "low", "close", "volume")):
        assert_same_bits(np.array([candle[k] for candle in candles]), getattr(loaded.bars, name)[LIVE : LIVE + n].copy(), name)
    fills = run.result.fills["bar"]
    assert np.sum((fills >= LIVE) & (fills < LIVE + n)) > 50


def check_words(journal: Path, loaded: Loaded) -> None:
    """Every issue of the report is an event of its symbol, in the same words, and nothing else is."""
    told = [(symbol, problem) for kind, symbol, text in notes(journal) for problem, words in PROBLEMS.items() if words[0] in text]
    expected = {(f"{symbol}/USDT", problem) for (symbol, _), (problem, _, _) in BAD.items()}
    expected |= {(f"{OFF[0]}/USDT", "off_grid"), (f"{STEP[0]}/USDT", "jump")}
    assert {(issue.symbol, issue.problem) for issue in loaded.report.issues} == expected
    assert set(told) - {(f"{TWICE[0]}/USDT", "conflict")} == expected


N = 60


@pytest.fixture(scope="module", params=["", ",ws"])
def on_exchange(rows, loaded, tmp_path_factory, request) -> Path:
    folder = tmp_path_factory.mktemp("exchange")
    with LocalExchange(market(), FIRST + LIVE * MINUTE + 1_000, step=10_000) as exchange, pytest.MonkeyPatch.context() as patch:
        patch.setenv("QT_EXCHANGE_URL", exchange.url)
        exchange.rows = {market_id(name): list(found) for name, found in rows.items()}
        twice, open_ms = key(*TWICE)
        at = next(i for i, row in enumerate(exchange.rows[twice]) if row[0] == open_ms)
        if request.param == "":
            exchange.rows[twice].insert(at + 1, (open_ms, *(2.0 * x for x in exchange.rows[twice][at][1:])))
        return live(folder, opened(request.param), voted(loaded.bars), N)


def test_an_exchange_and_a_backtest_have_one_account_and_one_set_of_words(on_exchange, loaded):
    check_money(on_exchange, loaded, N)
    check_words(on_exchange, loaded)


def test_of_two_candles_the_first_counts_and_the_second_is_told(on_exchange):
    told = [(symbol, text) for kind, symbol, text in notes(on_exchange) if kind == "revised"]
    assert [symbol for symbol, _ in told] in ([f"{TWICE[0]}/USDT"], [])  # a websocket sends a candle once
    for _, text in told:
        assert "rows share their timestamp with a row of other values" in text
        assert "; the first counts, " in text


def test_status_and_alerts_know_of_them(on_exchange):
    said = {alarm["name"]: alarm["text"] for alarm in status(JournalSource(on_exchange))["alarms"]}
    assert "11 bad candles became holes" in said["candles"]
    assert "1 close far from the one before" in said["jumps"]
    assert {"jump", "quality", "liquidated"} <= set(TOLD)


def test_a_replay_has_the_account_and_the_words_too(loaded, tmp_path):
    feed = ReplayFeed(loaded.bars, live_from=int(loaded.bars.open_time[LIVE]), issues=loaded.report.issues)
    journal = live(tmp_path, feed, voted(loaded.bars), N, fills_gaps=False)
    check_money(journal, loaded, N)
    check_words(journal, loaded)
    sentences = [text for _, _, text in notes(journal)]
    assert [i.text for i in loaded.report.issues if i.text not in sentences and i.problem != "jump"] == []  # jumps are counted as they come


@pytest.mark.parametrize("problem", VALUE_RULES)
def test_many_bad_candles_are_an_alarm(problem):
    """A backtest would stop; live goes on and says at which candle the share was left."""
    wrong = {p: (place, value) for p, place, value in BAD.values()}
    place, value = wrong[problem]
    made = Assembler(("A", "B"), NS_PER_MINUTE, 0)
    kinds = []
    for t in range(300):
        prices = np.full((5, 2), 100.0)
        if t % 50 == 10:
            prices[place, 0] = value
        made.add(Arrival(START + (t + 1) * NS_PER_MINUTE, START + t * NS_PER_MINUTE, prices))
        ready = made.ready(START + (t + 1) * NS_PER_MINUTE)
        assert ready is not None
        kinds += [(t, event.kind, event.symbol, event.text) for event in ready[1]]
    assert [(t, kind, symbol) for t, kind, symbol, _ in kinds] == [
        *((t, "bad", "A") for t in (10, 60, 110, 160)), (160, "quality", "A"), *((t, "bad", "A") for t in (210, 260))
    ]  # fmt: skip
    assert kinds[4][3].startswith(f"A: 4 of 161 rows {PROBLEMS[problem][0]}, the first at ")
    assert "at most 3 may" in kinds[4][3]


def test_a_restart_measures_jumps_against_what_was_decided_before(loaded, tmp_path):
    """Two minutes before the step the process ends; the next one knows the usual move from the journal."""
    bars, params = loaded.bars, PUBLISHED.with_values(VALUES)
    for until in (STEP[1] - 2, STEP[1] + 5):
        journal = Journal(tmp_path / "j", {"symbols": bars.symbols, "interval": bars.interval}, durable=False)
        feed = ReplayFeed(bars, live_from=int(bars.open_time[LIVE]))
        runner = Runner(params, feed, journal, PaperBroker(tmp_path / "b", bars.symbols, params), voted(bars))
        runner.watchers = (lambda entry, n=until, r=runner: r.stop() if entry.bar + 1 == n else None,)
        runner.run()
        journal.close()
    jumps = [(symbol, text) for kind, symbol, text in notes(tmp_path / "j") if kind == "jump"]
    assert [symbol for symbol, _ in jumps] == [f"{STEP[0]}/USDT"]


@dataclass
class Rough:
    """A feed of one symbol pair whose candles are impossible, come twice, jump and lie off the grid now and then; it can be asked again."""

    symbols = ("A", "B")
    interval = NS_PER_MINUTE
    n: int = 260

    def history(self) -> None:
        """There is none."""

    def arrivals(self, after: int):
        for t in range(self.n):
            open_time = START + t * NS_PER_MINUTE
            prices = np.full((5, 2), 100.0 + t % 2)
            prices[:, 1] *= 3.0 if t % 40 >= 20 else 1.0
            if t % 30 == 10:
                prices[1, 0] = INF
            now = open_time + NS_PER_MINUTE
            if now > after:
                yield Arrival(now, open_time, prices)
            if t % 50 == 25 and now > after:
                yield Arrival(now, open_time, prices)
                yield Arrival(now, open_time, prices * 2.0)
            if t % 60 == 33 and open_time + NS_PER_MINUTE // 2 >= after:
                yield Arrival(now + NS_PER_MINUTE // 2, open_time + NS_PER_MINUTE // 2, prices)

    def close(self) -> None:
        """Nothing is held."""


class KilledError(Exception):
    """The process ends here."""


def decided(folder: Path, point: str = "", bars: range = range(0)) -> Path:
    """Decide what `Rough` sends; at `point` of every bar of `bars` the process ends and another goes on."""
    feed, params, left = Rough(), PUBLISHED.with_values(VALUES), list(bars)
    while True:
        journal = Journal(folder / "j", {"symbols": feed.symbols, "interval": feed.interval}, durable=False)
        runner = Runner(params, feed, journal, broker := PaperBroker(folder / "b", feed.symbols, params))

        def passed(name: str, runner=runner) -> None:
            if left and name == point and runner._bar + 1 == left[0]:
                del left[0]
                raise KilledError

        runner.passed = passed
        try:
            runner.run()
            return folder / "j"
        except KilledError:
            continue
        finally:
            journal.close()
            broker.close()


@pytest.mark.parametrize("point", ["filled", "committed", "submitted"])
def test_a_process_that_goes_on_counts_as_one_that_never_ended(point, tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    whole = notes(decided(tmp_path / "whole"))
    killed = notes(decided(tmp_path / "killed", point, range(6, 255, 8)))
    assert killed == whole
    kinds = Counter(kind for kind, _, _ in whole)
    assert kinds["bad"] == 9 + 4 * 2
    assert kinds["duplicate"] == kinds["revised"] == 5 * 2
    assert kinds["jump"] > 5
    assert kinds["quality"] == 3
    assert any(text.startswith("A: 9 of 2") for _, _, text in whole)


def test_counts_of_other_symbols_are_damage(tmp_path):
    path = decided(tmp_path)
    for value in (
        '{"bar": 1, "rows": [1], "found": [], "told": []}',
        '{"bar": 1, "rows": [1, 2], "found": [["X", "jump", 1, 1]], "told": []}',
        "[]",
        "{",
    ):
        with sqlite3.connect(path) as db:
            db.execute("UPDATE doubts SET value = ?", (value,))
        with pytest.raises(UserError, match=r"journal must be intact, was damaged: .*counts of candles"):
            decided(tmp_path)


def test_holes_are_not_doubted():
    made = Assembler(("A",), NS_PER_MINUTE, 0)
    for t in range(20):
        prices = np.full((5, 1), NAN if t % 3 else 100.0)
        made.add(Arrival(START + 2 * (t + 1) * NS_PER_MINUTE, START + t * NS_PER_MINUTE, prices))
        assert made.ready(START + 2 * (t + 1) * NS_PER_MINUTE) is not None
    assert {event.kind for event in made.events} <= {"missing"}
