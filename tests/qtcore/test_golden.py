"""Did results move? One small run against stored numbers; a change needs a line under "Results" in the CHANGELOG."""

import numpy as np
import pytest

import research
from qtcore.rules import Reason
from qtcore.types import Source, Verdict
from tests.support import PUBLISHED

FIGURES = {
    "final equity": 9658.415500661087,
    "lowest equity": 9658.415500661087,
    "fees": 373.0442701063067,
    "mean exposure": 2298.2683007722635,
    "volatility": 0.4419415826568923,
    "trend": 0.1382175207188893,
}
COUNTS = {
    "fills": 1329,
    "stops": 55,
    "escalated": 2154,
    "from the arbiter": 1615,
    "APPROVED": 667,
    "HOLD_SIGNAL": 525,
    "LOW_CONFIDENCE": 477,
    "DAILY_TRADE_LIMIT_REACHED": 215,
    "MAX_EXPOSURE_EXCEEDED": 1,
    "COOLDOWN_ACTIVE": 24,
    "POSITION_ALREADY_OPEN": 908,
    "EXIT_SIGNAL": 320,
    "HORIZON": 63,
}


def test_the_small_run_has_not_moved() -> None:
    bars = research.load_bars("simulated:random_walk?n_bars=800&n_symbols=4&seed=9")
    run = research.backtest(bars, research.Predictions.random(bars, seed=9), PUBLISHED)
    result = run.result
    figures = {
        "final equity": result.equity[-1],
        "lowest equity": result.equity.min(),
        "fees": result.fills["fee"].sum(),
        "mean exposure": result.exposure.mean(),
        "volatility": np.nanmean(result.planes.regime[0]),
        "trend": np.nanmean(result.planes.regime[1]),
    }
    counts = {
        "fills": len(result.fills),
        "stops": int((result.fills["reason"] == Reason.STOP).sum()),
        "escalated": int((result.decisions.verdict == Verdict.ESCALATE).sum()),
        "from the arbiter": int((result.decisions.source == Source.ARBITER).sum()),
        **{reason.name: int((result.governor_reason == reason).sum()) for reason in Reason if (result.governor_reason == reason).any()},
    }
    assert counts == COUNTS
    assert figures == pytest.approx(FIGURES, rel=1e-9)  # other processors round exp and log differently
