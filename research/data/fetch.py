"""Download of an exchange's history: page by page into a file beside the target (`FILE.part`), which replaces it when all is there.

A fetch that was killed goes on where it stopped. The exchange's rate limit is kept; where it still says no, or nothing, the fetch waits as
long as it was told to, or twice as long each time. The bar that is still forming is never written. What the exchange does not have stays
missing: a hole in the file and a gap in the report.
"""

import sqlite3
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from qtcore.types import Bars
from research.data.clock import interval_text, iso
from research.data.exchange import MS, Candle, Exchange, ExchangeError
from research.data.frames import save_bars
from research.data.load import Span
from research.data.rows import bars_of
from research.data.schema import VALUES
from research.errors import ConfigError, DataError

Progress = Callable[[int, int, str], None]
PATIENCE = 600.0  # s without an answer before a fetch gives up
FIRST_PATIENCE = 20.0  # s for the first answer: a wrong address or no network shows soon
BLOCK = 8_192  # bars written at once

SCHEMA = f"""
CREATE TABLE about (what TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE reached (symbol TEXT PRIMARY KEY, until INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE candles (
    symbol TEXT NOT NULL, open_time INTEGER NOT NULL, {", ".join(f"{name} REAL" for name in VALUES)}, PRIMARY KEY (symbol, open_time)
) WITHOUT ROWID
"""
GAPS = """
SELECT open_time - step, (step - :interval) / :interval FROM (
    SELECT open_time, open_time - LAG(open_time) OVER (ORDER BY open_time) AS step FROM candles
    WHERE symbol = :symbol AND open_time < :end) WHERE step > :interval
"""


@dataclass
class RetryingClient:
    """Ask until there is an answer; tell how far it is and what is waited for.

    patience: s without an answer after which it is given up; advice: what the user can do then.
    """

    exchange: Exchange
    progress: Progress
    patience: float
    advice: str
    at: tuple[int, int] = (0, 1)
    text: str = "connecting"

    def show(self, done: int, total: int, text: str) -> None:
        """Tell how far it is."""
        self.at, self.text = (done, total), text
        self.progress(done, total, text)

    def request(self, ask: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Return the answer. Raises UserError when there was none for `patience` seconds, or asking again is no use."""
        name, began, attempt = self.exchange.name, time.monotonic(), 0
        while True:
            try:
                return self.exchange.run(ask())
            except ExchangeError as trouble:
                attempt += 1
                pause = trouble.pause(attempt)
                if trouble.is_final:
                    raise DataError(f"{name} must accept the question, did not: {trouble}") from None
                if time.monotonic() - began + pause > self.patience:
                    raise DataError(f"{name} must answer, did not within {self.patience:g} s: {trouble}; {self.advice}") from None
                self.progress(*self.at, f"{self.text}, waits {pause:.0f} s")
                time.sleep(pause)


def fetch(
    exchange: Exchange, span: Span, out: str | Path, progress: Progress = lambda done, total, text: None, patience: float = PATIENCE
) -> dict[str, Any]:
    """Write candles that open in `span` (ns UTC; None as its end: up to now) and have closed. Returns what came and what is missing.

    The report: `path`, `rows`, `interval`, and per symbol `rows`, `first`, `last`, `missing` (bars between the two), `late_start` (bars
    between the beginning of the span and the first) and `gaps` (open of the first missing bar, bars). Raises UserError.
    """
    out = Path(out)
    start, end = span
    if out.suffix != ".parquet":
        raise DataError(f"output must end in .parquet, was {out.name!r}")
    if start is None:
        raise ConfigError("--from must say where to begin, was missing; give a time such as 2024-01-01")
    part = out.with_name(f"{out.name}.part")
    talk = RetryingClient(exchange, progress, min(patience, FIRST_PATIENCE), "check the network and the exchange's name")
    talk.request(exchange.open)
    end = min(end if end is not None else 2**63 - 1, exchange.closed(exchange.clock()) + 1)
    if start >= end:
        raise ConfigError(
            f"--from must lie before the last closed bar, was {iso(start)}; {exchange.name} has closed bars up to {iso(end - 1)}"
        )
    talk.patience, talk.advice = patience, f"what came is kept in {part}, the same command goes on"
    with closing(_open_part(part, exchange, start)) as db:
        try:
            for s in range(len(exchange.symbols)):
                _collect(db, talk, s, (start, end))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"stopped; {talk.advice}") from None
        report, phase = _report(db, exchange, start, end)
        save_bars(_blocks(db, exchange, phase, end), out)
    part.unlink()
    return {"path": str(out), **report}


def _collect(db: sqlite3.Connection, talk: RetryingClient, s: int, span: tuple[int, int]) -> None:
    """Bring one symbol up to the end of the span, a transaction per page."""
    exchange, (start, end) = talk.exchange, span
    name, length, page = exchange.symbols[s], exchange.interval, exchange.page
    n_bars = -(-(end - start) // length)
    row = db.execute("SELECT until FROM reached WHERE symbol = ?", (name,)).fetchone()
    since = start if row is None else int(row[0])
    while since < end:
        talk.show(s * n_bars + (since - start) // length, len(exchange.symbols) * n_bars, f"candles: {name}")
        candles = talk.request(partial(exchange.candles, name, since, page))
        found = [(name, *_values(candle)) for candle in candles if since <= candle[0] * MS < end]
        if any(candle[0] * MS >= end for candle in candles):
            since = end
        elif found:
            since = max(row[1] for row in found) + length
        else:  # some exchanges look no further than a page's span
            since += page * length
        with db:
            db.executemany("REPLACE INTO candles VALUES (?, ?, ?, ?, ?, ?, ?)", found)
            db.execute("REPLACE INTO reached VALUES (?, ?)", (name, min(since, end)))
    talk.show((s + 1) * n_bars, len(exchange.symbols) * n_bars, f"candles: {name}")


def _values(candle: Candle) -> tuple[Any, ...]:
    return (int(candle[0]) * MS, *(None if x is None else float(x) for x in candle[1:6]))


def _open_part(path: Path, exchange: Exchange, start: int) -> sqlite3.Connection:
    """Open or make the file of what has come so far. Raises UserError where it belongs to another fetch."""
    about = {"exchange": exchange.name, "timeframe": exchange.timeframe, "start": str(start)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(path)
        with db:
            if db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0] == 0:
                db.executescript(f"BEGIN; {SCHEMA}; COMMIT")
                db.executemany("INSERT INTO about VALUES (?, ?)", about.items())
            found = dict(db.execute("SELECT what, value FROM about"))
    except (sqlite3.Error, OSError) as error:
        raise DataError(f"{path} must be writable and of this fetch, was not ({error}); move it away or choose another --out") from None
    if found != about:
        db.close()
        said = f"{found.get('exchange')} {found.get('timeframe')} from {iso(int(found.get('start', 0)))}"
        raise DataError(f"{path} must be what came of this fetch, was of another one ({said}); remove it or choose another --out")
    return db


def _report(db: sqlite3.Connection, exchange: Exchange, start: int, end: int) -> tuple[dict[str, Any], int]:
    """Say what came, and the phase of the grid. Raises UserError where a symbol has nothing."""
    length, symbols, lost = exchange.interval, {}, []
    phases = db.execute(f"SELECT open_time % {length} AS phase FROM candles GROUP BY phase ORDER BY COUNT(*) DESC LIMIT 1").fetchone()
    for name in exchange.symbols:
        first, last, n = db.execute(
            "SELECT MIN(open_time), MAX(open_time), COUNT(*) FROM candles WHERE symbol = ? AND open_time < ?", (name, end)
        ).fetchone()
        if not n:
            lost.append(name)
            continue
        gaps = db.execute(GAPS, {"symbol": name, "interval": length, "end": end}).fetchall()
        symbols[name] = {
            "rows": n,
            "first": iso(first),
            "last": iso(last),
            "late_start": (first - start) // length,
            "missing": sum(k for _, k in gaps),
            "gaps": [{"from": iso(t + length), "bars": k} for t, k in gaps],
        }
    if lost:
        raise DataError(f"every symbol must have candles in the span, was none of {', '.join(lost)}; leave it out or widen the span")
    return {"rows": sum(row["rows"] for row in symbols.values()), "interval": interval_text(length), "symbols": symbols}, int(phases[0])


def _blocks(db: sqlite3.Connection, exchange: Exchange, phase: int, end: int) -> Iterator[Bars]:
    """Yield the candles on their grid; what is not on it, and symbols of an earlier attempt, are left out."""
    length, symbols = exchange.interval, exchange.symbols
    column = {name: s for s, name in enumerate(symbols)}
    here = f"open_time < {end} AND open_time % {length} = {phase} AND symbol IN ({', '.join('?' * len(symbols))})"
    first, last = db.execute(f"SELECT MIN(open_time), MAX(open_time) FROM candles WHERE {here}", symbols).fetchone()
    for low in range(first, last + 1, BLOCK * length):
        n = min(BLOCK, (last - low) // length + 1)
        planes = np.full((5, n, len(symbols)), np.nan)
        rows = [
            row
            for name in symbols
            for row in db.execute(
                "SELECT * FROM candles WHERE symbol = ? AND open_time BETWEEN ? AND ?", (name, low, low + (n - 1) * length)
            )
            if (row[1] - low) % length == 0
        ]
        at = [(row[1] - low) // length for row in rows], [column[row[0]] for row in rows]
        for k in range(5):
            planes[k][at] = [np.nan if row[2 + k] is None else row[2 + k] for row in rows]
        open_time = low + length * np.arange(n, dtype=np.int64)
        yield bars_of((open_time, open_time + length), list(planes), symbols, length)
