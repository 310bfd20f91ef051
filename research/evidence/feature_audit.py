"""Feature audit: what each family of features adds to what a model knows, alone and beside all others, and what it costs.

The same walk-forward, model, label and folds each time; only the features differ. A class is said where its probability, over the share
that it had in the labels before the fold, is largest, on both sides: a model that always says the most frequent class knows nothing, and
its balanced accuracy is a third. Every difference is of the cells that both were scored on, with a 95 % interval. Who chooses features by
it has tried them all: each training counts as a trial of the market, whose returns nobody knows.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.choices import FAMILIES
from qtcore.features import FeatureBank, chosen
from qtcore.features.registry import ACROSS, LEAST
from qtcore.params import Params
from qtcore.types import Bars
from research.data.sketch import sketch
from research.errors import ConfigError
from research.evidence.ledger import Ledger
from research.evidence.skill import above_prior, mean_probs
from research.evidence.standing import Result
from research.evidence.trials import Trial, hash_params
from research.files import plain
from research.training.labels import one_horizon
from research.training.predictions import Predictions, hash_votes
from research.training.scoring.differences import difference, paired
from research.training.scoring.opinions import Opinion
from research.training.walk_forward import train

Progress = Callable[[int, int, str], Any]
BLOCK, TIMES = 2_000, 5  # bars whose features are timed, and how often
ALONE, BESIDE, ALL = "alone", "beside", "all"


@dataclass(frozen=True)
class FeatureAudit:
    """What each family of features adds.

    rows: one a comparison. `family`; `kind`, `alone` (the base and the family against the base), `beside` (all against all but the family)
    or `all` (all against the base); the fields of `research.training.scoring.differences.difference`; `nanoseconds` a bar and symbol that
    the family costs beside all others, once for each, else None. config: model, label, base, symbols, bars.
    """

    rows: list[dict[str, Any]]
    config: dict[str, Any]

    @property
    def sentence(self) -> str:
        """Say which families add something, which of all would be missed, and whether those that are added do together."""
        base, rows = " and ".join(self.config["base"]), self.rows
        if not rows[-1]["enough"]:
            return f"Not enough data: {rows[-1]['n']:,} cells are worth {rows[-1]['n_effective']:.0f} independent ones."

        def named(kind: str, otherwise: str) -> str:
            return ", ".join(r["family"] for r in rows if r["kind"] == kind and r["balanced_accuracy"]["ci95"][0] > 0.0) or otherwise

        told = f"Left out of all, {named(BESIDE, 'none')} would be missed." if any(r["kind"] == BESIDE for r in rows) else ""
        if rows[-1]["kind"] != ALL:
            return told
        gain = rows[-1]["balanced_accuracy"]
        low, high = gain["ci95"]
        size = f"{100 * gain['difference']:+.1f} points, 95 % interval {100 * low:+.1f} to {100 * high:+.1f}"
        both = f"{100 * gain['a']:.1f} % balanced accuracy against {100 * gain['b']:.1f} %"
        return f"Of the families {named(ALONE, 'none can be told to')} add to {base}; all of them give {both} ({size}). {told}".rstrip()

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        out: dict[str, Any] = plain({**self.config, "rows": self.rows, "sentence": self.sentence})
        return out


def audit_features(
    bars: Bars,
    model: str = "lgbm",
    label: str = "L3",
    families: Sequence[str] = (),
    params: Params | None = None,
    *,
    preset: str = "fast",
    n_folds: int = 4,
    seed: int = 42,
    progress: Progress | None = None,
) -> FeatureAudit:
    """Train `model` on the sets of `params`, on these with each other family, with all, and with all but each.

    families: of `qtcore.choices.FAMILIES`; empty: all that the symbols allow. Those that the sets have already are left out alone.
    progress(done, total, text) is called before each training. Raises UserError on an unknown family, or when the bars are too few.
    """
    params = params or Params()
    base = params.features.every_set
    usual = (name for name in FAMILIES if name in base or name not in ACROSS or len(bars.symbols) >= LEAST)
    wanted = tuple(families) or tuple(usual)
    if wrong := [name for name in wanted if name not in FAMILIES]:
        raise ConfigError(f"families (--families) must be among {', '.join(FAMILIES)}, was {wrong[0]!r}")
    added = tuple(name for name in wanted if name not in base)
    every = (*base, *added)
    chosen(every, len(bars.symbols))  # a mistake is told before anything is trained
    pairs = [(name, ALONE, (*base, name), base) for name in added]
    pairs += [(name, BESIDE, every, without) for name in wanted if (without := _less(every, name)) and without != base]
    pairs += [(ALL, ALL, every, base)] if added else []
    if not pairs:
        raise ConfigError(f"families (--families) must be others than features.sets alone, was {', '.join(wanted)}; name another in either")
    one_horizon(label)
    trained = list(dict.fromkeys(sets for *_, more, less in pairs for sets in (less, more)))
    said: dict[tuple[str, ...], Opinion] = {}
    labels, horizon = np.empty((0, 0), np.int8), 1
    for done, sets in enumerate(trained):
        if progress is not None:
            progress(done, len(trained), f"features: {', '.join(sets)}")
        settings = params.with_values({"features.sets": sets})
        made = train(bars, (model,), label, settings, calibration="prior", maps=False, preset=preset, n_folds=n_folds, seed=seed)
        _count(bars, settings, made, f"qt audit features, {model} with {', '.join(sets)}")
        said[sets], labels, horizon = above_prior(mean_probs(made, (model,)), made), made.labels, made.label.horizon
    costs = _costs(bars[:BLOCK], params, every, wanted)
    rows = [
        {"family": name, "kind": kind, "nanoseconds": costs[name] if kind == (ALONE if name in added else BESIDE) else None}
        | _gap(said[more], said[less], labels, horizon)
        for name, kind, more, less in pairs
    ]
    config = {"model": model, "label": made.label.id, "base": list(base), "symbols": list(bars.symbols), "bars": bars.n, "folds": n_folds}
    return FeatureAudit(rows, config | {"seed": seed, "preset": preset})


def _less(sets: tuple[str, ...], name: str) -> tuple[str, ...]:
    return tuple(each for each in sets if each != name)


def _count(bars: Bars, params: Params, made: Predictions, name: str) -> None:
    """Put a training into the ledger, as a trial without returns."""
    votes = hash_votes(made.votes())
    trial = Trial(sketch(bars), hash_params(params.flat()), votes, math.nan, 0, np.empty(0, np.float32), name, votes=votes)
    Ledger().record(trial, Result())


def _gap(a: Opinion, b: Opinion, labels: NDArray[np.int8], horizon: int) -> dict[str, Any]:
    (own, other), bootstrap, rows = paired(a, b, labels, horizon)
    return difference(own, other, bootstrap, rows)


def _costs(bars: Bars, params: Params, every: tuple[str, ...], families: Sequence[str]) -> dict[str, float]:
    """Measure what each family costs beside all others, ns a bar and symbol, the best of a few times."""

    def spent(sets: tuple[str, ...]) -> float:
        took = []
        for _ in range(TIMES):
            bank = FeatureBank(params, bars.symbols, bars.interval, chosen(sets, len(bars.symbols)))
            started = time.perf_counter()
            bank.compute(bars, reuse=True)
            took.append(time.perf_counter() - started)
        return 1e9 * min(took) / max(1, bars.close.size)

    whole = spent(every)
    return {name: max(0.0, whole - spent(_less(every, name))) for name in families}
