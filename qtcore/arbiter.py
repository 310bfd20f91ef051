"""What does the market say when the models disagree? Five indicators, one score, one gate (`spec` 9).

The base signals are context here, never votes. Every test on a NaN is false, so an unknown indicator adds nothing. The arbiter is worked
out for every cell of a chunk that holds an escalated one, in SIMD, and masked (2026-11: 2.2 ns a cell against 30 ns for each escalated
cell on its own).
"""

import numpy as np

from qtcore.jit import kernel
from qtcore.types import Code, Value, Verdict


@kernel(inline=True)
def signal_rule(rsi, macd, macd_signal, bb_position, volume_trend, momentum):
    """Return the five signals (9.2), each `signal * strength`: its sign is the direction, its size the strength, 0.0 is neutral."""
    difference = macd - macd_signal
    low, high = rsi < 30.0, rsi > 70.0
    rsi_size = (30.0 - rsi if low else (rsi - 70.0 if high else 0.0)) / 30.0
    size = 10.0 * abs(difference)
    macd_size = size if size < 1.0 else 1.0
    half = (volume_trend - 1.0) / 2.0
    volume_size = half if half < 1.0 else 1.0
    volume_size = volume_size if volume_trend > 1.5 else 0.0
    speed = 10.0 * abs(momentum)
    speed = speed if speed < 1.0 else 1.0
    up, down = difference > 0.0, difference < 0.0
    rising, falling = momentum > 0.02, momentum < -0.02
    return (
        -rsi_size if high else rsi_size,
        macd_size if up else (-macd_size if down else 0.0),
        0.2 - bb_position if bb_position < 0.2 else (0.8 - bb_position if bb_position > 0.8 else 0.0),
        volume_size if up else (-volume_size if down else 0.0),
        speed if rising else (-speed if falling else 0.0),
    )


@kernel(inline=True)
def trend_rule(trend):
    """Return the regime's `signal * strength` (9.2); it is reported and stays out of the score."""
    return trend if (trend > 0.3) | (trend < -0.3) else 0.0


@kernel(inline=True)
def score_rule(signals):
    """Add the weighted signals in the order of 9.1: positive speaks for BUY."""
    total = signals[0] * 0.20
    total = total + signals[1] * 0.25
    total = total + signals[2] * 0.15
    total = total + signals[3] * 0.15
    return total + signals[4] * 0.25


@kernel(inline=True)
def settle_rule(score, threshold):
    """Turn a score into action and confidence (9.3)."""
    size = abs(score)
    firm = 0.70 + 0.5 * size
    firm = firm if firm < 0.95 else 0.95
    action = 2 if score >= threshold else (0 if score <= -threshold else 1)
    return action, (0.50 + 2.0 * (0.1 - size) if action == 1 else firm)


@kernel(inline=True)
def gate_rule(action, confidence, gate):
    """Say whether the arbiter may replace the ensemble (9.6)."""
    return (confidence >= gate) & (action != 1)


@kernel(inline=True)
def answer_rule(action, confidence, gate):
    """Return the reason code of an analysed call: what was accepted, or why not (9.4, 9.6)."""
    refused = 45 if confidence < gate else 46
    accepted = 40 if action == 2 else 41
    return accepted if gate_rule(action, confidence, gate) else refused


@kernel
def settle(arbiter, params, codes, values, start, stop):
    """Analyse the escalated cells of [start, stop) and let accepted answers replace the raw decision.

    arbiter [6, N]: `ARBITER_INPUTS`, NaN unknown; codes [11, N], values [5, N]: the arbiter columns of every cell are written, -1, NaN
    and NONE where it was not called; RAW_ACTION, RAW_CONFIDENCE and SOURCE only where it was accepted.
    """
    threshold, gate = params[0].arbiter.score_threshold, params[0].arbiter.gate_confidence
    for i in range(np.uintp(start), np.uintp(stop)):
        rsi, macd, line, bb = arbiter[0, i], arbiter[1, i], arbiter[2, i], arbiter[3, i]
        volume, momentum = arbiter[4, i], arbiter[5, i]
        called = codes[Code.VERDICT, i] == Verdict.ESCALATE
        is_blank = (rsi != rsi) & (macd != macd) & (line != line) & (bb != bb) & (volume != volume) & (momentum != momentum)
        score = score_rule(signal_rule(rsi, macd, line, bb, volume, momentum))
        score = np.nan if is_blank else score
        is_broken = score != score
        action, confidence = settle_rule(score, threshold)
        confidence = 0.5 if is_broken else confidence
        reason = answer_rule(action, confidence, gate)
        reason = (43 if is_blank else 44) if is_broken else reason
        accepted = called & (reason <= 41)
        codes[Code.ARBITER_ACTION, i] = action if called else -1
        codes[Code.ARBITER_REASON, i] = reason if called else 0
        values[Value.ARBITER_CONFIDENCE, i] = confidence if called else np.nan
        values[Value.ARBITER_SCORE, i] = score if called else np.nan
        codes[Code.RAW_ACTION, i] = action if accepted else codes[Code.RAW_ACTION, i]
        values[Value.RAW_CONFIDENCE, i] = confidence if accepted else values[Value.RAW_CONFIDENCE, i]
        codes[Code.SOURCE, i] = 2 if accepted else codes[Code.SOURCE, i]


@kernel
def skip(codes, values, start, stop):
    """Write the arbiter columns of the cells [start, stop) where it is not called: NOT_AVAILABLE for escalated cells, else NONE."""
    for i in range(np.uintp(start), np.uintp(stop)):
        codes[Code.ARBITER_ACTION, i] = -1
        codes[Code.ARBITER_REASON, i] = 47 if codes[Code.VERDICT, i] == Verdict.ESCALATE else 0
    for i in range(np.uintp(start), np.uintp(stop)):
        values[Value.ARBITER_CONFIDENCE, i] = np.nan
        values[Value.ARBITER_SCORE, i] = np.nan
