"""Adaptive search: batches of settings that what is known makes promising (tree-structured Parzen estimator of optuna).

A batch is asked for at once, run side by side, and told. It depends on the seed, its place and what was told before it, on nothing else:
a search that is interrupted goes on with the trials it would have had. Each is a trial of the ledger like any other; a search that looks
where it is bright finds luck sooner, and the deflated ratio counts every look.

TPE's time grows with what it is told (2026-11: 25 ms a setting after 500, 80 after 1,000), so it hears 500 at most: the better half of them
the best so far, the rest an even draw.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from research.runs.space import Listed, Space
from research.sweep.rules import Rule, parse_objective, parse_rules
from research.sweep.trials import read_part

BATCH = 64  # settings that are asked for at once: the lanes of the kernel
BATCHES = 100  # at most; larger searches have larger batches
HEARD = 500  # trials that optuna is told
UNKNOWN = -1e18  # score of a trial without the figure


@dataclass(frozen=True)
class Adaptive(Listed):
    """The settings of an adaptive search: those before a batch are known when it is asked for.

    objective: figure and sign; rules: constraints that the best must keep. chosen: what was asked for or told so far. scores [size],
    excess [size, rules]: of the trials told; by how much each rule is broken (at most 0 where kept).
    """

    objective: tuple[str, float] = ("sharpe", 1.0)
    rules: tuple[Rule, ...] = ()
    scores: NDArray[np.float64] = field(default_factory=lambda: np.empty(0), compare=False, repr=False)
    excess: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)), compare=False, repr=False)

    @classmethod
    def begin(cls, space: Space, objective: str, where: Sequence[str], columns: Sequence[str]) -> Self:
        """Start a search of `space` for the largest `objective` (smallest of `-max_drawdown`) that keeps `where`; both name `columns`."""
        rules, n = parse_rules(where, columns), space.size
        chosen = [np.zeros(n, np.float64 if axis.is_free else np.int64) for axis in space.axes]
        told: dict[str, Any] = {"scores": np.full(n, UNKNOWN), "excess": np.zeros((n, len(rules)))}
        return cls(space.base, space.axes, space.search, n, space.seed, chosen, parse_objective(objective, columns), rules, **told)

    @property
    def batch(self) -> int:
        """Settings that are asked for at once."""
        return max(BATCH, -(-self.size // BATCHES // BATCH) * BATCH)

    def run(self, store: Any, work: Callable[[int, int], None], progress: Any = None) -> None:
        """Ask for, run and keep (`work`), and tell batch after batch; what `store` holds already is told as it was."""
        started, n_run = time.monotonic(), 0
        for first in range(0, self.size, store.step):
            last = min(first + store.step, self.size)
            if first not in store.parts:
                self.ask(first, last)
                work(first, last)
                n_run += last - first
                if progress is not None:
                    progress(last, self.size, f"sweep: {n_run / max(time.monotonic() - started, 1e-9):,.0f} settings/s")
            self.tell(first, read_part(store.parts[first]))

    def tell(self, first: int, table: pd.DataFrame) -> None:
        """Take the finished trials from number `first` on, with their figures and, as a stored part has them, their settings."""
        last, (column, sign) = first + len(table), self.objective
        for axis, chosen, shown in zip(self.axes, self.chosen, self.shown(), strict=True):
            given = table[axis.name].tolist()
            chosen[first:last] = given if axis.is_free else [shown.index(value) for value in given]
        self.scores[first:last] = np.nan_to_num(sign * table[column].to_numpy(np.float64), nan=UNKNOWN, posinf=-UNKNOWN, neginf=UNKNOWN)
        for i, rule in enumerate(self.rules):
            over = table[rule.column].to_numpy(np.float64) - rule.limit
            self.excess[first:last, i] = np.nan_to_num(over if rule.sign[0] == "<" else -over, nan=-UNKNOWN, posinf=-UNKNOWN)

    def ask(self, first: int, last: int) -> None:
        """Choose the settings [first, last) by what was told of those before."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        seed = int(np.random.SeedSequence([self.seed, first]).generate_state(1)[0])
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=self.batch)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        axes = self._distributions()
        told = [
            optuna.trial.create_trial(
                value=float(self.scores[row]),
                params={axis.name: chosen[row].item() for axis, chosen in zip(self.axes, self.chosen, strict=True)},
                distributions=axes,
                constraints={f"rule {i}": float(value) for i, value in enumerate(self.excess[row])},
            )
            for row in self._heard(first)
        ]
        study.add_trials(told)
        for row in range(first, last):
            asked = study.ask(axes).params
            for axis, chosen in zip(self.axes, self.chosen, strict=True):
                chosen[row] = asked[axis.name]

    def _heard(self, n: int) -> NDArray[np.int64]:
        """Pick HEARD of the n trials told, ascending: those that keep the rules or nearly do, by score, and an even draw of the rest."""
        if n <= HEARD:
            return np.arange(n)
        order = np.lexsort((-self.scores[:n], np.maximum(self.excess[:n], 0.0).sum(axis=1)))
        rest = order[HEARD // 2 :]
        return np.sort(np.append(order[: HEARD // 2], rest[np.linspace(0, len(rest) - 1, HEARD - HEARD // 2).astype(int)]))

    def _distributions(self) -> dict[str, Any]:
        """Say to optuna what each axis may be: a range, places of rising numbers, or places without an order."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        out: dict[str, Any] = {}
        for axis in self.axes:
            numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in axis.values)
            if axis.is_free:
                out[axis.name] = FloatDistribution(axis.low, axis.high)
            elif numbers and list(axis.values) == sorted(axis.values):
                out[axis.name] = IntDistribution(0, len(axis.values) - 1)
            else:
                out[axis.name] = CategoricalDistribution(list(range(len(axis.values))))
        return out

    def describe(self) -> dict[str, Any]:
        """Describe the search as JSON holds it."""
        rules = [[rule.column, rule.sign, rule.limit] for rule in self.rules]
        return super().describe() | {"objective": list(self.objective), "rules": rules}
