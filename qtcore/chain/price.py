"""Opinion in money: what an opinion may be counted on to earn, and whether that pays for the trade.

A map (`MAP`, fitted by `research.training.edge` on data before) turns how far the ensemble leans to a side, p_buy - p_sell, and trailing
volatility into the return of the trade that it asks for, before costs: slope x |lean| x volatility, where the slope is shrunk by its
evidence and 0 without evidence. A cell is valued once, whatever the broker costs (`value`); it trades when the edge that is left after
fees, slippage and expected funding exceeds `decide.min_edge` (`price`). Where the ensemble has no such edge the arbiter is asked, whose
score has a map of its own. The learned meta layer never adds: it shrinks a bet or leaves it out.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from qtcore.check import as_array
from qtcore.choices import MetaMode
from qtcore.jit import kernel
from qtcore.meta.bet import shrink_rule
from qtcore.types import F8, I8, MAP, N_KNOTS, N_MODELS, NEVER, NS_PER_HOUR, Code, Value, Votes

VOLATILITY, FUNDING, BETA, N_PRICING = range(4)  # rows of what prices an opinion


class Bid(IntEnum):
    """Rows of the valued opinion `bids [7, N]`; a bid has the sign of its side, 0.0 where there is none.

    Of voters with several horizons these are of the horizon that speaks, and more rows follow (`qtcore.chain.horizons`).
    """

    ENSEMBLE = 0
    WIN = 1
    RISK = 2
    ARBITER = 3
    ARBITER_WIN = 4
    ARBITER_RISK = 5
    CARRY = 6


N_BIDS = len(Bid)
BARS = 2 * N_BIDS  # row after these and those of the next horizon: bars that a trade on the horizon that speaks lasts
NO_CELL = 2**62  # beyond every block
VOLATILITY_NAME = "volatility_72h"  # the feature that prices; 24, 72 and 168 hours earned the same (2026-11)
BETA_NAME = "beta_168"  # the feature that a book may be neutral in
CARRY_SPAN = 72 * NS_PER_HOUR  # over which funding is averaged


@kernel(inline=True)
def win_rule(knots, size):
    """Return how often a trade pays at a lean of this size: linear between the `N_KNOTS` knots of [0, 1]."""
    at = size * (N_KNOTS - 1.0)
    at = at if at < N_KNOTS - 1.0 else N_KNOTS - 1.0
    low = np.int64(at)
    low = low if low < N_KNOTS - 2 else N_KNOTS - 2
    below, above = knots[np.uintp(low)], knots[np.uintp(low + 1)]
    return below + (above - below) * (at - low)


@kernel(inline=True)
def bid_rule(lean, volatility, slope):
    """Return the return before costs that may be counted on, with the sign of the side; 0.0 without a lean or a volatility."""
    bid = slope * lean * volatility
    return bid if bid == bid else 0.0


@kernel(inline=True)
def net_rule(bid, costs, carry):
    """Return what a bid leaves after its costs. costs: fees and slippage of both sides; carry: funding that a long expects to pay."""
    return abs(bid) - costs - (carry if bid > 0.0 else -carry)


@kernel(inline=True)
def price_rule(bid, arbiter_bid, costs, carry, arbiter_carry, min_edge):
    """Return the bid that trades, its net edge, whether the ensemble is in doubt, and whether the bid is the arbiter's; 0.0 for none.

    carry, arbiter_carry: funding that a long expects to pay while the trade of either lasts. Without a bid that trades the edge is the
    ensemble's. The one place of this order: a block, a bar, a row of a sweep and its lanes ask.
    """
    net, other = net_rule(bid, costs, carry), net_rule(arbiter_bid, costs, arbiter_carry)
    in_doubt = (bid == 0.0) | (not net > min_edge)
    is_arbiter = in_doubt & (arbiter_bid != 0.0) & (other > min_edge)
    chosen = arbiter_bid if is_arbiter else bid
    return (0.0 if in_doubt & (not is_arbiter) else chosen), (other if is_arbiter else net), in_doubt, is_arbiter


@kernel(inline=True)
def forecast_rule(lean, bid, carry, is_arbiter):
    """Return what a long may be counted on to earn, expected funding paid; NaN where nobody has an opinion. bid: the chosen one."""
    return bid - carry if (lean != 0.0) | is_arbiter else np.nan


@kernel(inline=True)
def costs_rule(fee_rate, slippage_rate):
    """Return the cost of both sides of a trade, a fraction of its notional."""
    return 2.0 * (fee_rate + slippage_rate)


@kernel
def map_at(maps, cell):
    """Return the number of the map that a cell of the whole belongs to, and the first cell of the next."""
    f = np.int64(0)
    while f + 1 < len(maps) and maps[f + 1]["first"] <= cell:
        f += 1
    return f, maps[f + 1]["first"] if f + 1 < len(maps) else np.int64(NO_CELL)


@kernel(inline=True)
def length_rule(bids, j, first):
    """Return how many bars a trade on the opinion in column j of `bids` lasts. first: bars of the first horizon, of one alone."""
    several = np.uintp(BARS) < np.uintp(len(bids))
    bars = bids[np.uintp(BARS) if several else np.uintp(0), j]
    return bars if several else first


@kernel(inline=True)
def is_told_rule(said, m, at):
    """Whether the three probabilities of voter m from `at` on are known."""
    return (said[m, at] == said[m, at]) & (said[m, at + 1] == said[m, at + 1]) & (said[m, at + 2] == said[m, at + 2])


@kernel
def fill_in(action, confidence, said, horizon, out, start, stop):
    """Write the probabilities of the cells [start, stop) into out [5, >= 3 (stop - start)], with the confidence of who gave none.

    action, confidence [5, N]; said [5, 3 H N]: SELL HOLD BUY of one cell after the other, of H horizons in each, or [5, 0] where nobody
    gave any; horizon: the number of that which is asked for. Who says nothing of it takes part with what it says of the first. A
    confidence stands for its side, and the rest for HOLD; a HOLD leans to no side. Of an absent voter what is written does not count.
    """
    width = np.uintp(said.shape[1] // max(action.shape[1], 1))
    for m in range(N_MODELS):
        for i in range(np.uintp(start), np.uintp(stop)):
            at, to = width * i + np.uintp(3 * horizon), 3 * (i - np.uintp(start))
            vote, sure = action[m, i], confidence[m, i]
            is_told = width > 0 and is_told_rule(said, m, at)
            if width > 0 and horizon > 0 and not is_told:
                at = width * i
                is_told = is_told_rule(said, m, at)
            for k in range(3):
                stands = (1.0 if k == 1 else 0.0) if vote == 1 else (sure if k == vote else (1.0 - sure if k == 1 else 0.0))
                out[m, to + k] = said[m, at + k] if is_told else stands


@kernel(inline=True)
def choice_rule(sell, hold, buy):
    """Return the first of HOLD, SELL, BUY with the largest probability, as an action."""
    return 2 if (buy > hold) & (buy > sell) else (0 if (sell > hold) & (sell >= buy) else 1)


@kernel(inline=True)
def agreement_rule(n, voters):
    """Return the consensus of n among so many voters, a code of `Consensus`."""
    return (1 + (2 * n >= voters) + (4 * n >= 3 * voters) + (n >= voters)) if voters > 0 else 0


@kernel
def average_cells(action, said, at, weights, codes, values, start, stop):
    """Write the weighted mean of the voters' probabilities for the cells [start, stop) as the ensemble's opinion.

    action [5, N]: -1 absent; said [5, ...]: SELL HOLD BUY of one cell after the other, that at `start` as number `at`; weights: five.
    codes [11, N]: writes ENSEMBLE_ACTION, the first of HOLD, SELL, BUY with the largest probability; values [9, N]: ENSEMBLE_CONFIDENCE,
    that probability, and LEAN. Without a vote HOLD at 0.5. Returns False where a voter gave no probabilities: then nothing counts.
    """
    three, shift, is_whole = np.uintp(3), np.uintp(at) - np.uintp(start), True  # a step that the compiler knows is read in SIMD
    for i in range(np.uintp(start), np.uintp(stop)):
        lean, hold, whole, j = 0.0, 0.0, 0.0, three * (i + shift)
        for m in range(N_MODELS):
            kept, side = said[m, j + np.uintp(1)], said[m, j + np.uintp(2)] - said[m, j]
            is_told, is_present = (side == side) & (kept == kept), action[m, i] >= 0
            is_whole &= is_told | (not is_present)
            is_known = is_told & is_present
            weight = weights[m] if is_known else 0.0
            lean += weight * side if is_known else 0.0
            hold += weight * kept if is_known else 0.0
            whole += weight
        is_known = whole > 0.0
        whole = whole if is_known else 1.0
        lean, hold = lean / whole, hold / whole
        hold = hold if is_known else 0.5
        buy, sell = 0.5 * ((1.0 - hold) + lean), 0.5 * ((1.0 - hold) - lean)
        chosen = choice_rule(sell, hold, buy)
        codes[Code.ENSEMBLE_ACTION, i] = chosen
        values[Value.ENSEMBLE_CONFIDENCE, i] = buy if chosen == 2 else (sell if chosen == 0 else hold)
        values[Value.LEAN, i] = lean
    return is_whole


@kernel
def average_block(action, confidence, said, horizon, maps, offset, params, codes, values, filled, start, stop):
    """Form the ensemble of the cells [start, stop) as the weighted mean, every map with its own factors of the weights.

    action, confidence, said, horizon: as `fill_in` takes them, who writes into filled [5, >= 3 (stop - start)] where it must. Who agrees
    is counted on action, of a later horizon on the largest probability, as voters for the ensemble's action; no tie and no consensus of
    the vote is left.
    """
    given = params[0]["ensemble"]["weights"]
    first, is_plain = start, said.shape[1] == 3 * action.shape[1]
    if not is_plain:
        fill_in(action, confidence, said, horizon, filled, start, stop)
    while first < stop:
        f, end = map_at(maps, first + offset)
        last, by = min(stop, end - offset), maps[f]["factors"]
        weights = (given[0] * by[0], given[1] * by[1], given[2] * by[2], given[3] * by[3], given[4] * by[4])
        if not is_plain:
            average_cells(action, filled, first - start, weights, codes, values, first, last)
        elif not average_cells(action, said, first, weights, codes, values, first, last):
            fill_in(action, confidence, said, horizon, filled, first, last)
            average_cells(action, filled, 0, weights, codes, values, first, last)
        first = last
    for i in range(np.uintp(start), np.uintp(stop)):
        n, chosen, j = np.int64(0), codes[Code.ENSEMBLE_ACTION, i], 3 * (i - np.uintp(start))
        for m in range(N_MODELS):
            if horizon == 0:
                n += action[m, i] == chosen
            elif action[m, i] >= 0:
                n += choice_rule(filled[m, j], filled[m, j + 1], filled[m, j + 2]) == chosen
        codes[Code.CONSENSUS_COUNT, i] = n
        codes[Code.CONSENSUS, i] = agreement_rule(n, np.int64(codes[Code.N_VOTERS, i]))


@kernel
def lean_on_votes(codes, values, start, stop):
    """Write the signed confidence of the ensemble as the LEAN of the cells [start, stop); 0.0 for HOLD."""
    for i in range(np.uintp(start), np.uintp(stop)):
        sure, action = values[Value.ENSEMBLE_CONFIDENCE, i], codes[Code.ENSEMBLE_ACTION, i]
        values[Value.LEAN, i] = sure if action == 2 else (-sure if action == 0 else 0.0)


@kernel
def value_cells(lean, pricing, score, pays, map_, asks, takes, bids, start, stop, at):
    """Value the cells [start, stop) with one map; see `value`. at: where the first of them lies in `bids`."""
    slope, variance, knots = map_["slope"], map_["variance"], map_["win"]
    other, other_variance, other_knots = map_["arbiter_slope"], map_["arbiter_variance"], map_["arbiter_win"]
    skip, full = map_["skip"], map_["full"]
    takes = takes & (map_["is_seated"] != 0) & (len(pays) >= stop)  # the one NaN that stands for every cell says nothing
    shift = np.uintp(at) - np.uintp(start)
    for i in range(np.uintp(start), np.uintp(stop)):
        leans, volatility = lean[i], pricing[VOLATILITY, i]
        share = shrink_rule(pays[i], skip, full) if takes else 1.0
        bid, square = bid_rule(leans, volatility, slope), volatility * volatility
        bids[Bid.ENSEMBLE, i + shift] = bid if share > 0.0 else 0.0
        bids[Bid.RISK, i + shift] = variance * square / (share if share > 0.0 else 1.0)
        bids[Bid.CARRY, i + shift] = pricing[FUNDING, i]
    for i in range(np.uintp(start), np.uintp(stop)):
        bids[Bid.WIN, i + shift] = win_rule(knots, abs(lean[i]))
    if not asks or other == 0.0:
        for row in range(Bid.ARBITER, Bid.CARRY):
            bids[row, np.uintp(start) + shift : np.uintp(stop) + shift] = 0.0
        return
    for i in range(np.uintp(start), np.uintp(stop)):
        said, volatility = score[i], pricing[VOLATILITY, i]
        said = said if abs(said) < np.inf else 0.0
        bids[Bid.ARBITER, i + shift] = bid_rule(said, volatility, other)
        bids[Bid.ARBITER_RISK, i + shift] = other_variance * (volatility * volatility)
    for i in range(np.uintp(start), np.uintp(stop)):
        said = score[i]
        bids[Bid.ARBITER_WIN, i + shift] = win_rule(other_knots, abs(said) if abs(said) < np.inf else 0.0)


@kernel
def value(lean, pricing, score, pays, maps, offset, params, bids, start, stop, at):
    """Value the opinion of the cells [start, stop) before costs into bids [7, >= at + stop - start], rows as in `Bid`.

    lean [N]: of the ensemble; pricing [3, N]: VOLATILITY of a bar's return, NaN unknown; score [N]: the arbiter's, NaN for none; pays
    [N] or [1]: probability of the meta model that the bet pays, NaN without an answer. maps MAP [F]: `first` in cells of the whole, of
    which cell 0 of the arrays is number `offset`. A bet that the meta layer leaves out is no bid.
    """
    asks = params[0]["arbiter"]["enabled"] != 0
    takes = (params[0]["meta"]["enabled"] != 0) & (params[0]["meta"]["mode"] == MetaMode.BET)
    first = start
    while first < stop:
        f, end = map_at(maps, first + offset)
        last = min(stop, end - offset)
        value_cells(lean, pricing, score, pays, maps[f], asks, takes, bids, first, last, at + first - start)
        first = last


@kernel
def price(lean, bids, pricing, params, raw_action, raw_confidence, money, start, stop, at):
    """Decide the cells [start, stop) by what is left after costs: raw_action, raw_confidence [N], and money [3, 5 or 6, N].

    bids [7 or more, ...]: as `value` wrote them, the first at `at`; pricing [3, N]. The confidence is the probability that the trade pays,
    of the ensemble's side where nothing trades. Rows of money: gross edge, edge and risk, for a book forecast and beta too, and of
    several horizons how many bars the trade lasts. One of the arbiter lasts as long as the first horizon.
    """
    broker, min_edge = params[0]["broker"], params[0]["decide"]["min_edge"]
    costs, horizon = costs_rule(broker["fee_rate"], broker["slippage_rate"]), float(broker["max_holding_bars"])
    shift = np.uintp(at) - np.uintp(start)
    for i in range(np.uintp(start), np.uintp(stop)):
        j = i + shift
        bid, win, risk = bids[Bid.ENSEMBLE, j], bids[Bid.WIN, j], bids[Bid.RISK, j]
        arbiter_bid, arbiter_win, arbiter_risk = bids[Bid.ARBITER, j], bids[Bid.ARBITER_WIN, j], bids[Bid.ARBITER_RISK, j]
        carry, rate = length_rule(bids, j, horizon) * bids[Bid.CARRY, j], horizon * bids[Bid.CARRY, j]
        chosen, edge, _, is_arbiter = price_rule(bid, arbiter_bid, costs, carry, rate, min_edge)
        gross, other = abs(bid), abs(arbiter_bid)
        raw_action[i] = 2 if chosen > 0.0 else (0 if chosen < 0.0 else 1)
        raw_confidence[i] = arbiter_win if is_arbiter else win
        money[0, i] = gross if gross > other else other
        known = edge if (bid != 0.0) | is_arbiter else -costs
        money[1, i] = known if (lean[i] != 0.0) | is_arbiter else np.nan
        money[2, i] = arbiter_risk if is_arbiter else risk
    for i in range(np.uintp(start), np.uintp(stop if len(money) > Value.FORECAST - Value.GROSS_EDGE else start)):
        j = i + shift
        length, rate = length_rule(bids, j, horizon), horizon * bids[Bid.CARRY, j]
        carry = length * bids[Bid.CARRY, j]
        _, _, _, is_arbiter = price_rule(bids[Bid.ENSEMBLE, j], bids[Bid.ARBITER, j], costs, carry, rate, min_edge)
        bid = bids[Bid.ARBITER, j] if is_arbiter else bids[Bid.ENSEMBLE, j]
        money[3, i] = forecast_rule(lean[i], bid, rate if is_arbiter else carry, is_arbiter)
        money[4, i] = pricing[BETA, i]
        if len(money) > Value.HOLDING - Value.GROSS_EDGE:
            money[5, i] = horizon if is_arbiter else length


def pricing_of(volatility: F8, carry: F8 | None = None, beta: F8 | None = None) -> F8:
    """Return what prices an opinion, [3, n, S].

    volatility [n, S]: of a bar's return; carry [n, S]: funding that a long expects to pay in a bar, a fraction, None for none; beta
    [n, S]: past beta to the market, None where nobody asks.
    """
    nothing = np.zeros(volatility.shape) if carry is None else carry
    return np.stack([volatility, nothing, np.full(volatility.shape, np.nan) if beta is None else beta])


def leans_of(votes: Votes) -> F8:
    """Return how far each voter leans, p_buy - p_sell or its signed confidence as in `fill_in`, NaN absent, [5, n, S].

    Of several horizons the first.
    """
    out = np.empty((*votes.action.shape, 3))
    fill_in(*told(votes), 0, out.reshape(N_MODELS, -1), 0, votes.action[0].size)
    return np.where(votes.action >= 0, out[..., 2] - out[..., 0], np.nan)


def told(votes: Votes) -> tuple[NDArray[np.int8], F8, F8]:
    """Return what voters said as `fill_in` takes it."""
    probs = np.empty((N_MODELS, 0)) if votes.probs is None else as_array(votes.probs, np.float64).reshape(N_MODELS, -1)
    action, confidence = as_array(votes.action, np.int8), as_array(votes.confidence, np.float64)
    return action.reshape(N_MODELS, -1), confidence.reshape(N_MODELS, -1), probs


def no_map(n_horizons: int = 1) -> NDArray:
    """Return the one map of each horizon that knows of no edge: nothing trades on it."""
    out = np.zeros(n_horizons, MAP)
    out["start"], out["factors"], out["win"], out["arbiter_win"], out["full"] = NEVER, 1.0, np.nan, np.nan, 1.0
    return out


def maps_on(maps: NDArray, close_time: I8, n_symbols: int) -> NDArray:
    """Return those of the maps MAP [H * F] that decisions at `close_time` [n] need, with their `first` cell, as many for each horizon.

    Those of a horizon stand together, ordered by `start`, the same for each. Before the first there is no edge.
    """
    n_horizons = horizons_of(maps)
    known = np.concatenate([no_map(n_horizons).reshape(n_horizons, 1), maps.reshape(n_horizons, -1)], axis=1)
    bars = np.append(np.searchsorted(close_time, known["start"][0]), max(1, len(close_time)))
    kept = np.flatnonzero(bars[1:] > bars[:-1])
    out: NDArray = known[:, kept]
    out["first"] = bars[kept] * n_symbols
    return out.reshape(-1)


def horizons_of(maps: NDArray) -> int:
    """Return of how many horizons maps MAP [H * F] are: each begins anew with the same `start`."""
    return max(1, int(np.count_nonzero(maps["start"] == maps["start"][:1])))


def carry_weight(interval: int) -> float:
    """Return the weight of the newest bar, of a length in ns, in the exponential mean of funding."""
    return min(1.0, interval / CARRY_SPAN)


@kernel
def carry_block(funding, weight, mean, out):
    """Write the exponential mean of the funding rate a bar up to each bar into out [n, S]; mean [S] is carried on in place.

    funding [n, S]: the rate due in a bar, 0.0 where none is. weight: of the newest bar.
    """
    for t in range(funding.shape[0]):
        for s in range(funding.shape[1]):
            mean[s] += weight * (funding[t, s] - mean[s])
            out[t, s] = mean[s]
