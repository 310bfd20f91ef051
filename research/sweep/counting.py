"""Trial counting: every row of a sweep, and every setting that a fold of a walk forward tried, becomes a trial of the ledger.

A trial is a setting on a lineage of candles (`spec` D-97). One that is tried on a fold has been tried on the lineage, so it counts as the
trial that it is on all its candles, once, in however many folds it was tried, and not again when it is swept or run there. Its figures are
those over all candles: ratios of short folds scatter more, and would say that the trials differ by more than they do.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from qtcore import Params
from research.data.sketch import Sketch, sketch
from research.evidence.family import Drawn
from research.evidence.ledger import Ledger
from research.evidence.trials import Trial, TrialSummary, daily_returns, hash_params, naming
from research.runs.case import Case
from research.runs.metrics import outcomes
from research.runs.space import BLOCK, Listed, Space
from research.sweep.drawing import Drawing
from research.sweep.trials import PART, SweepResult
from research.sweep.work import Settings
from research.training.predictions import hash_votes

SAMPLE = 200  # rows that are run again alone


@dataclass
class Counter:
    """Counts the settings of `space` in the ledger, part by part, each with what it draws.

    The trials are called `<what> of <data> over <parameters>`. n_alone: rows that are run again alone: their bits must be the same, their
    daily returns tell how alike the trials are.
    """

    space: Space
    case: Case
    data: str = ""
    what: str = "sweep"
    n_alone: int = SAMPLE
    _counted: set[int] = field(default_factory=set)

    @cached_property
    def sketch(self) -> Sketch:
        """Sample of the candles."""
        return sketch(self.case.bars)

    @cached_property
    def drawing(self) -> Drawing:
        """How the settings must be drawn for the lineage of the candles."""
        return Drawing(self.case, Ledger().lineage_name(self.sketch))

    @cached_property
    def _alone(self) -> set[int]:
        return set(np.unique(np.linspace(0, self.space.size - 1, self.n_alone).astype(int)).tolist())

    @cached_property
    def _said(self) -> tuple[str, str]:
        """Names of what the models and the meta layer said, and of what the models said."""
        return self.case.predictions_hash(self.space.base), hash_votes(self.case.votes)

    def part(self, table: pd.DataFrame, drawn: Drawn) -> None:
        """Count the rows of a part that was run here, before it is kept anywhere."""
        Ledger().add(list(self._trials(table)), drawn)
        self._counted.add(int(table["trial"].iloc[0]))

    def finish(self, trials: SweepResult) -> TrialSummary:
        """Count what another process ran and did not live to count; return what the lineage has seen."""
        for first, table in zip(sorted(trials.parts), trials.blocks(), strict=True):
            if first not in self._counted:
                self._count_again(table, trials)
        return Ledger().tried(self.sketch)

    def _count_again(self, table: pd.DataFrame, trials: SweepResult) -> None:
        """Run the rows of a stored part again whose returns the ledger does not know, and count them all."""
        found = list(self._trials(table, trials))
        unknown = set(Ledger().unknown(self.sketch, [trial.params for trial in found], self._said[0]))
        rows = np.array([row for row, trial in enumerate(found) if trial.params in unknown], np.int64)
        if len(rows):
            drawn = self.space.pick(table["trial"].to_numpy(np.int64)[rows])
            listed = Listed(self.space.base, self.space.axes, self.space.search, len(rows), self.space.seed, drawn)
            Ledger().add(found, Settings(listed, self.case, self.drawing)((0, len(rows), None))[-1])

    def _trials(self, table: pd.DataFrame, stored: SweepResult | None = None) -> Iterator[Trial]:
        """Describe the rows of a part as trials. stored: where they lie when another process ran them."""
        space, hashes = self.space, ParamsHash(self.space)
        name = f"{self.what}{f' of {self.data}' if self.data else ''} over {', '.join(space.names)}"
        drawn = space.draw(int(table["trial"].iloc[0]), int(table["trial"].iloc[-1]) + 1)
        figures = table[["trial", "sharpe_bar", "skew", "kurtosis", "n_bars"]].itertuples(index=False)
        for row, (trial, sharpe, skew, kurtosis, n_bars) in enumerate(figures):
            first_day, returns, values = 0, np.empty(0, np.float32), space.values(drawn, row)
            if int(trial) in self._alone:
                first_day, returns = self._run_alone(space.base.with_values(values), int(trial), int(table["outcome"].iloc[row]), stored)
            shape = int(n_bars), skew, kurtosis, self.case.bars_per_year
            predictions, votes = self._said
            yield Trial(self.sketch, hashes.of(values), predictions, sharpe, first_day, returns, name, *shape, votes=votes)

    def _run_alone(self, params: Params, trial: int, outcome: int, stored: SweepResult | None) -> tuple[int, NDArray[np.float32]]:
        """Run one setting alone and compare its bits with its row; return the daily returns."""
        result, metrics = self.case.single(params)
        if int(outcomes(metrics)[0]) != outcome:
            if stored is not None:
                first = max(first for first in stored.parts if first <= trial)
                raise PART.error(stored.parts[first], f"with another outcome of trial {trial:,} than its setting gives")
            raise RuntimeError(f"trial {trial:,} gave other bits alone: {outcomes(metrics)[0]} against {outcome}")
        return daily_returns(self.case.bars.close_time, result.equity)


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
        listed = Listed(space.base, space.axes, space.search, len(new), space.seed, [column[new] for column in chosen])
        counter = Counter(listed, self.case, self.data, "walk forward", -(-SAMPLE // self.n_folds))
        work = Settings(listed, self.case, counter.drawing)
        for first in range(0, len(new), BLOCK):
            counter.part(*work.part(first, min(first + BLOCK, len(new))))
        self.tried = Ledger().tried(counter.sketch)
        return self.tried


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
