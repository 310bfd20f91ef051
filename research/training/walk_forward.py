"""Walk-forward training: bars become out-of-sample predictions. Features, one label, folds, one fit per model and fold, a schedule.

Nothing at or after a fold's first test row reaches its models: features look back, label choice and percentiles come from training rows,
training ends where labels would touch the test, early stopping has its own purged slice. `retrain_fold` fits one fold again so that this
can be proven on rewritten bars (`spec` D-99).

Measured 2026-11 on two shared cores, both models as run, six folds: 19 symbols x 5,856 bars 52 s; 13 symbols x 58,440 bars, 440,000
training cells in the last fold, 6 minutes. So no fit is capped by default; `max_train_rows` caps it where that is too long.
"""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.check import as_bars
from qtcore.params import Params
from qtcore.types import F8, I8, MODELS, N_MODELS, Bars, Votes
from qtcore.voters import slots_of
from research.data.facts import fingerprint
from research.data.lacks import mute, no_vote, rare
from research.errors import ModelError, refusing
from research.parallel import check_engine, n_processors, opened, versions
from research.training.knowledge import COLUMN, parse_until, until_text
from research.training.labels import (
    Label,
    classify,
    fit_thresholds,
    get_label,
    held_for,
    horizons_of,
    label_end,
    look_ahead,
    of_several,
    resolve_label,
    uniqueness,
)
from research.training.map_fit import Held, fit_maps, usual, with_edge
from research.training.maps import MapSchedule
from research.training.models import fits
from research.training.models.artefacts import known_by, span
from research.training.models.base import ONE_HORIZON, class_weights, lookback_of, make_model, model_class, model_target, weights_rule
from research.training.models.inputs import Inputs, model_inputs
from research.training.models.layers import in_use
from research.training.models.schedule import Artefact, ModelSet, artefact_hash, fit_hash
from research.training.models.scores import score
from research.training.models.worker import Job, Report, run_jobs
from research.training.plan import TrainingPlan, usual_models
from research.training.predictions import Predictions
from research.training.scoring.baseline import Baseline, seen
from research.training.splits import HELD_SHARE, VALID_SHARES, Fold, retraining_edges, single_split, walk_forward

USUAL = ("xgb", "lgbm")  # base models that are trained unless others are named, beside the voter of the profile
WINDOW_COST = 12  # what a fit of a sequence model takes longer than one of trees, about
Progress = Callable[[int, int, str], Any]


@dataclass(frozen=True)
class Prepared:
    """Everything the fits read. labels [K, n, S]: per fold, by its own thresholds [K][2][S]; ends [n, S]: rows in which they end.

    ahead [n, S]: what a score is fitted to, else of shape (0, 0). seen: trailing volatility and last move, [n, S] each, of which the
    volatility baseline of each fold answers. known [n]: bars that the models knew before any fit.
    """

    inputs: Inputs
    folds: tuple[Fold, ...]
    label: Label
    thresholds: tuple[tuple[F8, F8], ...]
    labels: NDArray[np.int8]
    ends: I8
    ahead: F8
    seen: tuple[F8, F8]
    baselines: tuple[Baseline, ...]
    known: NDArray[np.bool_]


def train(
    bars: Bars,
    models: Sequence[str] | None = None,
    label: str | Label | None = None,
    params: Params | None = None,
    *,
    profile: str | None = None,
    plan: TrainingPlan | None = None,
    use_store: bool = True,
    custom: Sequence[Any] = (),
    own_checks: Sequence[Mapping[str, Any]] = (),
    notes: Sequence[str] = (),
    processes: int | None = None,
    engine: str = "local",
    address: str | None = None,
    progress: Progress | None = None,
    out: str | Path | None = None,
    **asked: Any,
) -> Predictions:
    """Train walk-forward and return out-of-sample predictions with the schedule of models that made them.

    models: names of at most five registered models, XGBoost and LightGBM by default, and in profile `default` the linear baseline. label:
    `auto`, an id of `research.training.labels`, or a Label; `L3@4+24` trains every model for both horizons, as one voter. profile: whose
    parameters and plan are taken where `params` or `plan` are not given; that of `params` unless told, `default` without them. Further
    keywords are the fields of `TrainingPlan`, in place of those of `plan`: `n_folds`, `train_share`, `embargo`, `is_rolling`, `seed`,
    `preset`, `max_train_rows`, `split`, `retrain_every`, `calibration`, `weights`, and `knows_until` where models bring what they know
    (`research.training.models.base`). custom: features of the researcher's own; own_checks: what their trials found, kept with the
    schedule, as are `notes`, further sentences. processes: fits at a time, all cores by default; the result does not depend on it. engine,
    address: `local`, or `ray` and where it runs (`research.parallel.opened`); a cluster does as many fits at a time as it has processors.
    progress(done, total, text) is called after each fit. out: folder for artefacts and `predictions.parquet`; else they live in a temporary
    folder as long as the predictions do.

    A fit whose every input is known comes from the store (`research.training.models.fits`), and each finished one is kept there, so a
    training that was stopped goes on where it was; `use_store=False` fits all. Raises UserError when the bars are too few, a name is
    unknown, or for `shuffle`; KeyboardInterrupt says how many fits are kept.

    >>> from research.data import simulate
    >>> train(simulate("random_walk", n_bars=400), models=["lgbm"], n_folds=2, processes=1)
    <walk-forward predictions of lgbm: 400 bars, 5 symbols, 60% voted, L1>
    """
    bars = as_bars(bars)
    asked |= {} if models is None else {"models": models}
    asked |= {} if label is None else {"label": label}
    profile = profile or (params.made_of if params is not None else "default")
    plan = TrainingPlan.told(**{**vars(plan or TrainingPlan.profile(profile, models=usual_models(profile, USUAL)[0])), **asked})
    params = params or Params.profile(profile)
    plan = replace(plan, models=_slots(plan.models), params=params.flat(), base=params.made_of, n_folds=plan.folds)
    plan = replace(plan, knows_until=_brought(plan))
    check_engine(engine, address)
    if plan.maps:
        with_edge(params)  # refused before the work
    store = fits.folder() if use_store else None
    workers = (processes or n_processors(), engine, address)
    return run_plan(bars, plan, custom, own_checks=own_checks, notes=notes, store=store, workers=workers, progress=progress, out=out)


def run_plan(
    bars: Bars,
    plan: TrainingPlan,
    custom: Sequence[Any] = (),
    *,
    own_checks: Sequence[Mapping[str, Any]] = (),
    notes: Sequence[str] = (),
    store: Path | None,
    workers: tuple[int, str, str | None],
    progress: Progress | None = None,
    out: str | Path | None = None,
) -> Predictions:
    """Carry out a plan on bars, as `train` does. store: folder of known fits, None for none; workers: fits at a time, engine, address."""
    how: dict[str, Any] = {"store": store, "workers": workers, "progress": progress}
    prepared = prepare(bars, plan, custom)
    made = _one_horizon(bars, plan, prepared, **how, own_checks=own_checks, notes=notes)
    periods = plan.periods or [(int(bars.close_time[fold.test[0]]), int(bars.close_time[-1])) for fold in prepared.folds]
    further = []
    for label in [] if isinstance(plan.label, Mapping) else horizons_of(plan.label)[1:]:
        own = replace(plan, label=str(label), periods=periods)
        further.append(_one_horizon(bars, own, prepare(bars, own, custom), **how, first=(made, prepared)))
    made = _together(made, further)
    if out is not None and made.models is not None:
        made = replace(made, models=made.models.save(out))
        made.save(Path(out) / "predictions.parquet")
    return made


def _together(made: Predictions, further: Sequence[Predictions]) -> Predictions:
    """Let the voters of a training speak of the later horizons too, whose trainings are `further`."""
    if not further:
        return made
    later = tuple(part.label.horizon for part in further)
    label, models, maps = of_several(made.label, later), made.models, made.maps
    assert models is not None
    config = {**models.config, "label": label.to_dict(), "later": list(later)}
    if maps is not None:
        maps = replace(maps, later=tuple((part.label.horizon, part.maps) for part in further if part.maps is not None))
        config["maps"] = maps.to_dict()
    what = f"a run's labels and accuracies are of the first horizon, {made.label.horizon} bars, where a later one speaks too"
    notes = dict.fromkeys((*made.notes, *(note for part in further for note in part.notes), what))
    n_stored = models.n_stored + sum(part.models.n_stored for part in further if part.models is not None)
    sets = tuple(part.models for part in further if part.models is not None)
    models = replace(models, further=sets, config=config, n_stored=n_stored)
    probs = np.concatenate([part.probs for part in (made, *further) if part.probs is not None], axis=3)
    return replace(made, probs=probs, label=label, later=later, maps=maps, models=models, notes=tuple(notes))


def _one_horizon(
    bars: Bars,
    plan: TrainingPlan,
    prepared: Prepared,
    *,
    store: Path | None,
    workers: tuple[int, str, str | None],
    progress: Progress | None,
    own_checks: Sequence[Mapping[str, Any]] = (),
    notes: Sequence[str] = (),
    first: tuple[Predictions, Prepared] | None = None,
) -> Predictions:
    """Train for one horizon. first: what the training of the first made, None where this is it."""
    processes, engine, address = workers
    ready = prepared.inputs.usable.any(axis=0)
    params = Params.stored(plan.params)
    silent = () if np.all(ready) else tuple(mute(bars, params).values())
    silent += rare(bars, prepared.inputs.usable, params.features.warmup)
    if not np.any(ready):
        raise ModelError(no_vote(silent))
    scratch = tempfile.TemporaryDirectory(prefix="qt_train_")
    names = slots_of(plan.models)
    learning = [slot for slot in plan.models if first is None or not getattr(model_class(model_target(slot)), ONE_HORIZON, False)]
    if not learning:
        rule = f"label {prepared.label.id} must have a model that learns it, was with {', '.join(plan.models)}, which learn one horizon"
        raise ModelError(f"{rule}; name another model, or one horizon")
    jobs = _jobs(prepared, replace(plan, models=tuple(learning)), Path(scratch.name), range(len(prepared.folds)), store)
    answers, n_known = _answers(jobs, processes, (engine, address), progress)
    probs = np.full((N_MODELS, *prepared.inputs.matrix.shape[:2], 3), np.nan)
    for job, answer in zip(jobs, answers):
        if answer["absent"] is None:
            with np.load(f"{job['path']}.npz", allow_pickle=False) as stored:
                probs[names.index(job["slot"])].reshape(-1, 3)[stored["cells"]] = stored["probs"]
    fold, labels = np.full(bars.n, -1, np.int16), own_labels(prepared)
    for part in prepared.folds:
        fold[part.test] = part.number
    made = Predictions.from_probs(bars, probs, fold, labels, prepared.label, names=names).declare(plan.knows_until)
    assert made.probs is not None
    schedule = replace(_schedule(bars, prepared, plan, jobs, answers, made.probs, scratch), n_stored=n_known)
    schedule = replace(schedule, notes=(*notes, *schedule.notes))
    if own_checks:
        schedule = replace(schedule, config={**schedule.config, "own_checks": [dict(found) for found in own_checks]})
    made = replace(made, notes=(*made.notes, *schedule.notes, *silent))
    if plan.maps:
        of_first = None if first is None or first[0].models is None else (first[0].models, first[1])
        heard = made if first is None or made.probs is None else heard_at(first[0], made.probs, prepared)
        held = held_out(prepared, schedule, of_first)
        maps = fold_maps(bars, heard, usual(replace(params, made_of=plan.base), "features"), held)
        made = replace(made, maps=maps)
        schedule = replace(schedule, config={**schedule.config, "maps": maps.to_dict()})
    return replace(made, models=schedule)


def own_labels(prepared: Prepared) -> NDArray[np.int8]:
    """Return the labels by which each row is scored: of the fold that tests it, before the first test of the first fold, [n, S]."""
    labels = prepared.labels[0].copy()
    for part in prepared.folds:
        labels[part.test] = prepared.labels[part.number][part.test]
    return labels


def heard_at(first: Predictions, probs: F8, prepared: Prepared) -> Predictions:
    """Return what the voters are heard to say of a later horizon. first: what they say of the first, probs [5, n, S, 3] of the later."""
    assert first.probs is not None
    both = replace(first, probs=np.concatenate([first.probs[..., :3], probs], axis=3))
    return both.of_horizon(1, prepared.label, own_labels(prepared))


def held_out(prepared: Prepared, models: ModelSet, first: tuple[ModelSet, Prepared] | None = None) -> list[Held]:
    """Ask the models of each fold about the rows that it holds out.

    first: of a later horizon the models of the first, who answer for who is silent, where they did not learn from the row either.
    """
    rows = [fold.held for fold in prepared.folds]
    said = models.predict_rows(prepared.inputs.matrix, rows)
    if first is not None:
        for own, part, other, fold in zip(said, rows, first[0].predict_rows(prepared.inputs.matrix, rows), first[1].folds):
            is_asked = np.isnan(own).any(axis=-1) & np.isin(part, fold.held)[:, None]
            own[is_asked] = other[is_asked]
    for part, probs in zip(rows, said):
        probs[:, prepared.known[part]] = np.nan
    return [Held(part, Votes.from_probs(probs, models.names)) for part, probs in zip(rows, said)]


def fold_maps(bars: Bars, predictions: Predictions, params: Params, held: Sequence[Held]) -> MapSchedule:
    """Fit what the opinions of each fold are worth, on the folds before it and what it holds out, at `params`."""
    _, starts = np.unique(predictions.fold, return_index=True)
    rows = [int(start) for start in starts if predictions.fold[start] >= 0]
    settings = held_for(params.for_voters(predictions.names, predictions.slots), predictions.label)
    return fit_maps(bars, predictions.votes(), predictions.labels, predictions.label.horizon, rows, settings, held)


def prepare(bars: Bars, plan: TrainingPlan, custom: Sequence[Any] = ()) -> Prepared:
    """Compute features, settle the label, cut the folds, fit thresholds and baseline inside each and label the bars with them."""
    params = Params.stored(plan.params)

    def cut(label: Label) -> tuple[Fold, ...]:
        gap, held = label.horizon if plan.embargo is None else plan.embargo, HELD_SHARE if plan.maps else 0.0
        end = label_end(bars.n, label)
        rest: dict[str, Any] = {"held_share": held, "embargo": gap, "is_rolling": plan.is_rolling}
        if plan.periods:
            starts = [int(np.searchsorted(bars.close_time, first)) for first, _ in plan.periods]
            share = VALID_SHARES[plan.split]
            return walk_forward(end, valid_share=share, edges=[*starts, bars.n], **rest)
        if plan.split == "single_split":
            return single_split(end, gap, held)
        edges = None if plan.retrain_every is None else retraining_edges(bars.close_time, plan.train_share, plan.retrain_every)
        return walk_forward(end, n_folds=plan.folds, train_share=plan.train_share, edges=edges, **rest)

    asked = horizons_of(plan.label)[0] if isinstance(plan.label, str) else Label(**plan.label)
    rule = resolve_label(bars, asked, cut(get_label("L1"))[0].train, params.broker) if asked == "auto" else get_label(asked, params.broker)
    folds = cut(rule)
    ahead, ends = look_ahead(bars, rule)
    thresholds = tuple(fit_thresholds(ahead, rule, fold.train) for fold in folds)
    labels = np.stack([classify(ahead, rule, *pair) for pair in thresholds])
    for k, (_, last) in enumerate(plan.periods):  # a fold keeps the labels that were known when it was made, so its fits stay known
        labels[k, max(0, int(np.searchsorted(bars.close_time, last)) + 1 - rule.horizon) :] = -1
    volatility, move = trailing = seen(bars.close)
    known = np.zeros(bars.n, bool) if plan.knows_until is None else bars.close_time <= parse_until(plan.knows_until)
    baselines = tuple(Baseline.fit(volatility[f.train], move[f.train], own[f.train]) for f, own in zip(folds, labels))
    return Prepared(
        model_inputs(bars, params, custom),
        folds,
        rule,
        thresholds,
        labels,
        ends,
        ahead if rule.is_score else np.empty((0, 0)),
        trailing,
        baselines,
        known,
    )


def retrain_fold(bars: Bars, models: ModelSet, fold: int, custom: Sequence[Any] = (), slots: Sequence[str] | None = None) -> dict[str, str]:
    """Fit one fold of a trained schedule again on `bars` and return the identity of each model.

    With every bar at or after the fold's boundary rewritten, they must equal `models.hashes(fold)` (`spec` D-99); the boundary is the
    row whose close is the fold's `valid_from`. A model that is absent is missing from both.
    """
    known = dict(models.config["plan"])
    plan = TrainingPlan.stored(known | {"models": tuple(slots or known["models"])})
    prepared = prepare(as_bars(bars), plan, custom)
    with tempfile.TemporaryDirectory(prefix="qt_retrain_") as scratch:
        jobs = _jobs(prepared, plan, Path(scratch), [fold])
        answers = run_jobs(jobs, 1)
        fitted = [(job, answer) for job, answer in zip(jobs, answers) if answer["absent"] is None]
        return {job["slot"]: answer.get("digest") or fit_hash(Path(job["path"])) for job, answer in fitted}


def _brought(plan: TrainingPlan) -> str | None:
    """Return until when the plan or a class of its models says that something knows the data, the latest; None where none does."""
    said = (plan.knows_until, *(getattr(model_class(model_target(slot)), COLUMN, None) for slot in plan.models))
    moments = [parse_until(until) for until in said if until is not None]
    return until_text(max(moments)) if moments else None


def _slots(models: Sequence[str]) -> tuple[str, ...]:
    wanted = (models,) if isinstance(models, str) else tuple(models)
    for slot in wanted:
        model_class(model_target(slot))
    if not wanted or len(set(wanted)) != len(wanted):
        raise ModelError(f"models must be one or more different names, was {list(wanted)}")
    with refusing(ModelError):
        return tuple(name for name in slots_of(wanted) if name in wanted)


def _jobs(prepared: Prepared, plan: TrainingPlan, folder: Path, folds: Sequence[int], store: Path | None = None) -> list[Job]:
    """Write the arrays that workers read, and one job per fold and model; each names its fit in the store."""
    n = prepared.labels.shape[1]
    np.save(folder / "matrix.npy", prepared.inputs.matrix)
    np.save(folder / "usable.npy", prepared.inputs.usable)
    np.save(folder / "labels.npy", prepared.labels)
    np.save(folder / "roles.npy", np.stack([fold.roles(n) for fold in prepared.folds]))
    np.save(folder / "ends.npy", prepared.ends)
    np.save(folder / "ahead.npy", prepared.ahead)
    stamp = datetime.now(UTC).strftime("%Y%m%d_%H%M%S")
    more = {"features": list(prepared.inputs.names), "preset": plan.preset, "seed": plan.seed, "max_train_rows": plan.max_train_rows}
    more |= {"calibration": plan.calibration, "weights": plan.weights, "horizon": prepared.label.horizon}
    more["limits"] = [prepared.label.sell, prepared.label.buy] if prepared.label.is_score else None
    more |= {"folder": str(folder), "stamp": stamp, "store": None if store is None else str(store)}
    own = in_use()
    layers = own.about and own.about | {"path": str(own.path)}
    jobs = []
    for k in folds:
        (folder / f"fold_{k:02d}").mkdir()
        fold, contents = prepared.folds[k], dict[int, str]()
        for slot in plan.models:
            target = model_target(slot)
            model = make_model(target, prepared.inputs.names, plan.preset)
            lookback = lookback_of(model)
            path = folder / f"fold_{k:02d}" / f"{model.stem if slot in MODELS else slot}_v{stamp}_v5{model.suffix}"
            job = more | {"slot": slot, "fold": k, "target": target, "path": str(path), "layers": layers if own.holds(target) else None}
            job["cost"] = len(fold.fit) * (1 if lookback == 1 else WINDOW_COST)
            if store is not None:
                if lookback not in contents:
                    contents[lookback] = fits.content_of(
                        prepared.inputs.matrix, prepared.labels[k], prepared.ends, prepared.ahead, fold, lookback
                    )
                job["key"] = fits.fit_key(job, contents[lookback])
            jobs.append(job)
    return jobs


def _answers(jobs: Sequence[Job], processes: int, engine: tuple[str, str | None], progress: Progress | None) -> tuple[list[Job], int]:
    """Take from the store what is there, fit the rest; return the answers in the order of `jobs`, and how many were in the store."""
    found = [fits.fetch(Path(job["store"]), job["key"], Path(job["path"])) if job["store"] else None for job in jobs]
    missing = [i for i, answer in enumerate(found) if answer is None]
    report = Report(progress, [jobs[i] for i in missing], len(jobs) - len(missing))
    try:
        with opened(*engine) if missing else nullcontext() as pool:
            fitted = run_jobs([jobs[i] for i in missing], processes, report, None if engine[0] == "local" else pool)
    except KeyboardInterrupt:
        kept = len(jobs) - len(missing) + report.parts.count(1.0)
        remedy = "; the same command goes on from there" if jobs[0]["store"] else ""
        raise KeyboardInterrupt(f"stopped with {kept} of {len(jobs)} fits kept{remedy}") from None
    for i, answer in zip(missing, fitted):
        found[i] = answer
    if missing and jobs[0]["store"]:
        fits.trim()
    return [answer for answer in found if answer is not None], len(jobs) - len(missing)


def _schedule(
    bars: Bars, prepared: Prepared, plan: TrainingPlan, jobs: Sequence[Job], answers: Sequence[Job], probs: F8, scratch: Any
) -> ModelSet:
    """Gather artefacts, each with its metadata and the span of decision times it serves."""
    artefacts, notes = [], []
    last = len(prepared.folds) - 1
    for job, answer in zip(jobs, answers):
        fold = prepared.folds[job["fold"]]
        if answer["absent"] is not None:
            notes.append(f"{job['slot']} is absent in fold {fold.number + 1}: {answer['absent']}")
            continue
        served = span(bars.close_time, fold.test[0], None if fold.number == last else fold.test[-1] + 1)
        path = Path(job["path"])
        digest = artefact_hash(path)
        meta = known_by(job["stamp"], digest, served, prepared.inputs.names) | _metadata(bars, prepared, plan, job, answer, probs)
        artefacts.append(Artefact(fold.number, *served, path, digest, meta, slot=job["slot"]))
    config = {
        "plan": dict(plan.__dict__),
        "label": prepared.label.to_dict(),
        "thresholds": [_by_symbol(bars, pair) for pair in prepared.thresholds],
        "baselines": [baseline.__dict__ for baseline in prepared.baselines],
        "boundaries": [int(bars.close_time[fold.boundary]) for fold in prepared.folds],
    }
    return ModelSet(tuple(artefacts), prepared.inputs.names, json.loads(json.dumps(config)), tuple(notes), scratch=scratch)


def _metadata(bars: Bars, prepared: Prepared, plan: TrainingPlan, job: Job, answer: Job, probs: F8) -> dict[str, Any]:
    """Describe one artefact (`spec` 3.4); the score is on its own test fold."""
    fold, names = prepared.folds[job["fold"]], prepared.inputs.names
    made_with = in_use().about if in_use().needed_by(job["target"], names) else None
    times = {part: [int(bars.close_time[rows[0]]), int(bars.close_time[rows[-1]])] for part, rows in _parts(fold)}
    labels = prepared.labels[fold.number][fold.test]
    served = probs[slots_of(plan.models).index(job["slot"]), fold.test]
    is_undone = plan.calibration in ("prior", "vector")
    weights = class_weights(answer["fit_counts"], "none" if is_undone else weights_rule(answer["params"]))
    counts, regime = np.array(answer["train_counts"]), prepared.inputs.regime[:, fold.test]
    baseline = prepared.baselines[fold.number].probs(*(plane[fold.test] for plane in prepared.seen))
    figures = score(served, labels, counts, weights, regime, baseline)
    if plan.max_train_rows and answer["n_fit"] == plan.max_train_rows:
        figures["warnings"].append(f"fitted on the {plan.max_train_rows} most recent training rows only")
    if answer["n_fit"] < 1000:
        figures["warnings"].append(f"fitted on {answer['n_fit']} rows, fewer than 1000")
    return {
        "slot": job["slot"],
        "target": job["target"],
        **({} if made_with is None else {"layers": made_with}),
        "suffix": answer["suffix"],
        "lookback": answer["lookback"],
        "feature_params": {name: value for name, value in plan.params.items() if name.startswith("features.")},
        "params": answer["params"],
        "calibration": answer.get("calibration"),
        "history": answer["history"],
        "importance": answer["importance"],
        **({"digest": answer["digest"]} if "digest" in answer else {}),
        "split": {
            "kind": plan.split if plan.split == "single_split" else f"walk_forward, {'rolling' if plan.is_rolling else 'expanding'}",
            "fold": fold.number,
            "n_folds": len(prepared.folds),
            "retrain_every": plan.retrain_every,
            "embargo_rows": fold.embargo,
            "rows": fold.sizes(),
            "cells": {"fit": answer["n_fit"], "valid": answer["n_valid"], "test": answer["n_test"]},
            "fit_cells_effective": _effective(prepared, fold),
            "max_train_rows": plan.max_train_rows,
            "close_time": times,
        },
        "label": prepared.label.to_dict(),
        "label_thresholds": _by_symbol(bars, prepared.thresholds[fold.number]),
        "fit_counts": answer["fit_counts"],
        "fit_weights": answer["weights"],
        "data_fingerprint": fingerprint(bars),
        "symbols": list(bars.symbols),
        "interval": bars.interval,
        "seed": plan.seed,
        "libraries": versions(),
        **figures,
    }


def _effective(prepared: Prepared, fold: Fold) -> float:
    """Count training labels by their uniqueness: those of one symbol that share bars count as fewer."""
    labels = np.full_like(prepared.labels[fold.number], -1)
    labels[fold.fit] = np.where(prepared.inputs.usable[fold.fit], prepared.labels[fold.number][fold.fit], np.int8(-1))
    return float(np.nansum(uniqueness(labels, prepared.ends)[fold.fit]))


def _by_symbol(bars: Bars, thresholds: tuple[F8, F8]) -> dict[str, dict[str, float | None]]:
    """Thresholds as JSON holds them: null where a symbol has none."""
    known = [[None if value != value else value for value in values.tolist()] for values in thresholds]
    return {side: dict(zip(bars.symbols, values)) for side, values in zip(("sell", "buy"), known)}


def _parts(fold: Fold) -> tuple[tuple[str, Any], ...]:
    return (("fit", fold.fit), ("valid", fold.valid), ("test", fold.test))
