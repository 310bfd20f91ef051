"""What should the opinion layers say? Slow twins of their kernels in lists, dicts and sums, written from the specification.

A cell's votes are five entries, `(action, confidence)` or None for an absent model. Kernels that write columns have twins that return them
as a dict. Sums run left to right from 0.0, as `spec` 0.2 asks.
"""

import math

from qtcore.rules import Reason
from qtcore.types import Consensus, Source, Verdict

SELL, HOLD, BUY = 0, 1, 2
NAN = math.nan


# ---------------------------------------------------------------- slots


def slots(table, cell):
    return [row[cell] for row in table]


def as_votes(actions, confidences):
    return [None if a < 0 else (a, c) for a, c in zip(actions, confidences)]


def weigh_rule(votes, amounts, action):
    total = 0.0
    for vote, amount in zip(votes, amounts):
        if vote is not None and vote[0] == action:
            total += amount
    return total


def tally_rule(votes):
    voted = [v[0] for v in votes if v is not None]
    return voted.count(SELL), voted.count(HOLD), voted.count(BUY), len(voted)


def most_rule(sell, hold, buy):
    counts = [sell, hold, buy]
    return max(counts), counts.index(max(counts))


def is_outvoted_rule(sell, hold, buy, ensemble_action):
    counts = [sell, hold, buy]
    return counts.count(max(counts)) == 1 and counts.index(max(counts)) != ensemble_action


def fill_rule(votes):
    return [(HOLD, 0.5) if v is None and m < 4 else v for m, v in enumerate(votes)]


def choose_rule(probs):
    is_sound = all(0.0 <= p <= 1.0 for p in probs)
    return list(probs).index(max(probs)), max(probs), is_sound


# ---------------------------------------------------------------- 4 ensemble


def second_rule(a, b, c):
    ordered = sorted([a, b, c])
    return ordered[2], ordered[1]


def winner_rule(votes, weights, tie_break):
    total = {action: weigh_rule(votes, weights, action) for action in (BUY, SELL, HOLD)}
    top = max(total.values())
    if tie_break == "hold" and len([t for t in total.values() if top - t <= 1e-12]) >= 2:
        return HOLD, True
    return next(action for action, t in total.items() if t == top), False


def consensus_rule(n_winners, n_voters, is_tie):
    if n_voters == 0:
        return Consensus.NO_VALID_MODELS
    if is_tie:
        return Consensus.TIE
    if n_winners >= n_voters:
        return Consensus.UNANIMOUS
    if n_winners >= 0.75 * n_voters:
        return Consensus.STRONG
    return Consensus.SPLIT if n_winners >= 0.5 * n_voters else Consensus.WEAK


def confidence_rule(total, n_winners, label, multipliers):
    if label in (Consensus.TIE, Consensus.NO_VALID_MODELS):
        return 0.5
    names = [Consensus.WEAK, Consensus.SPLIT, Consensus.STRONG, Consensus.UNANIMOUS]
    base = total / n_winners if n_winners else 0.5
    return min(0.95, base * multipliers[names.index(label)])


def weighted_score_rule(votes, weights, tie_break):
    present = weigh_rule([None if v is None else (0, 0.0) for v in votes], weights, 0)
    if present <= 0.0:
        return HOLD, 0.0
    products = [0.0 if v is None else w * v[1] for v, w in zip(votes, weights)]
    score = {action: weigh_rule(votes, products, action) / present for action in (SELL, HOLD, BUY)}
    top = max(score.values())
    if tie_break == "hold" and len([s for s in score.values() if top - s <= 1e-12]) >= 2:
        return HOLD, score[HOLD]
    return next((action, s) for action, s in score.items() if s == top)


def slice_rule(volatility, trend):
    row = "medium" if volatility != volatility or 0.4 <= volatility < 0.6 else "low" if volatility < 0.4 else "high"
    column = "sideways" if trend != trend or -0.2 <= trend <= 0.2 else "down" if trend < -0.2 else "up"
    return 3 * ["low", "medium", "high"].index(row) + ["down", "sideways", "up"].index(column)


def regime_weights(weights, factors, slice_number):
    scaled = [w * f for w, f in zip(weights, factors[5 * slice_number : 5 * slice_number + 5])]
    before = after = 0.0
    for w, s in zip(weights, scaled):
        before, after = before + w, after + s
    return [s * (before / after) for s in scaled] if after > 0.0 else list(weights)


def pattern_rule(votes, weights, p):
    """What does the pattern of a cell's votes lead to, whatever the confidences?"""
    counts = tally_rule(votes)
    winner, is_tie = (HOLD, False) if counts[3] == 0 else winner_rule(votes, weights, p["ensemble.tie_break"])
    label = consensus_rule(counts[winner], counts[3], is_tie)
    judged = [judge_policy(votes, is_low, p) for is_low in (False, True)]
    outvoted = restore(votes, judged[0]["meta_reason"], winner) != {} and p["meta.missing_fill"] == "omit"
    column = {"ensemble_action": winner, "consensus": label, "consensus_count": counts[winner], "n_voters": counts[3]}
    return column, judged, outvoted


def fill_table(p):
    """Every pattern of five votes, in the order of `sum((action + 1) * 4^slot)`; one list for each set of weights."""
    factors = p["ensemble.regime_factors"]
    adapted = [regime_weights(p["ensemble.weights"], factors, k) for k in range(9)]
    sets = [p["ensemble.weights"]] if all(f == 1.0 for f in factors) else adapted
    patterns = [as_votes([(number // 4**m) % 4 - 1 for m in range(5)], [0.5] * 5) for number in range(1024)]
    return [[pattern_rule(votes, weights, p) for votes in patterns] for weights in sets]


def look_up(votes, regime, p):
    weights, factors = p["ensemble.weights"], p["ensemble.regime_factors"]
    if any(f != 1.0 for f in factors):
        weights = regime_weights(weights, factors, slice_rule(*regime))
    return pattern_rule(votes, weights, p)[0]


def average(votes, column, p):
    confidences = [0.0 if v is None else v[1] for v in votes]
    total = weigh_rule(votes, confidences, column["ensemble_action"])
    return confidence_rule(total, column["consensus_count"], column["consensus"], p["ensemble.multipliers"])


def vote(votes, regime, p):
    column = look_up(votes, regime, p)
    return {**column, "ensemble_confidence": average(votes, column, p)}


# ---------------------------------------------------------------- 7 policy


def policy_rule(sell, hold, buy, is_low, p):
    n = sell + hold + buy
    if n == 0:
        return Reason.NO_PREDICTIONS
    most = max(sell, hold, buy)
    if most / n >= p["meta.consensus_threshold"]:
        return Reason.STRONG_CONSENSUS_SELL + [sell, hold, buy].index(most)
    if buy == 2 and sell == 2:
        return Reason.SPLIT_VOTE
    if 1 - most / n >= p["meta.disagreement_threshold"]:
        return Reason.HIGH_DISAGREEMENT
    return Reason.LOW_ENSEMBLE_CONFIDENCE if is_low else Reason.CLEAR_ENSEMBLE_NO_MODEL


def entropy_rule(probs):
    total = 0.0
    for x in probs:
        total += x * math.log(x + 1e-10)
    return -total / math.log(3.0)


def grade(votes, ensemble_confidence, p):
    if p["meta.policy_base"] == "score":
        counted = fill_rule(votes) if p["meta.missing_fill"] == "hold_half" else votes
        ensemble_confidence = weighted_score_rule(counted, p["ensemble.weights"], p["ensemble.tie_break"])[1]
    return ensemble_confidence < p["meta.low_confidence"]


def reset():
    return {"verdict": Verdict.NONE, "meta_reason": Reason.NONE, "meta_action": -1, "meta_confidence": NAN}


def too_few(n_voters):
    return {"meta_reason": Reason.TOO_FEW_VOTERS if n_voters == 1 else Reason.NO_VALID_MODELS}


def judge_policy(votes, is_low, p):
    n_voters = tally_rule(votes)[3]
    if n_voters < 2:
        return {"verdict": Verdict.NONE, **too_few(n_voters)}
    counted = fill_rule(votes) if p["meta.missing_fill"] == "hold_half" else votes
    reason = policy_rule(*tally_rule(counted)[:3], is_low, p)
    return {"verdict": Verdict.ESCALATE if reason >= 20 else Verdict.DEFER, "meta_reason": reason}


def ask(probs, problem, p):
    if probs[0] != probs[0]:
        return {"meta_reason": Reason.CLEAR_ENSEMBLE_NO_MODEL if problem == Reason.MODEL_NOT_LOADED else problem}
    action, _, is_sound = choose_rule(probs)
    if not is_sound:
        return {"meta_reason": Reason.PREDICTION_ERROR}
    entropy = entropy_rule(probs)
    found = {"verdict": Verdict.DEFER, "meta_action": action, "meta_confidence": entropy, "meta_reason": Reason.CLEAR_ENSEMBLE}
    if entropy > p["meta.entropy_threshold"]:
        found |= {"verdict": Verdict.ESCALATE, "meta_reason": Reason.UNDECIDED_MARKET}
    return found


def restore(votes, reason, ensemble_action):
    sell, hold, buy, _ = tally_rule(votes)
    if reason not in (1, 2, 3) or not is_outvoted_rule(sell, hold, buy, ensemble_action):
        return {}
    most, winner = most_rule(sell, hold, buy)
    return {"raw_action": winner, "raw_confidence": weigh_rule(votes, [0.0 if v is None else v[1] for v in votes], winner) / most}


# ---------------------------------------------------------------- 6 override, 5 MetaPredictor


def override_rule(sell, hold, buy, n, probs, problem, p):
    if probs[0] != probs[0] and problem == Reason.MODEL_NOT_LOADED:
        return Reason.MODEL_NOT_LOADED, -1, NAN
    if n and max(sell, hold, buy) / n >= p["meta.consensus_threshold"]:
        return Reason.STRONG_CONSENSUS_SELL + most_rule(sell, hold, buy)[1], -1, NAN
    if probs[0] != probs[0]:
        return problem, -1, NAN
    action, confidence, is_sound = choose_rule(probs)
    if not is_sound:
        return Reason.INVALID_CONFIDENCE, -1, NAN
    if confidence < p["meta.override_threshold"]:
        return Reason.META_LOW_CONFIDENCE, action, confidence
    return Reason.META_OVERRIDE_SELL + action, action, confidence


def v5_rule(sell, hold, buy, n, ensemble_action, probs, problem, p):
    if probs[0] != probs[0]:
        return problem, -1, NAN
    action, confidence, is_sound = choose_rule(probs)
    if not is_sound:
        return Reason.PREDICTION_ERROR, -1, NAN
    if not confidence > p["meta.v5_threshold"]:
        return Reason.META_LOW_CONFIDENCE, action, confidence
    if p["meta.consensus_guard"] and max(sell, hold, buy) / n >= 0.75 and action != ensemble_action:
        return Reason.CONSENSUS_GUARD, action, confidence
    return Reason.META_V5_OVERRIDE, action, confidence


def judge_learned(votes, ensemble_action, probs, problem, p):
    counts, is_v5 = tally_rule(votes), p["meta.mode"] == "v5"
    if counts[3] < 2:
        return too_few(counts[3])
    judged = v5_rule(*counts, ensemble_action, probs, problem, p) if is_v5 else override_rule(*counts, probs, problem, p)
    reason, action, confidence = judged
    column = {"verdict": Verdict.DEFER, "meta_reason": reason, "meta_action": action, "meta_confidence": confidence}
    if reason in (30, 31, 32, 35):
        return {**column, "verdict": Verdict.OVERRIDE, "raw_action": action, "raw_confidence": confidence, "source": Source.META}
    if not is_v5 and reason in (6, 7, 8, 9, 10, 34) and not p["meta.fail_open"]:
        return {**column, "raw_action": HOLD, "raw_confidence": 0.0, "source": Source.META}
    return column


# ---------------------------------------------------------------- 9 arbiter


def signal_rule(rsi, macd, macd_signal, bb, volume, momentum):
    d = macd - macd_signal
    side = 1 if d > 0 else -1 if d < 0 else 0
    high_volume = min((volume - 1) / 2, 1) if volume > 1.5 else 0.0
    return [
        (30 - rsi) / 30 if rsi < 30 else -((rsi - 70) / 30) if rsi > 70 else 0.0,
        side * min(10 * abs(d), 1) if side else 0.0,
        0.2 - bb if bb < 0.2 else -(bb - 0.8) if bb > 0.8 else 0.0,
        side * high_volume if side else 0.0,
        min(10 * momentum, 1) if momentum > 0.02 else -min(10 * abs(momentum), 1) if momentum < -0.02 else 0.0,
    ]


def trend_rule(trend):
    return trend if abs(trend) > 0.3 else 0.0


def score_rule(signals):
    score = 0.0
    for signal, weight in zip(signals, [0.20, 0.25, 0.15, 0.15, 0.25]):
        score += signal * weight
    return score


def settle_rule(score, threshold):
    if score >= threshold:
        return BUY, min(0.70 + 0.5 * score, 0.95)
    if score <= -threshold:
        return SELL, min(0.70 + 0.5 * abs(score), 0.95)
    return HOLD, 0.50 + 2 * (0.1 - abs(score))


def blank_rule(*indicators):
    return all(x != x for x in indicators)


def score_cells(inputs):
    return NAN if blank_rule(*inputs) else score_rule(signal_rule(*inputs))


def gate_rule(action, confidence, gate):
    return confidence >= gate and action != HOLD


def answer_rule(signals, is_blank, threshold, gate):
    score = score_rule(signals)
    action, confidence = settle_rule(score, threshold)
    if is_blank or score != score:
        return NAN, HOLD, 0.5, Reason.NO_MARKET_DATA if is_blank else Reason.ANALYSIS_ERROR
    if gate_rule(action, confidence, gate):
        return score, action, confidence, Reason.BUY_SIGNAL if action == BUY else Reason.SELL_SIGNAL
    return score, action, confidence, Reason.DEFER_LOW_CONFIDENCE if confidence < gate else Reason.DEFER_ACTION_IS_HOLD


def keep(column):
    reason = Reason.NOT_AVAILABLE if column["verdict"] == Verdict.ESCALATE else Reason.NONE
    kept = {"raw_action": column["ensemble_action"], "raw_confidence": column["ensemble_confidence"], "source": Source.ENSEMBLE}
    return {**kept, "arbiter_action": -1, "arbiter_confidence": NAN, "arbiter_score": NAN, "arbiter_reason": reason}


def settle(inputs, column, p):
    kept = keep(column)
    if column["verdict"] != Verdict.ESCALATE:
        return kept
    is_blank = all(x != x for x in inputs)
    threshold, gate = p["arbiter.score_threshold"], p["arbiter.gate_confidence"]
    score, action, confidence, reason = answer_rule(signal_rule(*inputs), is_blank, threshold, gate)
    called = {"arbiter_action": action, "arbiter_confidence": confidence, "arbiter_score": score, "arbiter_reason": reason}
    if reason in (Reason.BUY_SIGNAL, Reason.SELL_SIGNAL):
        kept |= {"raw_action": action, "raw_confidence": confidence, "source": Source.ARBITER}
    return {**kept, **called}


# ---------------------------------------------------------------- 11 the flow


def decide_block(votes, inputs, regime, probs, problem, p):
    """Decide one cell: a dict with every decision column."""
    column = {**vote(votes, regime, p), **reset()}
    if p["meta.enabled"] and p["meta.mode"] == "policy":
        column |= judge_policy(votes, grade(votes, column["ensemble_confidence"], p), p)
        has_answer = probs[0] == probs[0] and choose_rule(probs)[2]
        takes_over = p["meta.variant"] == "learned" and column["meta_reason"] >= 20 and has_answer
        if column["meta_reason"] == Reason.CLEAR_ENSEMBLE_NO_MODEL or takes_over:
            column |= ask(probs, problem, p)
        column |= settle(inputs, column, p) if p["arbiter.enabled"] else keep(column)
        if p["meta.missing_fill"] == "omit":
            column |= restore(votes, column["meta_reason"], column["ensemble_action"])
        return column
    column |= keep(column)
    if p["meta.enabled"]:
        column |= judge_learned(votes, column["ensemble_action"], probs, problem, p)
    if p["meta.enabled"] and p["meta.mode"] == "override":
        column |= restore(votes, column["meta_reason"], column["ensemble_action"])
    return column


def hit_rule(rate, lean, begun, close, weight):
    signs = [(x > 0) - (x < 0) for x in (lean, close - begun)]
    if 0 in signs:
        return rate
    return rate + weight * ((1.0 if signs[0] == signs[1] else 0.0) - rate)


def count_hits(lean, close, horizon, weight):
    """Rates of one voter on one symbol, from the first bar on."""
    rate, out = 0.5, []
    for t in range(len(close)):
        if t >= horizon:
            rate = hit_rule(rate, lean[t - horizon], close[t - horizon], close[t], weight)
        out.append(rate)
    return out


def backing(lean, close, horizon, weight):
    """Backing of the bets by the voters `lean` [5][n] on one symbol."""
    rates = [count_hits(own, close, horizon, weight) for own in lean]
    out = [[] for _ in lean]
    for t in range(len(close)):
        side = 0.0
        for own in lean:
            side += own[t] if own[t] == own[t] else 0.0
        for m, own in enumerate(lean):
            out[m].append(backing_rule(rates[m][t], own[t], side))
    return out


def backing_rule(rate, lean, side):
    if not (lean and side and lean == lean):
        return 0.5
    return rate if (lean > 0) == (side > 0) else 1.0 - rate


# ---------------------------------------------------------------- what a learned model sees and says


def voters(votes):
    return tally_rule(votes)[3]


def is_known(row):
    return all(x == x for x in row)


def spread(values):
    if not values:
        return 0.0, 0.0
    total = squares = 0.0
    for x in values:
        total += x
    mean = total / len(values)
    for x in values:
        squares += (x - mean) * (x - mean)
    return mean, math.sqrt(squares / len(values))


def extremes(values):
    return max(values, default=0.5), min(values, default=0.5)


def v5_row(votes):
    seen = [votes[m] or (HOLD, 0.5) for m in (0, 1, 3, 2)]
    return [c for _, c in seen] + [float(a) for a, _ in seen]


def one_hot_row(votes, order, volatility, trend):
    seen = [votes[m] for m in order]
    row = []
    for v in seen:
        action, confidence = v or (HOLD, 0.5)
        row += [float(action == SELL), float(action == HOLD), float(action == BUY), confidence]
    present = [v for v in seen if v is not None]
    mean, deviation = spread([c for _, c in present])
    sell, hold, buy, n = tally_rule(present)
    row += [mean if present else 0.5, *extremes([c for _, c in present]), deviation]
    row += [buy / (n or 4), sell / (n or 4), hold / (n or 4), 1.0 - max(sell, hold, buy) / n if n else 0.0]
    return [*row, 0.5 if volatility != volatility else volatility, 0.0 if trend != trend else trend]


def probable_row(probs, order, advanced, before):
    seen = [probs[m] for m in order]
    row = []
    for p in seen:
        row += [0.0, 1.0, 0.0, 0.5] if p is None else [*p, max(p)]
    present = [p for p in seen if p is not None]
    confidences = [max(p) for p in present]
    mean, deviation = spread(confidences)
    heat = 0.0
    for c in confidences:
        heat += c * math.log(c + 1e-9)
    row += [mean if present else 0.5, *extremes(confidences), deviation, spread([p[1] + 2.0 * p[2] for p in present])[1]]
    row += [-(heat / len(present)) if present else 0.0, *advanced, abs(mean - before) if present and before == before else 0.0]
    return row, mean if present else NAN


def _rows(cells, make):
    return [make(cell) if voters(cell) >= 2 else None for cell in cells]


def v5_rows(cells):
    return _rows(cells, v5_row)


def one_hot_rows(cells, order, regimes):
    return [one_hot_row(cell, order, *regime) if voters(cell) >= 2 else None for cell, regime in zip(cells, regimes)]


def probable_rows(cells, order, advanced, before):
    """One symbol's cells in time; `before` is its last mean confidence. Returns rows and the new one."""
    rows = []
    for probs, extra in zip(cells, advanced):
        row, mean = probable_row(probs, order, extra, before)
        before = mean if mean == mean else before
        rows.append(row if sum(p is not None for p in probs) >= 2 else None)
    return rows, before


def sigmoid(x):
    e = math.exp(-abs(x))
    return e / (1.0 + e) if x > 0.0 else 1.0 / (1.0 + e)


def logistic_platt(row, a):
    probs, total = [], 0.0
    for k in range(3):
        score = a["intercept"][k]
        for j, x in enumerate(row):
            score += (x - a["mean"][j]) / a["scale"][j] * a["coef"][k][j]
        probs.append(sigmoid(a["slope"][k] * score + a["offset"][k]))
        total += probs[k]
    return [p / total if total > 0.0 else 1.0 / 3.0 for p in probs]


def logistic_softmax(row, a):
    scores = []
    for k in range(3):
        score = a["intercept"][k]
        for j, x in enumerate(row):
            score += (x - a["mean"][j]) / a["scale"][j] * a["coef"][k][j]
        scores.append(score)
    return softmax(scores)


def dense(x, weights, bias):
    out = []
    for u, b in enumerate(bias):
        total = b
        for j, value in enumerate(x):
            total += value * weights[j][u]
        out.append(total)
    return out


def rectify(x):
    return [max(v, 0.0) for v in x]


def softmax(x):
    powers, total = [math.exp(v - max(x)) for v in x], 0.0
    for power in powers:
        total += power
    return [power / total for power in powers]


def mlp(row, a):
    scaled = [(x - m) / s for x, m, s in zip(row, a["mean"], a["scale"])]
    hidden = rectify(dense(rectify(dense(scaled, a["w1"], a["b1"])), a["w2"], a["b2"]))
    return softmax(dense(hidden, a["w3"], a["b3"]))


def logistic_platt_rows(rows, a):
    return [logistic_platt(row, a) if is_known(row) else None for row in rows]


def logistic_softmax_rows(rows, a):
    return [logistic_softmax(row, a) if is_known(row) else None for row in rows]


def mlp_rows(rows, a):
    return [mlp(row, a) if is_known(row) else None for row in rows]
