"""Portfolio accounting: the account and the positions; the only code that books a fill, in simulation and live alike.

`balance` changes once per closed position, by `(gross - exit fee) - entry fee`, and once per funding payment. The unrealised PnL of an
open position is `qty * (close - entry price) - entry fee`, so equity falls by the fee and the slippage the moment a position opens.
A trade goes from flat to flat. What is added to a position moves its entry price to the mean of both; what a closed part of it brings,
less the fee, is taken off its `entry_fee` and reaches the balance with the rest of the trade.
Replaying the ledger through `apply_fill` (and the funding) gives the same account to the bit.

An account cannot lose more than it has: where equity is zero or below at a close, `liquidate` sells everything there, what is still owed
is written off, and the account stands at 0.0 for ever. The ledger shows the whole loss; the PnL of the bar's losing cells is scaled down
to what the account lost.
"""

import numpy as np
from numpy.typing import NDArray

from qtcore.choices import DrawdownBasis
from qtcore.jit import kernel
from qtcore.params import Params
from qtcore.rules import Reason
from qtcore.types import ACCOUNT, CLOSED, N_CLOSED, NEVER, POSITION, WAITS, zeros


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


@kernel(inline=True)
def slippage_rule(qty, price, reference):
    """Cost of a fill at `price` where `reference` was to be had, quote."""
    return abs(qty) * abs(price - reference)


@kernel(inline=True)
def change_rule(qty, price, entry_price, fee, entry_fee):
    """Gain of the balance when the whole of `qty` is closed at `price`: the gross result less both fees, quote."""
    gross = qty * (price - entry_price)
    return (gross - fee) - entry_fee


@kernel(inline=True)
def value_rule(qty, close, entry_price, entry_fee):
    """Unrealised result of an open position at `close`, net of the entry fee, quote."""
    return qty * (close - entry_price) - entry_fee


@kernel(inline=True)
def average_rule(qty, price, more, at):
    """Mean price of `qty` bought or sold at `price` and `more` of the same sign at `at`."""
    return (qty * price + more * at) / (qty + more)


@kernel(inline=True)
def reduces_rule(pending_exit):
    """Whether the exit that is ordered closes a part alone: then the pending notional is the part, and no entry."""
    return (pending_exit & (WAITS - 1)) == Reason.REDUCED.value


@kernel(inline=True)
def apply_fill(account, position, slot, fill):
    """Book one fill. Returns what it adds to equity over the last mark: 0.0 unless a position is closed; the next mark knows the rest.

    Records: account, position, slot (the ring's next place: `closed[account["n_closed"] % N_CLOSED]`), fill (a ledger row). The row
    comes with time, bar, symbol, is_entry, reason, qty, price, reference_price, notional, fee and, for an entry, stop_price; it leaves
    with trade_id, slippage, funding and pnl. An entry finds a flat position, or one of its side (ADDED); an exit closes the whole of it,
    or a part (REDUCED).
    """
    fill["slippage"] = slippage_rule(fill["qty"], fill["price"], fill["reference_price"])
    account["fees"] += fill["fee"]
    account["slippage"] += fill["slippage"]
    account["n_fills"] += 1
    if fill["is_entry"] == 1 and position["qty"] == 0.0:
        open_position(account, position, fill)
        return 0.0
    if fill["is_entry"] == 1 or fill["reason"] == Reason.REDUCED:
        resize_position(position, fill)
        return 0.0
    return close_position(account, position, slot, fill)


@kernel(inline=True)
def open_position(account, position, fill):
    """Turn a flat position into the one the fill bought or sold."""
    fill["trade_id"] = account["n_trades"]
    fill["funding"] = 0.0
    fill["pnl"] = 0.0
    account["n_trades"] += 1
    position["qty"] = fill["qty"]
    position["entry_price"] = fill["price"]
    position["entry_notional"] = fill["notional"]
    position["entry_fee"] = fill["fee"]
    position["stop_price"] = fill["stop_price"]
    position["entry_time"] = fill["time"]
    position["entry_bar"] = fill["bar"]
    position["trade_id"] = fill["trade_id"]
    position["pending_notional"] = 0.0


@kernel(inline=True)
def resize_position(position, fill):
    """Add the fill to the position at the mean of both prices, or take it off at the price of its entry."""
    fill["trade_id"] = position["trade_id"]
    fill["funding"] = 0.0
    fill["pnl"] = 0.0
    qty, change = position["qty"], fill["qty"]
    if fill["is_entry"] == 1:
        position["entry_price"] = average_rule(qty, position["entry_price"], change, fill["price"])
        position["entry_notional"] += fill["notional"]
        position["entry_fee"] += fill["fee"]
        position["stop_price"] = fill["stop_price"]
    else:
        position["entry_notional"] *= (qty + change) / qty
        position["entry_fee"] = (position["entry_fee"] + fill["fee"]) + change * (fill["price"] - position["entry_price"])
        position["pending_exit"] = 0
    position["qty"] = qty + change
    position["pending_notional"] = 0.0


@kernel(inline=True)
def close_position(account, position, slot, fill):
    """Settle the position in full, remember the trade and the time of a loss. Returns what equity gains over the last mark."""
    change = change_rule(position["qty"], fill["price"], position["entry_price"], fill["fee"], position["entry_fee"])
    gain, pnl = change - position["unrealised"], change + position["funding"]
    fill["trade_id"] = position["trade_id"]
    fill["funding"] = position["funding"]
    fill["pnl"] = pnl
    account["balance"] += change
    account["n_closed"] += 1
    slot["time"] = fill["time"]
    slot["symbol"] = fill["symbol"]
    slot["pnl"] = pnl
    slot["ret"] = pnl / position["entry_notional"]
    if pnl < 0.0:
        position["last_loss_time"] = fill["time"]
    if reduces_rule(position["pending_exit"]):
        position["pending_notional"] = 0.0
    clear(position)
    return gain


@kernel(inline=True)
def clear(position):
    """Set the fields of a position that is not open; pending entry, last close and last loss stay."""
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


@kernel(inline=True)
def mark_step(position, price, bar):
    """Value an open position at the close, or at the last valid one in a hole. Returns the change of its unrealised PnL."""
    if price == price:
        position["last_close"] = price
        position["last_bar"] = bar
    value = value_rule(position["qty"], position["last_close"], position["entry_price"], position["entry_fee"])
    gain = value - position["unrealised"]
    position["unrealised"] = value
    return gain


@kernel(inline=True)
def sum_up(account, unrealised, exposure, funding, params):
    """Book the sums of a mark, each added up over the symbols in configured order; raise the peak of the drawdown basis."""
    account["funding"] += funding
    account["balance"] += funding
    account["equity"] = account["balance"] + unrealised
    account["exposure"] = exposure
    base = base_of(account, params)
    if base > account["peak"]:
        account["peak"] = base


@kernel(inline=True)
def ruin_rule(equity, before):
    """Whether a mark, quote, just brought equity from above zero to zero or below."""
    return (equity <= 0.0) & (before > 0.0)


@kernel
def write_off(account, before, pnl):
    """Let a ruined account stand at nothing: forgive what it owes, to the losing cells of the bar in proportion.

    before: equity at the bar before, quote. pnl [S]: what each symbol added in this bar, in place; afterwards it adds up to `-before`.
    """
    won, lost = 0.0, 0.0
    for s in range(len(pnl)):
        won += pnl[s] if pnl[s] > 0.0 else 0.0
        lost -= pnl[s] if pnl[s] < 0.0 else 0.0
    for s in range(len(pnl)):
        if pnl[s] < 0.0:
            pnl[s] *= (before + won) / lost
    account["balance"] = 0.0
    account["equity"] = 0.0
    account["exposure"] = 0.0


@kernel(inline=True)
def base_of(account, params):
    """Choose what drawdown, sizes and limits are measured on: equity, or the realised balance (`spec` 10.6 i)."""
    return account["equity"] if params["governor"]["drawdown_basis"] == DrawdownBasis.EQUITY else account["balance"]
