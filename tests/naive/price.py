"""What is an opinion worth? Slow twins of the kernels that value and price one, a cell at a time, in floats and lists.

A map is a dict with the fields of `MAP`; a cell's pricing is a list of three, its bids a list of seven. Sums run left to right.
"""

import math

from qtcore.rules import Reason
from qtcore.types import Source, Verdict
from tests.naive import opinion

SELL, HOLD, BUY = 0, 1, 2
NAN = math.nan


def win_rule(knots, size):
    steps = len(knots) - 1
    low = min(int(min(size * steps, steps)), steps - 1)
    return knots[low] + (knots[low + 1] - knots[low]) * (min(size * steps, float(steps)) - low)


def shrink_rule(pays, skip, full):
    return 1.0 if pays != pays else min(max((pays - skip) / (full - skip), 0.0), 1.0)


def bet_rule(pays, share, problem):
    if pays != pays:
        return problem
    return Reason.BET_TAKEN if share == 1.0 else Reason.BET_SKIPPED if share == 0.0 else Reason.BET_SHRUNK


def bid_rule(lean, volatility, slope):
    return 0.0 if volatility != volatility else slope * lean * volatility


def costs_rule(fee_rate, slippage_rate):
    return 2.0 * (fee_rate + slippage_rate)


def net_rule(bid, costs, carry):
    """A long pays what a short receives."""
    return abs(bid) - costs - (carry if bid > 0.0 else -carry)


def price_rule(bid, arbiter_bid, costs, carry, arbiter_carry, min_edge):
    edge = net_rule(bid, costs, carry)
    if bid != 0.0 and edge > min_edge:
        return bid, edge, False, False
    other = net_rule(arbiter_bid, costs, arbiter_carry)
    if arbiter_bid != 0.0 and other > min_edge:
        return arbiter_bid, other, True, True
    return 0.0, edge, True, False


def map_at(firsts, cell):
    """The last map that begins at the cell or before, and where the next begins."""
    f = max([0] + [k for k, first in enumerate(firsts) if first <= cell])
    return f, firsts[f + 1] if f + 1 < len(firsts) else 2**62


def fill_in(votes, probs):
    """SELL HOLD BUY of five voters, None absent; votes as `opinion.as_votes`, probs None or three numbers of each."""
    out = []
    for vote, three in zip(votes, probs or [None] * 5):
        if vote is None or (three is not None and not any(math.isnan(p) for p in three)):
            out.append(None if vote is None else three)
        else:
            action, sure = vote
            out.append({SELL: [sure, 1.0 - sure, 0.0], HOLD: [0.0, 1.0, 0.0], BUY: [0.0, 1.0 - sure, sure]}[action])
    return out


def largest(sell, hold, buy):
    return BUY if buy > hold and buy > sell else SELL if sell > hold and sell >= buy else HOLD


def average_block(votes, probs, map_, p, later=False):
    """The weighted mean: action, confidence, lean, and how many agree. later: at a horizon after the first, of which no vote is known."""
    whole = lean = hold = 0.0
    for three, weight, factor in zip(fill_in(votes, probs), p["ensemble.weights"], map_["factors"]):
        if three is not None and not any(math.isnan(x) for x in three):
            w = weight * factor
            whole, lean, hold = whole + w, lean + w * (three[2] - three[0]), hold + w * three[1]
    lean, hold = (lean / whole, hold / whole) if whole > 0.0 else (0.0, 0.5)
    buy, sell = 0.5 * ((1.0 - hold) + lean), 0.5 * ((1.0 - hold) - lean)
    action = largest(sell, hold, buy)
    cast = [largest(*three) for three in fill_in(votes, probs) if three] if later else [v[0] for v in votes if v]
    n, said = len(cast), cast.count(action)
    return {
        "ensemble_action": action,
        "ensemble_confidence": (sell, hold, buy)[action],
        "lean": lean,
        "consensus": opinion.consensus_rule(said, n, False),
        "consensus_count": said,
    }


def lean_on_votes(column):
    sure = column["ensemble_confidence"]
    return {SELL: -sure, HOLD: 0.0, BUY: sure}[column["ensemble_action"]]


def score_of(inputs):
    score = opinion.score_cells(inputs)
    return score if math.isfinite(score) else 0.0


def value(lean, pricing, inputs, pays, map_, p):
    """The seven rows of a valued opinion."""
    volatility, carry, _ = pricing
    takes = p["meta.enabled"] and p["meta.mode"] == "bet" and map_["is_seated"]
    share = shrink_rule(pays, map_["skip"], map_["full"]) if takes else 1.0
    bid = bid_rule(lean, volatility, map_["slope"]) if share > 0.0 else 0.0
    risk = map_["variance"] * (volatility * volatility) / (share if share > 0.0 else 1.0)
    out = [bid, win_rule(map_["win"], abs(lean)), risk, 0.0, 0.0, 0.0, carry]
    if p["arbiter.enabled"] and map_["arbiter_slope"] != 0.0:
        score = score_of(inputs)
        out[3] = bid_rule(score, volatility, map_["arbiter_slope"])
        out[4:6] = win_rule(map_["arbiter_win"], abs(score)), map_["arbiter_variance"] * (volatility * volatility)
    return out


def price(lean, bids, beta, p, bars=None):
    """What is decided, and the price of that. bars: how long a trade on the ensemble's opinion lasts, of several horizons; else None."""
    bid, win, risk, other, other_win, other_risk, rate = bids
    costs, first = costs_rule(p["broker.fee_rate"], p["broker.slippage_rate"]), p["broker.max_holding_bars"]
    length = first if bars is None else bars
    chosen, edge, _, is_arbiter = price_rule(bid, other, costs, length * rate, first * rate, p["decide.min_edge"])
    edge = edge if bid != 0.0 or is_arbiter else -costs
    forecast = (other - first * rate if is_arbiter else bid - length * rate) if lean != 0.0 or is_arbiter else NAN
    in_book = {"forecast": forecast, "beta": beta} if p["governor.book"] == "cross_section" or bars is not None else {}
    of_several = {} if bars is None else {"holding": float(first if is_arbiter else length)}
    return (
        in_book
        | of_several
        | {
            "raw_action": BUY if chosen > 0.0 else SELL if chosen < 0.0 else HOLD,
            "raw_confidence": other_win if is_arbiter else win,
            "gross_edge": max(abs(bid), abs(other)),
            "edge": edge if lean != 0.0 or is_arbiter else NAN,
            "risk": other_risk if is_arbiter else risk,
        }
    )


def judge_bets(lean, pays, problem, map_, action):
    if lean == 0.0:
        return {}
    share = shrink_rule(pays, map_["skip"], map_["full"])
    return {
        "meta_reason": bet_rule(pays, share, problem),
        "meta_action": -1 if pays != pays else HOLD if share == 0.0 else action,
        "meta_confidence": pays,
        "verdict": Verdict.OVERRIDE if map_["is_seated"] and share < 1.0 else Verdict.DEFER,
    }


def note_doubts(bids, p, bars=None):
    """Whether the arbiter is asked, and whether its bid trades."""
    costs, first = costs_rule(p["broker.fee_rate"], p["broker.slippage_rate"]), p["broker.max_holding_bars"]
    length = first if bars is None else bars
    _, _, in_doubt, is_arbiter = price_rule(bids[0], bids[3], costs, length * bids[6], first * bids[6], p["decide.min_edge"])
    asked = {"verdict": Verdict.ESCALATE} if in_doubt and p["arbiter.enabled"] else {}
    return {"source": Source.ARBITER if is_arbiter else Source.ENSEMBLE, **asked}


def advise(inputs, win, in_use, column):
    """What the arbiter says to a cell that it was asked about."""
    if column["verdict"] != Verdict.ESCALATE:
        return {"arbiter_action": -1, "arbiter_reason": 0, "arbiter_confidence": NAN, "arbiter_score": NAN}
    score, is_blank = opinion.score_rule(opinion.signal_rule(*inputs)), opinion.blank_rule(*inputs)
    action = BUY if score > 0.0 else SELL if score < 0.0 else HOLD
    if is_blank or score != score:
        reason = Reason.NO_MARKET_DATA if is_blank else Reason.ANALYSIS_ERROR
    elif column["source"] == Source.ARBITER:
        reason = Reason.BUY_SIGNAL if action == BUY else Reason.SELL_SIGNAL
    elif action == HOLD:
        reason = Reason.DEFER_ACTION_IS_HOLD
    else:
        reason = Reason.DEFER_NO_EDGE if in_use else Reason.NO_SEAT
    is_broken = is_blank or score != score
    return {
        "arbiter_action": action,
        "arbiter_reason": reason,
        "arbiter_confidence": win if in_use and not is_broken else NAN,
        "arbiter_score": NAN if is_blank else score,
    }


def gain_rule(bid, carry):
    return net_rule(bid, 0.0, carry) if bid != 0.0 else 0.0


def hear(column, bids, votes, later, pricing, inputs, pays, p):
    """The horizon that earns most before costs, the earlier of equals: its columns, bids and length.

    later: of each horizon after the first its probabilities and map.
    """
    bars = p["broker.max_holding_bars"]
    for probs, map_ in later:
        said = average_block(votes, [b if b and not any(map(math.isnan, b)) else a for a, b in probs], map_, p, later=True)
        own = value(said["lean"], pricing, inputs, pays, map_, p)
        if own[0] != 0.0 and gain_rule(own[0], map_["bars"] * own[6]) > gain_rule(bids[0], bars * bids[6]):
            column, bids, bars = column | said, [*own[:3], *bids[3:]], map_["bars"]
    return column, bids, bars


def decide_block(votes, probs, inputs, regime, pricing, pays, problem, map_, p, later=()):
    """Decide one cell by its edge: a dict with every decision column and the money. pricing: volatility, carry and beta.

    later: of each horizon after the first, what every voter said of it, and its map.
    """
    column = {**opinion.vote(votes, regime, p), **opinion.reset()}
    is_mean, bars = p["ensemble.rule"] == "mean", None
    if is_mean:
        column |= average_block(votes, probs, map_, p)
    else:
        column["lean"] = lean_on_votes(column)
    column |= opinion.keep(column)
    bids = value(column["lean"], pricing, inputs, pays, map_, p)
    if later and is_mean:
        asked = [(list(zip(probs, told)), own) for told, own in later]
        column, bids, bars = hear(column, bids, votes, asked, pricing, inputs, pays, p)
    column |= price(column["lean"], bids, pricing[2], p, bars)
    if p["meta.enabled"]:
        column |= judge_bets(column["lean"], pays, problem, map_, column["ensemble_action"])
    column |= note_doubts(bids, p, bars)
    if p["arbiter.enabled"]:
        column |= advise(inputs, bids[4], map_["arbiter_slope"] > 0.0, column)
    return column


def carry_block(rates, weight, mean):
    out = []
    for rate in rates:
        mean = mean + weight * (rate - mean)
        out.append(mean)
    return out
