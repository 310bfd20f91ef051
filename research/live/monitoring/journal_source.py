"""Status source of a live journal that another process may be writing: account, positions, counts, equity, the last decisions."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from qtcore import Params
from qtcore.rules import Reason
from qtcore.types import F8, I8, NEVER, NS_PER_DAY, NS_PER_MINUTE
from research.evidence.seats import seats_at
from research.live.journal.reading import Reading
from research.live.journal.seal import check_seals
from research.live.monitoring.cell_history import SETTLED, DecidedBar, Money, arbiter_inputs, has_signal
from research.live.monitoring.counts import Durations, LiveCounts
from research.live.monitoring.status_source import ALLOWED, ALLOWED_WHY, KEPT_BARS, POINTS, RECENT, Book, told
from research.live.records import iso
from research.live.session.controls import command
from research.live.storage.cells import (
    FIELDS,
    DamagedError,
    Field,
    Row,
    command_of,
    is_priced_of,
    is_replay_of,
    params_of,
    parsed,
    voters_of,
)
from research.live.storage.codec import cell_names, digest_of, joined, schedule_of, unpack_bar, unpack_book
from research.live.storage.files import check_version, check_whole, guarded, is_held, read_about

LATE = 2 * NS_PER_MINUTE  # after its close a bar of a live feed is overdue: grace, download and decision take less
RESET, NEWEST = "reset_stats", 2**63 - 1  # a row of `control` that no runner acts on; the largest number of a cell
RECENT_NS = 5 * NS_PER_MINUTE  # a model is active that voted in these, or in the last bar (`spec` 13.2)


Method = TypeVar("Method", bound=Callable[..., Any])


def decoded(method: Method) -> Method:
    """Let a method of a journal say in one sentence what a damaged cell does to it."""

    @wraps(method)
    def reading(self: Any, *values: Any) -> Any:
        with guarded(self.path):
            return method(self, *values)

    return cast(Method, reading)


@dataclass
class JournalSource:
    """A journal that another process may be writing. Raises UserError where it cannot be read."""

    path: Path
    is_live: bool = True
    _tally: LiveCounts = field(init=False)
    _seen: int = -1
    _reset: int = -1  # last cell before the counts begin
    _durations: Durations = field(default_factory=Durations)
    _timed: int = -1
    _events: Counter[str] = field(default_factory=Counter)
    _noted: int = -1
    _versions: dict[int, Params] = field(default_factory=dict)
    _bars: dict[int, DecidedBar] = field(default_factory=dict)
    _read: dict[int, F8 | None] = field(default_factory=dict)  # by bar: what the arbiter read

    def __post_init__(self) -> None:
        self._reading = Reading(self.path)
        self.path = self._reading.path
        with guarded(self.path):
            check_version(self._reading.db, self.path)
            self.about = read_about(self._reading.db)
        self.symbols = tuple(self.about["symbols"])
        self.interval, self.voters = int(self.about["interval"]), voters_of(self.about)
        self._tally = LiveCounts.of(self.voters, is_priced_of(self.about))

    @property
    def name(self) -> str:
        """File name."""
        return self.path.name

    def rows(self, query: str, *values: Any, fields: Mapping[str, Field] = FIELDS) -> list[Row]:
        """Run a query; one at a time, as pages are made by several threads. fields: what its columns may hold."""
        return self._reading.rows(query, *values, fields=fields)

    def check(self) -> None:
        """Raise UserError naming the first bar that is not what was written, or the pages that are damaged. Reads the whole file."""
        with guarded(self.path):
            check_whole(self._reading.db, self.path)
        check_seals(self._reading.raw, self.path, self.about)

    def verdict(self) -> dict[str, str | None]:
        """Return None for each: nobody has proven what goes on."""
        return dict.fromkeys(("verdict", "sentence", "condition", "figures"))

    @decoded
    def tally(self) -> LiveCounts:
        """Count what came since the last call, and return the whole: all since the last `reset`, whichever process did it."""
        commands = [command_of(text) for (text,) in self.rows("SELECT command FROM control")]
        reset = max((command["cell"] for command in commands if command["do"] == RESET), default=-1)
        if reset > self._reset:
            self._tally, self._reset = LiveCounts.of(self.voters, is_priced_of(self.about)), reset
            self._seen = reset - self._recent_bars() * len(self.symbols)
            self._count(reset)
            self._tally = self._tally.emptied()
        self._count(NEWEST)
        return self._tally

    def _count(self, last: int) -> None:
        """Count what came since the last call, up to the cell `last`."""
        names = self._tally.columns
        query = f"SELECT cell, {', '.join(names)} FROM decisions WHERE cell > ? AND cell <= ? ORDER BY cell"
        if rows := self.rows(query, self._seen, last):
            table = np.array(rows, float)
            self._tally.add({name: table[:, k + 1] for k, name in enumerate(names)}, table[:, 0] // len(self.symbols))
            self._seen = int(rows[-1][0])

    def _recent_bars(self) -> int:
        return max(1, RECENT_NS // self.interval)

    def active(self) -> list[str]:
        """Return the models that voted in the last bar or the last 5 minutes."""
        return self.tally().active(self._recent_bars())

    def reset(self) -> None:
        """Start the counts anew at the next bar, for everyone who looks at this journal; which bar that is stands in the journal."""
        (last,) = self.rows("SELECT MAX(cell) AS last_cell FROM decisions")[0]
        command(self.path, {"do": RESET, "cell": -1 if last is None else last})

    @decoded
    def book(self) -> Book:
        """Return the account at the last bar."""
        last = "SELECT close_time, digest FROM bars ORDER BY bar DESC LIMIT 1"
        found = self.rows(f"SELECT account, positions, close_time, digest FROM book, ({last})")
        if not found:
            cash = self.params().broker.initial_cash
            return Book(0, cash, cash, cash, 0.0, 0, 0, False, cash)
        account, positions = unpack_book(found[0][0], found[0][1], len(self.symbols))
        if digest_of(account, positions) != found[0][3]:
            raise DamagedError("the account is not that of the last bar")
        account = account[0]
        closing = f"is_entry = 0 AND reason != {int(Reason.REDUCED)}"
        recent = self.rows(f"SELECT pnl AS earned FROM fills WHERE {closing} ORDER BY seq DESC LIMIT ?", RECENT)
        held = tuple(_position(self.symbols[s], positions[s]) for s in np.flatnonzero(positions["qty"]))
        money = (float(account["balance"]), float(account["equity"]), float(account["peak"]), float(account["exposure"]))
        counts = (int(account["trades_today"]), int(account["n_closed"]), bool(account["is_halted"]))
        now = int(found[0][2])
        day = self.rows("SELECT equity FROM bars WHERE close_time <= ? ORDER BY bar DESC LIMIT 1", now - now % NS_PER_DAY)
        midnight = day[0][0] if day else self.params().broker.initial_cash
        return Book(now, *money, *counts, midnight, tuple(pnl for (pnl,) in recent), held)

    @decoded
    def params(self) -> Params:
        """Return the newest version's parameters."""
        found = self.rows("SELECT params FROM versions ORDER BY id DESC LIMIT 1")
        return params_of(found[0][0]) if found else Params()

    @decoded
    def has_meta_model(self) -> bool:
        """Whether the meta layer is among the newest version's models."""
        return "meta" in self._models()

    @decoded
    def seats(self) -> dict[str, tuple[bool, str]]:
        """Say by layer whether the map of the last bar lets it act, and on what evidence."""
        schedule, last = schedule_of(self._models()), self.rows("SELECT close_time FROM bars ORDER BY bar DESC LIMIT 1")
        row, told = (None, {}) if schedule is None or not last else schedule.at(last[0][0])
        return {} if row is None else seats_at(row, told, self.voters)

    @decoded
    def allowed(self) -> dict[str, list[str]]:
        """Name by cause who of the newest version serves without being accepted; a journal of earlier days does not know."""
        found: dict[str, list[str]] = self._models().get(ALLOWED, {})
        return found

    def _models(self) -> dict[str, Any]:
        found = self.rows("SELECT models FROM versions ORDER BY id DESC LIMIT 1")
        return parsed(found[0][0], {f"{ALLOWED}?": {f"{cause}?": [str] for cause in ALLOWED_WHY}}, "models") if found else {}

    @decoded
    def equity(self) -> tuple[I8, F8]:
        """Return a curve of at most some hundred points."""
        first, last = self.rows("SELECT MIN(bar) AS first_bar, MAX(bar) AS last_bar FROM bars")[0]
        if first is None:
            return np.empty(0, np.int64), np.empty(0)
        step = max(1, (last - first) // POINTS)
        rows = self.rows("SELECT close_time, equity FROM bars WHERE (bar - ?) % ? = 0 OR bar = ? ORDER BY bar", first, step, last)
        return np.array([t for t, _ in rows], np.int64), np.array([e for _, e in rows], float)

    @decoded
    def last(self, n: int) -> list[dict[str, Any]]:
        """Return the newest cells that are no plain HOLD."""
        names = cell_names(self.voters, is_priced_of(self.about))
        query = (
            f"SELECT cell, version, close_time, symbol, {', '.join(names)} FROM decisions JOIN bars USING (bar)"
            " WHERE raw_action != 1 OR final_action != 1 ORDER BY cell DESC LIMIT ?"
        )
        out = []
        for number, version, close_time, symbol, *rest in self.rows(query, n):
            cell, params, (bar, s) = dict(zip(names, rest)), self._params_of(version), divmod(number, len(self.symbols))
            asked = self._decided(bar).asked(s, cell["governor_reason"], params)
            inputs = self._inputs(bar, params) if has_signal(cell) else None
            out.append(told(close_time, symbol, cell, self.voters, params, asked, None if inputs is None else inputs[:, s].tolist()))
        return out

    def _params_of(self, version: int) -> Params:
        """Return the parameters of a version."""
        if version not in self._versions:
            found = self.rows("SELECT params FROM versions WHERE id = ?", version)
            if not found:
                raise DamagedError(f"bars of the version {version}, which is not there")
            self._versions[version] = params_of(found[0][0])
        return self._versions[version]

    def _decided(self, bar: int) -> DecidedBar:
        """Return a bar as it was decided; kept, since no bar that is written changes."""
        if bar not in self._bars:
            self._bars = dict(list(self._bars.items())[-KEPT_BARS:])
            self._bars[bar] = self._read_bar(bar)
        return self._bars[bar]

    def _read_bar(self, bar: int) -> DecidedBar:
        bars = self.rows("SELECT close_time, equity, balance, peak, exposure FROM bars WHERE bar = ?", bar)
        first, width = bar * len(self.symbols), len(self.symbols)
        names = ", ".join(("size", "raw_confidence", *(("gross_edge",) if is_priced_of(self.about) else ())))
        cells = self.rows(f"SELECT {names} FROM decisions WHERE cell >= ? AND cell < ? ORDER BY cell", first, first + width)
        if not bars or len(cells) != width:
            raise DamagedError(f"{len(bars)} bars and {len(cells)} decisions of the bar {bar}")
        (now, *money), (size, confidence, *edges) = bars[0], np.array(cells, float).T

        def trades_today() -> int:
            day = now // NS_PER_DAY * NS_PER_DAY
            earliest = first - (NS_PER_DAY // self.interval + 1) * width
            query = (
                "SELECT COUNT(*) AS n FROM decisions JOIN bars USING (bar)"
                " WHERE cell >= ? AND cell < ? AND close_time >= ? AND governor_reason = ?"
            )
            return int(self.rows(query, earliest, first + width, day, int(Reason.APPROVED))[0][0])

        def loss_of(s: int) -> int:
            query = "SELECT MAX(time) AS left FROM fills WHERE symbol = ? AND is_entry = 0 AND pnl < 0 AND time <= ?"
            (found,) = self.rows(query, s, now)[0]
            return NEVER if found is None else int(found)

        return DecidedBar(now, Money(*money), size, confidence, edges[0] if edges else None, trades_today, loss_of)

    def _inputs(self, bar: int, params: Params) -> F8 | None:
        """Return what the arbiter read at a bar, [6, S]; None where the journal's bars before it are too few to tell."""
        if bar not in self._read:
            query = "SELECT open_time, close_time, candles FROM bars WHERE bar <= ? ORDER BY bar DESC LIMIT ?"
            rows = self.rows(query, bar, SETTLED + 1)[::-1]
            parts = [unpack_bar(candles, opens, closes, self.symbols, self.interval) for opens, closes, candles in rows]
            self._read = dict(list(self._read.items())[-KEPT_BARS:])
            is_enough = len(parts) > bar or len(parts) > SETTLED  # all bars from the first on, which is number 0 without history
            self._read[bar] = arbiter_inputs(joined(parts), params) if is_enough else None
        return self._read[bar]

    @decoded
    def orders(self) -> list[dict[str, Any]]:
        """Return what is open at the broker."""
        rows = self.rows("SELECT symbol, kind, notional FROM orders WHERE state = 'open' ORDER BY bar, symbol")
        return [{"symbol": s, "kind": kind, "side": _side(kind, notional), "notional": notional} for s, kind, notional in rows]

    @decoded
    def runner(self) -> dict[str, Any]:
        """Return `is_running` (None: cannot be told), `feed`, `is_replay`, `received`, and `late_seconds`, 0.0 while no live candle is."""
        found = self.rows("SELECT close_time, received FROM bars ORDER BY bar DESC LIMIT 1")
        close, received = found[0] if found else (None, None)
        is_replay, late = is_replay_of(self.about), 0.0
        if close is not None and not is_replay:
            late = max(0.0, (time.time_ns() - close - self.interval - LATE) / 1e9)
        return {
            "is_running": is_held(self.path),
            "feed": str(self.about.get("feed", "")),
            "is_replay": is_replay,
            "received": None if received is None else iso(received),
            "late_seconds": late,
        }

    @decoded
    def latency(self) -> tuple[float, float] | None:
        """Return median and 99th percentile of the last thousand bars."""
        rows = sorted(ns for (ns,) in self.rows("SELECT latency FROM bars ORDER BY bar DESC LIMIT 1000"))
        return (rows[len(rows) // 2] / 1e9, rows[len(rows) * 99 // 100] / 1e9) if rows else None

    @decoded
    def durations(self) -> Durations:
        """Count what came since the last call; what the newest bar took is known with the next one."""
        rows = self.rows("SELECT bar, latency FROM bars WHERE bar > ? AND bar < (SELECT MAX(bar) FROM bars) ORDER BY bar", self._timed)
        if rows:
            self._durations.add(ns for _, ns in rows)
            self._timed = int(rows[-1][0])
        return self._durations

    @decoded
    def event_counts(self) -> Counter[str]:
        """Count what came since the last call, and return the whole."""
        for id_, kind in self.rows("SELECT id, kind FROM events WHERE id > ? ORDER BY id", self._noted):
            self._events[kind] += 1
            self._noted = int(id_)
        return self._events

    @decoded
    def events(self, n: int) -> list[dict[str, Any]]:
        """Return the newest notes."""
        rows = self.rows("SELECT time, kind, symbol, text FROM events ORDER BY id DESC LIMIT ?", n)
        return [{"time": iso(time), "kind": kind, "symbol": symbol, "text": text} for time, kind, symbol, text in rows]


def _side(kind: str, notional: float) -> str:
    """Name the direction of an entry; an exit closes what is held."""
    return "" if kind == "exit" else "long" if notional > 0.0 else "short"


def _position(symbol: str, row: NDArray) -> dict[str, Any]:
    return {
        "symbol": symbol,
        "side": "long" if row["qty"] > 0 else "short",
        "qty": float(row["qty"]),
        "entry_price": float(row["entry_price"]),
        "notional": float(row["entry_notional"]),
        "unrealised": float(row["unrealised"]),
        "stop_price": float(row["stop_price"]),
        "since": iso(int(row["entry_time"])),
    }
