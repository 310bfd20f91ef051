"""Export of the governor's state for people: the JSON file of `spec` 10.5, made of a live journal."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from qtcore.rules import Reason
from qtcore.types import NEVER, Action
from research.errors import UserError
from research.files import save_json, writable
from research.live.monitoring.journal_source import JournalSource
from research.live.monitoring.run_source import RunSource
from research.live.records import iso
from research.live.storage.cells import FILLS
from research.live.storage.codec import unpack_book
from research.live.storage.files import guarded

KEPT_TRADES = 100


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
        " JOIN fills AS entries ON entries.trade_id = exits.trade_id AND entries.is_entry = 1"
        f" WHERE exits.is_entry = 0 AND exits.reason != {int(Reason.REDUCED)} AND entries.reason != {int(Reason.ADDED)}"
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
