"""What can be watched? A live journal or a finished run, seen the same way: account, positions, counts, equity, the last decisions."""

import json
import sqlite3
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qtcore import Params
from qtcore.types import ACCOUNT, F8, I8, MODELS, NS_PER_DAY, POSITION, Action, Reason, Source, Verdict
from research.errors import UserError
from research.live.codec import CELL_COLUMNS
from research.live.files import check_version, guarded, read_about
from research.live.tally import COUNTED, Tally
from research.reasons import reason_text
from research.store import RunFiles, read_run

RECENT = 20  # closed trades of the recent win rate (`spec` 10.5)
POINTS = 600  # of the equity curve on a page


@dataclass(frozen=True)
class Book:
    """The account as it stands. Money in quote currency; drawdown a fraction of the peak; recent: PnL of the last 20 closed trades."""

    time: int
    balance: float
    equity: float
    peak: float
    exposure: float
    trades_today: int
    total_trades: int
    is_halted: bool
    recent: tuple[float, ...] = ()
    positions: tuple[dict[str, Any], ...] = ()

    @property
    def drawdown(self) -> float:
        """Loss from the peak, a fraction."""
        return max(0.0, 1.0 - self.equity / self.peak) if self.peak > 0.0 else 0.0

    @property
    def win_rate(self) -> float:
        """Share of winners among the recent trades, 0.0 without any."""
        return sum(pnl > 0.0 for pnl in self.recent) / len(self.recent) if self.recent else 0.0


class Watched(Protocol):
    """What monitor, dashboard and validation look at."""

    @property
    def name(self) -> str:
        """Name of the journal or run."""
        ...

    @property
    def is_live(self) -> bool:
        """Can it grow?"""
        ...

    def tally(self) -> Tally:
        """Return the counts so far."""
        ...

    def book(self) -> Book:
        """Return the account at the last bar."""
        ...

    def params(self) -> Params:
        """Return the parameters in force."""
        ...

    def equity(self) -> tuple[I8, F8]:
        """Return close times, ns UTC, and equity of at most some hundred bars that span everything."""
        ...

    def last(self, n: int) -> list[dict[str, Any]]:
        """Return the last n decided cells that are no plain HOLD, newest first, in words."""
        ...

    def latency(self) -> tuple[float, float] | None:
        """Return median and 99th percentile from closed bar to journal, seconds, of the last thousand bars; None for a finished run."""
        ...

    def events(self, n: int) -> list[dict[str, Any]]:
        """Return the last n notes of the feed and the runner, newest first."""
        ...


@dataclass
class JournalSource:
    """A journal that another process may be writing. Raises UserError where it cannot be read."""

    path: Path
    is_live: bool = True
    _tally: Tally = field(default_factory=Tally)
    _seen: int = -1

    def __post_init__(self) -> None:
        if not self.path.exists():
            raise UserError(f"SRC must be a journal of `qt live` or a run's folder, was missing: {self.path}")
        with guarded(self.path):
            self._db = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=10.0, check_same_thread=False, isolation_level=None)
            check_version(self._db, self.path)
            self.about = read_about(self._db)
        self.symbols = tuple(self.about["symbols"])
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """File name."""
        return self.path.name

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a query; one at a time, as pages are made by several threads."""
        with self._lock, guarded(self.path):
            return self._db.execute(query, values).fetchall()

    def tally(self) -> Tally:
        """Count what came since the last call, and return the whole."""
        rows = self.rows(f"SELECT cell, {', '.join(COUNTED)} FROM decisions WHERE cell > ? ORDER BY cell", self._seen)
        if rows:
            table = np.array(rows, float)
            self._tally.add({name: table[:, k + 1] for k, name in enumerate(COUNTED)})
            self._seen = int(rows[-1][0])
        return self._tally

    def reset(self) -> None:
        """Start the counts anew at the next bar."""
        self.tally()
        self._tally = Tally()

    def book(self) -> Book:
        """Return the account at the last bar."""
        found = self.rows("SELECT account, positions, (SELECT MAX(close_time) FROM bars) FROM book")
        if not found:
            cash = self.params().broker.initial_cash
            return Book(0, cash, cash, cash, 0.0, 0, 0, False)
        account = np.frombuffer(found[0][0], ACCOUNT)[0]
        positions = np.frombuffer(found[0][1], POSITION)
        recent = self.rows("SELECT pnl FROM fills WHERE is_entry = 0 ORDER BY seq DESC LIMIT ?", RECENT)
        held = tuple(_position(self.symbols[s], positions[s]) for s in np.flatnonzero(positions["qty"]))
        money = (float(account["balance"]), float(account["equity"]), float(account["peak"]), float(account["exposure"]))
        counts = (int(account["trades_today"]), int(account["n_closed"]), bool(account["is_halted"]))
        return Book(int(found[0][2]), *money, *counts, tuple(pnl for (pnl,) in recent), held)

    def params(self) -> Params:
        """Return the newest version's parameters."""
        found = self.rows("SELECT params FROM versions ORDER BY id DESC LIMIT 1")
        return Params().with_values(json.loads(found[0][0])) if found else Params()

    def equity(self) -> tuple[I8, F8]:
        """Return a curve of at most some hundred points."""
        first, last = self.rows("SELECT MIN(bar), MAX(bar) FROM bars")[0]
        if first is None:
            return np.empty(0, np.int64), np.empty(0)
        step = max(1, (last - first) // POINTS)
        rows = self.rows("SELECT close_time, equity FROM bars WHERE (bar - ?) % ? = 0 OR bar = ? ORDER BY bar", first, step, last)
        return np.array([t for t, _ in rows], np.int64), np.array([e for _, e in rows], float)

    def last(self, n: int) -> list[dict[str, Any]]:
        """Return the newest cells that are no plain HOLD."""
        query = (
            f"SELECT close_time, symbol, {', '.join(CELL_COLUMNS)} FROM decisions JOIN bars USING (bar)"
            " WHERE raw_action != 1 OR final_action != 1 ORDER BY cell DESC LIMIT ?"
        )
        return [told(time, symbol, dict(zip(CELL_COLUMNS, rest))) for time, symbol, *rest in self.rows(query, n)]

    def latency(self) -> tuple[float, float] | None:
        """Return median and 99th percentile of the last thousand bars."""
        rows = sorted(ns for (ns,) in self.rows("SELECT latency FROM bars ORDER BY bar DESC LIMIT 1000"))
        return (rows[len(rows) // 2] / 1e9, rows[len(rows) * 99 // 100] / 1e9) if rows else None

    def events(self, n: int) -> list[dict[str, Any]]:
        """Return the newest notes."""
        rows = self.rows("SELECT time, kind, symbol, text FROM events ORDER BY id DESC LIMIT ?", n)
        return [{"time": iso(time), "kind": kind, "symbol": symbol, "text": text} for time, kind, symbol, text in rows]


@dataclass
class RunSource:
    """A finished run's folder."""

    run: RunFiles
    is_live: bool = False

    def __post_init__(self) -> None:
        self._planes = self.run.decisions()
        self._equity = self.run.frame("equity")
        self._trades = self.run.frame("trades")
        self._close = self._equity["close_time"].dt.tz_localize(None).to_numpy("M8[ns]").astype(np.int64)
        self._tally = Tally()
        self._tally.add({name: self._planes[name] for name in COUNTED})

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.run.path.name

    def tally(self) -> Tally:
        """Return the counts of the whole run."""
        return self._tally

    def reset(self) -> None:
        """Start the counts anew."""
        self._tally = Tally()

    def book(self) -> Book:
        """Return the account at the last bar; what was open there stands as positions."""
        frame, trades = self._equity, self._trades
        exits = self.run.frame("fills")
        closed = exits.loc[~exits["is_entry"], "pnl"]
        open_ = trades[(trades["exit_reason"] == Reason.END_OF_DATA) | trades["exit_time"].isna()]
        day = self._close // NS_PER_DAY == self._close[-1] // NS_PER_DAY
        today = int((self._planes["governor_reason"][day] == Reason.APPROVED).sum())
        held = tuple(_open_trade(row) for row in open_.to_dict("records"))
        refused = self._planes["governor_reason"][-1] == Reason.MAX_DRAWDOWN_EXCEEDED
        peak = max(float(frame["equity"].max()), self.params().broker.initial_cash)
        last = frame.iloc[-1]
        money = (float(last["balance"]), float(last["equity"]), peak, float(last["exposure"]))
        return Book(int(self._close[-1]), *money, today, len(closed), bool(refused.any()), tuple(closed.tail(RECENT))[::-1], held)

    def params(self) -> Params:
        """Return the run's parameters."""
        return self.run.params()

    def equity(self) -> tuple[I8, F8]:
        """Return a curve of at most some hundred points."""
        step = max(1, len(self._close) // POINTS)
        keep = np.unique(np.append(np.arange(0, len(self._close), step), len(self._close) - 1))
        return self._close[keep], self._equity["equity"].to_numpy()[keep]

    def last(self, n: int) -> list[dict[str, Any]]:
        """Return the newest cells that are no plain HOLD."""
        acted = np.argwhere((self._planes["raw_action"] != Action.HOLD) | (self._planes["final_action"] != Action.HOLD))[::-1][:n]
        names = [name for name in CELL_COLUMNS if name in self._planes]
        return [told(int(self._close[t]), self.run.symbols[s], {k: self._planes[k][t, s].item() for k in names}) for t, s in acted]

    def latency(self) -> tuple[float, float] | None:
        """Return None: nobody waited for these bars."""
        return None

    def events(self, n: int) -> list[dict[str, Any]]:
        """Return the notes of the manifest."""
        notes = self.run.manifest.get("notes", [])[:n]
        return [{"time": self.run.manifest["created"], "kind": "note", "symbol": "", "text": text} for text in notes]


def open_source(path: str | Path) -> JournalSource | RunSource:
    """Open a journal or a run's folder. Raises UserError where it is neither."""
    path = Path(path)
    return RunSource(read_run(path)) if path.is_dir() else JournalSource(path)


def told(time: int, symbol: str, cell: dict[str, Any]) -> dict[str, Any]:
    """Say one decision in words and numbers, with every layer's reason."""
    votes = {
        model: {"action": Action(int(cell[f"{model}_action"])).name, "confidence": _none(cell[f"{model}_confidence"])}
        for model in MODELS
        if cell[f"{model}_action"] >= 0
    }
    return {
        "time": iso(time),
        "symbol": symbol,
        "votes": votes,
        "ensemble": {"action": Action(int(cell["ensemble_action"])).name, "confidence": _none(cell["ensemble_confidence"])},
        "meta": {"verdict": Verdict(int(cell["verdict"])).name, "reason": reason_text(cell["meta_reason"])},
        "arbiter": None
        if cell["arbiter_action"] < 0
        else {
            "action": Action(int(cell["arbiter_action"])).name,
            "confidence": _none(cell["arbiter_confidence"]),
            "reason": reason_text(cell["arbiter_reason"]),
        },
        "raw": {"action": Action(int(cell["raw_action"])).name, "confidence": _none(cell["raw_confidence"])},
        "final": {"action": Action(int(cell["final_action"])).name, "source": Source(int(cell["final_source"])).name.lower()},
        "governor": reason_text(cell["governor_reason"]),
        "size": _none(cell["size"]),
    }


def iso(ns: int) -> str:
    """Print ns UTC to the second."""
    return f"{np.datetime64(int(ns), 'ns').astype('M8[s]')}Z"


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


def _open_trade(row: dict[str, Any]) -> dict[str, Any]:
    """Tell what was open at the end of a run."""
    return {
        "symbol": row["symbol"],
        "side": "long" if row["side"] > 0 else "short",
        "qty": float(row["qty"]),
        "entry_price": float(row["entry_price"]),
        "notional": float(row["notional"]),
        "unrealised": _none(row["pnl"]),
        "stop_price": None,
        "since": row["entry_time"].isoformat(),
    }


def _none(x: Any) -> float | None:
    return None if x is None or x != x else float(x)
