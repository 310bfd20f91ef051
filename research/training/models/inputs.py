"""Model inputs: bars become one float32 matrix with columns by name, and the regime that slices its scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.params import Params
from qtcore.types import F8, Bars
from research.training.models.base import F4


@dataclass(frozen=True)
class Inputs:
    """names: F feature names. matrix [n, S, F] float32, NaN rows where not valid. regime [2, n, S]: volatility, trend_strength."""

    names: tuple[str, ...]
    matrix: F4
    regime: F8

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Cells whose row is finite throughout, [n, S]: the others get no prediction (`spec` D-13)."""
        return np.asarray(np.isfinite(self.matrix).all(axis=2))


def model_inputs(bars: Bars, params: Params, custom: Sequence[Any] = (), names: Sequence[str] | None = None) -> Inputs:
    """Compute the chosen feature set, or exactly the features `names`, plus any `custom` features; the planes are freed on return.

    Raises InputError where a set compares symbols that are too few, or that trade at other hours.
    """
    from qtcore.features import FeatureBank, chosen, matrix
    from qtcore.features.custom import own_features
    from qtcore.features.registry import ACROSS, FEATURE_SETS
    from research.data.hours import check_same_hours

    custom = own_features(custom)
    own = [feature.name for feature in custom]
    columns = tuple(names) if names is not None else (*chosen(params.features.every_set, len(bars.symbols)), *own)
    if across := [name for name in ACROSS if {*FEATURE_SETS[name]} & {*columns}]:
        check_same_hours(bars, " and ".join(across))
    ready = [name for name in columns if name not in own]
    bank = FeatureBank(params, bars.symbols, bars.interval, names=ready, custom=custom)
    planes = bank.compute(bars)
    return Inputs(columns, matrix(planes, columns), np.array(planes.regime))


def own_features(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names that are not ours: features of the user's own, which have to be handed over with the models that read them."""
    from qtcore.features import FEATURES

    return tuple(name for name in names if name not in FEATURES)
