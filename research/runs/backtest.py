"""Backtest: one call from bars and predictions to the record of a run; the engine is the one that runs live."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from qtcore import Bars, Engine, Params
from qtcore.check import as_bars
from qtcore.choices import DecideRule, MetaMode
from qtcore.features.custom import Feature, own_features
from qtcore.meta import MetaSource, check_voters
from research.data import load
from research.data.load import warn
from research.errors import ModelError, refusing
from research.runs.record import RunRecord
from research.training.labels import held_for
from research.training.maps import check_priced, is_priced, unseated
from research.training.meta.schedule import MetaSchedule
from research.training.models.layers import given
from research.training.predictions import Predictions, aligned
from research.training.weights import settled, silent


def backtest(
    bars: Bars | Any,
    predictions: Predictions,
    params: Params | None = None,
    *,
    stages: Iterable[Any] = (),
    meta: MetaSource | None = None,
    judge: Any = None,
    trade: Callable[..., int] | None = None,
    custom: Iterable[Feature] = (),
    ceilings: bool = True,
) -> RunRecord:
    """Run the decision chain over `bars` with stored predictions.

    bars: `Bars`, or whatever `load_bars` reads. predictions: out-of-sample votes on the same bars (`train`, or imported); bars without a
    prediction have no voters. stages: `(from, meta, arbiter)` rows that turn the two layers on or off from a decision time on; `params` say
    what holds before the first. meta: a learned meta layer, as `research.train_meta` makes it; without one the rules alone act. judge,
    trade: layers of your own, as `Engine` takes them; `Run.verify` replays the run with them, and whoever verifies its folder needs them.
    custom: own features that the judge reads.
    ceilings: False where you know why figures that no honest run reaches are right here; every page then says so.
    Raises UserError when bars and predictions do not match, or the meta layer was trained for another `meta.mode`.

    >>> import research
    >>> bars = research.load_bars("simulated:random_walk?n_bars=400&n_symbols=2")
    >>> run = research.backtest(bars, research.Predictions.random(bars, seed=1))
    >>> len(run.equity)
    400
    """
    lacked: list[str] = []
    if not isinstance(bars, Bars):
        loaded = load(bars)
        warn(loaded.report.warnings, loaded.report.source)
        bars, lacked = loaded.bars, loaded.report.lacked
    bars = as_bars(bars)
    predictions = aligned(predictions, bars)
    params = resolved(params or Params(), predictions)
    if stages := list(stages):
        params = params.with_values({"stages": stages})
    kept = meta if isinstance(meta, MetaSchedule) else None
    if kept is not None:
        kept.check_mode(params)
        with refusing(ModelError):
            check_voters(kept, predictions.names)
    predictions = priced(bars, predictions, params, judge, own_features(custom), meta)
    own = given(judge=judge, trade=trade, features=own_features(custom))
    engine = Engine(params, meta_model=meta, **own.engine)
    result = engine.run(bars, predictions.votes())
    own_layers = (*own.chain, *(["meta_model"] if meta is not None and kept is None else []))
    notes = (*predictions.notes, *silent(params, predictions), *(kept.remarks(predictions.slots) if kept is not None else ()))
    about: dict[str, Any] = {"meta": kept, "own_layers": own_layers, "own": own, "ceilings": ceilings, "profile": params.made_of}
    run = RunRecord(bars, predictions, params, result, engine.finish()[1], notes, tuple(lacked), **about)
    return replace(run, notes=(*notes, *run.unread))


def priced(
    bars: Bars, predictions: Predictions, params: Params, judge: Any = None, custom: Iterable[Feature] = (), meta: MetaSource | None = None
) -> Predictions:
    """Return predictions `valued`, and, where opinions have a price, with the seats of a trained `meta` alone."""
    predictions = valued(bars, predictions, params, judge, custom)
    if params.decide.rule != DecideRule.EDGE:
        return predictions
    if isinstance(meta, MetaSchedule):
        return seated(bars, predictions, params, meta)
    return replace(predictions, maps=unseated(predictions.maps))


def valued(bars: Bars, predictions: Predictions, params: Params, judge: Any = None, custom: Iterable[Feature] = ()) -> Predictions:
    """Return predictions with what their opinions are worth, where `params` ask for that, and the seats that they came with.

    Those of a training carry it. Imported ones, and an own `judge`, get it here: periods of equal length, each from what was known before;
    anew on other bars than those that priced them. Raises ModelError on predictions of a training that was made without, or for another
    `ensemble.rule`.
    """
    if params.decide.rule != DecideRule.EDGE or (judge is None and is_priced(params, predictions, bars)):
        return predictions
    from research.training.map_fit import fit_lean, periods, price_predictions, usual

    votes, params = predictions.votes(), resolved(usual(params), predictions)
    if judge is not None:
        lean = Engine(params, judge=judge, custom=custom).run(bars, votes).decisions.lean
        assert lean is not None
        return replace(predictions, maps=fit_lean(bars, votes, lean, periods(votes.action), params))
    check_priced(params, predictions)
    return replace(predictions, maps=price_predictions(bars, votes, predictions.labels, predictions.label.horizon, params))


def seated(bars: Bars, predictions: Predictions, params: Params, meta: MetaSchedule) -> Predictions:
    """Return predictions whose maps say where the learned meta layer acts, in mode `bet`; as they are where they say so of this one.

    Models of a training say so too, so that they serve live what the backtest did.
    """
    maps = predictions.maps
    if params.meta.mode != MetaMode.BET or maps is None or all(told.get("meta", {}).get("name") == meta.hash for told in maps.evidence):
        return predictions
    from research.training.map_fit import seat_meta

    maps, models = seat_meta(bars, predictions, meta, meta.hash), predictions.models
    if models is not None and not maps.data:  # maps of an own judge are no model's
        models = replace(models, config={**models.config, "maps": maps.to_dict()})
    return replace(predictions, maps=maps, models=models)


def resolved(params: Params, predictions: Predictions) -> Params:
    """Put the weights of the voters where they were given by name, and the label's horizon where the holding time was left to it."""
    return held_for(settled(params, predictions), predictions.label, predictions.later)
