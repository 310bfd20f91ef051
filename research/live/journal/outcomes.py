"""Trade outcomes of a live journal: its decisions and closed trades, as meta training reads logs (`spec` 12.1).

A journal covers the bars that its runner decided on paper: votes, ensemble, regime, and the outcome of each entry order, net of costs. The
view `metav2_decisions` shows the same rows to people; its numbers have 15 digits, so training reads the columns, which have all. A trade
that is still open, or an order still waiting, has no outcome yet: its row is left out and counted. An order never filled was no trade, nor
was one that added to a position.
"""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from qtcore.rules import Reason
from qtcore.types import N_MODELS, Action
from research.errors import UserError
from research.live.journal.reading import Reading
from research.live.storage.cells import rows_of, voters_of
from research.live.storage.codec import vote_names
from research.live.storage.files import MAGIC, check_version, guarded, read_about
from research.training.meta.log_files import LogLines

MINUTE = 60e9  # ns
DECIDED = """
SELECT bars.close_time, symbol, ensemble_action, volatility, trend_strength, {}
FROM decisions JOIN bars USING (bar) WHERE n_voters > 0 ORDER BY cell"""
ENTERED = f"""
SELECT bars.close_time, orders.symbol, orders.notional, orders.state, entries.time AS entered, exits.time AS left, exits.pnl
FROM orders JOIN bars USING (bar)
    LEFT JOIN fills AS entries ON entries.order_id = orders.id AND entries.is_entry = 1
    LEFT JOIN fills AS exits ON exits.trade_id = entries.trade_id AND exits.is_entry = 0 AND exits.reason != {int(Reason.REDUCED)}
WHERE orders.kind = 'entry' AND COALESCE(entries.reason, 0) != {int(Reason.ADDED)} ORDER BY orders.bar, orders.id"""


def is_journal(path: Path) -> bool:
    """Say whether a file is an SQLite database rather than a log of JSON lines."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return False
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except (OSError, ValueError):
        return False


def read_outcomes(journal: Path) -> LogLines:
    """Read a journal that may be growing: its decisions and closed trades as `research.training.meta.read_log` takes them.

    Raises UserError where the file is no journal of this version, or damaged.
    """
    reading = Reading(journal)
    with guarded(journal):
        db = reading.db
        try:
            check_version(db, journal)
            voters = voters_of(read_about(db))
            db.execute("BEGIN")  # one view of both tables
            n_decisions = int(db.execute("SELECT COUNT(*) FROM decisions").fetchone()[0])
            decided, entered = rows_of(db.execute(DECIDED.format(", ".join(vote_names(voters))))), rows_of(db.execute(ENTERED))
        finally:
            reading.close()
    if not decided:
        raise UserError(f"{journal} must have decisions with votes, was without; let `qt live` run")
    closed, rest = [row for row in entered if row[6] is not None], [row for row in entered if row[6] is None]
    unfinished = {(row[0], row[1]) for row in rest if row[4] is not None or row[3] == "open"}
    lines = _lines(decided)
    waiting = np.array([key in unfinished for key in zip((row[0] for row in decided), lines["symbol"])])
    counts = {
        "decisions": n_decisions,
        "decisions without a vote": n_decisions - len(decided),
        "outcomes": len(closed),
        "unfinished trades, left out": int(waiting.sum()),
        "orders never filled": len(entered) - len(closed) - len(unfinished),
    }
    digest = hashlib.sha256(repr((decided, entered)).encode()).hexdigest()
    return LogLines(str(journal), lines[~waiting], _traded(closed), counts, digest, voters)


def _lines(rows: list[tuple]) -> pd.DataFrame:
    table = np.array([row[2:] for row in rows], np.float64)  # NULL is NaN
    votes = table[:, 3:].reshape(len(rows), N_MODELS, 2).transpose(0, 2, 1)
    regime = np.where(np.isnan(table[:, 1:3]).any(axis=1, keepdims=True), np.nan, table[:, 1:3])  # both or none, as logs have it
    return pd.DataFrame(
        {
            "timestamp": _utc([row[0] for row in rows]),
            "symbol": [row[1] for row in rows],
            "said": list(votes),
            "ensemble": table[:, 0].astype(np.int8),
            "regime": list(regime),
        }
    )


def _traded(rows: list[tuple]) -> pd.DataFrame:
    """Return closed trades by the decision that opened them, in the order of time."""
    pnl = np.array([row[6] for row in rows], np.float64)
    opened = _utc([row[0] for row in rows])
    return pd.DataFrame(
        {
            "timestamp": opened,
            "symbol": [row[1] for row in rows],
            "traded": [int(Action.BUY if row[2] > 0.0 else Action.SELL) for row in rows],
            "outcome": np.where(pnl > 0.0, "win", np.where(pnl < 0.0, "loss", "breakeven")),
            "minutes": np.array([(row[5] - row[4]) / MINUTE for row in rows], np.float64),
            "opened": opened,
        }
    ).sort_values("timestamp", kind="stable")


def _utc(ns: list[int]) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(np.array(ns, np.int64).view("M8[ns]")).tz_localize("UTC")
