"""Meta model training: walk-forward, on out-of-sample base predictions of earlier folds only (`spec` D-87).

    base folds   | train | fold 0 | fold 1 | fold 2 | fold 3 ...
    meta model 2           |    fit      |gap|held|gap| serves fold 2

The meta model of fold k sees what base models said about bars that they were not fitted on, up to the fold's boundary: labels that reach
into the next part are purged, an embargo follows, the last 20 % of its rows calibrate (D-89). With fewer than 1,000 rows there is no
model, and the rules alone act. `refit` makes one model again, so that this can be proven on a rewritten future (D-99).
"""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore import Bars, Params
from qtcore.chain.price import leans_of
from qtcore.choices import MetaMode
from qtcore.meta import VECTORS, Hits, feature_rows, wants_hits
from qtcore.meta.vectors import columns_of
from qtcore.types import ADVANCED, F8, I8, MODELS, N_MODELS, Votes
from research.data.facts import fingerprint
from research.errors import ModelError
from research.training.labels import held_for, label_end, uniqueness
from research.training.map_fit import bets_of, price_predictions, usual
from research.training.maps import check_priced, is_priced
from research.training.meta.estimators import BET_KINDS, KINDS, Rows, check_classes, check_labels, fit_bets, fit_meta, resolve_calibration
from research.training.meta.fitted import MetaFit, fit_digest
from research.training.meta.metadata import describe
from research.training.meta.schedule import MetaArtefact, MetaSchedule, write_fit
from research.training.models.artefacts import known_by, span
from research.training.models.base import ModelAbsentError
from research.training.predictions import Predictions, aligned
from research.training.splits import walk_forward
from research.training.weights import settled

MIN_ROWS, HELD_SHARE = 1000, 0.2
Progress = Any  # callback (done, total, text)


@dataclass(frozen=True)
class MetaPlan:
    """How meta models are made; stored with the schedule.

    mode: of the meta layer. kind: one of `KINDS`; vector: a key of qtcore's `VECTORS`; calibration, smote, seed: see `fit_meta`.
    embargo: rows between parts beyond the purge. horizon: rows that a label reaches ahead at most.
    """

    mode: str
    kind: str
    vector: str
    calibration: str
    smote: bool
    seed: int
    embargo: int
    horizon: int


@dataclass(frozen=True)
class Material:
    """What meta models are made of: everything on one grid of n rows and S symbols.

    table [n * S, F]: rows of the vector, NaN where it cannot be built. labels int8 [n, S], -1 invalid; end [n]: row in which a row's labels
    end. regime [2, n, S]. folds: (number, first row, row after the last) of the periods that a model serves; first: first row with a vote.
    about: what the metadata say of data, label and base models. traded int8 [n, S]: see `research.training.models.scores.score`. weights
    [n, S]: what each row counts, None for all alike.
    """

    table: F8
    labels: NDArray[np.int8]
    end: I8
    close_time: I8
    regime: F8
    folds: tuple[tuple[int, int, int], ...]
    first: int
    about: Mapping[str, Any] = field(default_factory=dict)
    traded: NDArray[np.int8] | None = None
    weights: F8 | None = None

    @property
    def voters(self) -> tuple[str, ...]:
        """Names of the five slots."""
        return tuple(self.about.get("voters", MODELS))

    def rows(self, bars: NDArray[np.bool_]) -> Rows:
        """Return the rows and classes of the chosen bars [n] that are known in full."""
        n_symbols = self.labels.shape[1]
        cells = np.flatnonzero(np.repeat(bars, n_symbols) & (self.labels.reshape(-1) >= 0))
        cells = cells[~np.isnan(self.table[cells]).any(axis=1)]
        weights = None if self.weights is None else self.weights.reshape(-1)[cells]
        return Rows(np.ascontiguousarray(self.table[cells]), self.labels.reshape(-1)[cells], weights)

    def parts(self, boundary: int, embargo: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return the rows [n] that fit and those that calibrate a model which serves from row `boundary` on, both purged by label end."""
        row = np.arange(len(self.end))
        middle = boundary - round((boundary - self.first) * HELD_SHARE)
        before = (row >= self.first) & (row < middle) & (self.end + embargo < middle)
        return before, (row >= middle) & (row < boundary) & (self.end + embargo < boundary)


def train_meta(
    bars: Bars,
    predictions: Predictions,
    params: Params | None = None,
    *,
    kind: str = "auto",
    vector: str = "auto",
    calibration: str = "auto",
    smote: bool = False,
    seed: int = 42,
    out: str | Path | None = None,
) -> MetaSchedule:
    """Train the learned meta layer of `params.meta.mode` on out-of-sample predictions and return the schedule that serves it.

    kind `auto`: `mlp` in mode v5, else `logistic`. vector `auto`: `v5` in mode v5, `bet30` in mode bet (`bet35` with a fifth model), which
    ends in the voters' hit rates, else `meta26` (`meta30`). calibration `auto`: the kind's own. In mode `bet`, for predictions with maps,
    it says how likely a bet pays. out: folder to write; else the models live as long as the schedule. Imported predictions count as out of
    sample. Raises UserError on unknown names, or where the vector wants probabilities and there are none.

    >>> import research
    >>> bars = research.load_bars("simulated:random_walk?n_bars=1500&n_symbols=2")
    >>> train_meta(bars, research.Predictions.random(bars, seed=1)).vector
    'bet30'
    """
    predictions = aligned(predictions, bars)
    params = settled(params or Params(), predictions)
    material, plan = prepare(bars, predictions, params, kind=kind, vector=vector, calibration=calibration, smote=smote, seed=seed)
    made = train_folds(material, plan, params)
    return made if out is None else made.save(out)


def prepare(bars: Bars, predictions: Predictions, params: Params, **asked: Any) -> tuple[Material, MetaPlan]:
    """Settle the plan and build every row that training may read; `asked` as in `train_meta`."""
    votes, horizon = predictions.votes(), predictions.label.horizon
    is_five = predictions.names[N_MODELS - 1] in predictions.slots
    plan = resolve_plan(params, is_five, predictions.probs is not None, horizon, **asked)
    names = ADVANCED if plan.vector.startswith(("meta32", "meta36")) else ()
    planes = _planes(bars, params, names)
    end = label_end(bars.n, predictions.label)
    about = {
        "label": predictions.label.to_dict(),
        "data_fingerprint": fingerprint(bars),
        "symbols": list(bars.symbols),
        "base_models": list(predictions.slots),
        "voters": list(predictions.names),
        "base_artefacts": sorted({artefact.hash for artefact in getattr(predictions.models, "artefacts", ())}),
        "base_predictions": "imported" if predictions.imported else "walk_forward",
        "base_weights": list(params.ensemble.weights),
    }
    labels, weights = predictions.labels, None
    if params.meta.mode == MetaMode.BET:
        check_priced(params, predictions)
        if not is_priced(params, predictions, bars):
            held = held_for(settled(usual(params), predictions), predictions.label)
            predictions = replace(predictions, maps=price_predictions(bars, votes, predictions.labels, horizon, held))
        labels, end = bets_of(bars, predictions)
        weights = uniqueness(labels, end)
    folds = serving_folds(predictions.fold, end, horizon)
    voted = np.flatnonzero((predictions.action >= 0).any(axis=(0, 2)))
    hits = Hits.fresh(horizon, len(bars.symbols)).advance(leans_of(votes), bars.close) if wants_hits(plan.vector) else None
    table = build_table(plan.vector, votes, planes, hits)
    first = int(voted[0]) if len(voted) else bars.n
    return Material(table, labels, end, bars.close_time, planes.regime, folds, first, about, weights=weights), plan


def build_table(vector: str, votes: Votes, planes: Any, hits: F8 | None = None) -> F8:
    """Return every row [n * S, F] of a vector: what the engine will show its model. hits [5, n, S]: of `Hits.advance`."""
    parts = [rows for _, rows in feature_rows(vector, votes, planes, np.full(votes.action.shape[2], np.nan), hits)]
    return np.concatenate(parts) if parts else np.empty((0, len(VECTORS[vector])))


def train_folds(material: Material, plan: MetaPlan, params: Params, progress: Progress = None) -> MetaSchedule:
    """Fit one model a fold, score it on the bars that it serves, and gather the schedule in a temporary folder."""
    scratch = tempfile.TemporaryDirectory(prefix="qt_meta_")
    stamp = datetime.now(UTC).strftime("%Y%m%d_%H%M%S")
    artefacts: list[MetaArtefact] = []
    notes = []
    for k, (fold, start, stop) in enumerate(material.folds):
        if progress is not None:
            progress(k, len(material.folds), f"training meta models: fold {fold + 1}")
        try:
            fit, train, held = fit_fold(material, plan, start)
        except ModelAbsentError as error:
            notes.append(f"the meta model is absent in fold {fold + 1}: {error}")
            continue
        path = Path(scratch.name) / f"fold_{fold:02d}" / f"meta_v{stamp}_v5{fit.suffix}"
        path.parent.mkdir()
        write_fit(fit, path)
        served, digest = span(material.close_time, start, None if k + 1 == len(material.folds) else stop), fit_digest(fit)
        figures = describe(material, plan, params, fit, (train, held), (fold, start, stop), [a.meta for a in artefacts])
        meta = known_by(stamp, digest, served, fit.feature_names) | figures
        artefacts.append(MetaArtefact(fold, *served, path, digest, meta))
    config = {
        "plan": asdict(plan),
        "boundaries": [int(material.close_time[f[1]]) for f in material.folds],
    }
    config |= {"folds": [f[0] for f in material.folds], **material.about}
    if len(notes) > 1 and not artefacts:
        notes = [f"the meta model is absent in every fold: {notes[-1].split(': ', 1)[1]}"]
    return MetaSchedule(tuple(artefacts), columns_of(plan.vector, material.voters), config, tuple(notes), scratch)


def fit_fold(material: Material, plan: MetaPlan, boundary: int) -> tuple[MetaFit, Rows, Rows]:
    """Fit the model that serves from row `boundary` on; return it with its training and calibration rows.

    Raises ModelAbsentError where rows or classes are too few, labels are a function of the rows, or the model is constant.
    """
    train, held = (material.rows(bars) for bars in material.parts(boundary, plan.embargo))
    n = len(train.y) + len(held.y)
    if n < MIN_ROWS:
        raise ModelAbsentError(
            f"training must have at least {MIN_ROWS:,} out-of-sample rows on which two or more models voted, was {n:,}; the rules alone act"
        )
    check_labels(train, held, plan.seed)
    if plan.mode == "bet":
        return fit_bets(plan.kind, columns_of(plan.vector, material.voters), train, held, plan.seed), train, held
    fit = fit_meta(
        plan.kind, columns_of(plan.vector, material.voters), train, held, calibration=plan.calibration, smote=plan.smote, seed=plan.seed
    )
    if plan.mode != "policy":  # there only the entropy counts, which a model that never changes its mind may well know
        check_classes(fit, held)
    return fit, train, held


def refit(bars: Bars, predictions: Predictions, params: Params, schedule: MetaSchedule, fold: int) -> tuple[MetaFit, Rows]:
    """Fit one fold of a schedule again, with everything from its boundary on rewritten to the same hash (D-99); also its training rows.

    Raises ModelAbsentError where it cannot be fitted, UserError where the schedule was not made from a run's own predictions.
    """
    plan = MetaPlan(**schedule.config["plan"])
    asked = {name: getattr(plan, name) for name in ("kind", "vector", "calibration", "smote", "seed")}
    material, again = prepare(bars, aligned(predictions, bars), params, **asked)
    boundary = int(np.searchsorted(material.close_time, schedule.config["boundaries"][schedule.config["folds"].index(fold)]))
    fit, train, _ = fit_fold(material, again, boundary)
    return fit, train


def resolve_plan(
    params: Params,
    is_five: bool,
    has_probs: bool,
    horizon: int,
    *,
    kind: str = "auto",
    vector: str = "auto",
    calibration: str = "auto",
    smote: bool = False,
    seed: int = 42,
    has_closes: bool = True,
) -> MetaPlan:
    """Settle what `auto` means for these parameters. is_five: somebody votes in the fifth slot. has_closes: hit rates can be counted.

    Raises UserError on unknown names, missing probabilities or closes.
    """
    is_v5, is_bet = params.meta.mode == MetaMode.V5, params.meta.mode == MetaMode.BET
    asked = f"kind {kind}, calibration {calibration}, smote {smote}"
    if kind == "auto":
        kind = "mlp" if is_v5 else "logistic"
    if vector == "auto":
        four, five = ("bet30", "bet35") if is_bet and has_closes else ("meta26", "meta30")
        vector = "v5" if is_v5 else five if is_five else four
    if kind not in KINDS:
        raise ModelError(f"run.meta must be auto, none or one of {', '.join(KINDS)}, was {kind!r}")
    if vector not in VECTORS:
        raise ModelError(f"run.meta_vector must be auto or one of {', '.join(VECTORS)}, was {vector!r}")
    if not has_probs and vector.startswith(("meta32", "meta36")):
        raise ModelError(f"predictions must carry probabilities for the meta vector {vector}, was actions only; use meta26")
    if not has_closes and wants_hits(vector):
        raise ModelError(f"run.meta_vector must be one without hit rates for a log, which holds no closes, was {vector}; use meta26")
    is_plain = calibration in ("auto", "none")
    if not (is_bet and is_plain):
        calibration = resolve_calibration(kind, calibration)
    if is_bet and (kind not in BET_KINDS or smote or not is_plain):
        kinds = " or ".join(BET_KINDS)
        raise ModelError(f"a meta layer of meta.mode=bet must be {kinds}, without calibration and smote, was {asked}; leave them out")
    calibration = "none" if is_bet else calibration
    return MetaPlan(params.meta.mode.name.lower(), kind, vector, calibration, smote, seed, horizon, horizon)


def serving_folds(fold: NDArray[np.int16], end: I8, horizon: int) -> tuple[tuple[int, int, int], ...]:
    """Return the periods that a model may serve: the base models' test folds but the first, or a walk-forward cut of imported ones."""
    known = [int(k) for k in np.unique(fold[fold >= 0])]
    if known:
        spans = [np.flatnonzero(fold == k) for k in known]
        return tuple((k, int(rows[0]), int(rows[-1]) + 1) for k, rows in zip(known, spans, strict=True))[1:]
    return tuple((f.number, f.boundary, int(f.test[-1]) + 1) for f in walk_forward(end, embargo=horizon))


def _planes(bars: Bars, params: Params, names: tuple[str, ...]) -> Any:
    from qtcore.features import FeatureBank

    return FeatureBank(params, bars.symbols, bars.interval, names).compute(bars)
