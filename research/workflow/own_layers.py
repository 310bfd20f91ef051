"""Training and backtest with features and layers of one's own: each is tried before it is used, and the certificate says what was found."""

import inspect
import warnings
from collections.abc import Sequence
from functools import wraps
from typing import Any

from qtcore.check import as_bars
from qtcore.features.custom import own_features
from qtcore.params import Params
from research.runs.backtest import backtest as _backtest
from research.training.meta.schedule import MetaSchedule
from research.training.predictions import Predictions
from research.training.walk_forward import train as _train
from research.verify.own import Checked, sentences, try_features, try_layer
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
    given = inspect.signature(_backtest).bind(*args, **options).arguments
    layers = {kind: given.get(key) for kind, key in (("judge", "judge"), ("trade", "trade"), ("meta_model", "meta"))}
    params = given.get("params") or Params()
    own = {kind: layer for kind, layer in layers.items() if layer is not None and not isinstance(layer, MetaSchedule)}
    checked = _told([try_layer(kind, layer, params) for kind, layer in own.items()])
    run = Run.of(_backtest(*args, **options))
    run.own_checks = tuple(checked)
    return run


def _told(checked: Sequence[Checked]) -> list[Checked]:
    if said := list(sentences(checked)):
        warnings.warn("\n".join(said), OwnLayerWarning, stacklevel=3)
    return list(checked)
