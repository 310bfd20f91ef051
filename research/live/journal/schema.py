"""Tables of a journal: what one file holds, as SQLite makes it."""

from collections.abc import Sequence

from qtcore.rules import Reason
from qtcore.types import FILL, MONEY_COLUMNS
from research.live.storage.codec import cell_names

FILL_COLUMNS = ", ".join(f"{name} {'REAL' if FILL[name].kind == 'f' else 'INTEGER'}" for name in FILL.names or ())


def statements(voters: Sequence[str], is_priced: bool) -> list[str]:
    """Return what makes the tables, one statement each. voters: names of the five slots, which head the columns of the votes."""
    columns = ", ".join(map(_typed, cell_names(voters, is_priced)))
    votes = ", ".join(f"'{name}', json_object('action', {name}_action, 'confidence', {name}_confidence)" for name in voters)
    return [text for text in SCHEMA.format(columns=columns, votes=votes).split(";\n") if text.strip()]


def _typed(name: str) -> str:
    real = name in ("size", "volatility", "trend_strength", "arbiter_score", *MONEY_COLUMNS) or name.endswith("_confidence")
    return f"{name} {'REAL' if real else 'INTEGER'}"


SCHEMA = f"""
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE versions (id INTEGER PRIMARY KEY, from_bar INTEGER NOT NULL, params TEXT NOT NULL, models TEXT NOT NULL, cause TEXT NOT NULL);
CREATE TABLE bars (
    bar INTEGER PRIMARY KEY, open_time INTEGER NOT NULL, close_time INTEGER NOT NULL, received INTEGER NOT NULL, latency INTEGER,
    candles BLOB NOT NULL, probs BLOB, equity REAL, balance REAL, exposure REAL, peak REAL, version INTEGER NOT NULL, digest BLOB NOT NULL);
CREATE TABLE decisions (cell INTEGER PRIMARY KEY, bar INTEGER NOT NULL, symbol TEXT NOT NULL, {{columns}});
CREATE TABLE orders (
    id TEXT PRIMARY KEY, bar INTEGER NOT NULL, symbol TEXT NOT NULL, kind TEXT NOT NULL, notional REAL NOT NULL, reason INTEGER NOT NULL,
    state TEXT NOT NULL, done_bar INTEGER) WITHOUT ROWID;
CREATE INDEX open_orders ON orders (state) WHERE state = 'open';
CREATE TABLE fills (seq INTEGER PRIMARY KEY, order_id TEXT, {FILL_COLUMNS});
CREATE TABLE book (id INTEGER PRIMARY KEY CHECK (id = 1), account BLOB NOT NULL, positions BLOB NOT NULL);
CREATE TABLE snapshots (
    slot INTEGER PRIMARY KEY, bar INTEGER NOT NULL, close_time INTEGER NOT NULL, state BLOB NOT NULL, hash TEXT NOT NULL);
CREATE TABLE events (id INTEGER PRIMARY KEY, bar INTEGER, time INTEGER NOT NULL, kind TEXT NOT NULL, symbol TEXT, text TEXT NOT NULL);
CREATE TABLE control (id INTEGER PRIMARY KEY, time INTEGER NOT NULL, command TEXT NOT NULL, applied_bar INTEGER);
CREATE TABLE reasons (code INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE VIEW metav2_decisions AS
    SELECT strftime('%Y-%m-%dT%H:%M:%SZ', bars.close_time / 1000000000, 'unixepoch') AS timestamp, decisions.symbol AS symbol,
        CASE decisions.final_action WHEN 0 THEN 'SELL' WHEN 2 THEN 'BUY' ELSE 'HOLD' END AS decision,
        json_object('base_predictions', json_object({{votes}}),
            'ensemble_action', ensemble_action, 'ensemble_confidence', ensemble_confidence,
            'regime', json_object('volatility', volatility, 'trend_strength', trend_strength)) AS features,
        (SELECT exits.pnl FROM fills AS entries JOIN fills AS exits ON exits.trade_id = entries.trade_id AND exits.is_entry = 0
                AND exits.reason != {int(Reason.REDUCED)} AND entries.reason != {int(Reason.ADDED)}
            WHERE entries.order_id = decisions.symbol || '-' || (bars.close_time / 1000000000) || '-entry') AS actual_outcome
    FROM decisions JOIN bars USING (bar);
CREATE INDEX fills_of_orders ON fills (order_id);
CREATE INDEX fills_of_trades ON fills (trade_id);
"""
