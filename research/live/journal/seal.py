"""Integrity seals: a hash of all that a bar's transaction said and that nobody changes later. Is an old bar still what was written?

SQLite finds pages that contradict each other, not a number that rotted. A seal covers the bar, its decisions, orders and fills, the
parameters and models that decided it and the commands that took effect with it. A start looks at the last bars and at those with commands,
all that can still act; `qt status`, `qt validate` and `qt live-gap` look at every bar.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qtcore.types import F8
from research.live.records import iso
from research.live.storage.cells import DamagedError, check, is_priced_of, voters_of
from research.live.storage.codec import cell_names
from research.live.storage.files import damaged

TABLE = (
    "CREATE TABLE IF NOT EXISTS seals (bar INTEGER PRIMARY KEY, first_fill INTEGER NOT NULL, fills INTEGER NOT NULL, seal BLOB NOT NULL)"
)
INDEX = "CREATE INDEX IF NOT EXISTS orders_of_bars ON orders (bar)"
RECENT = 1_000  # bars that a start looks at, 0.3 s for 19 symbols (2026-11)
ROW = (
    "SELECT open_time, close_time, candles, probs, equity, balance, exposure, peak, digest, params, models"
    " FROM bars JOIN versions ON versions.id = bars.version WHERE bar = ?"
)
CELLS = "SELECT symbol, {}, bar FROM decisions WHERE cell >= ? AND cell < ? ORDER BY cell"
ORDERS = "SELECT id, symbol, kind, notional, reason FROM orders WHERE bar = ? ORDER BY id"
FILLS = "SELECT * FROM fills WHERE seq >= ? AND seq < ? ORDER BY seq"
COMMANDS = "SELECT id, command FROM control WHERE applied_bar = ? ORDER BY id"
UNSEALED = "SELECT bar FROM bars WHERE bar > (SELECT MIN(bar) FROM seals) AND bar NOT IN (SELECT bar FROM seals)"

Ask = Callable[..., list[tuple[Any, ...]]]  # a query and its values; all rows, with cells as they are


def seal_of(ask: Ask, bar: int, symbols: list[str], numbers: F8, first_fill: int, fills: int) -> bytes:
    """Hash what the journal says of a bar, 16 bytes. symbols, numbers [S, k]: of its decisions, as they are written or were read."""
    texts = [ask(ROW, bar), ask(ORDERS, bar), ask(FILLS, first_fill, first_fill + fills), ask(COMMANDS, bar), symbols]
    numbers = np.where(np.isnan(numbers), np.nan, numbers + 0.0)  # SQLite knows one NULL and one zero
    return hashlib.blake2b(repr(texts).encode() + numbers.tobytes(), digest_size=16).digest()


def read_again(ask: Ask, bar: int, about: Mapping[str, Any], first_fill: int, fills: int) -> bytes:
    """Hash what can be read of a bar; about: the journal's facts. Raises DamagedError where a number is none any more."""
    check(("bar", "first_fill", "fills"), [(bar, first_fill, fills)])
    n_symbols, names = len(about["symbols"]), cell_names(voters_of(about), is_priced_of(about))
    cells = ask(CELLS.format(", ".join(names)), bar * n_symbols, (bar + 1) * n_symbols)
    check(("symbol", *names, "bar"), cells)
    return seal_of(ask, bar, [row[0] for row in cells], np.array([row[1:] for row in cells], np.float64), first_fill, fills)


def check_seals(ask: Ask, path: Path, about: Mapping[str, Any], recent: int | None = None) -> None:
    """Raise UserError naming the first bar that is not what was written.

    about: the journal's facts; recent: the last bars only, and those with commands.
    """
    if not ask("SELECT 1 FROM sqlite_master WHERE name = 'seals'"):
        return  # of an earlier version
    where = "" if recent is None else "WHERE bar > (SELECT MAX(bar) FROM bars) - ? OR bar IN (SELECT applied_bar FROM control)"
    rows = ask(f"SELECT bar, first_fill, fills, seal FROM seals {where} ORDER BY bar", *(() if recent is None else (recent,)))
    for bar, first_fill, fills, seal in rows:
        try:
            is_whole = read_again(ask, bar, about, first_fill, fills) == seal
        except DamagedError:
            is_whole = False
        if not is_whole:
            raise damaged(path, f"bar {bar}{_when(ask('SELECT close_time FROM bars WHERE bar = ?', bar))} is not what was written")
    if recent is None:
        for (bar,) in ask(f"{UNSEALED} LIMIT 1"):
            raise damaged(path, f"bar {bar} has lost its seal")


def _when(rows: Iterable[tuple[Any, ...]]) -> str:
    """Say when a bar closed, where that can still be read."""
    return next((f" of {iso(time)}" for (time,) in rows if isinstance(time, int) and 0 < time < 2**62), "")
