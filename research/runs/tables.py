"""Result tables: decisions, trades, fills and equity as pandas frames; the same columns go to Parquet.

Enums are codes of `qtcore.types` (int8, uint8), times are UTC. Every frame is indexed by the time at which its row begins.
"""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from qtcore.types import DECISION_COLUMNS, Action, Source, Votes
from research.data.grid import filled
from research.runs.benchmark import buy_and_hold, drawdown
from research.runs.money import book_planes, money_planes
from research.runs.record import RunRecord
from research.runs.round_trips import closes, opens, resized


def tested_rows(run: RunRecord) -> slice:
    """Bars that count as evidence: from the first vote until positions opened on the last vote have run out; all bars without a vote."""
    voted = np.flatnonzero((run.result.decisions.n_voters > 0).any(axis=1))
    n = len(run.bars.open_time)
    if len(voted) == 0:
        return slice(0, n)
    broker = run.params.broker
    held = max(broker.max_holding_bars, longest_of(run.result.votes))
    return slice(int(voted[0]), int(tested_stop(n, int(voted[-1]), broker.fill.delay, held)))


def longest_of(votes: Votes) -> int:
    """Return the bars of the longest of the later horizons that votes speak of, 0 where there is none."""
    return 0 if votes.maps is None else int(votes.maps["bars"].max(initial=0))


def tested_stop(n: int, last: int, delay: ArrayLike, horizon: ArrayLike) -> Any:
    """Return the bar after the last of n that counts as evidence, for votes up to bar `last`: its orders are filled, held and sold by then.

    delay: bars from a decision to its fill; horizon: the longest time that a position is held, bars.
    """
    delay = np.maximum(delay, 1)
    return np.minimum(n, last + delay + np.maximum(delay, horizon) + 1)


def final_source(run: RunRecord) -> NDArray[np.int8]:
    """Layer that each final action comes from, `Source` codes [n, S]: the governor's where it turned a trade into HOLD."""
    decisions = run.result.decisions
    refused = (decisions.raw_action != Action.HOLD) & (run.result.final_action == Action.HOLD)
    return np.where(refused, np.int8(Source.GOVERNOR_HOLD), decisions.source).astype(np.int8)


def vote_planes(run: RunRecord) -> dict[str, NDArray]:
    """Return what every slot voted, two planes [n, S] each, by the names of the voters."""
    votes = run.result.votes
    parts = (("action", votes.action), ("confidence", votes.confidence))
    return {f"{name}_{part}": plane[m] for m, name in enumerate(votes.names) for part, plane in parts}


def decision_planes(run: RunRecord) -> dict[str, NDArray]:
    """Every column of the decision table as a plane [n, S], in the order of the chain."""
    return vote_planes(run) | layer_planes(run)


def layer_planes(run: RunRecord) -> dict[str, NDArray]:
    """Every column of the decision table behind the votes as a plane [n, S]."""
    result = run.result
    approved = result.final_action != Action.HOLD
    return {
        **{name: getattr(result.decisions, name) for name in DECISION_COLUMNS},
        **money_planes(result.decisions),
        **book_planes(result.decisions),
        "final_action": result.final_action,
        "final_confidence": np.where(approved | (result.decisions.raw_action == Action.HOLD), result.decisions.raw_confidence, 0.0),
        "final_source": final_source(run),
        "governor_reason": result.governor_reason,
        "size": result.size,
        "cell_pnl": result.cell_pnl,
        "volatility": result.planes.regime[0],
        "trend_strength": result.planes.regime[1],
        "label": run.labels,
    }


def decisions_frame(run: RunRecord) -> pd.DataFrame:
    """One row per bar and symbol: what every layer said, the governor's answer, the label; indexed by (open_time, symbol)."""
    n_symbols = len(run.bars.symbols)
    index = pd.MultiIndex.from_product([_times(run.bars.open_time), list(run.bars.symbols)], names=["open_time", "symbol"])
    columns = {"close_time": _times(np.repeat(run.bars.close_time, n_symbols))}
    columns |= {name: np.ascontiguousarray(plane).reshape(-1) for name, plane in decision_planes(run).items()}
    return pd.DataFrame(columns, index=index, copy=False)


def fills_frame(run: RunRecord) -> pd.DataFrame:
    """List executions in the order they were booked, indexed by time; `side` is +1 bought, -1 sold."""
    fills = run.result.fills
    columns: dict[str, Any] = {name: fills[name] for name in fills.dtype.names or () if name not in ("time", "symbol")}
    columns["reason"] = columns["reason"].astype(np.uint8)
    columns["is_entry"] = columns["is_entry"].astype(bool)
    frame = pd.DataFrame(columns, index=pd.Index(_times(fills["time"]), name="time"))
    frame.insert(0, "symbol", _symbols(run, fills["symbol"]))
    return frame


def trades_frame(run: RunRecord) -> pd.DataFrame:
    """Round trips built from the fills, in the order of entry, indexed by entry time.

    What `run.closing_fills` closes at the last bar ends as END_OF_DATA. A trade that is still open has NaN and NaT exits and `exit_reason`
    0. `pnl` is net of fees, slippage and funding, `ret` is pnl over the entry notional. Source, confidence and regime are those of the
    decision that opened it. Of a trade that was made larger or smaller on its way, `qty` and `notional` are all that was entered, the
    prices are means, and fee and slippage are those of all its fills.
    """
    fills = np.concatenate([run.result.fills, run.closing_fills])
    entries, exits = fills[opens(fills)], fills[closes(fills)]
    entries = entries[np.argsort(entries["trade_id"], kind="stable")]
    exits = exits[np.argsort(exits["trade_id"], kind="stable")]
    at = np.searchsorted(exits["trade_id"], entries["trade_id"])
    closed = at < len(exits)
    closed[closed] = exits["trade_id"][at[closed]] == entries["trade_id"][closed]
    out = np.zeros(len(entries), fills.dtype)
    out[closed] = exits[at[closed]]
    decided = np.maximum(entries["bar"] - run.params.broker.fill.delay, 0)
    cell = (decided, entries["symbol"])
    decisions, regime = run.result.decisions, run.result.planes.regime

    def exit_or_nan(name: str) -> NDArray[np.float64]:
        return np.where(closed, out[name], np.nan)

    notional = np.abs(entries["qty"]) * entries["price"]
    for rows in resized(fills):
        k = int(np.searchsorted(entries["trade_id"], rows["trade_id"][0]))
        bought, sold = rows[rows["is_entry"] == 1], rows[rows["is_entry"] == 0]
        notional[k] = (np.abs(bought["qty"]) * bought["price"]).sum()
        entries[k]["qty"], entries[k]["fee"], entries[k]["slippage"] = bought["qty"].sum(), rows["fee"].sum(), rows["slippage"].sum()
        entries[k]["price"] = notional[k] / abs(entries[k]["qty"])
        out[k]["fee"], out[k]["slippage"] = 0.0, 0.0
        out[k]["price"] = (np.abs(sold["qty"]) * sold["price"]).sum() / max(np.abs(sold["qty"]).sum(), 1e-300)
    frame = pd.DataFrame(
        {
            "trade_id": entries["trade_id"],
            "symbol": _symbols(run, entries["symbol"]),
            "side": np.sign(entries["qty"]).astype(np.int8),
            "decision_time": _times(run.bars.close_time[decided]),
            "exit_time": _times(np.where(closed, out["time"], np.iinfo(np.int64).min)),
            "entry_price": entries["price"],
            "exit_price": exit_or_nan("price"),
            "qty": entries["qty"],
            "notional": notional,
            "fee": entries["fee"] + out["fee"],
            "slippage": entries["slippage"] + out["slippage"],
            "funding": exit_or_nan("funding"),
            "pnl": exit_or_nan("pnl"),
            "ret": exit_or_nan("pnl") / notional,
            "bars": np.where(closed, out["bar"] - entries["bar"], -1),
            "exit_reason": out["reason"].astype(np.uint8),
            "source": decisions.source[cell],
            "confidence": decisions.raw_confidence[cell],
            "volatility": regime[0][cell],
            "trend_strength": regime[1][cell],
        },
        index=pd.Index(_times(entries["time"]), name="entry_time"),
    )
    return frame


def equity_frame(run: RunRecord) -> pd.DataFrame:
    """Equity of the chain and of what it is compared with, per bar, indexed by bar open time; all values at the bar's close.

    `buy_hold` is fully invested, `buy_hold_matched` at the chain's mean net exposure; both start at the first tested bar with the same
    cash.
    """
    result = run.result
    rows = tested_rows(run)
    columns = {
        "close_time": _times(run.bars.close_time),
        "equity": result.equity,
        "balance": result.balance,
        "exposure": result.exposure,
        "worth": result.worth,
        "drawdown": drawdown(np.maximum(result.equity, 0.0)),
        "ensemble_only": run.ensemble_only.equity,
        "buy_hold": held(run, rows, 1.0),
        "buy_hold_matched": held(run, rows, mean_exposure(run, rows)["net"]),
    }
    if (unbroken := getattr(run, "without_breaker", None)) is not None:
        columns["without_breaker"] = unbroken.equity
    frame = pd.DataFrame(columns, index=pd.Index(_times(run.bars.open_time), name="open_time"))
    return frame


def positions(run: RunRecord) -> NDArray[np.float64]:
    """Quantity held at each close, [n, S], short ones negative. What was approved and is not filled yet is not held."""
    return held_quantity(run.result.fills, run.bars.close.shape)


def held_quantity(fills: NDArray, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Add fills up to the quantity held at each close, of `shape` [n, S]; what is closed is 0.0 to the bit."""
    change = np.zeros(shape)
    np.add.at(change, (fills["bar"], fills["symbol"]), fills["qty"])
    held: NDArray[np.float64] = np.cumsum(change, axis=0)
    return np.where(np.cumsum(_steps(fills, shape), axis=0) != 0, held, 0.0)


def _steps(fills: NDArray, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Count trades that open less those that close, [n, S]."""
    out = np.zeros(shape, np.int64)
    np.add.at(out, (fills["bar"], fills["symbol"]), opens(fills).astype(np.int64) - closes(fills))
    return out


def held_bars(run: RunRecord) -> NDArray[np.bool_]:
    """Say of each bar [n] whether anything was held in it, between two closes too."""
    out = np.any(positions(run) != 0.0, axis=1)
    out[run.result.fills["bar"]] = True
    return out


def mean_exposure(run: RunRecord, rows: slice) -> dict[str, float]:
    """Mean over the tested bars of what was held at their closes, `gross` and `net`, shares of equity."""
    worth = (positions(run) * filled(run.bars.close, 0.0))[rows]
    equity = run.result.equity[rows, None]
    shares = worth / np.where(equity > 0.0, equity, np.inf)
    return {"gross": float(np.abs(shares).sum(axis=1).mean()), "net": float(shares.sum(axis=1).mean())}


def held(run: RunRecord, rows: slice, exposure: float) -> NDArray[np.float64]:
    """Equity [n] of buy and hold over the tested rows at `exposure`; flat before and after."""
    wealth = np.ones(len(run.bars.open_time))
    wealth[rows] = buy_and_hold(run.bars.close[rows], exposure)
    wealth[rows.stop :] = wealth[rows.stop - 1]
    return float(run.params.broker.initial_cash) * wealth


def _times(ns: NDArray[np.int64]) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(np.asarray(ns).view("M8[ns]")).tz_localize("UTC")


def _symbols(run: RunRecord, columns: NDArray[np.int64]) -> pd.Categorical:
    return pd.Categorical.from_codes(columns.astype(np.intp), categories=list(run.bars.symbols))
