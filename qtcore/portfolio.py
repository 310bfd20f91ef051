"""Where is the money? The account and the positions; the only code that books a fill, in simulation and live alike.

`balance` changes once per closed position, by `(gross - exit fee) - entry fee`, and once per funding payment. The unrealised PnL of an
open position is `qty * (close - entry price) - entry fee`, so equity falls by the fee and the slippage the moment a position opens.
Replaying the ledger through `apply_fill` (and the funding) gives the same account to the bit.
"""

import numpy as np
from numpy.typing import NDArray

from qtcore.jit import kernel
from qtcore.params import Params
from qtcore.types import ACCOUNT, CLOSED, N_CLOSED, NEVER, POSITION, zeros


def init_account(params: Params, n_symbols: int) -> tuple[NDArray, NDArray, NDArray]:
    """Make a fresh account: `ACCOUNT[1]` with the initial cash, `n_symbols` flat `POSITION`s, an empty ring of `CLOSED` trades."""
    account, positions, closed = zeros(ACCOUNT, 1), zeros(POSITION, n_symbols), zeros(CLOSED, N_CLOSED)
    for name in ("balance", "equity", "peak"):
        account[name] = params.broker.initial_cash
    account["day"], account["halt_time"] = -1, NEVER
    for name in ("entry_price", "stop_price", "last_close"):
        positions[name] = np.nan
    for name in ("entry_bar", "last_bar", "trade_id"):
        positions[name] = -1
    positions["entry_time"] = positions["last_loss_time"] = NEVER
    return account, positions, closed


@kernel
def apply_fill(account, positions, closed, fills, k):
    """Book row k of the ledger. Returns what it adds to equity over the last mark: 0.0 for an entry.

    The row comes with time, bar, symbol, is_entry, reason, qty, price, reference_price, notional, fee and, for an entry, stop_price;
    it leaves with trade_id, slippage, funding and pnl. An entry needs a flat position, an exit closes the whole of it.
    """
    fill = fills[k]
    position = positions[fill["symbol"]]
    fill["slippage"] = abs(fill["qty"]) * abs(fill["price"] - fill["reference_price"])
    account[0]["fees"] += fill["fee"]
    account[0]["slippage"] += fill["slippage"]
    account[0]["n_fills"] += 1
    if fill["is_entry"] == 1:
        return _open_position(account, position, fill)
    return _close_position(account, position, closed, fill)


@kernel
def _open_position(account, position, fill):
    """Turn a flat position into the one the fill bought or sold."""
    fill["trade_id"] = account[0]["n_trades"]
    fill["funding"] = 0.0
    fill["pnl"] = 0.0
    account[0]["n_trades"] += 1
    position["qty"] = fill["qty"]
    position["entry_price"] = fill["price"]
    position["entry_notional"] = fill["notional"]
    position["entry_fee"] = fill["fee"]
    position["funding"] = 0.0
    position["stop_price"] = fill["stop_price"]
    position["unrealised"] = 0.0
    position["entry_time"] = fill["time"]
    position["entry_bar"] = fill["bar"]
    position["pending_exit"] = 0
    position["pending_notional"] = 0.0
    position["trade_id"] = fill["trade_id"]
    return 0.0


@kernel
def _close_position(account, position, closed, fill):
    """Settle the position in full, remember the trade, and the time of a loss."""
    gross = position["qty"] * (fill["price"] - position["entry_price"])
    change = (gross - fill["fee"]) - position["entry_fee"]
    pnl = change + position["funding"]
    gain = change - position["unrealised"]
    fill["trade_id"] = position["trade_id"]
    fill["funding"] = position["funding"]
    fill["pnl"] = pnl
    account[0]["balance"] += change
    trade = closed[account[0]["n_closed"] % N_CLOSED]
    account[0]["n_closed"] += 1
    trade["time"] = fill["time"]
    trade["symbol"] = fill["symbol"]
    trade["pnl"] = pnl
    trade["ret"] = pnl / position["entry_notional"]
    if pnl < 0.0:
        position["last_loss_time"] = fill["time"]
    position["qty"] = 0.0
    position["entry_price"] = np.nan
    position["entry_notional"] = 0.0
    position["entry_fee"] = 0.0
    position["funding"] = 0.0
    position["stop_price"] = np.nan
    position["unrealised"] = 0.0
    position["entry_time"] = NEVER
    position["entry_bar"] = -1
    position["pending_exit"] = 0
    position["trade_id"] = -1
    return gain


@kernel
def mark(account, positions, held, n_held, close, t, bar, pnl, is_equity_basis):
    """Value the open positions at the last valid closes, in configured order; drop the flat ones from `held`, return how many stay.

    close, pnl [n, S]: row t is read and written. The change of each position's value is added to its cell of `pnl`.
    """
    unrealised, exposure, kept = 0.0, 0.0, 0
    for i in range(n_held):
        s = held[i]
        position = positions[s]
        price = close[t, s]
        if price == price:
            position["last_close"] = price
            position["last_bar"] = bar
        if position["qty"] != 0.0:
            value = position["qty"] * (position["last_close"] - position["entry_price"]) - position["entry_fee"]
            pnl[t, s] += value - position["unrealised"]
            position["unrealised"] = value
            unrealised += value
            exposure += position["entry_notional"]
            held[kept] = s
            kept += 1
    a = account[0]
    a["equity"] = a["balance"] + unrealised
    a["exposure"] = exposure
    basis = a["equity"] if is_equity_basis else a["balance"]
    if basis > a["peak"]:
        a["peak"] = basis
    return kept
