"""Trial counting: every row of a sweep, and every setting that a fold of a walk forward tried, becomes a trial of the ledger.

A trial is a setting on a lineage of candles (`spec` D-97). One that is tried on a fold has been tried on the lineage, so it counts as the
trial that it is on all its candles, once, in however many folds it was tried, and not again when it is swept or run there. Its figures are
those over all candles: ratios of short folds scatter more, and would say that the trials differ by more than they do.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore import Params
from research.data.sketch import sketch
from research.evidence.ledger import Ledger
from research.evidence.trials import Trial, TrialSummary, daily_returns, hash_params, naming
from research.runs.case import Case
from research.runs.metrics import outcomes
from research.runs.space import BLOCK, Listed, Space
from research.sweep.trials import PART, SweepResult
from research.sweep.work import Settings
from research.training.predictions import hash_votes

SAMPLE = 200  # rows that are run again alone
AT_ONCE = 20_000  # trials of one transaction of the ledger


@dataclass
class FoldCounter:
    """Counts what the folds of a walk forward tried, fold by fold. case: all candles, called `data`; known: settings counted already.

    tried: what the lineage has seen, None before the first fold.
    """

    case: Case
    n_folds: int
    data: str = ""
    known: set[bytes] = field(default_factory=set)
    tried: TrialSummary | None = None

    def __call__(self, fold: SweepResult) -> TrialSummary:
        """Count the finished trials of a fold that are not known, also when it was stopped; return what the lineage has seen."""
        space = fold.space
        drawn = [space.draw(first, first + len(table)) for first, table in zip(sorted(fold.parts), fold.blocks(["trial"]), strict=True)]
        chosen = [np.concatenate(columns) for columns in zip(*drawn, strict=True)]
        found: dict[bytes, int] = {}
        for row, values in enumerate(np.stack([column.astype(np.float64) for column in chosen], axis=1)):
            found.setdefault(values.tobytes(), row)
        new = [row for key, row in found.items() if key not in self.known]
        self.known.update(found)
        if new or self.tried is None:
            listed = Listed(space.base, space.axes, space.search, len(new), space.seed, [column[new] for column in chosen])
            work, parts = Settings(listed, self.case), range(0, len(new), BLOCK)
            whole = SweepResult(listed, self.case, {first: work.rows(first, min(first + BLOCK, len(new))) for first in parts})
            self.tried = count(whole, self.data, "walk forward", -(-SAMPLE // self.n_folds))
        return self.tried


def count(trials: SweepResult, data: str = "", what: str = "sweep", n_alone: int = SAMPLE) -> TrialSummary:
    """Count every finished row in the ledger, and return what the lineage has seen.

    The trials are called `<what> of <data> over <parameters>`. n_alone: rows that are run again alone: their bits must be the same, their
    daily returns tell how alike the trials are.
    """
    case, space, ledger = trials.case, trials.space, Ledger()
    mine, name = sketch(case.bars), f"{what}{f' of {data}' if data else ''} over {', '.join(space.names)}"
    predictions, votes = case.predictions_hash(space.base), hash_votes(case.votes)
    hashes = ParamsHash(space)
    wanted = set(np.unique(np.linspace(0, len(trials) - 1, n_alone).astype(int)).tolist())
    batch: list[Trial] = []
    seen = 0
    for table in trials.blocks():
        drawn = space.draw(int(table["trial"].iloc[0]), int(table["trial"].iloc[-1]) + 1)
        figures = table[["sharpe_bar", "skew", "kurtosis", "n_bars"]].itertuples(index=False)
        for row, (sharpe, skew, kurtosis, n_bars) in enumerate(figures):
            first_day, returns = 0, np.empty(0, np.float32)
            if seen in wanted:
                known = int(table["trial"].iloc[row]), int(table["outcome"].iloc[row])
                first_day, returns = _alone(trials, space.base.with_values(space.values(drawn, row)), *known)
            key = hashes.of(space.values(drawn, row))
            shape = int(n_bars), skew, kurtosis, case.bars_per_year
            batch.append(Trial(mine, key, predictions, sharpe, first_day, returns, name, *shape, votes=votes))
            seen += 1
        if len(batch) >= AT_ONCE:
            ledger.add(batch)
            batch = []
    if batch:
        ledger.add(batch)
    return ledger.tried(mine)


def _alone(trials: SweepResult, params: Params, trial: int, outcome: int) -> tuple[int, NDArray[np.float32]]:
    """Run one setting alone and compare its bits with its row; return the daily returns."""
    result, metrics = trials.case.single(params)
    if int(outcomes(metrics)[0]) != outcome:
        first = max(first for first in trials.parts if first <= trial)
        if first in trials.resumed:
            raise PART.error(trials.parts[first], f"with another outcome of trial {trial:,} than its setting gives")
        raise RuntimeError(f"trial {trial:,} gave other bits alone: {outcomes(metrics)[0]} against {outcome}")
    return daily_returns(trials.case.bars.close_time, result.equity)


class ParamsHash:
    """Names resolved parameters as `hash_params` does, at a tenth of the time: only what varies is written again."""

    def __init__(self, space: Space) -> None:
        self._flat, self._names = space.base.flat(), sorted(space.names)
        text = json.dumps(naming(self._flat | {name: f"\0{name}" for name in space.names}), sort_keys=True)
        self._pieces: list[str] = []
        for name in self._names:
            head, text = text.split(json.dumps(f"\0{name}"), 1)
            self._pieces.append(head)
        self._tail = text

    def of(self, values: Mapping[str, Any]) -> str:
        """Name the base with `values`, which hold every axis as `Params.flat` shows it."""
        if len(naming(values)) < len(values):
            return hash_params(self._flat | dict(values))
        parts: Iterable[str] = (piece + json.dumps(values[name]) for piece, name in zip(self._pieces, self._names, strict=True))
        return hashlib.sha256(("".join(parts) + self._tail).encode()).hexdigest()[:32]
