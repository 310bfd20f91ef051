"""How does the governor's state reach people, and how does an earlier system's start a journal? The JSON file of `spec` 10.5 (D-67).

The file is an export, written to a temporary name, then renamed; the journal is the truth. A file may start an empty journal.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from qtcore import Engine
from qtcore.declare import time_ns
from qtcore.types import NEVER, Action, InputError
from research.errors import UserError
from research.files import Kind, read_json, save_json, writable
from research.governor_state import GovernorState
from research.live.cells import FILLS
from research.live.codec import unpack_book
from research.live.files import guarded
from research.live.source import JournalSource, RunSource
from research.live.watched import iso

KEPT_TRADES = 100
STATE = Kind(
    "a governor's state of schema 1",
    "export it again or leave --import-governor out",
    {
        "trade_history?": [{"symbol?": str, "timestamp?": (str, None), "pnl?": (float, None)}],
        "last_losses?": {...: str},
        "active_positions?": {...: Any},
        "last_trade_date?": (str, None),
        "daily_trade_count?": int,
    },
)
NUMBERS = ("initial_balance", "current_balance", "peak_balance")


def export_governor(source: JournalSource | RunSource, path: Path) -> Path:
    """Write the state file of a journal. Raises UserError for a finished run, whose folder says it all, and where it cannot be written."""
    if not isinstance(source, JournalSource):
        raise UserError(f"a governor file is written from a live journal, was a finished run: {source.name}; see its trades.parquet")
    state = governor_state(source)
    with writable("governor file", path):
        save_json(path, state, is_private=True)
    return path


def governor_state(source: JournalSource) -> dict[str, Any]:
    """Return what the state file holds."""
    book, found = source.book(), source.rows("SELECT account, positions FROM book")
    losses, day = {}, -1
    if found:
        with guarded(source.path):
            account, positions = unpack_book(found[0][0], found[0][1], len(source.symbols))
        day, times = int(account[0]["day"]), positions["last_loss_time"].tolist()
        losses = {symbol: iso(t) for symbol, t in zip(source.symbols, times) if t != NEVER}
    query = (
        "SELECT exits.symbol, entries.qty, entries.price AS entry_price, exits.price AS exit_price, entries.notional, exits.pnl AS earned,"
        " exits.time FROM fills AS exits"
        " JOIN fills AS entries ON entries.trade_id = exits.trade_id AND entries.is_entry = 1 WHERE exits.is_entry = 0"
        " ORDER BY exits.seq DESC LIMIT ?"
    )
    names = ("symbol", "action", "entry_price", "exit_price", "position_size", "pnl", "timestamp")
    trades = [
        dict(zip(names, (source.symbols[s], (Action.BUY if qty > 0 else Action.SELL).name, entry, exit_, size, pnl, iso(time))))
        for s, qty, entry, exit_, size, pnl, time in source.rows(query, KEPT_TRADES, fields=FILLS)
    ]
    return {
        "schema_version": 1,
        "initial_balance": source.params().broker.initial_cash,
        "current_balance": book.balance,
        "peak_balance": book.peak,
        "trade_history": trades[::-1],
        "last_trade_date": str(np.datetime64(day, "D")) if day >= 0 else "",
        "daily_trade_count": book.trades_today,
        "active_positions": {p["symbol"]: p["notional"] for p in book.positions},
        "last_losses": losses,
        "last_updated": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def read_governor(path: Path) -> dict[str, Any]:
    """Read a state file. Raises UserError on one that cannot be trusted: unreadable, of a newer schema, or with open positions."""
    state: dict[str, Any] = read_json(path, STATE)
    if state.get("schema_version", 1) != 1:
        raise UserError(f"--import-governor must be a JSON object of schema 1, was another: {path}")
    for name in NUMBERS:
        value = state.get(name, 1.0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value < float("inf"):
            raise UserError(f"--import-governor: {name} must be a positive number, was {value!r} in {path}")
    if state.get("active_positions"):
        names = ", ".join(state["active_positions"])
        raise UserError(f"--import-governor must be of a flat account, was with {names} open; their entry prices are not in the file")
    return state


def take_over(engine: Engine, state: dict[str, Any], symbols: tuple[str, ...], path: Path) -> None:
    """Put a state file's balance, peak, daily count and last losses into a fresh account."""
    try:
        governor = GovernorState.load(state, engine.params)
    except (InputError, LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(f"--import-governor must be a governor's state, was damaged: {path} ({error})") from error
    mine, theirs = engine.account.account[0], governor.account[0]
    for name in ("balance", "peak", "trades_today", "day"):
        mine[name] = theirs[name]
    mine["equity"] = theirs["balance"]
    mine["peak"] = max(mine["peak"], mine["balance"])
    known = dict(zip(governor.symbols, governor.positions["last_loss_time"].tolist()))
    known |= {symbol: max(known.get(symbol, NEVER), time_ns("last_losses", time)) for symbol, time in state.get("last_losses", {}).items()}
    for s, symbol in enumerate(symbols):
        engine.account.positions[s]["last_loss_time"] = known.get(symbol, NEVER)
