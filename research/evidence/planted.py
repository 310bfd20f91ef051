"""Leaks planted in the cells of a run, to see whether the ceilings would notice one on these bars.

Figures of few bars, or of few moves, have wide intervals: there a leak stays below every ceiling and its money reads like an edge. So the
check is tried first on what it has to find: predictions that are the label in 60 of 100 cells, else one of the other two answers, and the
return of the label's horizon with a weight of 0.3 in noise. Where it would miss one of them more often than once in twenty, no run on these
bars can be told from a leaked one, and none reads `edge`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qtcore.types import F8, Action
from research.training.scoring.opinions import Opinion
from research.training.scoring.ranks import Z
from research.training.targets import forward_return

if TYPE_CHECKING:
    from research.evidence.plausibility import Figure
    from research.training.scoring.ceilings import Ceilings

RIGHT = 0.6  # share of its cells in which the first plant is the label
WEIGHT = 0.3  # of the future return in the second one, beside 0.7 of noise; both of variance 1
POWER = 1.645  # standard errors by which a plant must lie above a lower end that is itself above the ceiling: found in 95 of 100 draws


def plants(spoke: NDArray[np.bool_], labels: NDArray[np.int8], close: F8, horizon: int, seed: int = 0) -> dict[str, Opinion]:
    """Make the two leaks on the cells [n, S] where the run's models spoke."""
    rng, ahead = np.random.default_rng(seed), forward_return(close, horizon)
    other = (labels + rng.integers(1, 3, labels.shape)) % 3
    said = np.where(spoke & (labels >= 0), np.where(rng.random(labels.shape) < RIGHT, labels, other), Action.ABSENT).astype(np.int8)
    known = spoke & ~np.isnan(ahead)
    scale = ahead[known].std() if known.any() else 1.0
    mixed = WEIGHT * np.where(known, ahead, 0.0) / (scale if scale > 0.0 else 1.0) + (1.0 - WEIGHT) * rng.standard_normal(ahead.shape)
    side = np.where(known, np.where(mixed > 0.0, Action.BUY, Action.SELL), Action.ABSENT).astype(np.int8)
    return {
        f"a label that is right in {100.0 * RIGHT:.0f} of 100 cells": Opinion(said, np.ones(said.shape)),
        f"the future return with a weight of {WEIGHT} in noise": Opinion(side, np.abs(mixed)),
    }


def enlargement(figures: "Sequence[Figure]", ceilings: "Ceilings") -> float:
    """Say how many times as many bars it takes until one figure of a plant is surely above its ceiling; infinite where none ever is.

    A standard error is the distance from figure to lower end over `Z`, and shrinks with the root of the bars.
    """
    most = np.inf
    for figure in figures:
        room = figure.value - getattr(ceilings, figure.name)
        if room > 0.0:
            most = min(most, ((1.0 + POWER / Z) * (figure.value - figure.low) / room) ** 2)
    return float(most)


def unnoticed(found: "dict[str, Sequence[Figure]]", ceilings: "Ceilings", n_bars: int) -> str | None:
    """Say which plant would not be noticed on `n_bars` bars, and about how many it takes; None where both would be.

    found: figures of each plant.
    """
    times = {name: enlargement(figures, ceilings) for name, figures in found.items()}
    name = max(times, key=lambda each: times[each])
    if times[name] <= 1.0:
        return None
    needed = "with this label more bars would not change that"
    if np.isfinite(times[name]):
        needed = f"about {float(f'{times[name] * n_bars:.2g}'):,.0f} bars like these are needed"
    return f"on these {n_bars:,} bars {name} could stay below every ceiling, so an edge cannot be told from a leak; {needed}"
