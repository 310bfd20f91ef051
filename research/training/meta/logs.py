"""Meta training from logs: a prediction log and its outcomes (`spec` 12.1) become rows of a walk-forward training.

A log is a file of JSON lines with its CSV of outcomes, or the journal of `qt live`, which knows the outcomes of its own trades.

Nothing is repaired in silence: every line that is skipped, doubled, out of order or without a partner is counted (`Log.counts`). Labels are
L6: the traded action where the trade won, HOLD where it did not; in mode `bet` BUY where it won and SELL where it did not, as `fit_bets`
takes them. A line without an outcome neither trains nor scores: what the ensemble said of it is a function of the votes that the model is
shown, and no outcome.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from qtcore import Params
from qtcore.choices import MetaMode
from qtcore.types import F8, I8, N_MODELS, Action, Votes
from research.data.clock import parse_time
from research.errors import ModelError
from research.training.labels import outcome_labels, uniqueness
from research.training.meta.log_files import LogLines, meet, read_log_lines, read_outcome_lines
from research.training.meta.schedule import MetaSchedule
from research.training.meta.train import MIN_ROWS, Material, MetaPlan, build_table, resolve_plan, train_folds
from research.training.splits import walk_forward
from research.training.weights import Named, settled

N_FOLDS, MINUTE = 5, 60_000_000_000


@dataclass(frozen=True)
class Log:
    """A log on a grid of n decision times and S symbols.

    votes [5, n, S]; regime [2, n, S], NaN where it was not logged; ensemble_action and traded int8 [n, S], -1 where there is no line or no
    outcome; labels int8 [n, S] and end [n]: see `outcome_labels`. counts: lines by what became of them.
    """

    close_time: I8
    symbols: tuple[str, ...]
    votes: Votes
    regime: F8
    ensemble_action: NDArray[np.int8]
    traded: NDArray[np.int8]
    labels: NDArray[np.int8]
    end: I8
    counts: dict[str, int]
    source: str = ""
    hash: str = ""  # of everything that was read


def train_from_log(
    log: str | Path | LogLines,
    outcomes: str | Path | None = None,
    params: Params | None = None,
    *,
    min_date: str | None = None,
    tolerance_minutes: float = 0.0,
    **asked: Any,
) -> tuple[MetaSchedule, dict[str, int]]:
    """Train the meta layer of `params.meta.mode` from a log and its outcomes; return schedule and counts.

    log: a file of JSON lines, or what `research.live.journal.outcomes.read_outcomes` read of a journal, which holds its outcomes. Five
    expanding, purged folds. min_date: lines before it, in UTC, are left out. tolerance_minutes: see `read_log`. asked: kind, vector,
    calibration, smote, seed of `train_meta`. Raises UserError where files cannot be read, or with fewer than 1,000 rows with an outcome:
    nothing synthetic takes their place.
    """
    read = read_log(log, outcomes, min_date, tolerance_minutes)
    slots = tuple(name for m, name in enumerate(read.votes.names) if (read.votes.action[m] >= 0).any())
    params = settled(params or Params(), Named(read.votes.names, slots))
    has_outcome, n_voters = read.labels >= 0, (read.votes.action >= 0).sum(axis=0)
    n_rows, n_alone = int(np.sum(has_outcome & (n_voters >= 2))), int(np.sum(has_outcome & (n_voters < 2)))
    if n_rows < MIN_ROWS:
        text = f"{read.source} must have at least {MIN_ROWS:,} lines with an outcome and two voters or more, was {n_rows:,}"
        if n_rows + n_alone >= MIN_ROWS:  # more of the same would not help
            raise ModelError(
                f"{text} and {n_alone:,} with an outcome but one voter at most ({', '.join(slots) or 'none'}); log two base models or more"
            )
        more = "; log a longer period" if n_rows >= n_alone else f", beside {n_alone:,} with one voter at most; log two base models or more"
        raise ModelError(text + more)
    horizon = int(max(1, np.max(read.end - np.arange(len(read.end)))))
    plan: MetaPlan = resolve_plan(params, read.votes.names[N_MODELS - 1] in slots, False, horizon, has_closes=False, **asked)
    folds = walk_forward(read.end, n_folds=N_FOLDS, train_share=1.0 / (N_FOLDS + 1), embargo=horizon)
    about: dict[str, Any] = {
        "label": {"id": "L6", "horizon": horizon},
        "data_fingerprint": f"log {read.hash[:16]}",
        "symbols": list(read.symbols),
    }
    about |= {"base_models": list(slots), "voters": list(read.votes.names)}
    about |= {"base_predictions": "log", "base_weights": list(params.ensemble.weights), "counts": read.counts}
    table = build_table(plan.vector, read.votes, {"volatility": read.regime[0], "trend_strength": read.regime[1]})
    spans = tuple((f.number, f.boundary, int(f.test[-1]) + 1) for f in folds)
    labels, weights = read.labels, None
    traded: NDArray[np.int8] | None = read.traded
    if params.meta.mode == MetaMode.BET:  # as `bets_of` has them: the question is whether a bet pays, on either side
        labels = np.where(has_outcome, np.where(labels == traded, Action.BUY, Action.SELL), Action.ABSENT).astype(np.int8)
        traded, weights = None, uniqueness(labels, read.end)
    material = Material(table, labels, read.end, read.close_time, read.regime, spans, 0, about, traded, weights)
    made = train_folds(material, plan, params)
    if not made.artefacts:
        raise ModelError(f"{read.source} must be enough for a meta model, was not: {made.notes[0]}")
    return made, read.counts


def read_log(
    log: str | Path | LogLines, outcomes: str | Path | None = None, min_date: str | None = None, tolerance_minutes: float = 0.0
) -> Log:
    """Read and join a prediction log (JSON lines) and its outcomes (CSV), or take what a journal held of both.

    Each line takes the outcome of its symbol with its timestamp, or with a tolerance the nearest one opened up to so many minutes before
    it; of doubled lines and outcomes the last one counts (D-72). Naive timestamps are UTC. Raises UserError where nothing can be read.
    """
    held = log if isinstance(log, LogLines) else _lines_of(Path(log), outcomes)
    lines, counts = held.lines, held.counts
    if min_date is not None:
        start = pd.Timestamp(parse_time(min_date, "min_date (--min-date)"), tz="UTC")
        counts["lines before the first date"] = int((lines["timestamp"] < start).sum())
        lines = lines[lines["timestamp"] >= start]
    if lines.empty:
        raise ModelError(f"{held.source} must have lines of predictions, was without a usable one: {counts}")
    counts["lines out of order"] = int((lines["timestamp"].diff().dt.total_seconds() < 0).sum())
    counts["doubled lines"] = int(lines.duplicated(["timestamp", "symbol"], keep="last").sum())
    lines = lines.drop_duplicates(["timestamp", "symbol"], keep="last").sort_values("timestamp", kind="stable")
    width = pd.Timedelta(minutes=tolerance_minutes)
    joined = pd.merge_asof(lines, held.traded, on="timestamp", by="symbol", tolerance=width, direction="backward")
    counts["lines without an outcome"] = int(joined["outcome"].isna().sum())
    used = joined.dropna(subset=["opened"]).drop_duplicates(["opened", "symbol"])
    counts["outcomes without a line"] = len(held.traded) - len(used)
    counts["rows"] = len(joined)
    return _on_grid(joined, held)


def _lines_of(log: Path, outcomes: str | Path | None) -> LogLines:
    if outcomes is None:
        text = f"a log must come with its outcomes, was {log} alone; research.live.journal.outcomes.read_outcomes reads a journal"
        raise ModelError(text)
    lines, counts, names = read_log_lines(log)
    traded = meet(lines, read_outcome_lines(Path(outcomes), counts))
    return LogLines(str(log), lines, traded, counts, hashlib.sha256(log.read_bytes() + Path(outcomes).read_bytes()).hexdigest(), names)


def _on_grid(joined: pd.DataFrame, held: LogLines) -> Log:
    times = joined["timestamp"].to_numpy("datetime64[ns]").astype(np.int64)
    close_time, row = np.unique(times, return_inverse=True)
    symbols, column = np.unique(joined["symbol"].to_numpy(str), return_inverse=True)
    shape = (len(close_time), len(symbols))
    action, confidence = np.full((N_MODELS, *shape), -1, np.int8), np.full((N_MODELS, *shape), np.nan)
    said = np.stack(joined["said"].to_list())
    action[:, row, column], confidence[:, row, column] = said[:, 0].T.astype(np.int8), said[:, 1].T
    regime, ensemble = np.full((2, *shape), np.nan), np.full(shape, -1, np.int8)
    regime[:, row, column] = np.stack(joined["regime"].to_list()).T
    ensemble[row, column] = joined["ensemble"].to_numpy(np.int8)
    has = joined["outcome"].notna().to_numpy()
    closed = times[has] + (joined["minutes"].to_numpy(np.float64)[has] * MINUTE).astype(np.int64)
    end = np.minimum(np.searchsorted(close_time, closed), len(close_time) - 1)
    won, side = (joined["outcome"] == "win").to_numpy()[has], joined["traded"].to_numpy(np.float64)[has].astype(np.int8)
    traded = np.full(shape, -1, np.int8)
    traded[row[has], column[has]] = side
    labels, last = outcome_labels(shape, row[has], column[has], side, won, end)
    return Log(
        close_time,
        tuple(symbols.tolist()),
        Votes(action, confidence, None, held.names),
        regime,
        ensemble,
        traded,
        labels,
        last,
        held.counts,
        held.source,
        held.digest,
    )
