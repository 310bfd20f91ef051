"""Ceilings of plausible figures by bar length; `research.evidence.plausibility` says where they come from."""

from dataclasses import dataclass

from qtcore.types import NS_PER_DAY, NS_PER_HOUR, NS_PER_MINUTE


@dataclass(frozen=True)
class Ceilings:
    """The most that an honest run can show on bars of up to `until` ns."""

    until: int
    balanced_accuracy: float
    direction_accuracy: float
    rank_correlation: float
    lag_correlation: float
    sharpe: float


CEILINGS = (
    Ceilings(15 * NS_PER_MINUTE, 0.70, 0.60, 0.25, 0.35, 12.0),
    Ceilings(NS_PER_HOUR, 0.70, 0.60, 0.15, 0.20, 8.0),
    Ceilings(NS_PER_DAY - 1, 0.70, 0.60, 0.15, 0.20, 6.0),
    Ceilings(NS_PER_DAY, 0.70, 0.60, 0.15, 0.25, 5.0),
    Ceilings(2**63 - 1, 0.70, 0.62, 0.20, 0.30, 4.0),
)


def ceilings_of(interval: int) -> Ceilings:
    """Return the ceilings of bars of `interval` ns."""
    return next(row for row in CEILINGS if interval <= row.until)
