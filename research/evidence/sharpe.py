"""Probabilistic and deflated Sharpe ratio: ratios per bar first, annualised last by the data's own calendar.

Bailey and Lopez de Prado, "The Sharpe ratio efficient frontier" (2012) and "The deflated Sharpe ratio" (2014), with the variance under
autocorrelation of Lopez de Prado, Lipton and Zoonekynd, "How to use the Sharpe ratio" (2025). Skewness and **raw** kurtosis (3 for a
normal), both of the population. They stand beside the verdict and decide nothing (`research.evidence.sign_test` does). The tests check
against ffn, vectorbt, skfolio, quantstats and jsharpe, and against the published example.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

NORMAL = NormalDist()
EULER = 0.577215664901532860606512090082402431
MIN_BARS = 30
MOST_AUTOCORRELATION = 0.9  # that a variance is corrected for
ABSURD = 100.0  # annualised; 183 was seen once, and was a bug


@dataclass(frozen=True)
class Moments:
    """What the Sharpe statistics need of a series of returns: per-bar ratio, skewness, raw kurtosis, number of bars.

    autocorrelation: of neighbouring bars; 0 where it is below that, which would make the ratio surer, or not known.
    """

    sharpe: float
    skew: float
    kurtosis: float
    n: int
    autocorrelation: float = 0.0

    @property
    def variance(self) -> float:
        """Variance of the ratio times the number of bars."""
        rho = min(max(0.0, self.autocorrelation), MOST_AUTOCORRELATION)
        once, twice = rho / (1.0 - rho), rho * rho / (1.0 - rho * rho)
        skewed = (1.0 + once + twice) * self.skew * self.sharpe
        return 1.0 + 2.0 * once - skewed + (1.0 + 2.0 * twice) * (self.kurtosis - 1.0) / 4.0 * self.sharpe**2


def moments(returns: NDArray[np.float64]) -> Moments:
    """Measure per-bar returns; the ratio is NaN when they do not vary."""
    n = len(returns)
    mean = float(np.mean(returns)) if n else math.nan
    centred = np.asarray(returns) - mean
    m2 = float(np.mean(centred**2)) if n else 0.0
    if n < 2 or m2 <= 1e-300:
        return Moments(math.nan, math.nan, math.nan, n)
    spread = math.sqrt(m2 * n / (n - 1))
    autocorrelation = float(np.sum(centred[1:] * centred[:-1])) / (m2 * n)
    return Moments(mean / spread, float(np.mean(centred**3)) / m2**1.5, float(np.mean(centred**4)) / m2**2, n, autocorrelation)


def probabilistic_sharpe(m: Moments, benchmark: float = 0.0) -> float:
    """Probability that the true per-bar ratio is above `benchmark`, in [0, 1]; NaN when there is no ratio."""
    if not m.variance > 0.0 or m.n < 2:
        return math.nan
    return NORMAL.cdf((m.sharpe - benchmark) * math.sqrt(m.n - 1) / math.sqrt(m.variance))


def expected_best(n_trials: float, variance: float) -> float:
    """Per-bar ratio that the best of `n_trials` skill-less trials is expected to show; `variance` is that of the trials' ratios."""
    if n_trials < 2 or not variance > 0.0:
        return 0.0
    high = NORMAL.inv_cdf(1.0 - 1.0 / n_trials)
    higher = NORMAL.inv_cdf(1.0 - 1.0 / (n_trials * math.e))
    return math.sqrt(variance) * ((1.0 - EULER) * high + EULER * higher)


def deflated_sharpe(m: Moments, n_trials: float, variance: float) -> float:
    """Probability that the true ratio is above what the best of `n_trials` would show by luck."""
    return probabilistic_sharpe(m, expected_best(n_trials, variance))


def minimum_track_record(m: Moments, benchmark: float = 0.0, confidence: float = 0.95) -> float:
    """Bars after which a ratio like this one is above `benchmark` with `confidence`; infinity when it is not above it."""
    if not m.sharpe > benchmark:
        return math.inf
    return 1.0 + m.variance * (NORMAL.inv_cdf(confidence) / (m.sharpe - benchmark)) ** 2


def refusal(m: Moments, bars_per_year: float) -> str | None:
    """Say why a Sharpe ratio cannot be given, or None."""
    if m.n < MIN_BARS:
        return f"not enough data: {m.n} bars, {MIN_BARS} needed"
    if math.isnan(m.sharpe):
        return "the equity never moved"
    annual = m.sharpe * math.sqrt(bars_per_year)
    if abs(annual) > ABSURD:
        return f"refused: {annual:.0f} a year is a defect of data or run, not a result; look for a leak"
    return None
