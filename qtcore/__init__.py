"""The decision chain: features, votes, meta layer, arbiter, governor, fills, accounting; numpy and numba only.

Every layer is one function that takes a block of n bars and the state left by the block before. Research passes n = everything, live
passes n = 1; there is no second driver. `Engine` owns the state and runs the layers in order:

    bars -> features -> [models] -> votes -> ensemble -> meta -> arbiter -> governor -> fills -> equity

>>> import numpy as np
>>> import qtcore as qt
>>> qt.Params().governor.stop_loss
0.02
"""

from typing import TYPE_CHECKING

from qtcore.lazy import import_lazily

if TYPE_CHECKING:
    from qtcore.chain.trade import trade
    from qtcore.engine import Engine, Result
    from qtcore.features import FEATURE_SETS, Feature, FeatureBank, Planes
    from qtcore.jit import kernel, rebind
    from qtcore.params import Params
    from qtcore.rules import Reason
    from qtcore.types import MODELS, Action, Bars, Consensus, Decisions, InputError, Source, Verdict, Votes

__version__ = "0.3.0"

__all__ = [
    "FEATURE_SETS",
    "MODELS",
    "Action",
    "Bars",
    "Consensus",
    "Decisions",
    "Engine",
    "Feature",
    "FeatureBank",
    "InputError",
    "Params",
    "Planes",
    "Reason",
    "Result",
    "Source",
    "Verdict",
    "Votes",
    "kernel",
    "rebind",
    "trade",
]

import_lazily(
    __name__,
    {
        "chain.trade": ("trade",),
        "engine": ("Engine", "Result"),
        "features": ("FEATURE_SETS", "Feature", "FeatureBank", "Planes"),
        "jit": ("kernel", "rebind"),
        "params": ("Params",),
        "rules": ("Reason",),
        "types": (
            "MODELS",
            "Action",
            "Bars",
            "Consensus",
            "Decisions",
            "InputError",
            "Source",
            "Verdict",
            "Votes",
        ),
    },
)
