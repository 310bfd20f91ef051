"""Training, backtest and sweep with layers of one's own: each is tried before it is used, and the certificate says what was found."""

import inspect
import warnings
from collections.abc import Sequence
from functools import wraps
from typing import Any

from qtcore import Bars
from qtcore.check import as_bars
from qtcore.features.custom import own_features
from qtcore.params import Params
from research.runs.backtest import backtest as _backtest
from research.sweep.run import sweep as _sweep
from research.sweep.trials import SweepResult
from research.training.meta.schedule import MetaSchedule
from research.training.models.layers import Layers
from research.training.predictions import Predictions
from research.training.walk_forward import train as _train
from research.verify.own import Checked, sentences, try_features, try_layer, try_model
from research.workflow.run import Run


class OwnLayerWarning(UserWarning):
    """An own feature or layer breaks a rule, or cannot be proven; the run goes on and its certificate says so."""


@wraps(_train)
def train(*args: Any, **options: Any) -> Predictions:
    """Try the own features, then train; see `research.training.walk_forward.train`."""
    given = inspect.signature(_train).bind(*args, **options).arguments
    if custom := own_features(given.get("custom", ())):
        options["own_checks"] = _told(try_features(custom, as_bars(given["bars"]), given.get("params") or Params()))
    return _train(*args, **options)


@wraps(_backtest)
def backtest(*args: Any, **options: Any) -> Run:
    """Try the own layers, then run the chain; see `research.runs.backtest.backtest`."""
    checked = _told(_tried(inspect.signature(_backtest).bind(*args, **options).arguments))
    run = Run.of(_backtest(*args, **options))
    run.own_checks = tuple(checked)
    return run


@wraps(_sweep)
def sweep(*args: Any, **options: Any) -> SweepResult:
    """Try the own layers, then run every setting; see `research.sweep.run.sweep`."""
    _told(_tried(inspect.signature(_sweep).bind(*args, **options).arguments))
    return _sweep(*args, **options)


def try_chain(own: Layers, params: Params) -> list[Checked]:
    """Try what a file of layers puts in the place of the chain's. Raises UserError where something cannot be run at all."""
    return [try_layer(kind, layer, params, own.features) for kind, layer in own.chain.items()]


def try_training(own: Layers, models: Sequence[str], preset: str, bars: Bars, params: Params) -> list[Checked]:
    """Try the features of a file of layers, and those of `models` that are its own."""
    mine = [try_model(name, preset) for name in models if name in own.models]
    return [*mine, *(try_features(own.features, bars, params))]


def _tried(given: dict[str, Any]) -> list[Checked]:
    layers = {kind: given.get(key) for kind, key in (("judge", "judge"), ("trade", "trade"), ("meta_model", "meta"))}
    own = {kind: layer for kind, layer in layers.items() if layer is not None and not isinstance(layer, MetaSchedule)}
    return [try_layer(kind, layer, given.get("params") or Params(), tuple(given.get("custom", ()))) for kind, layer in own.items()]


def _told(checked: Sequence[Checked]) -> list[Checked]:
    if said := list(sentences(checked)):
        warnings.warn("\n".join(said), OwnLayerWarning, stacklevel=3)
    return list(checked)
