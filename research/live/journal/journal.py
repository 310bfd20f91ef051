"""Transaction journal: one SQLite file (WAL) in which every bar is one transaction, whole or not there, so that it survives a crash.

A bar's transaction holds its candles as they were used, the votes, every layer's answer, new and finished orders, fills, what the feed
noticed, and the account. `snapshots` keeps the first and the last two full states of the engine (npz, never pickled), the newer written
over the older: a restart loads the newest and runs the few bars after it again. Live syncs the disk at every commit; a replay, which can
be repeated, at checkpoints only.
"""

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore import Bars, Params, Result, Votes
from qtcore.rules import Reason
from qtcore.types import FILL
from research.data.clock import interval_text
from research.errors import UserError
from research.live.broker.orders import order_of
from research.live.journal import seal
from research.live.journal.schema import statements
from research.live.records import Event, Order
from research.live.storage.cells import DamagedError, Row, command_of, is_priced_of, params_of, parsed, rows_of, voters_of
from research.live.storage.codec import (
    cell_columns,
    cell_names,
    digest_of,
    pack_bar,
    pack_state,
    unpack_bar,
    unpack_state,
    unpack_votes,
    vote_names,
)
from research.live.storage.files import (
    APPLICATION_ID,
    SCHEMA_VERSION,
    check_version,
    check_whole,
    connect,
    damaged,
    guarded,
    has_tables,
    hold,
    read_about,
)
from research.live.storage.place import Made, Place, resolved

DOUBTS = "CREATE TABLE IF NOT EXISTS doubts (id INTEGER PRIMARY KEY CHECK (id = 1), value TEXT NOT NULL)"
COUNTS = {"bar": int, "rows": [int], "found": [list], "told": [list]}
FACTS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "symbols": lambda about: ", ".join(about["symbols"]),
    "interval": lambda about: interval_text(about["interval"]),
    "voters": lambda about: ", ".join(voters_of(about)),
    "decide.rule": lambda about: "edge" if is_priced_of(about) else "confidence",
}
VERSIONS = "SELECT id, params, models FROM versions ORDER BY id"
START_SLOT, SLOTS = 0, (1, 2)  # the state of the beginning; two that take turns


@dataclass
class Entry:
    """Everything that one bar writes.

    received, latency: ns. orders: new ones; done: finished ids with their state; fill_orders: the order of each fill, empty for a stop.
    state: a full snapshot, None for none. doubts: counts of candles and of what was wrong with them, None where they stay as they are.
    """

    bar: int
    result: Result
    received: int
    latency: int
    version: int
    account: NDArray
    positions: NDArray
    closed: NDArray
    orders: list[Order] = field(default_factory=list)
    done: list[tuple[str, str]] = field(default_factory=list)
    fill_orders: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    state: Mapping[str, NDArray] | None = None
    doubts: Mapping[str, Any] | None = None


class Journal:
    """A journal open for writing by one runner.

    Raises UserError where the file is not a journal, of another version, damaged or held by another process.
    """

    def __init__(self, path: str | Path, about: Mapping[str, Any], *, durable: bool = True, made: Made | None = None) -> None:
        """Open or make the journal. about: symbols, interval and other facts that stay; durable: sync the disk at every commit.

        made: notes what is new. has_begun is whether a runner has ever started on it.
        """
        self.path = resolved(path)
        self._lock = hold(self.path, made)
        self.place = Place(self.path, "journal", "nothing more is decided; put it or a copy back, then start again")
        try:
            with guarded(self.path):
                self.db = connect(self.path, durable=durable, check=lambda db: check_version(db, self.path))
        except BaseException:
            self._lock.close()
            raise
        try:
            with guarded(self.path):
                self._open(about)
            self.place.check()
        except BaseException:
            self.close()
            raise
        self.symbols, self.voters = tuple(self.about["symbols"]), voters_of(self.about)
        self.measured: tuple[int, int] | None = None  # last bar and what it took, ns, written with the next one
        columns = ", ".join("?" * (3 + len(cell_names(self.voters, is_priced_of(self.about)))))
        self._insert_cell = f"INSERT INTO decisions VALUES ({columns})"
        self._insert_fill = f"INSERT INTO fills VALUES ({', '.join('?' * (2 + len(FILL.names or ())))})"

    def _open(self, about: Mapping[str, Any]) -> None:
        """Read what is there, or begin. Raises UserError on what is damaged, or of another market."""
        if not has_tables(self.db):
            self._create(about)
        check_whole(self.db, self.path)
        self.has_begun = bool(self._ask("SELECT bar FROM snapshots LIMIT 1"))
        self.about = read_about(self.db)
        for name, fact in FACTS.items():
            asked, held = fact(about), fact(self.about)
            if asked != held:
                raise UserError(f"journal must be of the same {name} {asked}, was {held} in {self.path}; use a new --journal")
        for statement in (seal.TABLE, seal.INDEX, DOUBTS):
            self.db.execute(statement)
        seal.check_seals(self._ask, self.path, self.about, seal.RECENT)

    def _create(self, about: Mapping[str, Any]) -> None:
        self.db.execute("BEGIN IMMEDIATE")
        for statement in statements(voters_of(about), is_priced_of(about)):
            self.db.execute(statement)
        self.db.executemany("INSERT INTO about VALUES (?, ?)", [(key, json.dumps(value)) for key, value in about.items()])
        self.db.executemany("INSERT INTO reasons VALUES (?, ?)", [(int(r), r.name) for r in Reason])
        self.db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        self.db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self.db.execute("COMMIT")

    def _ask(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        return self.db.execute(query, values).fetchall()

    def _rows(self, query: str, *values: Any) -> list[Row]:
        with guarded(self.path):
            return rows_of(self.db.execute(query, values))

    def close(self) -> None:
        """Close the file and let others in."""
        self.db.close()
        self._lock.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write everything inside or nothing. Raises UserError when the disk is full, or the file damaged or no more in its place."""
        if self.db.in_transaction:  # part of a larger one
            yield self.db
            return
        self.place.check()
        with guarded(self.path):
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield self.db
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise
        self.place.check()  # no order is sent for a bar that is in no file

    def begin(
        self,
        bar: int,
        close_time: int,
        state: Mapping[str, NDArray],
        params: Params,
        models: Mapping[str, Any],
        doubts: Mapping[str, Any] | None = None,
    ) -> None:
        """Write what the runner starts with: the state before its first bar, `bar` being the last one of history (-1 for none)."""
        with self.transaction() as db:
            _put_doubts(db, doubts)
            _put_version(db, bar + 1, params, models, "start")
            _put_snapshot(db, START_SLOT, bar, close_time, state)
        self.has_begun = True

    def change(self, bar: int, params: Params, models: Mapping[str, Any], cause: str) -> int:
        """Note other parameters or models from `bar` on. Returns the number of the version."""
        with self.transaction() as db:
            return _put_version(db, bar, params, models, cause)

    def commit(self, entry: Entry) -> None:
        """Write one bar. Raises UserError when it cannot be kept; nothing of it is then in the file."""
        result, bar, n = entry.result, entry.bar, len(self.symbols)
        account = entry.account[0]
        with self.transaction() as db:
            db.execute(
                "INSERT INTO bars VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (bar, int(result.open_time[0]), int(result.close_time[0]), entry.received, entry.latency, pack_bar(result.bars),
                 None if result.votes.probs is None else result.votes.probs.tobytes(), float(result.equity[0]), float(result.balance[0]),
                 float(result.exposure[0]), float(account["peak"]), entry.version, digest_of(entry.account, entry.positions)),
            )  # fmt: skip
            if self.measured is not None:
                db.execute("UPDATE bars SET latency = ? WHERE bar = ?", self.measured[::-1])
            columns = cell_columns(result)
            db.executemany(self._insert_cell, zip(range(bar * n, (bar + 1) * n), [bar] * n, self.symbols, *columns))
            first = int(account["n_fills"]) - len(result.fills)
            if len(result.fills):
                rows = [(first + k, entry.fill_orders[k], *fill.tolist()) for k, fill in enumerate(result.fills)]
                db.executemany(self._insert_fill, rows)
            if entry.orders:
                rows = [(o.id, bar, o.symbol, o.kind, o.notional, o.reason) for o in entry.orders]
                db.executemany("INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?, 'open', NULL)", rows)
            if entry.done:
                db.executemany("UPDATE orders SET state = ?, done_bar = ? WHERE id = ?", [(state, bar, id_) for id_, state in entry.done])
            if entry.events:
                put_events(db, bar, entry.events)
            numbers = np.array([*columns, [bar] * n], np.float64).T
            written = seal.seal_of(self._ask, bar, list(self.symbols), numbers, first, len(result.fills))
            db.execute("INSERT INTO seals VALUES (?, ?, ?, ?)", (bar, first, len(result.fills), written))
            db.execute("REPLACE INTO book VALUES (1, ?, ?)", (entry.account.tobytes(), entry.positions.tobytes()))
            if entry.state is not None:
                _put_snapshot(db, self._free_slot(), bar, int(result.close_time[0]), entry.state)
            _put_doubts(db, entry.doubts)

    def keep(self, bar: int, close_time: int, state: Mapping[str, NDArray]) -> None:
        """Write the state after `bar` outside its transaction."""
        with self.transaction() as db:
            _put_snapshot(db, self._free_slot(), bar, close_time, state)

    def _free_slot(self) -> int:
        """Return the slot whose state is older, or was never written."""
        taken: dict[int, int] = dict(rows_of(self.db.execute("SELECT slot, bar FROM snapshots")))
        return min(SLOTS, key=lambda slot: taken.get(slot, -1))

    def note(self, events: Iterable[Event], bar: int | None = None, doubts: Mapping[str, Any] | None = None) -> None:
        """Write events outside a bar's transaction, and the counts that they tell of."""
        with self.transaction() as db:
            put_events(db, bar, events)
            _put_doubts(db, doubts)

    def doubts(self) -> dict[str, Any] | None:
        """Return the counts of candles, and of what was wrong with them, after a `bar`; None where an earlier version kept none."""
        with guarded(self.path):
            rows = self._rows("SELECT value FROM doubts")
            found: dict[str, Any] | None = parsed(rows[0][0], COUNTS, "counts of candles") if rows else None
            if found is not None:
                issues, told = [[type(x) for x in row] for row in found["found"]], [[type(x) for x in row] for row in found["told"]]
                if any(row != [str, str, int, int] for row in issues) or any(row != [str, str] for row in told):
                    raise DamagedError("counts of candles of another form")
        return found

    def checkpoint(self) -> None:
        """Move what is complete from the log into the file; readers are not waited for."""
        with guarded(self.path):
            self.db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def last_bar(self) -> tuple[int, int, bytes] | None:
        """Return (bar, close time, digest) of the last bar, None in a new journal."""
        rows = self._rows("SELECT bar, close_time, digest FROM bars ORDER BY bar DESC LIMIT 1")
        return (rows[0][0], rows[0][1], rows[0][2]) if rows else None

    def snapshot(self) -> tuple[int, int, dict[str, NDArray]] | None:
        """Return (bar, close time, state) of the newest full state that is intact; None in a journal that never began."""
        rows = self._rows("SELECT bar, close_time, state AS snapshot, hash FROM snapshots ORDER BY bar DESC")
        for bar, close_time, blob, name in rows:
            if hashlib.sha256(blob).hexdigest() == name:
                state = unpack_state(blob)
                if bar >= 0 and state["clock"][0] != close_time:  # before the first bar there is none
                    raise damaged(self.path, f"the state of bar {bar} is of another time")
                return bar, close_time, state
        if rows:
            raise UserError(f"journal must hold an intact snapshot, was damaged in {self.path}; restore a copy or use a new --journal")
        return None

    def bar_at(self, clock: int) -> int:
        """Return the last bar that closed at or before `clock`, ns UTC; -1 for none."""
        ((bar,),) = self._rows("SELECT MAX(bar) AS last_bar FROM bars WHERE close_time <= ?", clock)
        return -1 if bar is None else int(bar)

    def bars_after(self, bar: int) -> Iterator[tuple[int, Bars, Votes, int]]:
        """Yield (bar, candles, votes, version) of every later bar, in order."""
        n, interval = len(self.symbols), int(self.about["interval"])
        of_bar = f"SELECT {', '.join(vote_names(self.voters))} FROM decisions WHERE cell >= ? AND cell < ? ORDER BY cell"
        of_row = (
            "SELECT open_time, close_time, candles, probs, versions.id AS version"
            " FROM bars LEFT JOIN versions ON versions.id = bars.version WHERE bar = ?"
        )
        for (number,) in self._rows("SELECT bar FROM bars WHERE bar > ? ORDER BY bar", bar):
            with guarded(self.path):
                ((open_time, close_time, candles, probs, version),) = self._rows(of_row, number)
                votes = unpack_votes(self._rows(of_bar, number * n, (number + 1) * n), probs, n, self.voters)
                found = unpack_bar(candles, open_time, close_time, self.symbols, interval)
            yield number, found, votes, version

    def versions(self) -> dict[int, tuple[Params, dict[str, Any]]]:
        """Return every version's parameters and models, by number."""
        with guarded(self.path):
            return versions_of(self._rows(VERSIONS))

    def last_version(self) -> int:
        """Return the number of the version that decided the last bar, 1 before there is one."""
        rows = self._rows("SELECT version FROM bars ORDER BY bar DESC LIMIT 1")
        return int(rows[0][0]) if rows else 1

    def causes(self, version: int) -> list[tuple[str, str]]:
        """Return (`reload` where the models changed, else `params`; cause) of every version after `version`."""
        rows = self._rows("SELECT models, cause FROM versions WHERE id >= ? ORDER BY id", version)
        return [("params" if models == before else "reload", cause) for (before, _), (models, cause) in pairwise(rows)]

    def open_orders(self) -> list[Order]:
        """Return what waits for the next open, in the order it was sent."""
        return [order for _, order in self._orders("state = 'open'")]

    def given(self, bar: int) -> dict[int, list[Order]]:
        """Return the orders of every bar from `bar` on."""
        found: dict[int, list[Order]] = {}
        for given_at, order in self._orders("bar >= ?", bar):
            found.setdefault(given_at, []).append(order)
        return found

    def _orders(self, which: str, *values: int) -> list[tuple[int, Order]]:
        """Return (bar, order) in the order in which they were sent: bar, symbol, exits first."""
        query = f"SELECT bar, id AS name, symbol, kind, notional, reason FROM orders WHERE {which}"
        with guarded(self.path):
            found = [(bar, order_of(row, self.symbols)) for bar, *row in self._rows(query, *values)]
        return sorted(found, key=lambda pair: (pair[0], self.symbols.index(pair[1].symbol), pair[1].kind != "exit"))

    def dropped(self, bar: int) -> dict[int, list[str]]:
        """Return the ids of the orders that ended unfilled at every bar from `bar` on."""
        query = "SELECT done_bar, id AS name FROM orders WHERE done_bar >= ? AND state != 'filled'"
        found: dict[int, list[str]] = {}
        for done_at, id_ in self._rows(query, bar):
            found.setdefault(done_at, []).append(id_)
        return found

    def commands(self, *, is_applied: bool = False) -> list[tuple[int, dict[str, Any]]]:
        """Return (id, command) of every control row that was not applied yet, or of those that were and were not refused."""
        query = f"SELECT id, command FROM control WHERE applied_bar IS {'NOT ' if is_applied else ''}NULL ORDER BY id"
        with guarded(self.path):
            found = [(number, command_of(text)) for number, text in self._rows(query)]
        return [(number, command) for number, command in found if "refused" not in command]

    def applied(self, taken: Mapping[int, bool], bar: int) -> None:
        """Note from which bar on control rows hold, and mark those that were not taken: they never do."""
        with self.transaction() as db:
            db.executemany("UPDATE control SET applied_bar = ? WHERE id = ?", [(bar, i) for i in taken])
            refused = [(i,) for i, is_taken in taken.items() if not is_taken]
            db.executemany("UPDATE control SET command = json_set(command, '$.refused', json('true')) WHERE id = ?", refused)


def versions_of(rows: list[Row]) -> dict[int, tuple[Params, dict[str, Any]]]:
    """Read every version's parameters and models, by number, of the rows of `VERSIONS`. Raises DamagedError."""
    if not rows:
        raise DamagedError("no version of parameters and models")
    return {number: (params_of(params), parsed(models, dict, "models")) for number, params, models in rows}


def _put_doubts(db: sqlite3.Connection, doubts: Mapping[str, Any] | None) -> None:
    if doubts is not None:
        db.execute("REPLACE INTO doubts VALUES (1, ?)", (json.dumps(doubts),))


def put_events(db: sqlite3.Connection, bar: int | None, events: Iterable[Event]) -> None:
    """Insert events inside a transaction."""
    rows = [(bar, e.time, e.kind, e.symbol, e.text) for e in events]
    db.executemany("INSERT INTO events (bar, time, kind, symbol, text) VALUES (?, ?, ?, ?, ?)", rows)


def _put_version(db: sqlite3.Connection, bar: int, params: Params, models: Mapping[str, Any], cause: str) -> int:
    row = (bar, json.dumps(params.flat()), json.dumps(dict(models)), cause)
    made = db.execute("INSERT INTO versions (from_bar, params, models, cause) VALUES (?, ?, ?, ?)", row).lastrowid
    assert made is not None
    return made


def _put_snapshot(db: sqlite3.Connection, slot: int, bar: int, close_time: int, state: Mapping[str, NDArray]) -> None:
    """Write a state into its slot. An update in place touches only pages that differ, a third of what a new row does (2026-11)."""
    blob = pack_state(state)
    row = (bar, close_time, blob, hashlib.sha256(blob).hexdigest(), slot)
    if not db.execute("UPDATE snapshots SET bar = ?, close_time = ?, state = ?, hash = ? WHERE slot = ?", row).rowcount:
        db.execute("INSERT INTO snapshots (bar, close_time, state, hash, slot) VALUES (?, ?, ?, ?, ?)", row)
