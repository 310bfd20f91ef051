"""Twin of the opinion layers as a whole, slow and in dicts and floats, written from the specification alone; `trade` has the rest.

It shares nothing with qtcore but the codes of its enums: parameters come as `Params().flat()`, prices as nested lists. Every sum runs
left to right as `spec` 0.2 asks, so the comparison with the kernels is one of bits.
"""

import math

from qtcore.rules import Reason
from qtcore.types import Consensus, Source, Verdict

SELL, HOLD, BUY = 0, 1, 2
NAN = math.nan
DAY = 86_400_000_000_000
MINUTE = 60_000_000_000
N_BASE = 4  # the fifth slot is optional: its absence is never filled


# ---------------------------------------------------------------- opinion: 4, 5, 6, 7, 9, 11


def decide(votes, market, regime, params, meta=None):
    """Say what the opinion layers make of one cell.

    votes: five (action, confidence) pairs, None where a model is absent. market: the six arbiter inputs. regime: volatility, trend.
    meta: three probabilities or None. Returns a dict with every decision column.
    """
    p = params
    ens = ensemble(votes, regime, p)
    out = {
        **ens,
        "verdict": Verdict.NONE,
        "meta_reason": Reason.NONE,
        "meta_action": -1,
        "meta_confidence": NAN,
        "arbiter_action": -1,
        "arbiter_confidence": NAN,
        "arbiter_score": NAN,
        "arbiter_reason": Reason.NONE,
        "raw_action": ens["ensemble_action"],
        "raw_confidence": ens["ensemble_confidence"],
        "source": Source.ENSEMBLE,
    }
    if not p["meta.enabled"]:
        return out
    if ens["n_voters"] < 2:
        out["meta_reason"] = Reason.NO_VALID_MODELS if ens["n_voters"] == 0 else Reason.TOO_FEW_VOTERS
        return out
    judge = {"policy": policy, "override": override, "v5": v5}[p["meta.mode"]]
    out.update(judge(votes, ens, p, meta))
    if out["verdict"] == Verdict.ESCALATE:
        out.update(arbiter(market, p) if p["arbiter.enabled"] else {"arbiter_reason": Reason.NOT_AVAILABLE})
    return out


def ensemble(votes, regime, p):
    """Vote by weight; confidence is the mean of the winner's voters (4.2, 4.3)."""
    weights = regime_weights(p["ensemble.weights"], p["ensemble.regime_factors"], regime)
    score = dict.fromkeys((SELL, HOLD, BUY), 0.0)
    count = dict.fromkeys(score, 0)
    total = dict.fromkeys(score, 0.0)
    for weight, vote in zip(weights, votes):
        if vote is not None:
            action, confidence = vote
            score[action] += weight
            count[action] += 1
            total[action] += confidence
    n = sum(count.values())

    def result(action, confidence, label, winners):
        return {
            "ensemble_action": action,
            "ensemble_confidence": confidence,
            "consensus": label,
            "consensus_count": winners,
            "n_voters": n,
        }

    if n == 0:
        return result(HOLD, 0.5, Consensus.NO_VALID_MODELS, 0)
    top = max(score.values())
    if p["ensemble.tie_break"] == "hold" and sum(top - s <= 1e-12 for s in score.values()) >= 2:
        return result(HOLD, 0.5, Consensus.TIE, count[HOLD])
    winner = next(a for a in (BUY, SELL, HOLD) if score[a] == top)
    k = count[winner]
    label = Consensus.UNANIMOUS if k >= n else Consensus.STRONG if k >= 0.75 * n else Consensus.SPLIT if k >= 0.5 * n else Consensus.WEAK
    base = total[winner] / k if k else 0.5
    multiplier = p["ensemble.multipliers"][int(label) - int(Consensus.WEAK)]
    return result(winner, min(0.95, base * multiplier), label, k)


def regime_weights(weights, factors, regime):
    """Scale the weights by regime and back to their sum; all factors 1 leaves them as they are (4.6)."""
    if all(f == 1.0 for f in factors):
        return list(weights)
    volatility, trend = regime
    row = 0 if volatility < 0.4 else 2 if volatility >= 0.6 else 1
    column = 0 if trend < -0.2 else 2 if trend > 0.2 else 1
    start = (row * 3 + column) * 5
    scaled = [w * f for w, f in zip(weights, factors[start : start + 5])]
    before, after = 0.0, 0.0
    for w, s in zip(weights, scaled):
        before += w
        after += s
    return [s * (before / after) for s in scaled] if after > 0.0 else list(weights)


def weighted_score(votes, p):
    """Confidence-weighted score (4.5): action and its score."""
    score = dict.fromkeys((SELL, HOLD, BUY), 0.0)
    present = 0.0
    for weight, vote in zip(p["ensemble.weights"], votes):
        if vote is not None:
            score[vote[0]] += weight * vote[1]
            present += weight
    if present <= 0.0:
        return HOLD, 0.0
    score = {a: s / present for a, s in score.items()}
    top = max(score.values())
    if p["ensemble.tie_break"] == "hold" and sum(top - s <= 1e-12 for s in score.values()) >= 2:
        return HOLD, score[HOLD]
    winner = next(a for a in (SELL, HOLD, BUY) if score[a] == top)
    return winner, score[winner]


def counts_of(votes):
    """Count SELL, HOLD and BUY among the present votes."""
    return [sum(v is not None and v[0] == a for v in votes) for a in (SELL, HOLD, BUY)]


def mean_confidence(votes, action):
    """Mean confidence of the voters for `action`, summed in model order."""
    total, k = 0.0, 0
    for v in votes:
        if v is not None and v[0] == action:
            total, k = total + v[1], k + 1
    return total / k


def policy(votes, ens, p, meta):
    """Keep the ensemble or ask the arbiter (7.3)."""
    given = votes
    if p["meta.missing_fill"] == "hold_half":
        votes = [(HOLD, 0.5) if v is None and m < N_BASE else v for m, v in enumerate(votes)]
    counts = counts_of(votes)
    n = sum(counts)
    share = max(counts) / n
    if share >= p["meta.consensus_threshold"]:
        return consensus(given if votes is given else None, counts, ens)
    confidence = ens["ensemble_confidence"] if p["meta.policy_base"] == "shared" else weighted_score(votes, p)[1]
    if counts[BUY] == 2 and counts[SELL] == 2:
        return {"verdict": Verdict.ESCALATE, "meta_reason": Reason.SPLIT_VOTE}
    if 1.0 - share >= p["meta.disagreement_threshold"]:
        return {"verdict": Verdict.ESCALATE, "meta_reason": Reason.HIGH_DISAGREEMENT}
    if confidence < p["meta.low_confidence"]:
        return {"verdict": Verdict.ESCALATE, "meta_reason": Reason.LOW_ENSEMBLE_CONFIDENCE}
    if meta is None:
        return {"verdict": Verdict.DEFER, "meta_reason": Reason.CLEAR_ENSEMBLE_NO_MODEL}
    total = 0.0
    for x in meta:
        total += x * math.log(x + 1e-10)
    entropy = -total / math.log(3.0)
    undecided = entropy > p["meta.entropy_threshold"]
    return {
        "verdict": Verdict.ESCALATE if undecided else Verdict.DEFER,
        "meta_reason": Reason.UNDECIDED_MARKET if undecided else Reason.CLEAR_ENSEMBLE,
        "meta_action": meta.index(max(meta)),
        "meta_confidence": entropy,
    }


def consensus(votes, counts, ens):
    """Defer; a consensus that the weights outvote wins all the same, unless absent models were counted in it (D-70; votes None)."""
    winner = counts.index(max(counts))
    out = {"verdict": Verdict.DEFER, "meta_reason": Reason.STRONG_CONSENSUS_SELL + winner}
    if votes is not None and counts.count(max(counts)) == 1 and winner != ens["ensemble_action"]:
        out |= {"raw_action": winner, "raw_confidence": mean_confidence(votes, winner)}
    return out


def override(votes, ens, p, meta):
    """Let a confident meta model replace the ensemble (6.3); an error holds when it fails closed."""
    if meta is None:
        if p["meta.fail_open"]:
            return {"verdict": Verdict.DEFER, "meta_reason": Reason.MODEL_NOT_LOADED}
        return {
            "verdict": Verdict.DEFER,
            "meta_reason": Reason.MODEL_NOT_LOADED,
            "raw_action": HOLD,
            "raw_confidence": 0.0,
            "source": Source.META,
        }
    counts = counts_of(votes)
    if max(counts) / sum(counts) >= p["meta.consensus_threshold"]:
        return consensus(votes, counts, ens)
    action, confidence = meta.index(max(meta)), max(meta)
    asked = {"meta_action": action, "meta_confidence": confidence}
    if confidence < p["meta.override_threshold"]:
        return {"verdict": Verdict.DEFER, "meta_reason": Reason.META_LOW_CONFIDENCE, **asked}
    return {
        "verdict": Verdict.OVERRIDE,
        "meta_reason": Reason.META_OVERRIDE_SELL + action,
        "raw_action": action,
        "raw_confidence": confidence,
        "source": Source.META,
        **asked,
    }


def v5(votes, ens, p, meta):
    """Let MetaPredictor v5 replace the ensemble unless a strong consensus guards its action (5, D-40)."""
    if meta is None:
        return {"verdict": Verdict.DEFER, "meta_reason": Reason.MODEL_NOT_LOADED}
    action, confidence = meta.index(max(meta)), max(meta)
    asked = {"meta_action": action, "meta_confidence": confidence}
    if not confidence > p["meta.v5_threshold"]:
        return {"verdict": Verdict.DEFER, "meta_reason": Reason.META_LOW_CONFIDENCE, **asked}
    counts = counts_of(votes)
    agreed = max(counts) / sum(counts) >= 0.75
    if p["meta.consensus_guard"] and agreed and action != ens["ensemble_action"]:
        return {"verdict": Verdict.DEFER, "meta_reason": Reason.CONSENSUS_GUARD, **asked}
    return {
        "verdict": Verdict.OVERRIDE,
        "meta_reason": Reason.META_V5_OVERRIDE,
        "raw_action": action,
        "raw_confidence": confidence,
        "source": Source.META,
        **asked,
    }


def arbiter(market, p):
    """Read five indicators, trade on their score, pass the gate (9.2, 9.3, 9.6)."""
    if all(x != x for x in market):
        return {"arbiter_action": HOLD, "arbiter_confidence": 0.5, "arbiter_reason": Reason.NO_MARKET_DATA}
    s = score(market)
    if s >= p["arbiter.score_threshold"]:
        action, confidence = BUY, min(0.70 + 0.5 * s, 0.95)
    elif s <= -p["arbiter.score_threshold"]:
        action, confidence = SELL, min(0.70 + 0.5 * abs(s), 0.95)
    else:
        action, confidence = HOLD, 0.50 + 2.0 * (0.1 - abs(s))
    out = {"arbiter_action": action, "arbiter_confidence": confidence, "arbiter_score": s}
    if confidence < p["arbiter.gate_confidence"]:
        return {**out, "arbiter_reason": Reason.DEFER_LOW_CONFIDENCE}
    if action == HOLD:
        return {**out, "arbiter_reason": Reason.DEFER_ACTION_IS_HOLD}
    reason = Reason.BUY_SIGNAL if action == BUY else Reason.SELL_SIGNAL
    return {**out, "arbiter_reason": reason, "raw_action": action, "raw_confidence": confidence, "source": Source.ARBITER}


def score(market):
    """Sum the five terms `(signal * strength) * weight` in the order of 9.1; a NaN input adds 0."""
    rsi, macd, macd_signal, bb, volume, momentum = market
    d = macd - macd_signal
    terms = []
    if rsi < 30.0:
        terms.append((1.0, (30.0 - rsi) / 30.0, 0.20))
    elif rsi > 70.0:
        terms.append((-1.0, (rsi - 70.0) / 30.0, 0.20))
    if d > 0.0 or d < 0.0:
        terms.append((1.0 if d > 0.0 else -1.0, min(10.0 * abs(d), 1.0), 0.25))
    if bb < 0.2:
        terms.append((1.0, 0.2 - bb, 0.15))
    elif bb > 0.8:
        terms.append((-1.0, bb - 0.8, 0.15))
    if volume > 1.5 and (d > 0.0 or d < 0.0):
        terms.append((1.0 if d > 0.0 else -1.0, min((volume - 1.0) / 2.0, 1.0), 0.15))
    if momentum > 0.02:
        terms.append((1.0, min(10.0 * momentum, 1.0), 0.25))
    elif momentum < -0.02:
        terms.append((-1.0, min(10.0 * abs(momentum), 1.0), 0.25))
    total = 0.0
    for signal, strength, weight in terms:
        total += (signal * strength) * weight
    return total
