"""Simulated broker: fill prices, fees and slippage of orders; live replaces them by the exchange's reports.

The rules are scalars in, scalars out. `enter` and `leave` complete one row of the ledger and hand it to `apply_fill`, the only
place that books. Own fills: `qtcore.rebind(qtcore.trade, fill_step=mine)`.
"""

import math

import numpy as np

from qtcore.jit import kernel
from qtcore.portfolio import apply_fill, average_rule
from qtcore.rules import MOST_IMPACT, Reason

ROWS = 1_024  # bars that `last_traded` looks through at once


@kernel(inline=True)
def fill_rule(side, reference, slippage_rate):
    """Price of buying (side 1.0) or selling (-1.0) at `reference`: slippage always moves it against us."""
    return reference * (1.0 + side * slippage_rate)


@kernel(inline=True)
def impact_rule(impact, notional, depth):
    """Share of the price that an order of `notional` moves it by, where the bar before traded `depth`, both quote; the most without any."""
    if impact == 0.0:
        return 0.0  # of a row of a sweep whose neighbours ask for volumes
    if not depth > 0.0:
        return MOST_IMPACT
    move = impact * math.sqrt(notional / depth)
    return move if move < MOST_IMPACT else MOST_IMPACT


@kernel(inline=True)
def worst_rule(side, low, high):
    """Worst price inside a bar for a buy (side above 0.0) or a sell (below)."""
    return high if side > 0.0 else low


@kernel
def traded_before(close, volume, state, out):
    """Quote volume of each symbol's last bar with any, out [n, S], 0.0 before the first: as it is known when a bar opens.

    close, volume [n, S]: NaN at holes. state [S]: that of the bar before the first, updated in place.
    """
    for t in range(close.shape[0]):
        for s in range(close.shape[1]):
            out[t, s] = state[s]
            amount = close[t, s] * volume[t, s]
            if amount > 0.0:
                state[s] = amount


def last_traded(close, volume):
    """Return the `state` [S] that `traded_before` leaves after bars [n, S], found from their end."""
    out = np.zeros(close.shape[1])
    for stop in range(len(close), 0, -ROWS):
        amount = close[max(0, stop - ROWS) : stop] * volume[max(0, stop - ROWS) : stop]
        has_any = amount > 0.0
        last = len(amount) - 1 - np.argmax(has_any[::-1], axis=0)
        out = np.where((out == 0.0) & has_any.any(axis=0), amount[last, np.arange(len(out))], out)
        if np.all(out > 0.0):
            break
    return out


@kernel(inline=True)
def entry_rule(side, notional, price, fee_rate):
    """Quantity, signed, and fee of an entry of `notional` quote at `price`: the notional is fixed, the quantity follows."""
    return side * (notional / price), notional * fee_rate


@kernel(inline=True)
def exit_amount_rule(qty, price, fee_rate):
    """Notional and fee of an exit of the whole of `qty` at `price`, quote."""
    notional = abs(qty) * price
    return notional, notional * fee_rate


@kernel(inline=True)
def part_rule(qty, pending, price):
    """Return the base units, signed, that close `pending` quote at `price` of the position `qty`; all of it where that is more."""
    part = abs(pending) / price
    return -qty if part >= abs(qty) else (-part if qty > 0.0 else part)


@kernel(inline=True)
def stop_level_rule(side, entry_price, stop_loss):
    """Price at which a long (side 1.0) or short (-1.0) position has lost the fraction `stop_loss`."""
    return entry_price * (1.0 - side * stop_loss)


@kernel(inline=True)
def gap_rule(qty, stop_price, price):
    """Whether the market opened beyond the stop. A price equal to it has not; NaN never has."""
    return (price - stop_price) * qty < 0.0


@kernel(inline=True)
def stop_rule(qty, stop_price, low, high):
    """Whether the stop is touched inside the bar. NaN prices touch nothing."""
    return ((qty > 0.0) & (low <= stop_price)) | ((qty < 0.0) & (high >= stop_price))


@kernel(inline=True)
def stop_fill_rule(qty, stop_price, open_price):
    """Fill price of a touched stop: its level, or at the open if that is worse."""
    return min(stop_price, open_price) if qty > 0.0 else max(stop_price, open_price)


@kernel(inline=True)
def funding_rule(qty, close, rate):
    """Funding received by a position held at the close, quote; a long pays a positive rate. 0.0 at a hole or without a rate."""
    received = -((qty * close) * rate)
    return received if received == received else 0.0


@kernel
def fill_step(side, reference, params):
    """Price of one simulated fill, slippage included. side: 1.0 buys, -1.0 sells; reference: open, stop level or close, after impact."""
    return fill_rule(side, reference, params["broker"]["slippage_rate"])


@kernel
def enter(account, position, slot, fill, reference, depth, params):
    """Fill the pending entry of `position` at `reference` and book it: the notional is fixed, the quantity follows; it may add to one open.

    Records: slot is the ring's next place, fill a ledger row with symbol, time and bar, params the PARAMS record. depth: of `impact_rule`.
    """
    pending = position["pending_notional"]
    side, notional = 1.0 if pending > 0.0 else -1.0, abs(pending)
    moved = fill_rule(side, reference, impact_rule(params["broker"]["impact"], notional, depth))
    price = fill_step(side, moved, params)
    qty, fee = entry_rule(side, notional, price, params["broker"]["fee_rate"])
    is_open = position["qty"] != 0.0
    entry_price = average_rule(position["qty"], position["entry_price"], qty, price) if is_open else price
    fill["is_entry"] = 1
    fill["reason"] = Reason.ADDED if is_open else Reason.APPROVED
    fill["qty"] = qty
    fill["price"] = price
    fill["reference_price"] = reference
    fill["notional"] = notional
    fill["stop_price"] = stop_level_rule(side, entry_price, params["governor"]["stop_loss"])
    fill["fee"] = fee
    apply_fill(account, position, slot, fill)


@kernel
def leave(account, position, slot, fill, reference, depth, reason, params):
    """Close `position` at `reference` and book it: the whole, or where the reason is REDUCED what is pending of it.

    Returns what equity gains over the last mark. Records and depth: as in `enter`.
    """
    is_part = reason == Reason.REDUCED
    qty = part_rule(position["qty"], position["pending_notional"], reference) if is_part else -position["qty"]
    side, worth = 1.0 if qty > 0.0 else -1.0, abs(qty) * reference
    moved = fill_rule(side, reference, impact_rule(params["broker"]["impact"], worth, depth))
    price = fill_step(side, moved, params)
    notional, fee = exit_amount_rule(qty, price, params["broker"]["fee_rate"])
    fill["is_entry"] = 0
    fill["reason"] = Reason.EXIT_SIGNAL.value if is_part & (qty == -position["qty"]) else reason
    fill["qty"] = qty
    fill["price"] = price
    fill["reference_price"] = reference
    fill["notional"] = notional
    fill["stop_price"] = np.nan
    fill["fee"] = fee
    return apply_fill(account, position, slot, fill)
