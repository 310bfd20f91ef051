"""Passes over SIMD lanes of a cross-sectional book: weights, moves, and fills that add to a position or close a part of it.

As in `qtcore.sweep.passes`, whose passes serve a book too where they are not here: a pass loads, asks the rules and selects. A book needs
no notional of a position: its weight is what it is worth, and a stop follows from the entry price, as it does in `enter`.
"""

from qtcore.broker import entry_rule, exit_amount_rule, fill_rule, part_rule
from qtcore.chain.book import (
    aim_rule,
    book_rule,
    enters_rule,
    excess_rule,
    held_rule,
    limit_rule,
    move_rule,
    solve,
    terms_rule,
    weight_rule,
)
from qtcore.chain.price import Bid, costs_rule, forecast_rule, price_rule
from qtcore.governor import veto_rule
from qtcore.jit import kernel
from qtcore.portfolio import average_rule, change_rule, slippage_rule, value_rule
from qtcore.rules import Reason
from qtcore.sweep.layout import (
    ASKED,
    BALANCE,
    BAND,
    BETAS,
    BY_STOP,
    CHOOSES,
    COOLDOWN,
    COST,
    ENDED,
    ENTERED,
    ENTRY,
    EQUITY,
    EXCESS,
    EXIT,
    FEE_RATE,
    FEES,
    FILLS,
    FUNDING,
    GROSS_LOSS,
    GROSS_WIN,
    HALTED,
    KELLY_FRACTION,
    KEPT,
    LANES,
    LARGEST,
    LEAVES,
    LEVEL,
    LOSS,
    LOSSES,
    MAX_DAILY_TRADES,
    MAX_EXPOSURE,
    MAX_HOLDING_BARS,
    MAX_POSITION,
    MIN_EDGE,
    MONEY,
    MORE,
    MOVE,
    ONES,
    PAID,
    PART,
    PENDING,
    QTY,
    REFERENCE,
    RISK,
    ROOM,
    SHORTS,
    SLIPPAGE,
    SLIPPAGE_RATE,
    SLOPE,
    SQUARES,
    STOPS,
    TARGET_VOLATILITY,
    TILT,
    TOTAL,
    TRADE_FEE,
    TRADES,
    TURNOVER,
    UNREALISED,
    VARIANCE,
    WINS,
    WORTH,
)


@kernel(inline=True)
def leave_book(p, s, a, own, time, may_be_part):
    """Close symbol s in the lanes that LEAVES names, at their REFERENCE, or the part that was ordered. Returns how many still hold it."""
    n_open = 0
    for i in range(LANES):
        qty, entry, reference, rate = p[s, QTY + i], p[s, ENTRY + i], a[REFERENCE + i], own[FEE_RATE + i]
        received, costs, order, pending = p[s, PAID + i], p[s, TRADE_FEE + i], p[s, EXIT + i], p[s, PENDING + i]
        loss, by_stop = p[s, LOSS + i], a[BY_STOP + i]
        is_left, is_reduced = a[LEAVES + i] != 0.0, order == Reason.REDUCED.value
        part = part_rule(qty, pending, reference) if may_be_part & is_reduced else -qty
        price = fill_rule(1.0 if part > 0.0 else -1.0, reference, own[SLIPPAGE_RATE + i])
        notional, fee = exit_amount_rule(part, price, rate)
        is_whole = is_left & (part == -qty)
        change = change_rule(qty, price, entry, fee, costs)
        pnl = change + received
        a[TURNOVER + i] += notional if is_left else 0.0
        a[FEES + i] += fee if is_left else 0.0
        slippage = slippage_rule(part, price, reference)
        a[SLIPPAGE + i] += slippage if is_left else 0.0
        a[FILLS + i] += 1.0 if is_left else 0.0
        a[BALANCE + i] += change if is_whole else 0.0
        a[FUNDING + i] += received if is_whole else 0.0
        a[GROSS_WIN + i] += pnl if is_whole & (pnl > 0.0) else 0.0
        a[GROSS_LOSS + i] -= pnl if is_whole & (pnl < 0.0) else 0.0
        a[ENDED + i] += 1.0 if is_whole else 0.0
        a[WINS + i] += 1.0 if is_whole & (pnl > 0.0) else 0.0
        a[LOSSES + i] += 1.0 if is_whole & (pnl < 0.0) else 0.0
        a[SHORTS + i] += 1.0 if is_whole & (qty < 0.0) else 0.0
        a[STOPS + i] += by_stop if is_whole else 0.0
        p[s, LOSS + i] = time if is_whole & (pnl < 0.0) else loss
        kept, less = 0.0 if is_whole else qty + part, (costs + fee) + part * (price - entry)
        less = 0.0 if is_whole else less
        kept = kept if is_left else qty
        p[s, QTY + i] = kept
        p[s, ENTRY + i] = 0.0 if is_whole else entry
        p[s, TRADE_FEE + i] = less if is_left else costs
        p[s, PAID + i] = 0.0 if is_whole else received
        p[s, EXIT + i] = 0.0 if is_left else order
        p[s, PENDING + i] = 0.0 if is_left & is_reduced else pending
        n_open += kept != 0.0
    return n_open


@kernel(inline=True)
def enter_book(p, s, a, own, price_before):
    """Fill the pending entries of symbol s at the open, on top of what is held. Returns how many lanes hold it."""
    n_open = 0
    for i in range(LANES):
        pending, rate, held, entry, costs = p[s, PENDING + i], own[FEE_RATE + i], p[s, QTY + i], p[s, ENTRY + i], p[s, TRADE_FEE + i]
        is_filled, is_open = pending != 0.0, held != 0.0
        side, notional = 1.0 if pending > 0.0 else -1.0, abs(pending)
        price = fill_rule(side, price_before, own[SLIPPAGE_RATE + i])
        bought, fee = entry_rule(side, notional, price, rate)
        mean = average_rule(held, entry, bought, price)
        mean = mean if is_open else price
        a[TURNOVER + i] += notional  # 0.0 where nothing is pending
        a[FEES + i] += fee
        a[SLIPPAGE + i] += slippage_rule(bought, price, price_before)
        a[FILLS + i] += 1.0 if is_filled else 0.0
        a[ENTERED + i] += 1.0 if is_filled & (not is_open) else 0.0
        qty = held + bought if is_filled else held
        p[s, QTY + i] = qty
        p[s, ENTRY + i] = mean if is_filled else entry
        p[s, TRADE_FEE + i] = costs + fee
        p[s, PENDING + i] = 0.0
        n_open += qty != 0.0
    return n_open


@kernel(inline=True)
def drop_entries(p, s):
    """Drop the pending entries of symbol s, which has no bar; what is to be closed of it waits."""
    for i in range(LANES):
        pending, order = p[s, PENDING + i], p[s, EXIT + i]
        p[s, PENDING + i] = pending if order == Reason.REDUCED.value else 0.0


@kernel(inline=True)
def mark_book(p, s, a, last_close):
    """Add what symbol s has gained at the close, and what it is worth."""
    for i in range(LANES):
        qty = p[s, QTY + i]
        a[UNREALISED + i] += value_rule(qty, last_close, p[s, ENTRY + i], p[s, TRADE_FEE + i])
        a[WORTH + i] += abs(qty) * last_close


@kernel(inline=True)
def begin_book(a, own):
    """Work out what a band costs."""
    for i in range(LANES):
        a[COST + i] = own[BAND + i] * (own[FEE_RATE + i] + own[SLIPPAGE_RATE + i])


@kernel(inline=True)
def forecast_lanes(p, s, own, bids, cell, lean):
    """Write what each lane's costs leave of the bids on symbol s: forecast and risk. Returns in how many lanes the opinion takes part."""
    bid, risk, other, other_risk, carry = (
        bids[Bid.ENSEMBLE, cell],
        bids[Bid.RISK, cell],
        bids[Bid.ARBITER, cell],
        bids[Bid.ARBITER_RISK, cell],
        bids[Bid.CARRY, cell],
    )
    n = 0
    for i in range(LANES):
        costs, due = costs_rule(own[FEE_RATE + i], own[SLIPPAGE_RATE + i]), own[MAX_HOLDING_BARS + i] * carry
        _, _, _, is_arbiter = price_rule(bid, other, costs, due, due, own[MIN_EDGE + i])
        forecast = forecast_rule(lean, other if is_arbiter else bid, due, is_arbiter)
        varies = other_risk if is_arbiter else risk
        is_in = enters_rule(0.0, forecast, varies)
        p[s, EXCESS + i] = forecast if is_in else 0.0
        p[s, RISK + i] = varies if is_in else 0.0
        n += is_in
    return n


@kernel(inline=True)
def weigh_lanes(p, s, a, beta):
    """Add the opinion on symbol s to the sums that neutrality is worked out from."""
    for i in range(LANES):
        risk = p[s, RISK + i]
        one, b, square, money, tilt = terms_rule(p[s, EXCESS + i], risk, beta)
        is_in = risk > 0.0
        a[ONES + i] += one if is_in else 0.0
        a[BETAS + i] += b if is_in else 0.0
        a[SQUARES + i] += square if is_in else 0.0
        a[MONEY + i] += money if is_in else 0.0
        a[TILT + i] += tilt if is_in else 0.0


@kernel(inline=True)
def level_lanes(a, neutral):
    """Work out what neutrality takes off every forecast, and begin the next sums."""
    for i in range(LANES):
        a[LEVEL + i], a[SLOPE + i] = solve(a[ONES + i], a[BETAS + i], a[SQUARES + i], a[MONEY + i], a[TILT + i], neutral)
    for row in (ONES, BETAS, SQUARES, MONEY, TILT):
        a[row : row + LANES] = 0.0


@kernel(inline=True)
def aim_lanes(p, s, a, own, beta, allows_short):
    """Take what neutrality takes off the forecast of symbol s, and add its aim to the sums that limits are kept with."""
    for i in range(LANES):
        risk = p[s, RISK + i]
        excess = excess_rule(p[s, EXCESS + i], beta, a[LEVEL + i], a[SLOPE + i])
        aim = aim_rule(own[KELLY_FRACTION + i], excess, risk, allows_short)
        aim = aim if risk > 0.0 else 0.0
        a[LARGEST + i] = max(a[LARGEST + i], abs(aim))
        a[TOTAL + i] += abs(aim)
        a[VARIANCE + i] += aim * aim * risk
        p[s, EXCESS + i] = excess


@kernel(inline=True)
def limit_lanes(a, own, spans):
    """Work out the share of `excess / variance` that all aims take, and begin the next sums. spans: bars a year."""
    for i in range(LANES):
        most, target = own[MAX_POSITION + i], own[TARGET_VOLATILITY + i]
        largest, total, variance, a_year = a[LARGEST + i], a[TOTAL + i], a[VARIANCE + i], spans / max(own[MAX_HOLDING_BARS + i], 1.0)
        a[PART + i] = limit_rule(own[KELLY_FRACTION + i], largest, total, variance, most, own[MAX_EXPOSURE + i], target, a_year)
    for row in (LARGEST, TOTAL, VARIANCE, KEPT, MORE, ASKED):
        a[row : row + LANES] = 0.0


@kernel(inline=True)
def rebalance_lanes(p, s, a, own, price, is_hole, is_known, is_due, is_killed, allows_short, is_on_equity):
    """Order what makes symbol s smaller, and write which moves would make it larger. Returns how many lanes will leave, and would move.

    price: the last valid close; is_known: whether any lane has an opinion; is_due: whether the book is rebalanced.
    """
    n_exit, n_more = 0, 0
    for i in range(LANES):
        qty, order, pending, excess, risk = p[s, QTY + i], p[s, EXIT + i], p[s, PENDING + i], p[s, EXCESS + i], p[s, RISK + i]
        equity, balance, part, cost, most = a[EQUITY + i], a[BALANCE + i], a[PART + i], a[COST + i], own[MAX_POSITION + i]
        base = equity if is_on_equity else balance
        weight = held_rule(qty, price, base)
        is_in = is_known & (risk > 0.0)
        aim = weight_rule(weight, excess, risk, part, cost, most, allows_short)
        to = aim if is_in else 0.0
        is_left = is_hole | (order != 0.0) | (pending != 0.0) | (is_in & (not is_due)) | (not base > 0.0)
        to = weight if is_left else to
        is_through, is_less, stays, move = move_rule(qty, weight, to)
        reduced, order = (to - weight) * base, Reason.REDUCED.value if is_less else order
        order = Reason.EXIT_SIGNAL.value if is_through else order
        is_asked = (move > 0.0) & (not is_killed)
        amount, asked = move * base, move if is_asked else 0.0
        amount = amount if to > 0.0 else -amount
        p[s, EXIT + i] = order
        p[s, PENDING + i] = reduced if is_less else pending
        p[s, MOVE + i] = amount if is_asked else 0.0
        a[KEPT + i] += stays
        a[MORE + i] += asked
        a[ASKED + i] += 1.0 if is_asked else 0.0
        n_exit += order != 0.0
        n_more += is_asked
    return n_exit, n_more


@kernel(inline=True)
def room_lanes(a, own):
    """Work out the share of what is asked for that there is room for, 0.0 where no entry may be made. Returns how many lanes choose.

    CHOOSES names them: they have fewer trades left than moves.
    """
    n_short = 0
    for i in range(LANES):
        kept, more, asked, trades, limit = a[KEPT + i], a[MORE + i], a[ASKED + i], a[TRADES + i], own[MAX_DAILY_TRADES + i]
        is_free = (veto_rule(a[HALTED + i] != 0.0, trades, limit) == 0) & (a[EQUITY + i] > 0.0) & (more > 0.0)
        share = min(max(own[MAX_EXPOSURE + i] - kept, 0.0) / more, 1.0)
        is_short = is_free & (asked > limit - trades)
        a[ROOM + i] = share if is_free else 0.0
        a[CHOOSES + i] = 1.0 if is_short else 0.0
        n_short += is_short
    return n_short


@kernel
def choose_lanes(p, a, own, now, n_more, n_pending):
    """Approve the largest moves in the lanes that have fewer trades left than moves, in the order of `trade`. n_pending [S]: in place."""
    for i in range(LANES):
        if a[CHOOSES + i] != 0.0:
            room, left, since = a[ROOM + i], own[MAX_DAILY_TRADES + i] - a[TRADES + i], now - own[COOLDOWN + i]
            a[ROOM + i] = 0.0
            while left > 0.0:
                at, largest = -1, 0.0
                for s in range(len(p)):
                    amount = abs(p[s, MOVE + i]) * room if n_more[s] > 0 else 0.0
                    is_approved = book_rule(amount, p[s, LOSS + i], since) == Reason.APPROVED.value
                    if is_approved and amount > largest:
                        at, largest = s, amount
                if at < 0:
                    break
                p[at, PENDING + i] = p[at, MOVE + i] * room
                p[at, MOVE + i] = 0.0
                a[TRADES + i] += 1.0
                n_pending[at] += 1
                left -= 1.0


@kernel(inline=True)
def approve_lanes(p, s, a, own, now):
    """Approve the moves that make symbol s larger. Returns in how many lanes."""
    n = 0
    for i in range(LANES):
        amount, pending, loss = p[s, MOVE + i] * a[ROOM + i], p[s, PENDING + i], p[s, LOSS + i]
        is_approved = book_rule(abs(amount), loss, now - own[COOLDOWN + i]) == Reason.APPROVED.value
        p[s, PENDING + i] = amount if is_approved else pending
        a[TRADES + i] += 1.0 if is_approved else 0.0
        n += is_approved
    return n
