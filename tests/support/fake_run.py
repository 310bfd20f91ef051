"""A run without an engine: random walks, noisy votes and a plain trading loop, with every field that evidence, store and report read.

Small, seeded and consistent (cell PnL adds up to equity, fills pair up), so that a test can say what must come out.
"""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from qtcore.params import Params
from qtcore.rules import Reason
from qtcore.types import DECISION_COLUMNS, FILL, MODELS, NS_PER_HOUR, Bars, Decisions, Source, Verdict, Votes
from research.training.models.layers import NONE, Layers
from tests.support import PUBLISHED

START = 1_704_067_200_000_000_000  # 2024-01-01 UTC
FEE, SLIPPAGE, SIZE = 0.0004, 0.0001, 500.0
FILL_NAMES = FILL.names


@dataclass
class FakeLabel:
    id: str = "L1"
    horizon: int = 5
    sell: float = -0.015
    buy: float = 0.015

    def to_dict(self) -> dict[str, Any]:
        return dict(self.__dict__)


@dataclass
class FakePredictions:
    label: FakeLabel
    labels: np.ndarray
    imported: bool = False
    seed: int = 42
    notes: tuple[str, ...] = ()
    models: Any = None
    names: tuple[str, ...] = MODELS
    slots: tuple[str, ...] = MODELS[:4]
    condition: str | None = None
    knows_until: int | None = None
    contaminated: np.ndarray | None = None

    @property
    def fold(self) -> np.ndarray:
        return np.full(len(self.labels), -1, np.int16)

    def save(self, path: Path) -> None:
        pd.DataFrame({"label": self.labels.reshape(-1)}).to_parquet(path)


@dataclass
class FakeRun:
    bars: Bars
    predictions: FakePredictions
    params: Params
    result: SimpleNamespace
    ensemble_only: SimpleNamespace
    closing_fills: np.ndarray = field(default_factory=lambda: np.zeros(0, FILL))
    notes: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    lacked: tuple[str, ...] = ()
    without_breaker: SimpleNamespace | None = None
    command: str = "qt backtest simulated:fake --profile published"
    profile: str = "published"
    folder: Path | None = None
    manifest: dict[str, Any] = field(default_factory=dict)
    meta: None = None
    own_layers: tuple[str, ...] = ()
    own: Layers = NONE
    ceilings: bool = True
    verification: dict[str, Any] = field(default_factory=dict)

    @property
    def labels(self) -> np.ndarray:
        return self.predictions.labels

    @property
    def trades(self) -> pd.DataFrame:
        from research.runs.tables import trades_frame

        return trades_frame(self)

    @property
    def summary(self) -> dict[str, Any]:
        from research.evidence import summarise
        from research.runs.verdict import combined

        return combined(summarise(self), self.verification)


def fake_run(n: int = 1_500, n_symbols: int = 4, seed: int = 0, skill: float = 0.0, min_confidence: float = 0.65) -> FakeRun:
    """Make a run; `skill` in [0, 1] is the share of votes that copy the label."""
    rng = np.random.default_rng(seed)
    bars = walk(rng, n, n_symbols)
    labels = forward_labels(bars.close)
    votes = noisy_votes(rng, labels, skill)
    params = PUBLISHED.with_values({"broker.max_holding_bars": 5, "governor.min_confidence": min_confidence})
    regime = np.stack([rng.random((n, n_symbols)), np.clip(rng.normal(0.0, 0.4, (n, n_symbols)), -1, 1)])
    chain, alone = (trade(bars, votes, params, regime, arbiter) for arbiter in (True, False))
    return FakeRun(bars, FakePredictions(FakeLabel(), labels), params, chain, alone)


def walk(rng: np.random.Generator, n: int, n_symbols: int) -> Bars:
    step = rng.normal(0.0, 0.008, (n, n_symbols)) + rng.normal(0.0, 0.006, (n, 1))
    close = 100.0 * np.exp(np.cumsum(step, axis=0))
    open_ = np.vstack([close[:1], close[:-1]])
    planes = [open_, np.maximum(open_, close) * 1.002, np.minimum(open_, close) * 0.998, close, rng.lognormal(8, 1, close.shape)]
    for plane in planes:
        plane[n // 2 : n // 2 + 2, 0] = np.nan  # an outage
        plane[: n // 5, -1] = np.nan  # a late listing
    time = START + NS_PER_HOUR * np.arange(n, dtype=np.int64)
    symbols = tuple(f"SYM{s}" for s in range(n_symbols))
    return Bars(time, time + NS_PER_HOUR, *planes, symbols=symbols, interval=NS_PER_HOUR)


def forward_labels(close: np.ndarray, horizon: int = 5, level: float = 0.015) -> np.ndarray:
    labels = np.full(close.shape, -1, np.int8)
    with np.errstate(invalid="ignore"):
        ret = close[horizon:] / close[:-horizon] - 1.0
    labels[:-horizon] = np.where(np.isnan(ret), -1, 1 + (ret > level) - (ret < -level))
    return labels


def noisy_votes(rng: np.random.Generator, labels: np.ndarray, skill: float) -> Votes:
    n, n_symbols = labels.shape
    probs = rng.dirichlet(np.full(3, 1.2), (5, n, n_symbols))
    honest = (rng.random(probs.shape[:3]) < skill) & (labels >= 0)
    m, t, s = np.nonzero(honest)
    probs[m, t, s] = 0.1
    probs[m, t, s, labels[t, s]] = 0.8
    absent = np.zeros(probs.shape[:3], bool)
    absent[2:] = True  # two of four models vote
    absent[:, : n // 3] = True
    absent |= labels == -1
    probs[absent] = np.nan
    action = np.where(absent, -1, np.nan_to_num(probs, nan=0.0).argmax(axis=-1)).astype(np.int8)
    return Votes(action, np.where(absent, np.nan, probs.max(axis=-1)), probs)


def decide(votes: Votes, arbiter: bool) -> Decisions:
    a, b = votes.action[0], votes.action[1]
    voted, agree = a >= 0, a == b
    out = {name: np.zeros(a.shape, dtype) for name, dtype in DECISION_COLUMNS.items()}
    action = np.where(voted & agree, a, 1)
    confidence = np.where(voted & agree, np.nanmean(np.nan_to_num(votes.confidence[:2]), axis=0), 0.5)
    escalated = voted & ~agree & arbiter
    accepted = escalated & (np.nan_to_num(votes.confidence[0]) > 0.7)
    out |= {"ensemble_action": action, "ensemble_confidence": confidence, "n_voters": np.where(voted, 2, 0)}
    out["verdict"] = np.where(~voted, Verdict.NONE, np.where(escalated, Verdict.ESCALATE, Verdict.DEFER))
    out["meta_reason"] = np.where(
        escalated, Reason.HIGH_DISAGREEMENT, np.where(voted, Reason.STRONG_CONSENSUS_SELL + action, Reason.NO_VALID_MODELS)
    )
    out["meta_action"][:] = -1
    out["meta_confidence"][:] = np.nan
    choice = np.where(votes.confidence[0] > 0.75, 2, 0)
    out["arbiter_action"] = np.where(escalated, np.where(accepted, choice, 1), -1)
    out["arbiter_confidence"] = np.where(escalated, np.where(accepted, 0.8, 0.6), np.nan)
    out["arbiter_score"] = np.where(escalated, 0.1, np.nan)
    out["arbiter_reason"] = np.where(accepted, 40, np.where(escalated, Reason.DEFER_LOW_CONFIDENCE, 0))
    out["raw_action"] = np.where(accepted, choice, action)
    out["raw_confidence"] = np.where(accepted, 0.8, confidence)
    out["source"] = np.where(accepted, Source.ARBITER, Source.ENSEMBLE)
    return Decisions(**{name: np.asarray(out[name]).astype(dtype) for name, dtype in DECISION_COLUMNS.items()})


def trade(bars: Bars, votes: Votes, params: Params, regime: np.ndarray, arbiter: bool) -> SimpleNamespace:
    """Enter at the next open, leave after five bars; at most three positions."""
    d = decide(votes, arbiter)
    n, n_symbols = bars.close.shape
    reason = np.full((n, n_symbols), Reason.HOLD_SIGNAL, np.uint8)
    final = np.ones((n, n_symbols), np.int8)
    size, cell_pnl = np.zeros((n, n_symbols)), np.zeros((n, n_symbols))
    equity, exposure, worth, fills = np.zeros(n), np.zeros(n), np.zeros(n), []
    held: dict[int, dict[str, float]] = {}
    orders: dict[int, float] = {}
    cash, n_trades = params.broker.initial_cash, 0
    for t in range(n):
        for s in [s for s in held if t >= held[s]["bar"] + 5 and not np.isnan(bars.open[t, s])]:
            h = held.pop(s)
            fill, gain = leave(bars, h, t, s)
            fills.append(fill)
            cash += gain + h["fee"]  # the entry fee was paid at entry
            cell_pnl[t - 1, s] += gain + h["fee"] - h["marked"]
        for s, notional in orders.items():
            if np.isnan(bars.open[t, s]):
                continue
            h, fill = enter(bars, notional, t, s, n_trades)
            n_trades += 1
            fills.append(fill)
            held[s] = h
            cash -= h["fee"]
            cell_pnl[t - 1, s] -= h["fee"]
        orders = {}
        for s, h in held.items():
            price = h["last"] if np.isnan(bars.close[t, s]) else bars.close[t, s]
            value = h["qty"] * (price - h["price"])
            cell_pnl[t - 1, s] += value - h["marked"]
            h["marked"], h["last"] = value, price
        equity[t] = cash + sum(h["marked"] for h in held.values())
        worth[t] = sum(abs(h["qty"]) * h["last"] for h in held.values())
        for s in range(n_symbols):
            if d.n_voters[t, s] and d.raw_action[t, s] != 1:
                reason[t, s] = ask(d, params, held, orders, t, s)
                if reason[t, s] == Reason.APPROVED:
                    orders[s] = SIZE * (int(d.raw_action[t, s]) - 1)
                    size[t, s], final[t, s] = orders[s], d.raw_action[t, s]
        exposure[t] = SIZE * (len(held) + len(orders))
    planes = SimpleNamespace(regime=regime)
    records = np.array([tuple(f[name] for name in FILL_NAMES) for f in fills], FILL)
    return SimpleNamespace(
        decisions=d, votes=votes, planes=planes, final_action=final, governor_reason=reason, size=size, cell_pnl=cell_pnl, equity=equity,
        balance=equity.copy(), exposure=exposure, worth=worth, fills=records, open_time=bars.open_time, close_time=bars.close_time,
        symbols=bars.symbols,
    )  # fmt: skip


def ask(d: Decisions, params: Params, held: dict, orders: dict, t: int, s: int) -> Reason:
    if d.raw_confidence[t, s] < params.governor.min_confidence:
        return Reason.LOW_CONFIDENCE
    if s in held:
        return Reason.POSITION_ALREADY_OPEN
    return Reason.MAX_EXPOSURE_EXCEEDED if len(held) + len(orders) >= 3 else Reason.APPROVED


def enter(bars: Bars, notional: float, t: int, s: int, trade_id: int) -> tuple[dict[str, float], dict[str, Any]]:
    side = np.sign(notional)
    price = bars.open[t, s] * (1.0 + side * SLIPPAGE)
    qty, fee = notional / price, FEE * abs(notional)
    held = {"qty": qty, "price": price, "fee": fee, "bar": t, "marked": 0.0, "last": price, "id": trade_id}
    return held, booked(bars, t, s, trade_id, 1, Reason.APPROVED, qty, price, fee, np.nan)


def leave(bars: Bars, h: dict[str, float], t: int, s: int) -> tuple[dict[str, Any], float]:
    price = bars.open[t, s] * (1.0 - np.sign(h["qty"]) * SLIPPAGE)
    fee = FEE * abs(h["qty"] * price)
    pnl = h["qty"] * (price - h["price"]) - fee - h["fee"]
    return booked(bars, t, s, h["id"], 0, Reason.HORIZON, -h["qty"], price, fee, pnl), pnl


def booked(bars, t, s, trade_id, is_entry, reason, qty, price, fee, pnl) -> dict[str, Any]:
    reference = bars.open[t, s]
    values = {
        "time": bars.open_time[t],
        "bar": t,
        "symbol": s,
        "trade_id": trade_id,
        "is_entry": is_entry,
        "reason": reason,
        "qty": qty,
        "price": price,
        "reference_price": reference,
        "notional": abs(qty * price),
        "fee": fee,
        "slippage": abs(qty) * abs(price - reference),
        "pnl": 0.0 if is_entry else pnl,
    }
    return dict.fromkeys(FILL_NAMES, 0) | values
