"""Arbiter: five market indicators, one score and one gate, for cells on which the models disagree (`spec` 9).

The base signals are context here, never votes. Every test on a NaN is false, so an unknown indicator adds nothing. The arbiter is worked
out for every cell of a chunk that holds an escalated one, in SIMD, and masked (2026-11: 2.2 ns a cell against 30 ns for each escalated
cell on its own).
"""

import numpy as np

from qtcore.jit import kernel
from qtcore.rules import Reason
from qtcore.types import Code, Source, Value, Verdict


@kernel(inline=True)
def signal_rule(rsi, macd, macd_signal, bb_position, volume_trend, momentum):
    """Return the five signals (9.2), each `signal * strength`: its sign is the direction, its size the strength, 0.0 is neutral."""
    difference = macd - macd_signal
    away = 30.0 - rsi if rsi < 30.0 else (70.0 - rsi if rsi > 70.0 else 0.0)
    lead = 10.0 * difference
    lead = lead if lead > -1.0 else -1.0
    lead = lead if lead < 1.0 else 1.0
    half = (volume_trend - 1.0) / 2.0
    half = half if half < 1.0 else 1.0
    half = half if volume_trend > 1.5 else 0.0
    speed = 10.0 * momentum
    speed = speed if speed > -1.0 else -1.0
    speed = speed if speed < 1.0 else 1.0
    return (
        away / 30.0,
        lead if difference == difference else 0.0,
        0.2 - bb_position if bb_position < 0.2 else (0.8 - bb_position if bb_position > 0.8 else 0.0),
        half if difference > 0.0 else (-half if difference < 0.0 else 0.0),
        speed if abs(momentum) > 0.02 else 0.0,
    )


@kernel(inline=True)
def trend_rule(trend):
    """Return the regime's `signal * strength` (9.2); it is reported and stays out of the score."""
    return trend if (trend > 0.3) | (trend < -0.3) else 0.0


@kernel(inline=True)
def score_rule(signals):
    """Return the score (9.3): the weighted signals added in the order of 9.1, positive speaks for BUY."""
    score = signals[0] * 0.20
    score = score + signals[1] * 0.25
    score = score + signals[2] * 0.15
    score = score + signals[3] * 0.15
    return score + signals[4] * 0.25


@kernel(inline=True)
def settle_rule(score, threshold):
    """Return action and confidence of a score (9.3); HOLD for NaN."""
    size = abs(score)
    firm = 0.70 + 0.5 * size
    firm = firm if firm < 0.95 else 0.95
    action = 2 if score >= threshold else (0 if score <= -threshold else 1)
    return action, (0.50 + 2.0 * (0.1 - size) if action == 1 else firm)


@kernel(inline=True)
def blank_rule(rsi, macd, macd_signal, bb_position, volume_trend, momentum):
    """Say whether no indicator is known (9.5)."""
    is_blank = (rsi != rsi) & (macd != macd) & (macd_signal != macd_signal)
    return is_blank & (bb_position != bb_position) & (volume_trend != volume_trend) & (momentum != momentum)


@kernel
def score_cells(arbiter, out, start, stop):
    """Score the cells [start, stop). arbiter [6, N]: `ARBITER_INPUTS`; out [N]: NaN without an answer."""
    for i in range(np.uintp(start), np.uintp(stop)):
        rsi, macd, line, bb = arbiter[0, i], arbiter[1, i], arbiter[2, i], arbiter[3, i]
        volume, momentum = arbiter[4, i], arbiter[5, i]
        score = score_rule(signal_rule(rsi, macd, line, bb, volume, momentum))
        out[i] = np.nan if blank_rule(rsi, macd, line, bb, volume, momentum) else score


@kernel(inline=True)
def gate_rule(action, confidence, gate):
    """Say whether the arbiter may replace the ensemble (9.6)."""
    return (confidence >= gate) & (action != 1)


@kernel(inline=True)
def opinion_rule(action, confidence, is_asked, asked, sure, gate):
    """Decide a cell: the ensemble's action and confidence, unless the arbiter is asked and its answer clears the gate (9.6).

    Returns action, confidence and whether they are the arbiter's. asked, sure: its answer, HOLD where it has none. The one place of this
    order: a block, a bar, a row of a sweep and its lanes all ask it.
    """
    is_accepted = is_asked & gate_rule(asked, sure, gate)
    return asked if is_accepted else action, sure if is_accepted else confidence, is_accepted


@kernel(inline=True)
def answer_rule(signals, is_blank, threshold, gate):
    """Return score, action, confidence and reason of a call (9.3 to 9.6).

    A call that failed is HOLD 0.5 with a NaN score: no indicator is known, or infinite ones cancelled out.
    """
    score = score_rule(signals)
    action, confidence = settle_rule(score, threshold)
    is_broken = is_blank | (score != score)
    confidence = 0.5 if is_broken else confidence
    refused = Reason.DEFER_LOW_CONFIDENCE.value if confidence < gate else Reason.DEFER_ACTION_IS_HOLD.value
    accepted = Reason.BUY_SIGNAL.value if action == 2 else Reason.SELL_SIGNAL.value
    failed = Reason.NO_MARKET_DATA.value if is_blank else Reason.ANALYSIS_ERROR.value
    reason = accepted if gate_rule(action, confidence, gate) else refused
    return np.nan if is_blank else score, 1 if is_broken else action, confidence, failed if is_broken else reason


@kernel
def settle(arbiter, params, codes, values, start, stop):
    """Analyse the escalated cells of [start, stop): an accepted answer becomes the raw decision, every other cell keeps the ensemble's.

    arbiter [6, N]: `ARBITER_INPUTS`, NaN unknown; codes [11, N], values [5, N]: reads VERDICT and the ensemble's columns, writes the
    arbiter's (-1, NaN and NONE where it was not called) and the raw columns. What is selected is loaded first: a load inside a select
    becomes an address that SIMD cannot follow (35 ns a cell instead of 2.2).
    """
    threshold, gate = params[0]["arbiter"]["score_threshold"], params[0]["arbiter"]["gate_confidence"]
    for i in range(np.uintp(start), np.uintp(stop)):
        rsi, macd, line, bb = arbiter[0, i], arbiter[1, i], arbiter[2, i], arbiter[3, i]
        volume, momentum = arbiter[4, i], arbiter[5, i]
        is_called = codes[Code.VERDICT, i] == Verdict.ESCALATE
        kept_action, kept_confidence = codes[Code.ENSEMBLE_ACTION, i], values[Value.ENSEMBLE_CONFIDENCE, i]
        is_blank = blank_rule(rsi, macd, line, bb, volume, momentum)
        score, action, confidence, reason = answer_rule(signal_rule(rsi, macd, line, bb, volume, momentum), is_blank, threshold, gate)
        chosen, sure, is_accepted = opinion_rule(kept_action, kept_confidence, is_called, np.int8(action), confidence, gate)
        codes[Code.ARBITER_ACTION, i] = action if is_called else -1
        codes[Code.ARBITER_REASON, i] = reason if is_called else 0
        values[Value.ARBITER_CONFIDENCE, i] = confidence if is_called else np.nan
        values[Value.ARBITER_SCORE, i] = score if is_called else np.nan
        codes[Code.RAW_ACTION, i] = chosen
        codes[Code.SOURCE, i] = Source.ARBITER.value if is_accepted else Source.ENSEMBLE.value
        values[Value.RAW_CONFIDENCE, i] = sure


@kernel
def advise(arbiter, wins, in_use, codes, values, start, stop, at):
    """Write what the arbiter says to the cells [start, stop) on which the ensemble is in doubt (VERDICT); it may have been priced out.

    arbiter [6, N]; wins [>= at + stop - start]: how often its bid pays; in_use: whether it has a seat. codes [11, N]: reads VERDICT and
    SOURCE; values: ARBITER_SCORE holds every cell's score. A cell that was not asked says -1, NaN and NONE.
    """
    shift, refused = np.uintp(at) - np.uintp(start), Reason.DEFER_NO_EDGE.value if in_use else Reason.NO_SEAT.value
    n_failed = np.int64(0)
    for i in range(np.uintp(start), np.uintp(stop)):
        score, win = values[Value.ARBITER_SCORE, i], wins[i + shift]
        is_asked, acts = codes[Code.VERDICT, i] == Verdict.ESCALATE, codes[Code.SOURCE, i] == Source.ARBITER
        is_broken = score != score
        action = 2 if score > 0.0 else (0 if score < 0.0 else 1)
        signal = Reason.BUY_SIGNAL.value if action == 2 else Reason.SELL_SIGNAL.value
        reason = signal if acts else (Reason.DEFER_ACTION_IS_HOLD.value if action == 1 else refused)
        codes[Code.ARBITER_ACTION, i] = action if is_asked else -1
        codes[Code.ARBITER_REASON, i] = reason if is_asked else 0
        values[Value.ARBITER_CONFIDENCE, i] = win if is_asked & in_use & (not is_broken) else np.nan
        values[Value.ARBITER_SCORE, i] = score if is_asked else np.nan
        n_failed += is_asked & is_broken
    for i in range(np.uintp(start), np.uintp(stop if n_failed > 0 else start)):
        score, is_asked = values[Value.ARBITER_SCORE, i], codes[Code.VERDICT, i] == Verdict.ESCALATE
        if is_asked & (score != score):
            is_blank = blank_rule(arbiter[0, i], arbiter[1, i], arbiter[2, i], arbiter[3, i], arbiter[4, i], arbiter[5, i])
            codes[Code.ARBITER_REASON, i] = Reason.NO_MARKET_DATA.value if is_blank else Reason.ANALYSIS_ERROR.value


@kernel
def keep(codes, values, start, stop):
    """Take the ensemble's decision for every cell of [start, stop) without calling the arbiter; escalated cells say NOT_AVAILABLE."""
    for i in range(np.uintp(start), np.uintp(stop)):
        codes[Code.ARBITER_ACTION, i] = -1
        codes[Code.ARBITER_REASON, i] = Reason.NOT_AVAILABLE.value if codes[Code.VERDICT, i] == Verdict.ESCALATE else 0
        codes[Code.RAW_ACTION, i] = codes[Code.ENSEMBLE_ACTION, i]
        codes[Code.SOURCE, i] = 0
    for i in range(np.uintp(start), np.uintp(stop)):
        values[Value.ARBITER_CONFIDENCE, i] = np.nan
        values[Value.ARBITER_SCORE, i] = np.nan
        values[Value.RAW_CONFIDENCE, i] = values[Value.ENSEMBLE_CONFIDENCE, i]
