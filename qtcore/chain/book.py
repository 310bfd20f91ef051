"""Cross-sectional book: the weights that a bar's opinions ask for together, and which moves towards them are worth their cost.

A symbol with a bar, a forecast g (return of a long until the horizon, expected funding paid) and a variance v of that enters. Its aim is
`kelly_fraction * (g - m) / v`, the optimum of mean less half the variance over `kelly_fraction`, of symbols whose risks are uncorrelated;
m are the multipliers that make the aims add up to zero in what `governor.neutral` names. All aims are scaled down by one factor until
they keep `governor.max_position`, `.max_exposure` and `.target_volatility`, so that they stay neutral. With costs c of one side, in
proportion to what is traded, the optimum is a band and no point (Constantinides 1986, Davis and Norman 1990; for quadratic costs
Garleanu and Pedersen 2013): a weight stays where it is between the aims of `g - c` and `g + c`, else it moves to the nearer of them.

A weight is the value of a position over equity. Aims are opinions alone: they know no position, and a hole neither enters nor shifts the
others. A move that makes a position smaller always passes; one that makes it larger is a candidate for the limits of `trade`.
"""

import math

import numpy as np

from qtcore.choices import Neutral
from qtcore.governor import base_of
from qtcore.jit import kernel
from qtcore.rules import Reason
from qtcore.types import Action

NS_PER_YEAR = 31_557_600 * 1_000_000_000  # 365.25 days


@kernel(inline=True)
def enters_rule(close, forecast, risk):
    """Whether a cell's opinion takes part in the book: it has a bar, a forecast and a risk."""
    return (close == close) & (forecast == forecast) & (risk > 0.0)


@kernel(inline=True)
def beta_rule(beta):
    """Beta that neutrality counts; an unknown one is that of the market, 1.0."""
    return beta if beta == beta else 1.0


@kernel(inline=True)
def terms_rule(forecast, risk, beta):
    """Return what one opinion adds to the sums over 1 / v: of 1, b, b^2, g, b g."""
    return 1.0 / risk, beta / risk, beta * beta / risk, forecast / risk, beta * forecast / risk


@kernel
def solve(ones, betas, squares, money, exposed, neutral):
    """Return what `multipliers` returns, from the sums of `terms_rule`."""
    if neutral == Neutral.DOLLAR:
        return (money / ones if ones > 0.0 else 0.0), 0.0
    if neutral == Neutral.BETA:
        return 0.0, (exposed / squares if squares > 0.0 else 0.0)
    if neutral == Neutral.NONE:
        return 0.0, 0.0
    whole = ones * squares - betas * betas
    if not whole > 1e-12 * ones * squares:  # all betas are alike: neutral in one is neutral in both
        return (money / ones if ones > 0.0 else 0.0), 0.0
    return (squares * money - betas * exposed) / whole, (ones * exposed - betas * money) / whole


@kernel
def multipliers(close, forecast, risk, beta, neutral):
    """Return what neutrality takes off every forecast, and off it for every unit of beta, so that the aims add up to zero.

    close, forecast, risk, beta [S]: of one bar; beta [0] where nobody asks. neutral: `Neutral`.
    """
    ones, betas, squares, money, exposed = 0.0, 0.0, 0.0, 0.0, 0.0
    for s in range(len(close)):
        if enters_rule(close[s], forecast[s], risk[s]):
            one, b, square, gain, tilt = terms_rule(forecast[s], risk[s], beta_rule(beta[s]) if neutral >= Neutral.BETA else 0.0)
            ones += one
            betas += b
            squares += square
            money += gain
            exposed += tilt
    return solve(ones, betas, squares, money, exposed, neutral)


@kernel(inline=True)
def excess_rule(forecast, beta, level, slope):
    """Forecast beyond what neutrality takes off it."""
    return forecast - level - (slope * beta_rule(beta) if slope != 0.0 else 0.0)


@kernel(inline=True)
def aim_rule(kelly, excess, risk, allow_short):
    """Weight that an opinion asks for before limits. kelly: `kelly_fraction`; excess: forecast beyond what neutrality takes."""
    aim = kelly * excess / risk
    return aim if allow_short | (aim > 0.0) else 0.0


@kernel(inline=True)
def limit_rule(kelly, largest, total, variance, most, exposure, target, a_year):
    """Share of `excess / variance` that all aims take so that they keep the limits: that of one, of their sum, of the volatility."""
    share = 1.0
    share = min(share, most / largest) if largest > 0.0 else share
    share = min(share, exposure / total) if total > 0.0 else share
    share = min(share, target / math.sqrt(variance * a_year)) if (target > 0.0) & (variance > 0.0) else share
    return kelly * share


@kernel
def share_of(close, forecast, risk, beta, holding, level, slope, allow_short, first, a_year, governor):
    """Return the share of `excess / variance` that all aims of a bar take: `kelly_fraction`, or less so that they keep the limits.

    level, slope: as `multipliers` returns them; holding [S]: bars of the horizon that each opinion looks ahead, [0] where all are of the
    first, of `first` bars; a_year: first horizons a year.
    """
    largest, total, variance, kelly = 0.0, 0.0, 0.0, governor["kelly_fraction"]
    for s in range(len(close)):
        if enters_rule(close[s], forecast[s], risk[s]):
            excess = excess_rule(forecast[s], beta[s] if len(beta) > 0 else np.nan, level, slope)
            aim = aim_rule(kelly, excess, risk[s], allow_short)
            largest = max(largest, abs(aim))
            total += abs(aim)
            variance += aim * aim * (risk[s] * (first / holding[s] if len(holding) > 0 else 1.0))
    most, exposure, target = governor["max_position"], governor["max_exposure"], governor["target_volatility"]
    return limit_rule(kelly, largest, total, variance, most, exposure, target, a_year)


@kernel(inline=True)
def weight_rule(weight, excess, risk, share, cost, most, allow_short):
    """Weight that a symbol of weight `weight` is to have: its own inside the band, else the band's nearer edge.

    excess: forecast beyond what neutrality takes; share: of `share_of`; cost: of one side times the band; most: largest position.
    """
    least = -most if allow_short else 0.0
    low, high = share * (excess - cost) / risk, share * (excess + cost) / risk
    low, high = min(max(low, least), most), min(max(high, least), most)
    return low if weight < low else (high if weight > high else weight)


@kernel(inline=True)
def held_rule(qty, price, base):
    """Weight of a position: its value over the base; 0.0 where one of them is not there."""
    worth = qty * price if qty != 0.0 else 0.0
    return worth / base if base > 0.0 else 0.0


@kernel(inline=True)
def move_rule(qty, weight, to):
    """Whether a move leaves the position whole, whether it leaves a part, what stays of the weight, and what is asked for beside it."""
    is_through = (qty != 0.0) & (to != weight) & (to * weight <= 0.0)
    is_less = (not is_through) & (abs(to) < abs(weight))
    return is_through, is_less, (0.0 if is_through else min(abs(to), abs(weight))), (abs(to) if is_through else abs(to) - abs(weight))


@kernel(inline=True)
def book_rule(notional, last_loss_time, since):
    """Reason for one move that makes a position larger: nothing left of the exposure, cooldown, else APPROVED.

    notional: quote that the exposure limit leaves of the move; last_loss_time, since: ns UTC.
    """
    reason = Reason.COOLDOWN_ACTIVE.value if last_loss_time > since else Reason.APPROVED.value
    return reason if notional > 0.0 else Reason.MAX_EXPOSURE_EXCEEDED.value


@kernel
def rebalance(
    t, bar, time, close, forecast, risk, beta, holding, account, waits, positions, params, candidates, reasons, final_action, size
):  # fmt: skip
    """Order what makes positions smaller at the close of bar t, and say which moves would make them larger. Returns their number.

    bar: its number since the start; time: its length, ns. close, forecast, risk, beta, holding [n, S], the last two of shape (0, 0) where
    nobody asks; account: after the mark. waits: as in `trade`. candidates [S] gets the columns, with `final_action` and `size` [n, S]: side
    and quote, unsigned, of the move. reasons [n, S]: of every other cell; 0, or that of its exit, where it is a candidate.
    """
    g, broker, base, is_gone = params["governor"], params["broker"], base_of(account, params), not account["equity"] > 0.0
    is_killed, allow_short, neutral = g["emergency_stop"] != 0, broker["allow_short"] != 0, g["neutral"]
    is_flatten, is_due = is_killed and g["flatten_on_kill"] != 0, bar % g["rebalance_bars"] == 0
    betas = beta[t] if beta.shape[0] > 0 else close[t, :0]
    level, slope = multipliers(close[t], forecast[t], risk[t], betas, neutral)
    first, lengths = max(broker["max_holding_bars"], 1), holding[t] if holding.shape[0] > 0 else close[t, :0]
    share = share_of(close[t], forecast[t], risk[t], betas, lengths, level, slope, allow_short, first, NS_PER_YEAR / time / first, g)
    cost, most = g["band"] * (broker["fee_rate"] + broker["slippage_rate"]), g["max_position"]
    kept, more, m = 0.0, 0.0, np.int64(0)  # weights that stay or become smaller, and what is asked for beside them
    for s in range(close.shape[1]):
        position, is_hole = positions[s], close[t, s] != close[t, s]
        if is_gone:
            reasons[t, s] = Reason.NO_BAR.value if is_hole & (reasons[t, s] != Reason.LIQUIDATED) else Reason.LIQUIDATED.value
            continue
        price = position["last_close"] if is_hole else close[t, s]
        weight = held_rule(position["qty"], price, base)
        is_ordered = (position["pending_exit"] != 0) | (position["pending_notional"] != 0.0)
        is_in, is_flat = enters_rule(close[t, s], forecast[t, s], risk[t, s]), position["qty"] == 0.0
        to, aim, is_waiting = weight, 0.0, not is_due
        if is_in:
            aim = excess_rule(forecast[t, s], betas[s] if len(betas) > 0 else np.nan, level, slope)
            to = weight_rule(weight, aim, risk[t, s], share, cost, most, allow_short)
        elif not is_hole:
            to, is_waiting = 0.0, False  # without an opinion there is no position, due or not
        reasons[t, s] = Reason.IN_BAND.value if is_in | (not is_flat) else Reason.HOLD_SIGNAL.value
        is_left = is_ordered | is_waiting | is_hole | (not base > 0.0)
        if is_left:
            reasons[t, s] = Reason.NOT_DUE.value if base > 0.0 else Reason.ZERO_SIZE.value
            reasons[t, s] = Reason.POSITION_ALREADY_OPEN.value if is_ordered else reasons[t, s]
            reasons[t, s] = Reason.NO_BAR.value if is_hole else reasons[t, s]
            to = weight
        if is_flatten & (not is_flat) & (position["pending_exit"] == 0):
            position["pending_exit"] = Reason.EMERGENCY_STOP_ACTIVE.value + waits
            reasons[t, s] = Reason.EMERGENCY_STOP_ACTIVE.value
            to = weight
        is_through, is_less, stays, move = move_rule(position["qty"], weight, to)
        if is_through:
            position["pending_exit"] = Reason.EXIT_SIGNAL.value + waits
            reasons[t, s] = Reason.EXIT_SIGNAL.value
        elif is_less:
            position["pending_exit"] = Reason.REDUCED.value + waits
            position["pending_notional"] = (to - weight) * base
            reasons[t, s] = Reason.REDUCED.value
        kept += stays
        kept += 0.0 if position["pending_exit"] != 0 else abs(position["pending_notional"]) / base if base > 0.0 else 0.0
        if move > 0.0:
            reasons[t, s] = reasons[t, s] if is_through else (Reason.EMERGENCY_STOP_ACTIVE.value if is_killed else 0)
            if not is_killed:
                candidates[m] = s
                final_action[t, s] = Action.BUY if to > 0.0 else Action.SELL
                size[t, s] = move * base
                more += move
                m += 1
        elif is_in & is_flat & (not allow_short) & (aim < -cost) & (not is_left):
            reasons[t, s] = Reason.SHORTS_DISABLED.value
    room = max(g["max_exposure"] - kept, 0.0)
    for i in range(m):
        size[t, candidates[i]] *= min(room / more, 1.0)
    return m
