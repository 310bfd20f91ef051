"""Behaviour envelope of a backtest, against which live is held: bands for rates, calibration, accuracy and feature drift.

A backtest is cut into windows of `window` bars, one behind the other. Each figure of a window (a share, a calibration gap, the drift of a
feature) is one observation: a window holds what follows itself in time and what symbols do together, so that no cell is taken for
independent. The next window, the live one, must fall into the prediction interval `mean +- t * sd * sqrt(1 + 1 / m)` of the m windows, t of
Student with m - 1 degrees at level 0.001 for each figure (Hahn, Meeker 1991, 4.6), on a scale where it is about normal: `arcsin(sqrt(p))`
for shares, whose sd is at least the binomial one, `log` for drift, none for gaps. `n_effective` says how many independent cells the windows
are worth: `p (1 - p) / var` of a window's share, times m (`spec` D-93).

Drift is the population stability index between a window and the whole backtest, `sum((a - e) * ln(a / e))` over deciles of the backtest, a
and e the shares of a bin with half a count added (Siddiqi 2006, Credit Risk Scorecards; its sampling distribution: Yurdakul, Naranjo 2020,
J. Risk Model Validation 14). Under 0.1 it is never an alarm, as Siddiqi reads it; above, the backtest's own windows say what is usual:
hourly features of one week lie at 0.2 to 1.5 without any drift.

Measured 2026-11, 14 spans of two months on hourly candles of 2021 to 2023, 20 features, a look a day: no alarm; with returns three and five
times as large in 6 and 10 of the 14 spans.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.features import FeatureBank, chosen
from qtcore.params import Params
from qtcore.rules import Reason, codes, refusals
from qtcore.types import F8, Action, Bars, Source, Verdict
from research.errors import UserError
from research.files import Kind, read_json, save_json
from research.runs.record import RunRecord
from research.training.labels import LABEL_SHAPE, Label, classify, limits, look_ahead

SCHEMA_VERSION = 1
MIN_RATE = 50  # observations that a rate needs before it is judged (`spec` 13.5)
FILE = "envelope.json"
ENVELOPE = Kind(
    "the envelope of a run as the backtest wrote it",
    "run the backtest again",
    {
        "window": int,
        "bars": int,
        "interval": int,
        "symbols": [str],
        "label": LABEL_SHAPE,
        "thresholds": {side: {...: (float, None)} for side in ("sell", "buy")},
        "edges": {...: [float]},
        "shares": {...: [float]},
        "figures": {...: {"value": float, "mean": float, "sd": float, "n_effective?": float}},
    },
)
WINDOW, SHORTEST, PER_WINDOW = 168, 24, 40  # bars of a window: a week of hours, or a fortieth of a shorter backtest
MIN_WINDOWS, BINS, LEVEL, USUAL_DRIFT = 8, 10, 0.001, 0.1
REGIME = ("volatility", "trend_strength")
DECISIONS = ("n_voters", "verdict", "arbiter_action", "source", "raw_action", "governor_reason")  # columns that `bar_counts` reads

Counts = dict[str, F8]  # per figure [n, k]: what each bar adds to it


@dataclass(frozen=True)
class Envelope:
    """What a backtest was like. document: what `envelope.json` holds."""

    document: Mapping[str, Any]

    @property
    def window(self) -> int:
        """Bars of a window."""
        return int(self.document["window"])

    @property
    def features(self) -> tuple[str, ...]:
        """Planes whose drift is measured, the regime's two last."""
        return tuple(self.document["edges"])

    @property
    def edges(self) -> dict[str, F8]:
        """Inner edges of the bins of each feature."""
        return {name: np.array(edges) for name, edges in self.document["edges"].items()}

    @property
    def horizon(self) -> int:
        """Bars until a label is known."""
        return int(self.document["label"]["horizon"])

    def labels(self, bars: Bars, volatility: F8) -> NDArray[np.int8]:
        """Label bars as the backtest's last fold did; -1 where that is not known yet. volatility [n, S]: of a bar's return."""
        label, known = Label.from_dict(self.document["label"]), self.document["thresholds"]
        return classify(look_ahead(bars, label, volatility)[0], label, *limits(label, known, bars.symbols))

    def compare(self, counts: Counts) -> list[dict[str, Any]]:
        """Compare summed counts of a live window: name, value, band (low, high), n, usual value, and whether the value is outside."""
        shares = {name: np.array(share) for name, share in self.document["shares"].items()}
        found = figures({name: part.sum(axis=0) for name, part in counts.items()}, shares)
        rows = []
        for name, (value, n) in found.items():
            known = self.document["figures"].get(name)
            if known is None or n < MIN_RATE or value is None:
                continue
            low, high = band(name, known, n)
            is_out = bool(value > high or value < low)
            usual = math.exp(known["mean"]) if name.startswith("drift.") else known["value"]  # the whole does not drift from itself
            rows.append({"name": name, "value": value, "low": low, "high": high, "n": int(n), "usual": usual, "is_out": is_out})
        return rows

    def save(self, folder: Path) -> None:
        """Write `envelope.json` into a folder, whole or not at all."""
        save_json(folder / FILE, self.document)

    @classmethod
    def load(cls, path: Path) -> "Envelope | None":
        """Read an `envelope.json`, None where there is none. Raises UserError where it is damaged or of another version."""
        if not path.exists():
            return None
        document = read_json(path, replace(ENVELOPE, shape={"schema_version": int}))
        if document["schema_version"] != SCHEMA_VERSION:
            raise UserError(f"{path} must be of schema {SCHEMA_VERSION}, was {document['schema_version']}; run the backtest again")
        document = ENVELOPE.check(document, path)
        edges, shares = document["edges"], document["shares"]
        if set(shares) != set(edges) or any(len(shares[name]) != BINS or edges[name] != sorted(set(edges[name])) for name in edges):
            raise ENVELOPE.error(path, f"with edges that do not rise, or other shares than {BINS} a feature")
        return cls(document)


def bar_counts(
    planes: Mapping[str, NDArray],
    voters: Mapping[str, tuple[NDArray, NDArray]],
    labels: NDArray[np.int8],
    horizon: int,
    features: Mapping[str, F8],
    edges: Mapping[str, F8],
) -> Counts:
    """Count what each bar adds to every figure; all planes [n, S], so cutting the bars changes nothing but the first `horizon` rows.

    planes: the columns `DECISIONS`. voters: (action, confidence), -1 and NaN where absent. A vote counts at the bar that tells its label,
    `horizon` bars later. A missing value of a feature counts nowhere.
    """
    judged, called = planes["n_voters"] >= 2, planes["arbiter_action"] >= 0
    approved = planes["governor_reason"] == Reason.APPROVED
    refused = (planes["raw_action"] != Action.HOLD) & np.isin(planes["governor_reason"], codes(refusals()))
    pairs = {
        "escalation": (planes["verdict"] == Verdict.ESCALATE, judged),
        "defer": (planes["verdict"] == Verdict.DEFER, judged),
        "override": (planes["verdict"] == Verdict.OVERRIDE, judged),
        "arbiter_accept": (planes["source"] == Source.ARBITER, called),
        "rejection": (refused, refused | approved),
    }
    out = {f"rate.{name}": _rows(hit & base, base) for name, (hit, base) in pairs.items()}
    known = _delayed(labels, horizon, -1)
    for name, (action, confidence) in voters.items():
        said, sure = _delayed(action, horizon, -1), _delayed(confidence, horizon, np.nan)
        usable = (said >= 0) & (known >= 0) & ~np.isnan(sure)
        out[f"voter.{name}"] = _rows(usable, np.where(usable, sure, 0.0), usable & (said == known))
    for name, plane in features.items():
        bins = np.where(np.isnan(plane), -1, np.searchsorted(edges[name], plane, side="right"))
        out[f"drift.{name}"] = _rows(*(bins == b for b in range(BINS)))
    return out


def _rows(*planes: NDArray) -> F8:
    """Sum planes [n, S] over symbols: [n, number of planes]."""
    return np.stack([plane.sum(axis=1) for plane in planes], axis=1).astype(float)


def _delayed(plane: NDArray, rows: int, fill: float) -> NDArray:
    out = np.full(plane.shape, fill, plane.dtype)
    out[rows:] = plane[: len(plane) - rows]
    return out


def figures(total: Mapping[str, F8], shares: Mapping[str, F8]) -> dict[str, tuple[float | None, float]]:
    """Turn summed counts [k] into (value, observations) by name: `rate.*`, `accuracy.*`, `calibration.*`, `drift.*`."""
    out: dict[str, tuple[float | None, float]] = {}
    for name, part in total.items():
        kind, _, rest = name.partition(".")
        if kind == "rate":
            out[name] = (part[0] / part[1] if part[1] else None, part[1])
        elif kind == "voter":
            out[f"accuracy.{rest}"] = (part[2] / part[0] if part[0] else None, part[0])
            out[f"calibration.{rest}"] = ((part[1] - part[2]) / part[0] if part[0] else None, part[0])
        else:
            out[name] = (psi(part, shares[rest]) if part.sum() else None, part.sum())
    return out


def psi(counts: F8, expected: F8) -> float:
    """Measure the population stability index of counts [k] against shares [k], half a count added to each bin.

    >>> psi(np.array([10.0, 10.0]), np.array([0.5, 0.5]))
    0.0
    """
    n = counts.sum()
    a = (counts + 0.5) / (n + 0.5 * len(counts))
    e = (expected * n + 0.5) / (n + 0.5 * len(counts))
    return float(((a - e) * np.log(a / e)).sum())


def band(name: str, known: Mapping[str, Any], n: float) -> tuple[float, float]:
    """Return the prediction interval of a figure of `n` observations (see the top of this module)."""
    kind, m, sd = name.partition(".")[0], known["windows"], known["sd"]
    if kind in ("rate", "accuracy"):
        sd = max(sd, 0.5 / math.sqrt(n))
    sides = 1 if kind == "drift" else 2
    width = _quantile(sides, m) * sd * math.sqrt(1.0 + 1.0 / m)
    low, high = known["mean"] - width, known["mean"] + width
    if kind == "drift":
        return 0.0, max(math.exp(high), USUAL_DRIFT)
    if kind == "calibration":
        return low, high
    return math.sin(max(low, 0.0)) ** 2, math.sin(min(high, math.pi / 2.0)) ** 2


@cache
def _quantile(sides: int, m: int) -> float:
    from scipy.stats import t as student  # half a second that a status need not wait for

    return float(student.ppf(1.0 - LEVEL / sides, m - 1))


def _scaled(kind: str, value: float) -> float:
    if kind == "drift":
        return math.log(max(value, 1e-12))
    return value if kind == "calibration" else math.asin(math.sqrt(min(max(value, 0.0), 1.0)))


def envelope_of(run: RunRecord) -> Envelope | None:
    """Describe a run, from its first vote on; None where it is too short for eight windows of a day or more."""
    voted = np.flatnonzero((run.result.decisions.n_voters > 0).any(axis=1))
    rows = slice(int(voted[0]), run.bars.n) if len(voted) else slice(0, 0)
    n = rows.stop - rows.start
    window = max(min(WINDOW, n // PER_WINDOW), SHORTEST)
    if n // window < MIN_WINDOWS:
        return None
    models = run.predictions.models
    names = chosen(run.params.features.every_set, len(run.bars.symbols)) if models is None else models.feature_names
    planes = model_planes(run.params, run.bars, tuple(names), run.result.planes.regime)
    planes = {name: plane[rows] for name, plane in planes.items()}
    inner = np.linspace(0.0, 1.0, BINS + 1)[1:-1]
    finite = {name: plane[np.isfinite(plane)] for name, plane in planes.items()}
    edges = {name: np.unique(np.quantile(known, inner)) for name, known in finite.items() if len(known)}
    planes = {name: planes[name] for name in edges}
    decisions, votes = run.result.decisions, run.result.votes
    columns = {name: getattr(decisions, name)[rows] for name in DECISIONS if name != "governor_reason"}
    columns["governor_reason"] = run.result.governor_reason[rows]
    voters = {name: (votes.action[m, rows], votes.confidence[m, rows]) for m, name in enumerate(votes.names)}
    voters["ensemble"] = (decisions.ensemble_action[rows], decisions.ensemble_confidence[rows])
    label = run.predictions.label
    counts = bar_counts(columns, voters, run.labels[rows], label.horizon, planes, edges)
    thresholds = models.config["thresholds"][-1] if models is not None else {"sell": {}, "buy": {}}
    shares = {name.partition(".")[2]: part.sum(axis=0) / part.sum() for name, part in counts.items() if name.startswith("drift.")}
    document = {
        "schema_version": SCHEMA_VERSION,
        "window": window,
        "bars": n,
        "level": LEVEL,
        "interval": int(run.bars.interval),
        "symbols": list(run.bars.symbols),
        "label": label.to_dict(),
        "thresholds": thresholds,
        "edges": {name: edge.tolist() for name, edge in edges.items()},
        "shares": {name: share.tolist() for name, share in shares.items()},
        "figures": _usual(counts, shares, window),
    }
    return Envelope(document)


def model_planes(params: Params, bars: Bars, names: tuple[str, ...], regime: F8) -> dict[str, F8]:
    """Compute the named features [n, S] that need no code of a user's, and put the regime's two planes behind them."""
    from qtcore.features import FEATURES

    known = tuple(name for name in names if name in FEATURES)
    planes = FeatureBank(params, bars.symbols, bars.interval, known).compute(bars)
    return {name: planes[name] for name in known} | dict(zip(REGIME, regime))


def _usual(counts: Counts, shares: Mapping[str, F8], window: int) -> dict[str, dict[str, float]]:
    """Describe every figure by its windows: value of the whole, mean and sd of the windows on the figure's scale, their number."""
    n_windows = len(next(iter(counts.values()))) // window
    whole = figures({name: part.sum(axis=0) for name, part in counts.items()}, shares)
    parts = [
        figures({name: part[k * window : (k + 1) * window].sum(axis=0) for name, part in counts.items()}, shares) for k in range(n_windows)
    ]
    out = {}
    for name, (value, _) in whole.items():
        kind = name.partition(".")[0]
        seen = [v for v, n in (part[name] for part in parts) if v is not None and n >= MIN_RATE]
        if value is None or len(seen) < MIN_WINDOWS:
            continue
        scaled = np.array([_scaled(kind, v) for v in seen])
        out[name] = {"value": value, "mean": float(scaled.mean()), "sd": float(scaled.std(ddof=1)), "windows": len(seen)}
        if kind in ("rate", "accuracy") and (spread := float(np.var(seen, ddof=1))) > 0.0:
            out[name]["n_effective"] = len(seen) * value * (1.0 - value) / spread
    return out


def write_envelope(run: RunRecord, folder: Path) -> None:
    """Put `envelope.json` into a run's folder, and beside its models, where `qt live` looks for it."""
    found = envelope_of(run)
    if found is not None:
        for place in (folder, folder / "models"):
            if place.is_dir():
                found.save(place)
