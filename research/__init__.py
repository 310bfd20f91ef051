"""Research around the chain: data, models, backtests, evidence, proof, reports.

>>> import research
>>> bars = research.load_bars("simulated:random_walk?n_bars=400&n_symbols=2")
>>> bars.symbols
('SIM01', 'SIM02')

`load_bars` reads candles, `train` makes out-of-sample predictions, `train_meta` a learned meta layer from them, `backtest` runs the chain
over them and returns a `Run`; a `Run` has `stats()`, `by_regime()`, `trades`, `decisions`, `equity`, `plot()`, `verify()`, `report(path)`,
`save(folder)`; `load_run(folder)` brings it back. Libraries of models and plots are imported only where they are used, and
what is named here when it is first asked for: `qt --help` needs none of it.
"""

from typing import TYPE_CHECKING

from qtcore.lazy import import_lazily

if TYPE_CHECKING:
    from research.data import load_bars, simulate, to_pandas, to_polars
    from research.data.quality import quality
    from research.data.resample import resample
    from research.errors import ConfigError, DataError, ModelError, ProofError, UserError
    from research.evidence.nullworlds import null_worlds
    from research.live.feeds.registry import register_feed
    from research.sweep import SweepResult
    from research.training.meta import train_meta
    from research.training.models.layers import load_layers
    from research.training.predictions import Predictions
    from research.training.regime_weights import fit_regime_weights, regime_factors
    from research.verify import check_layer, check_model
    from research.workflow.load import load_run
    from research.workflow.own_layers import backtest, sweep, train
    from research.workflow.run import Run

__all__ = [
    "ConfigError",
    "DataError",
    "ModelError",
    "Predictions",
    "ProofError",
    "Run",
    "SweepResult",
    "UserError",
    "backtest",
    "check_layer",
    "check_model",
    "fit_regime_weights",
    "load_bars",
    "load_layers",
    "load_run",
    "null_worlds",
    "quality",
    "regime_factors",
    "register_feed",
    "resample",
    "simulate",
    "sweep",
    "to_pandas",
    "to_polars",
    "train",
    "train_meta",
]

import_lazily(
    __name__,
    {
        "data": ("load_bars", "simulate", "to_pandas", "to_polars"),
        "data.quality": ("quality",),
        "data.resample": ("resample",),
        "errors": ("ConfigError", "DataError", "ModelError", "ProofError", "UserError"),
        "evidence.nullworlds": ("null_worlds",),
        "live.feeds.registry": ("register_feed",),
        "training.models.layers": ("load_layers",),
        "training.meta": ("train_meta",),
        "workflow.own_layers": ("backtest", "sweep", "train"),
        "training.predictions": ("Predictions",),
        "training.regime_weights": ("fit_regime_weights", "regime_factors"),
        "workflow.load": ("load_run",),
        "workflow.run": ("Run",),
        "sweep": ("SweepResult",),
        "verify": ("check_layer", "check_model"),
    },
)
