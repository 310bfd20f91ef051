"""Paper broker: an account of its own, in its own file, with the fill rules of the simulator.

It knows orders and prices and nothing of the engine, so that an order lost or doubled shows: after every bar its fills are compared with
the engine's, bit for bit. A protective stop goes with each entry. Every bar is one transaction; orders and bars that are known are not
taken twice. The disk is synced with checkpoints, which come after the decision, and not at every commit: what a power loss takes from this
file the runner gives it again out of the journal.
"""

import base64
import binascii
import json
import math
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore import Bars, Params, Result
from qtcore.broker import fill_rule, funding_rule, gap_rule, part_rule, stop_fill_rule, stop_level_rule, stop_rule
from qtcore.portfolio import average_rule, value_rule
from qtcore.rules import Reason
from qtcore.types import FILL, NEVER
from research.errors import UserError
from research.live.broker.orders import order_of
from research.live.records import Event, Order
from research.live.storage.cells import FILLS, DamagedError, Row, parsed, rows_of
from research.live.storage.codec import pack_bar, unpack_bar
from research.live.storage.files import check_whole, connect, guarded, has_tables
from research.live.storage.place import Made, Place
from research.runs.ruin import ruined

APPLICATION_ID = 0x71747031  # "qtp1"
REPORTED = ("time", "symbol", "is_entry", "reason", "qty", "price", "reference_price", "notional", "stop_price", "fee", "funding", "pnl")

HELD = dict.fromkeys(("qty", "entry_price", "entry_fee", "stop_price", "funding", "last_close"), float)
STATE = {
    **dict.fromkeys(("balance", "fees", "funding", "written_off?"), float),
    "n_fills": int,
    "positions": {...: HELD},
    "holes": {...: int},
    "bar?": (list, None),
}
SCHEMA = f"""
CREATE TABLE account (id INTEGER PRIMARY KEY CHECK (id = 1), clock INTEGER NOT NULL, state TEXT NOT NULL);
CREATE TABLE orders (
    id TEXT PRIMARY KEY, seq INTEGER NOT NULL, symbol TEXT NOT NULL, kind TEXT NOT NULL, notional REAL NOT NULL, reason INTEGER NOT NULL,
    state TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX working ON orders (state) WHERE state = 'open';
CREATE TABLE fills (seq INTEGER PRIMARY KEY, close_time INTEGER NOT NULL, order_id TEXT, {", ".join(REPORTED)});
CREATE INDEX fills_of_bars ON fills (close_time);
"""


class PaperBroker:
    """A simulated exchange account in a file.

    params: costs and the number of holes after which a symbol is gone. cash: quote, what a new account starts with. made: notes new files.
    Raises UserError where the file is not one, and for assumptions about fills that a backtest alone can make: another `broker.fill` than
    the next open, a `broker.impact`.
    """

    def __init__(
        self, path: str | Path, symbols: tuple[str, ...], params: Params, *, cash: float | None = None, made: Made | None = None
    ) -> None:
        if params.broker.fill.name != "NEXT_OPEN":
            raise UserError(
                f"broker.fill must be next_open in live trading, was {params.broker.fill.name.lower()}; an order needs a market"
            )
        if params.broker.impact > 0.0:
            raise UserError(
                f"broker.impact must be 0 in live trading, was {params.broker.impact:g}; paper fills know no volume, so set slippage_rate"
            )
        self.path, self.symbols, self.params = Path(path), symbols, params
        self.place = Place(self.path, "paper account", "start again, the journal gives it everything back")
        self._column = {name: s for s, name in enumerate(symbols)}
        try:
            (Made() if made is None else made).file(self.path)
        except OSError as error:
            raise UserError(f"paper account must be writable, was {path} ({error.strerror}); choose another --journal") from error
        if self.path.is_symlink() or not self.path.is_file():
            raise UserError(f"paper account must be a file of its own, was none: {path}; move it away")
        with guarded(self.path):
            self.db = connect(self.path, durable=False, check=self._check_kind)
        try:
            with guarded(self.path):
                if not has_tables(self.db):
                    self._create(params.broker.initial_cash if cash is None else cash)
                    self.checkpoint()  # what it began with is in no journal
                self._check_kind(self.db)
                check_whole(self.db, self.path)
                self._clock, self._state = self._read(rows_of(self.db.execute("SELECT clock, state FROM account")))
                working = "SELECT id AS name, symbol, kind, notional, reason FROM orders WHERE state = 'open' ORDER BY seq"
                self._open = {row[0]: order_of(row, symbols) for row in rows_of(self.db.execute(working))}
                self._n_orders = self.db.execute("SELECT COUNT(*) FROM orders").fetchone()[0]
        except BaseException:
            self.db.close()
            raise
        _load_rules()

    def _read(self, rows: list[Row]) -> tuple[int, dict[str, Any]]:
        """Read the account. Raises DamagedError."""
        if len(rows) != 1:
            raise DamagedError(f"{len(rows)} accounts")
        ((clock, text),) = rows
        state = parsed(text, STATE, "account")
        bar = state.get("bar")
        if bar is not None and ([type(item) for item in bar] != [int, str] or bar[0] >= clock):
            raise DamagedError("account with a last bar that is none")
        if unknown := {*state["positions"], *state["holes"]} - {*self.symbols}:
            raise DamagedError(f"account with {min(unknown)!r}")
        return int(clock), state

    def _check_kind(self, db: sqlite3.Connection) -> None:
        if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise UserError(f"paper account must be a file that `qt live` wrote, was another SQLite file: {self.path}; move it away")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Write everything inside; where it fails the process ends, and what was not committed is not there."""
        self.place.check()
        with guarded(self.path):
            self.db.execute("BEGIN IMMEDIATE")
            yield
            self.db.execute("COMMIT")

    def _create(self, cash: float) -> None:
        start: dict[str, Any] = {
            "balance": cash,
            "fees": 0.0,
            "funding": 0.0,
            "written_off": 0.0,
            "n_fills": 0,
            "positions": {},
            "holes": {},
        }
        self.db.execute("BEGIN IMMEDIATE")
        for statement in filter(str.strip, SCHEMA.split(";\n")):
            self.db.execute(statement)
        self.db.execute("INSERT INTO account VALUES (1, ?, ?)", (NEVER, json.dumps(start)))
        self.db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        self.db.execute("COMMIT")

    @property
    def clock(self) -> int:
        """Close time of the last bar that passed, ns UTC."""
        return self._clock

    @property
    def balance(self) -> float:
        """Realised cash, quote: initial cash, plus every closed trade net of fees, plus funding."""
        return float(self._state["balance"])

    @property
    def written_off(self) -> float:
        """What was owed when nothing was left, quote: forgiven, so that the balance is never below zero for it; 0.0 for a sound account."""
        return float(self._state.get("written_off", 0.0))

    @property
    def positions(self) -> dict[str, float]:
        """Quantities held, base units, signed."""
        return {name: position["qty"] for name, position in self._state["positions"].items()}

    def submit(self, orders: list[Order]) -> None:
        """Take orders for the next open; a known id is ignored, open or done."""
        if not orders:
            return
        with self._transaction():
            for order in orders:
                row = (order.id, self._n_orders, order.symbol, order.kind, order.notional, order.reason)
                if self.db.execute("INSERT OR IGNORE INTO orders VALUES (?, ?, ?, ?, ?, ?, 'open')", row).rowcount:
                    self._open[order.id] = order
                    self._n_orders += 1

    def cancel(self, ids: list[str]) -> None:
        """Drop orders that are not filled yet."""
        known = [id_ for id_ in ids if id_ in self._open]
        if known:
            with self._transaction():
                self.db.executemany("UPDATE orders SET state = 'cancelled' WHERE id = ?", [(id_,) for id_ in known])
            for id_ in known:
                del self._open[id_]

    def last_bar(self) -> Bars | None:
        """Return the last bar as it passed, None before the first."""
        if (kept := self._state.get("bar")) is None:
            return None
        open_time, candles = kept
        with guarded(self.path):
            try:
                blob = base64.b64decode(candles, validate=True)
            except binascii.Error as error:
                raise DamagedError("account with candles that are none") from error
            return unpack_bar(blob, open_time, self._clock, self.symbols, self._clock - open_time)

    def advance(self, bar: Bars, params: Params) -> NDArray:
        """Let a closed bar pass: exits and entries at the open, stops, delistings, funding, liquidation. Returns its fills.

        params: in force at this bar; an entry gets its stop `governor.stop_loss` away.
        """
        close_time = int(bar.close_time[0])
        if close_time <= self._clock:
            return self._passed(close_time)
        done: list[tuple[str, str]] = []
        fills = self._at_open(bar, params.governor.stop_loss, done) + self._inside(bar)
        self._pay_funding(bar)
        fills += self._liquidated(bar)
        self._clock = close_time
        self._state["bar"] = int(bar.open_time[0]), base64.b64encode(pack_bar(bar)).decode()
        with self._transaction():
            first = self._state["n_fills"]
            self._state["n_fills"] += len(fills)
            marks = ", ".join("?" * (3 + len(REPORTED)))
            rows = [(first + k, close_time, id_, *(fill[name] for name in REPORTED)) for k, (id_, fill) in enumerate(fills)]
            if rows or done:
                self.db.executemany(f"INSERT INTO fills VALUES ({marks})", rows)
                self.db.executemany("UPDATE orders SET state = ? WHERE id = ?", done)
            self.db.execute("UPDATE account SET clock = ?, state = ?", (close_time, json.dumps(self._state)))
        for _, id_ in done:
            self._open.pop(id_, None)
        return _records([fill for _, fill in fills])

    def checkpoint(self) -> None:
        """Move what is complete from the log into the file."""
        with guarded(self.path):
            self.db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        """Close the file."""
        self.db.close()

    def _columns(self, names: Iterable[str]) -> list[tuple[int, str]]:
        """Return (column, name) in the order of the symbols; a list, so that positions may come and go meanwhile."""
        return sorted((self._column[name], name) for name in names)

    def _passed(self, close_time: int) -> NDArray:
        """Return the fills of a bar that has passed."""
        query = f"SELECT {', '.join(REPORTED)} FROM fills WHERE close_time = ? ORDER BY seq"
        with guarded(self.path):
            rows = rows_of(self.db.execute(query, (close_time,)), FILLS)
        return _records([dict(zip(REPORTED, row)) for row in rows])

    def _at_open(self, bar: Bars, stop_loss: float, done: list[tuple[str, str]]) -> list[tuple[str | None, dict[str, Any]]]:
        fills: list[tuple[str | None, dict[str, Any]]] = []
        time, positions, opens = int(bar.open_time[0]), self._state["positions"], bar.open[0].tolist()
        leaving = {order.symbol: order for order in self._open.values() if order.kind == "exit"}
        entering = {order.symbol: order for order in self._open.values() if order.kind == "entry"}
        for s, name in self._columns(positions):
            position, price, order = positions[name], opens[s], leaving.get(name)
            if price != price:
                continue
            if order is not None:
                fills.append((order.id, self._leave(s, position, price, order.reason, time, order.notional)))
                done.append(("filled", order.id))
            elif gap_rule(position["qty"], position["stop_price"], price):
                fills.append((None, self._leave(s, position, price, int(Reason.STOP), time)))
        for s, name in self._columns(entering):
            order, price = entering[name], opens[s]
            if price == price:
                fills.append((order.id, self._enter(s, order.notional, price, time, stop_loss)))
            done.append(("filled" if price == price else "cancelled", order.id))
        return fills

    def _inside(self, bar: Bars) -> list[tuple[str | None, dict[str, Any]]]:
        fills: list[tuple[str | None, dict[str, Any]]] = []
        positions, holes, time = self._state["positions"], self._state["holes"], int(bar.close_time[0])
        for s, name in self._columns(positions):
            position, close = positions[name], float(bar.close[0, s])
            is_hole = close != close
            holes[name] = holes.get(name, 0) + 1 if is_hole else 0
            if stop_rule(position["qty"], position["stop_price"], float(bar.low[0, s]), float(bar.high[0, s])):
                level = stop_fill_rule(position["qty"], position["stop_price"], float(bar.open[0, s]))
                fills.append((None, self._leave(s, position, float(level), int(Reason.STOP), time)))
            elif is_hole and holes[name] >= self.params.broker.delist_after:
                fills.append((None, self._leave(s, position, position["last_close"], int(Reason.DELISTED), time)))
            elif not is_hole:
                position["last_close"] = close
        return fills

    def _pay_funding(self, bar: Bars) -> None:
        if bar.funding is None:
            return
        paid = 0.0
        for s, name in self._columns(self._state["positions"]):
            position = self._state["positions"][name]
            received = float(funding_rule(position["qty"], float(bar.close[0, s]), float(bar.funding[0, s])))
            position["funding"] += received
            paid += received
        self._state["balance"] += paid

    def _liquidated(self, bar: Bars) -> list[tuple[str | None, dict[str, Any]]]:
        """Close everything at its mark where nothing is left, and write off what is owed then."""
        positions, worth = self._state["positions"], 0.0
        for _, name in self._columns(positions):
            worth += float(value_rule(*(positions[name][key] for key in ("qty", "last_close", "entry_price", "entry_fee"))))
        if self._state["balance"] + worth > 0.0:
            return []
        time = int(bar.close_time[0])
        fills: list[tuple[str | None, dict[str, Any]]] = []
        for s, name in self._columns(positions):
            fills.append((None, self._leave(s, positions[name], positions[name]["last_close"], int(Reason.LIQUIDATED), time)))
        self._state["written_off"] = self.written_off + max(-self._state["balance"], 0.0)
        self._state["balance"] = 0.0
        return fills

    def _enter(self, s: int, pending: float, reference: float, time: int, stop_loss: float) -> dict[str, Any]:
        side = 1.0 if pending > 0.0 else -1.0
        price, notional = float(fill_rule(side, reference, self.params.broker.slippage_rate)), abs(pending)
        fee, qty = notional * self.params.broker.fee_rate, side * (notional / price)
        if (held := self._state["positions"].get(self.symbols[s])) is not None:
            held["entry_price"] = float(average_rule(held["qty"], held["entry_price"], qty, price))
            held["qty"], held["entry_fee"] = held["qty"] + qty, held["entry_fee"] + fee
            held["stop_price"] = float(stop_level_rule(side, held["entry_price"], stop_loss))
            row = (time, s, 1, int(Reason.ADDED), qty, price, reference, notional, held["stop_price"], fee, 0.0, 0.0)
            return dict(zip(REPORTED, row))
        stop = float(stop_level_rule(side, price, stop_loss))
        self._state["positions"][self.symbols[s]] = {
            "qty": qty, "entry_price": price, "entry_fee": fee, "stop_price": stop, "funding": 0.0, "last_close": reference,
        }  # fmt: skip
        self._state["holes"][self.symbols[s]] = 0
        row = (time, s, 1, int(Reason.APPROVED), qty, price, reference, notional, stop, fee, 0.0, 0.0)
        return dict(zip(REPORTED, row))

    def _leave(self, s: int, position: dict[str, Any], reference: float, reason: int, time: int, pending: float = 0.0) -> dict[str, Any]:
        """Close a position, or where the reason is REDUCED what is `pending` of it, quote."""
        is_part = reason == Reason.REDUCED
        qty = float(part_rule(position["qty"], pending, reference)) if is_part else -position["qty"]
        price = float(fill_rule(1.0 if qty > 0.0 else -1.0, reference, self.params.broker.slippage_rate))
        notional = abs(qty) * price
        fee = notional * self.params.broker.fee_rate
        if is_part and qty != -position["qty"]:
            position["entry_fee"] = (position["entry_fee"] + fee) + qty * (price - position["entry_price"])
            position["qty"] += qty
            return dict(zip(REPORTED, (time, s, 0, reason, qty, price, reference, notional, math.nan, fee, 0.0, 0.0)))
        reason = int(Reason.EXIT_SIGNAL) if is_part else reason
        change = (position["qty"] * (price - position["entry_price"]) - fee) - position["entry_fee"]
        del self._state["positions"][self.symbols[s]]
        self._state["balance"] += change
        row = (time, s, 0, reason, qty, price, reference, notional, math.nan, fee, position["funding"], change + position["funding"])
        return dict(zip(REPORTED, row))


def _load_rules() -> None:
    """Load the machine code of the rules: 3 ms each, which the first bar with a fill or a stop need not wait for (2026-11)."""
    for rule in (fill_rule, stop_level_rule, gap_rule, stop_fill_rule, funding_rule, part_rule):
        rule(1.0, 1.0, 1.0)
    for rule in (stop_rule, value_rule, average_rule):
        rule(1.0, 1.0, 1.0, 1.0)


def _records(fills: list[dict[str, Any]]) -> NDArray:
    out = np.zeros(len(fills), FILL)
    for name in REPORTED if fills else ():
        out[name] = [np.nan if fill[name] is None else fill[name] for fill in fills]
    return out


def audited(before: Any, after: Any, result: Result, reported: NDArray) -> Iterator[Event]:
    """Yield what a bar did to the account that must be told: other fills at the broker, nothing left. before, after: ACCOUNT records."""
    now = int(result.close_time[0])
    if wrong := difference(result.fills, reported):
        yield Event(now, "mismatch", wrong)
    if ruin := ruined(before, after, result.fills, now):
        yield Event(now, "liquidated", ruin.text)


def difference(mine: NDArray, theirs: NDArray) -> str:
    """Say how the broker's fills differ from the engine's, in one bit; empty where they are the same."""
    if len(mine) != len(theirs):
        return f"the engine booked {len(mine)} fills, the broker reported {len(theirs)}"
    for name in REPORTED:
        a, b = mine[name], theirs[name]
        if a.tobytes() == b.tobytes():
            continue
        if (differs := (a != b) & ((a == a) | (b == b))).any():
            k = int(differs.argmax())
            return f"fill {k}: the engine booked {name} {a[k]!r}, the broker reported {b[k]!r}"
    return ""
