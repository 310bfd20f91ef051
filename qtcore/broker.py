"""At which price is an order filled, and what does it cost? Simulated fills; live replaces them by the exchange's reports.

The rules are scalars in, scalars out. `enter` and `leave` write one row of the ledger and hand it to `apply_fill`, the only place
that books. Own fills: `rebind(trade, fill_step=mine)`.
"""

import numpy as np

from qtcore.jit import kernel
from qtcore.portfolio import apply_fill
from qtcore.types import Reason


@kernel(inline=True)
def fill_rule(side, reference, slippage_rate):
    """Price of buying (side 1.0) or selling (-1.0) at `reference`: slippage always moves it against us."""
    return reference * (1.0 + side * slippage_rate)


@kernel(inline=True)
def stop_level_rule(side, entry_price, stop_loss):
    """Price at which a long (side 1.0) or short (-1.0) position has lost the fraction `stop_loss`."""
    return entry_price * (1.0 - side * stop_loss)


@kernel(inline=True)
def gap_rule(qty, stop_price, price):
    """Has the market opened beyond the stop? A price equal to it has not; NaN never has."""
    return (price - stop_price) * qty < 0.0


@kernel(inline=True)
def stop_rule(qty, stop_price, open_price, low, high):
    """Is the stop touched inside the bar, and where does it fill? At the level or the worse open; NaN prices touch nothing."""
    if qty > 0.0:
        return low <= stop_price, min(stop_price, open_price)
    return high >= stop_price, max(stop_price, open_price)


@kernel(inline=True)
def funding_rule(qty, close, rate):
    """Funding received by a position held at the close, quote; a long pays a positive rate. 0.0 at a hole or without a rate."""
    received = -((qty * close) * rate)
    return received if received == received else 0.0


@kernel
def fill_step(side, reference, params):
    """Price of one simulated fill, slippage included. side: 1.0 buys, -1.0 sells; reference: open, stop level or close."""
    return fill_rule(side, reference, params[0]["broker"]["slippage_rate"])


@kernel
def enter(account, positions, closed, fills, k, s, reference, time, bar, params):
    """Fill the pending entry of symbol s at `reference` and book it as row k: the notional is fixed, the quantity follows.

    Returns 0.0: an entry realises nothing.
    """
    pending = positions[s]["pending_notional"]
    side = 1.0 if pending > 0.0 else -1.0
    fill = fills[k]
    fill["price"] = fill_step(side, reference, params)
    fill["notional"] = abs(pending)
    fill["qty"] = side * (fill["notional"] / fill["price"])
    fill["stop_price"] = stop_level_rule(side, fill["price"], params[0]["governor"]["stop_loss"])
    fill["is_entry"] = 1
    return _book(account, positions, closed, fills, k, s, reference, time, bar, Reason.APPROVED, params)


@kernel
def leave(account, positions, closed, fills, k, s, reference, time, bar, reason, params):
    """Close the position of symbol s at `reference` and book it as row k. Returns what equity gains over the last mark."""
    qty = -positions[s]["qty"]
    fill = fills[k]
    fill["qty"] = qty
    fill["price"] = fill_step(1.0 if qty > 0.0 else -1.0, reference, params)
    fill["notional"] = abs(qty) * fill["price"]
    fill["stop_price"] = np.nan
    fill["is_entry"] = 0
    return _book(account, positions, closed, fills, k, s, reference, time, bar, reason, params)


@kernel
def _book(account, positions, closed, fills, k, s, reference, time, bar, reason, params):
    """Complete row k of the ledger and book it."""
    fill = fills[k]
    fill["symbol"] = s
    fill["time"] = time
    fill["bar"] = bar
    fill["reason"] = reason
    fill["reference_price"] = reference
    fill["fee"] = fill["notional"] * params[0]["broker"]["fee_rate"]
    return apply_fill(account, positions, closed, fills, k)
