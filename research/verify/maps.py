"""Map check: what the opinions of a run are worth was fitted before its time, and so were the seats of its layers.

All maps are fitted again with bars, votes, labels and who votes rewritten from the last period on, and once more from an earlier one, drawn
by the seed; none that began by then may change.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore import Bars, Params
from qtcore.choices import DecideRule
from research.training.maps import FIELDS, MapSchedule
from research.training.plan import TrainingPlan
from research.training.predictions import Predictions
from research.verify.causality import rewrite_future, same_bits
from research.verify.claims import Claim, Offender
from research.verify.evidence import Evidence
from research.verify.meta import other_future
from research.verify.serving import same_bars

SAME_MAP = 1e-6  # relative: a sum that another processor added up


def map_claims(run: Evidence, models: Any, seed: int, report: Any) -> list[Claim]:
    """Fit the maps again with another future; nothing to claim where none is read, or where they were fitted on other bars."""
    known = run.predictions.maps
    if known is None or run.params.decide.rule != DecideRule.EDGE or run.lacking or not are_of_these_bars(run, models):
        return []
    report("fit the maps again with another future")
    stored, aside, differs = by_start(known), "", list[Offender]()
    drawn = int(np.random.default_rng(seed).integers(max(1, len(stored) - 1)))
    rows = {last: int(np.searchsorted(run.bars.close_time, stored["start"][last, 0])) for last in sorted({drawn, len(stored) - 1})}
    for last, row in rows.items():
        then = stored[: last + 1]
        again = refit(run, models, rewrite_future(run.bars, row, seed), other_future(run.predictions, row, seed))[: last + 1]
        if (names := _differing(then, again)) and _near(then, again):
            here = refit(run, models, run.bars, run.predictions)[: last + 1]
            if not _differing(here, again):
                aside, names = f" but for rounding (within {SAME_MAP:g}), as they were fitted on another processor", []
        differs += [Offender(row, str(np.datetime64(int(then["start"][-1, 0]), "ns"))[:16] + " UTC", "", name, 1.0) for name in names]
    bars = " and from bar ".join(str(row) for row in rows.values())
    text = f"{len(stored)} maps and the seats fitted again, everything from bar {bars} on rewritten, are the same{aside}"
    n_values = sum(last + 1 for last in rows) * stored.shape[1] * len(FIELDS)
    return [Claim("D-99 maps", text, n_values, len(differs), "values", differs[0] if differs else None)]


def are_of_these_bars(run: Evidence, models: Any) -> bool:
    """Say whether the maps of a run can be fitted again from its files: a journal brings those of its models, or of other bars."""
    if run.own.judge is not None:
        return True
    if not run.predictions.imported:
        return models is not None and same_bars(run, models)
    known = run.predictions.maps
    return known is not None and known.data == run.files.manifest["data_fingerprint"]


def refit(run: Evidence, models: Any, bars: Bars, predictions: Predictions) -> NDArray:
    """Fit the maps of a run on other bars and predictions, MAP [F, H]."""
    from research.training.map_fit import fit_lean, periods, price_predictions, seat_meta
    from research.training.walk_forward import fold_maps, held_out, own_labels, prepare

    known = run.predictions.maps
    assert known is not None
    params = replace(Params.stored(known.params), sharing=())  # weights stay, whoever votes
    bare = replace(predictions, maps=None)
    votes, horizon = bare.votes(), predictions.label.horizon
    if run.own.judge is not None:
        lean = run.engine().run(bars, votes).decisions.lean
        assert lean is not None
        made = fit_lean(bars, votes, lean, periods(votes.action), params)
    elif predictions.imported:
        made = price_predictions(bars, votes, predictions.labels, horizon, params)
    else:
        prepared = prepare(bars, TrainingPlan.stored(models.config["plan"]), run.own.features)
        alone = bare.of_horizon(0, bare.label, bare.labels) if bare.later else bare
        made = fold_maps(bars, alone, params, held_out(prepared, models))
        for k, (part, (_, told)) in enumerate(zip(models.further, known.later), 1):
            of_part = prepare(bars, TrainingPlan.stored(part.config["plan"]), run.own.features)
            own = bare.of_horizon(k, of_part.label, own_labels(of_part))
            held, settings = held_out(of_part, part, (models, prepared)), replace(Params.stored(told.params), sharing=())
            made = replace(made, later=(*made.later, (part.horizon, fold_maps(bars, own, settings, held))))
    name = known.evidence[-1].get("meta", {}).get("name")
    if name is not None and run.meta is not None:
        made = seat_meta(bars, replace(bare, maps=made), run.meta, name)
    return by_start(made)


def by_start(maps: MapSchedule) -> NDArray:
    """Return the maps of all horizons as MAP [F, H]."""
    return np.ascontiguousarray(maps.every.reshape(len(maps.later) + 1, -1).T)


def _differing(one: NDArray, other: NDArray) -> list[str]:
    """Name the fields in which maps differ, once for each map."""
    if one.shape != other.shape:
        return ["number of maps"]
    return [name for name in FIELDS for a, b in zip(one, other) if not np.all(same_bits(np.atleast_1d(a[name]), np.atleast_1d(b[name])))]


def _near(one: NDArray, other: NDArray) -> bool:
    return one.shape == other.shape and all(np.allclose(one[name], other[name], SAME_MAP, 0.0, equal_nan=True) for name in FIELDS)
