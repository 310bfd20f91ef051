"""What would the chain have done? One call from bars and predictions to a `Run`; the engine is the one that runs live."""

from collections.abc import Iterable
from typing import Any

from qtcore import Bars, Engine, Params
from research.data import load_bars
from research.predictions import Predictions
from research.run import Run


def backtest(bars: Bars | Any, predictions: Predictions, params: Params | None = None, *, stages: Iterable[Any] = ()) -> Run:
    """Run the decision chain over `bars` with stored predictions.

    bars: `Bars`, or whatever `load_bars` reads. predictions: out-of-sample votes on the same bars (`train`, or imported); bars without a
    prediction have no voters. stages: `(from, meta, arbiter)` rows that turn the two layers on or off from a decision time on; `params` say
    what holds before the first. Raises UserError when bars and predictions do not match.

    >>> import research
    >>> bars = research.load_bars("simulated:random_walk?n_bars=400&n_symbols=2")
    >>> run = research.backtest(bars, research.Predictions.random(bars, seed=1))
    >>> len(run.equity)
    400
    """
    if not isinstance(bars, Bars):
        bars = load_bars(bars)
    predictions = predictions.align(bars)
    params = resolved(params or Params(), predictions)
    if stages := list(stages):
        params = params.with_values({"stages": stages})
    engine = Engine(params)
    result = engine.run(bars, predictions.votes())
    return Run(bars, predictions, params, result, engine.finish()[1], predictions.notes)


def resolved(params: Params, predictions: Predictions) -> Params:
    """Put the label's horizon where the holding time was left to it."""
    if params.broker.max_holding_bars > 0:
        return params
    return params.with_values({"broker.max_holding_bars": predictions.label.horizon})
