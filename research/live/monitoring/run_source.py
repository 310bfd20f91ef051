"""Status source of a finished run, seen the way a journal is: account, positions, counts, equity, the last decisions."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qtcore import Bars, Params
from qtcore.choices import DrawdownBasis
from qtcore.rules import Reason
from qtcore.types import F8, I8, NEVER, NS_PER_DAY, Action
from research.live.monitoring.cell_history import SETTLED, DecidedBar, Money, arbiter_inputs, has_signal, peaks
from research.live.monitoring.counts import LiveCounts
from research.live.monitoring.status_source import KEPT_BARS, POINTS, RECENT, Book, number_or_none, told
from research.live.storage.codec import cell_names
from research.runs.folder import RunFiles
from research.runs.verdict import stated


@dataclass
class RunSource:
    """A finished run's folder."""

    run: RunFiles
    is_live: bool = False
    _highs: F8 | None = None
    _candles: Bars | None = None
    _lost: dict[str, I8] | None = None
    _read: dict[int, F8] = field(default_factory=dict)  # by bar: what the arbiter read

    def __post_init__(self) -> None:
        self.interval = int(self.run.manifest["interval"])
        self._planes = self.run.decisions()
        self._equity = self.run.frame("equity")
        self._trades = self.run.frame("trades")
        self._close = self._equity["close_time"].dt.tz_localize(None).to_numpy("M8[ns]").astype(np.int64)
        self._tally = LiveCounts.of(self.run.voters, "lean" in self._planes)
        counted = {name: self._planes[name] for name in self._tally.columns}
        self._tally.add(counted, np.broadcast_to(np.arange(len(self._close))[:, None], counted["n_voters"].shape))

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.run.path.name

    def check(self) -> None:
        """Do nothing: `qt verify` looks at a run's files."""

    def verdict(self) -> dict[str, str | None]:
        """Return the verdict as it is now: a proof may have been added."""
        return stated(self.run.summary)

    def tally(self) -> LiveCounts:
        """Return the counts of the whole run."""
        return self._tally

    def active(self) -> list[str]:
        """Return the models that ever voted."""
        return self._tally.active(len(self._close))

    def reset(self) -> None:
        """Start the counts anew, for as long as this process looks: nothing is written into a finished run."""
        self._tally = self._tally.emptied()

    def book(self) -> Book:
        """Return the account at the last bar; what was open there stands as positions."""
        frame, trades = self._equity, self._trades
        exits = self.run.frame("fills")
        closed = exits.loc[~exits["is_entry"] & (exits["reason"] != Reason.REDUCED), "pnl"]
        open_ = trades[(trades["exit_reason"] == Reason.END_OF_DATA) | trades["exit_time"].isna()]
        day = self._close // NS_PER_DAY == self._close[-1] // NS_PER_DAY
        today = int((self._planes["governor_reason"][day] == Reason.APPROVED).sum())
        rows = sorted(open_.to_dict("records"), key=lambda row: self.run.symbols.index(row["symbol"]))
        held = tuple(map(_open_trade, rows))
        refused = self._planes["governor_reason"][-1] == Reason.MAX_DRAWDOWN_EXCEEDED
        peak = max(float(frame["equity"].max()), self.params().broker.initial_cash)
        last = frame.iloc[-1]
        money = (float(last["balance"]), float(last["equity"]), peak, float(last["exposure"]))
        earlier = frame["equity"].to_numpy()[self._close <= self._close[-1] // NS_PER_DAY * NS_PER_DAY]
        midnight = float(earlier[-1]) if len(earlier) else self.params().broker.initial_cash
        recent = tuple(closed.tail(RECENT))[::-1]
        return Book(int(self._close[-1]), *money, today, len(closed), bool(refused.any()), midnight, recent, held)

    def params(self) -> Params:
        """Return the run's parameters."""
        return self.run.params()

    def has_meta_model(self) -> bool:
        """Whether a learned meta layer is in the manifest."""
        return self.run.manifest.get("meta_model") is not None

    def seats(self) -> dict[str, tuple[bool, str]]:
        """Say by layer whether it could act in the newest period, and on what evidence."""
        told = self.run.summary.get("traders") or {}  # runs before 0.3 have none
        return {each["layer"]: (each["acts"][-1], each["evidence"]) for each in told.get("seats", [])}

    def allowed(self) -> dict[str, list[str]]:
        """Return nobody: research refuses no models."""
        return {}

    def equity(self) -> tuple[I8, F8]:
        """Return a curve of at most some hundred points."""
        step = max(1, len(self._close) // POINTS)
        keep = np.unique(np.append(np.arange(0, len(self._close), step), len(self._close) - 1))
        return self._close[keep], self._equity["equity"].to_numpy()[keep]

    def last(self, n: int) -> list[dict[str, Any]]:
        """Return the newest cells that are no plain HOLD."""
        acted = np.argwhere((self._planes["raw_action"] != Action.HOLD) | (self._planes["final_action"] != Action.HOLD))[::-1][:n]
        names = [name for name in cell_names(self.run.voters, is_priced=True) if name in self._planes]
        out, params = [], self.params()
        for t, s in acted.tolist():
            cell = {name: self._planes[name][t, s].item() for name in names}
            asked = self._decided(t, params).asked(s, cell["governor_reason"], params)
            inputs = self._inputs(t, params)[:, s].tolist() if has_signal(cell) else None
            out.append(told(int(self._close[t]), self.run.symbols[s], cell, self.run.voters, params, asked, inputs))
        return out

    def _decided(self, t: int, params: Params) -> DecidedBar:
        """Return bar t as it was decided."""
        frame, now = self._equity.iloc[t], int(self._close[t])
        day = self._close // NS_PER_DAY == now // NS_PER_DAY
        peak = self._peaks(params)[t]
        size, confidence = self._planes["size"][t], self._planes["raw_confidence"][t]
        gross_edge = self._planes["gross_edge"][t] if "gross_edge" in self._planes else None

        def trades_today() -> int:
            return int(np.count_nonzero(self._planes["governor_reason"][: t + 1][day[: t + 1]] == Reason.APPROVED))

        def loss_of(s: int) -> int:
            times = self._losses()[self.run.symbols[s]]
            return int(times[times <= now].max(initial=NEVER))

        money = Money(float(frame["equity"]), float(frame["balance"]), float(peak), float(frame["exposure"]))
        return DecidedBar(now, money, size, confidence, gross_edge, trades_today, loss_of)

    def _losses(self) -> dict[str, I8]:
        """Return the times of losing exits by symbol, ns UTC."""
        if self._lost is None:
            exits = self.run.frame("fills", ["symbol", "time", "is_entry", "pnl"])
            exits = exits[~exits["is_entry"] & (exits["pnl"] < 0.0)]
            times = exits["time"].dt.tz_localize(None).to_numpy("M8[ns]").astype(np.int64)
            self._lost = {symbol: times[(exits["symbol"] == symbol).to_numpy()] for symbol in self.run.symbols}
        return self._lost

    def _peaks(self, params: Params) -> F8:
        if self._highs is None:
            basis = "equity" if params.governor.drawdown_basis == DrawdownBasis.EQUITY else "balance"
            self._highs = peaks(self._equity[basis].to_numpy(), self._close, params)
        return self._highs

    def _inputs(self, t: int, params: Params) -> F8:
        """Return what the arbiter read at bar t, [6, S]."""
        if self._candles is None:
            self._candles = self.run.bars()
        if t not in self._read:
            self._read = dict(list(self._read.items())[-KEPT_BARS:])
            self._read[t] = arbiter_inputs(self._candles[max(0, t - SETTLED) : t + 1], params)
        return self._read[t]

    def orders(self) -> list[dict[str, Any]]:
        """Return none: nothing is filled after the last bar."""
        return []

    def runner(self) -> None:
        """Return None: it has ended."""
        return None

    def latency(self) -> tuple[float, float] | None:
        """Return None: nobody waited for these bars."""
        return None

    def durations(self) -> None:
        """Return None: nobody waited for these bars."""
        return None

    def event_counts(self) -> Counter[str]:
        """Count the notes of the manifest."""
        return Counter(row["kind"] for row in self.events(len(self.run.manifest.get("notes", []))))

    def events(self, n: int) -> list[dict[str, Any]]:
        """Return the notes of the manifest."""
        notes = self.run.manifest.get("notes", [])[:n]
        return [{"time": self.run.manifest["created"], "kind": "note", "symbol": "", "text": text} for text in notes]


def _open_trade(row: dict[str, Any]) -> dict[str, Any]:
    """Tell what was open at the end of a run."""
    return {
        "symbol": row["symbol"],
        "side": "long" if row["side"] > 0 else "short",
        "qty": float(row["qty"]),
        "entry_price": float(row["entry_price"]),
        "notional": float(row["notional"]),
        "unrealised": number_or_none(row["pnl"]),
        "stop_price": None,
        "since": row["entry_time"].isoformat(),
    }
