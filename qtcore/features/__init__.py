"""What does the market look like? Bars in, one plane `[n, S]` per feature out, never looking ahead.

`FeatureBank` owns the plan and the state; `matrix` packs planes by name for a model; `FEATURES` lists every feature with its formula.
"""

from qtcore.features.bank import FeatureBank, Planes, matrix
from qtcore.features.registry import ADVANCED, ALIASES, FEATURE_SETS, FEATURES

__all__ = ["ADVANCED", "ALIASES", "FEATURES", "FEATURE_SETS", "FeatureBank", "Planes", "matrix"]
