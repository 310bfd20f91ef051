"""Reason texts: what each reason code means in words. Kernels emit integers and numbers; every text is made here (`spec` 0.4)."""

from collections.abc import Sequence

from qtcore.arbiter import signal_rule
from qtcore.types import Action, Reason

TEMPLATES = {
    Reason.META_LOW_CONFIDENCE: "{name}_{0:.2f}",  # the model's confidence
    Reason.NEUTRAL_MARKET: "{name}: score={0:.3f} in neutral zone",
    Reason.DEFER_LOW_CONFIDENCE: "{name} ({0:.3f} < {1:.2f})",  # the arbiter's confidence, the gate
    Reason.LOW_CONFIDENCE: "{name} ({0:.3f} < {1:.3f})",  # confidence, minimum
    Reason.MAX_DRAWDOWN_EXCEEDED: "{name} ({0:.1%} > {1:.1%})",  # drawdown, limit
    Reason.DAILY_TRADE_LIMIT_REACHED: "{name} ({0:.0f}/{1:.0f})",  # approvals, limit
    Reason.MAX_EXPOSURE_EXCEEDED: "{name} ({0:.0f} > {1:.0f})",  # quote: exposure, limit
    Reason.COOLDOWN_ACTIVE: "{name} ({0:.1f}m remaining)",  # minutes
}


def reason_text(code: int, *numbers: float) -> str:
    """Name a reason, with the numbers that made it if they are given; opinion in lower case, permission in upper case.

    >>> reason_text(20), reason_text(62), reason_text(62, 0.6499, 0.65)
    ('split_vote', 'LOW_CONFIDENCE', 'LOW_CONFIDENCE (0.650 < 0.650)')
    """
    reason = Reason(int(code))
    name = reason.name if reason >= Reason.APPROVED else reason.name.lower()
    if reason == Reason.DEFER_ACTION_IS_HOLD:
        name = "defer_action_is_HOLD"
    template = TEMPLATES.get(reason, "{name}") if numbers else "{name}"
    return template.format(*numbers, name=name)


def arbiter_text(inputs: Sequence[float], action: int, score: float) -> str:
    """Say what spoke for the arbiter's answer (`spec` 9.4), before the gate. inputs: the six `ARBITER_INPUTS`; score: NaN if it failed.

    >>> arbiter_text((25.0, 0.05, -0.02, 0.15, 1.8, 0.025), 2, 0.338)
    'buy_signal: bullish_macd, strong_momentum'
    """
    if score != score:
        return reason_text(Reason.ANALYSIS_ERROR if any(x == x for x in inputs) else Reason.NO_MARKET_DATA)
    if action == Action.HOLD:
        return reason_text(Reason.NEUTRAL_MARKET, score)
    rsi, macd, _, _, momentum = signal_rule(*(float(x) for x in inputs))
    side = 1.0 if action == Action.BUY else -1.0
    words = (
        ("oversold_rsi", "bullish_macd", "strong_momentum")
        if action == Action.BUY
        else ("overbought_rsi", "bearish_macd", "negative_momentum")
    )
    spoke = (side * rsi > 0.5, side * macd > 0.5, side * momentum > 0.0)
    said = [word for word, is_said in zip(words, spoke, strict=True) if is_said] or ["technical_alignment"]
    return f"{reason_text(Reason.BUY_SIGNAL if action == Action.BUY else Reason.SELL_SIGNAL)}: {', '.join(said)}"


def entropy_text(entropy: float) -> str:
    """Print an entropy, clamped to [0, 1]: a certain prediction may come out below zero by 1e-10 (`spec` D-47)."""
    return f"{min(max(entropy, 0.0), 1.0):.3f}"
