"""Error rates of the verdict, measured on worlds whose answer is known: how often is luck called an edge, and how often is skill missed?

`python -m tests.verdict_rates returns` gives the verdict's own functions returns of accounts; `... stepm` gives the same worlds to Romano
and Wolf's StepM too; `... product` trains, trades and judges whole worlds of candles. Each goes on where it was stopped, in
`docs/verdict_rates.json`, which the tables of README and docs are made of. The number of a world is its seed. A cell is kept with the hash
of the code that began it and with the figures of its first FIRST worlds; where the code of today finds others for these, the cell is
measured anew.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from scipy.signal import lfilter
from scipy.special import ndtr, ndtri

import research
from qtcore.jit import source_hash
from qtcore.params import Params
from qtcore.types import F8, NS_PER_DAY, Bars
from research.data import simulate
from research.evidence.alpha import Hedge
from research.evidence.overfitting import superiority
from research.evidence.sign_test import F4, critical, drawn, independent, limits
from research.files import replacing
from tests.support import known_worlds

PLACE = Path(__file__).parents[1] / "docs" / "verdict_rates.json"
FIRST, BATCH = 20, 100  # worlds: by which a cell is known again; between two looks at another cell
YEARS, TRIALS, CORRELATIONS, SHARPES = (1, 3, 8), (1, 20, 100), (0.0, 0.6), (1.0, 1.5)
DAYS, DEVIATION, BURN = 365, 0.01, 60  # a year; of an account's and the market's day; days of the market before the test


def normal(rng: np.random.Generator, n: int, days: int) -> F8:
    return rng.standard_normal((n, days))


def t5(rng: np.random.Generator, n: int, days: int) -> F8:
    return rng.standard_t(5, (n, days)) * math.sqrt(3.0 / 5.0)


def ar(rng: np.random.Generator, n: int, days: int) -> F8:
    """AR(1) with 0.2 from one day to the next."""
    shocks = rng.standard_normal((n, days + 50)) * math.sqrt(1.0 - 0.04)
    return lfilter([1.0], [1.0, -0.2], shocks)[:, 50:]


@njit
def clustered(shocks: F8) -> F8:
    """Return shocks [n, days] with the deviations of GARCH(1, 1), 0.08 and 0.90."""
    out = np.empty_like(shocks)
    for i in range(len(shocks)):
        variance = 1.0
        for t in range(shocks.shape[1]):
            out[i, t] = math.sqrt(variance) * shocks[i, t]
            variance = 0.02 + 0.08 * out[i, t] ** 2 + 0.90 * variance
    return out


def garch(rng: np.random.Generator, n: int, days: int) -> F8:
    """GARCH with t5 shocks, and a jump of four deviations on one day in a hundred."""
    out = clustered(t5(rng, n, days + 200))
    jumps = 4.0 * rng.choice([-1.0, 1.0], (n, days)) * (rng.random((n, days)) < 0.01)
    return (out[:, 200:] + jumps) / 1.077


def stopped(rng: np.random.Generator, n: int, days: int) -> F8:
    """Losses are cut at one deviation: skewed to the right."""
    density, cut = math.exp(-0.5) / math.sqrt(2.0 * math.pi), 0.5 * math.erfc(math.sqrt(0.5))
    return (np.maximum(rng.standard_normal((n, days)), -1.0) - (density - cut)) / math.sqrt(1.0 - density - (density - cut) ** 2)


def sparse(rng: np.random.Generator, n: int, days: int) -> F8:
    """One day in ten is traded."""
    return rng.standard_normal((n, days)) * (rng.random((n, days)) < 0.1) / math.sqrt(0.1)


def tails(rng: np.random.Generator, n: int, days: int) -> F8:
    """One day in ten is traded, and small gains pay for rare large losses: skewed to the left."""
    x = 1.0 - rng.exponential(1.0, (n, days))
    return x * (rng.random((n, days)) < 0.1) / math.sqrt(0.1)


def crashes(rng: np.random.Generator, n: int, days: int) -> F8:
    """A loss of fifteen deviations on one day in 500, paid for on all others."""
    falls = rng.random((n, days)) < 1.0 / 500.0
    x = rng.standard_normal((n, days)) - 15.0 * falls + 15.0 / 500.0
    return x / math.sqrt(1.0 + 225.0 / 500.0 * (1.0 - 1.0 / 500.0))


LAWS: dict[str, Callable[[np.random.Generator, int, int], F8]] = {
    "normal": normal, "t5": t5, "AR(1) 0.2": ar, "GARCH with jumps": garch, "skewed by a stop": stopped, "10 % of days": sparse,
}  # fmt: skip
USUAL = ("normal", "t5", "GARCH with jumps")
EXEMPT = {"skewed to the left, 10 % of days": tails, "rare crashes": crashes}


# ------------------------------------------------------------------ worlds of returns


@dataclass(frozen=True)
class Cell:
    """Worlds of one kind. correlation: of any two accounts; per_day: returns a day; trials: after how many the verdict is asked."""

    law: str
    years: int
    correlation: float
    per_day: int = 1
    trials: tuple[int, ...] = TRIALS
    worlds: int = 2_000

    @property
    def name(self) -> str:
        often = "" if self.per_day == 1 else f", {self.per_day} a day"
        return f"{self.law}, {self.years} years, correlation {self.correlation}{often}" + (
            "" if self.trials == TRIALS else f", {self.trials}"
        )

    @property
    def n(self) -> int:
        """Returns of an account."""
        return DAYS * self.years * self.per_day

    @property
    def sharpes(self) -> list[float]:
        """What SHARPES are a return."""
        return [sharpe / math.sqrt(DAYS * self.per_day) for sharpe in SHARPES]


CELLS = [
    *(Cell(*each) for each in product(LAWS | EXEMPT, YEARS, CORRELATIONS)),
    *(Cell(law, 3, 0.0, 24, worlds=300) for law in ("normal", "t5")),
    *(Cell(law, 3, correlation, 1, (10_000,), 300) for law, correlation in product(("normal", "t5"), CORRELATIONS)),
]
BESIDE = [cell for cell in CELLS if cell.law in USUAL and cell.per_day == 1 and cell.trials == TRIALS]  # StepM is asked too


def market_bars(rng: np.random.Generator, n: int, per_day: int = 1) -> Bars:
    """One symbol with GARCH returns that rises by 0.05 deviations a day: n bars, and BURN days before them."""
    step = DEVIATION / math.sqrt(per_day)
    growth = 1.0 + step * (garch(rng, 1, n + BURN * per_day)[0] + 0.05 / math.sqrt(per_day))
    close, length = 100.0 * np.cumprod(np.maximum(growth, 0.05))[:, None], NS_PER_DAY // per_day
    opens = NS_PER_DAY * 17_000 + length * np.arange(len(close))
    return Bars(opens, opens + length, close, close, close, close, np.ones_like(close), ("A",), length)


class World:
    """One world of a cell: the accounts of its trials and what the test makes of them."""

    def __init__(self, cell: Cell, seed: int) -> None:
        make, rng = (
            (LAWS | EXEMPT)[cell.law],
            np.random.default_rng([seed, cell.years, int(100 * cell.correlation), sum(cell.law.encode())]),
        )
        noise = make(rng, cell.trials[-1], cell.n)
        if cell.correlation:
            noise = math.sqrt(cell.correlation) * make(rng, 1, cell.n) + math.sqrt(1.0 - cell.correlation) * noise
        bars = market_bars(rng, cell.n, cell.per_day)
        self.cell, self.lineage, self.noise = cell, f"{cell.name} {seed}", noise
        self.seed, self.hedge = seed, Hedge.of(bars, slice(bars.n - cell.n, bars.n))
        self.t, self.draws = self.tested(noise)

    def tested(self, returns: F8) -> tuple[F8, F4]:
        """Return the t value of accounts [P], and the drawn ones [DRAWS, P]."""
        equity = self.equity(returns)
        found = self.hedge.outcome(equity, np.ones(len(equity)))
        return np.nan_to_num(found.t, nan=-np.inf), drawn(self.lineage, found.keys, found.units)

    def equity(self, returns: F8) -> F8:
        """Return the equity of accounts at the ends of days, [P, D]."""
        equity: F8 = np.cumprod(1.0 + DEVIATION / math.sqrt(self.cell.per_day) * returns, axis=1)
        return equity[:, self.hedge.ends - self.hedge.first]

    def hedged(self, returns: F8) -> F8:
        """Return what accounts earned beyond the market on each day, [P, D]: the series whose block sums are tested."""
        equity, basis, weights = self.equity(returns), self.hedge.basis, self.hedge.weights
        daily = np.diff(equity, axis=1, prepend=1.0) / np.insert(equity[:, :-1], 0, 1.0, axis=1)
        alpha, left = daily @ weights / len(weights), daily - daily.mean(axis=1, keepdims=True)
        out: F8 = weights * (left - left @ basis.T @ basis + alpha[:, None])
        return out

    def stepm(self) -> dict[str, list[bool]]:
        """Say the same of StepM (stationary bootstrap, blocks of five days, studentised): luck after all trials, and what is found."""

        def named(series: F8, n: int) -> Any:
            return superiority(series[:n].T, block=5.0, seed=self.seed).better

        noise = self.hedged(self.noise)
        out = {"last": [len(named(noise, n)) > 0 for n in self.cell.trials]}
        for name, mean in zip(SHARPES, self.cell.sharpes, strict=True):
            series = np.concatenate([self.hedged(self.noise[:1] + mean), noise[1:]])
            out[f"power {name}"] = [0 in named(series, n) for n in self.cell.trials]
        return out

    def false_edges(self) -> dict[str, list[bool]]:
        """Say, for each number of trials, whether luck is an edge.

        last: the best after all trials; ever: after one of them; declared: after one of them, with their number declared beforehand.
        """
        highest, best = np.maximum.accumulate(self.draws, axis=1), np.maximum.accumulate(self.t)
        is_edge, luck = best > limits(highest), independent(self.lineage, 1)[:, None]
        out: dict[str, list[bool]] = {"last": [], "ever": [], "declared": []}
        for n in self.cell.trials:
            out["last"].append(bool(is_edge[n - 1]))
            out["ever"].append(bool(is_edge[:n].any()))
            waiting = n - 1 - np.flatnonzero(is_edge[:n])  # with declared trials in the family no other trial can be an edge
            with np.errstate(divide="ignore"):
                family = np.maximum(highest[:, :n][:, is_edge[:n]], ndtri(ndtr(luck) ** (1.0 / waiting)))
            out["declared"].append(bool((best[:n][is_edge[:n]] > limits(family)).any()))
        return out

    def found(self) -> dict[str, list[bool]]:
        """Plant each of SHARPES in the first account: is it an edge among all?"""
        out = {}
        for name, mean in zip(SHARPES, self.cell.sharpes, strict=True):
            t, own = self.tested(self.noise[:1] + mean)
            results = []
            for n in self.cell.trials:
                others, draws = self.t[1:n], self.draws[:, 1:n]
                limit = critical(np.maximum(own[:, 0], draws.max(axis=1, initial=-np.inf)))
                while t[0] <= limit and (others > limit).any():  # an edge by luck leaves the family; the next limit is lower
                    others, draws = others[others <= limit], draws[:, others <= limit]
                    limit = critical(np.maximum(own[:, 0], draws.max(axis=1, initial=-np.inf)))
                results.append(bool(t[0] > limit))
            out[f"power {name}"] = results
        return out


Says = Callable[[World], Mapping[str, list[bool]]]


def judged(world: World) -> dict[str, list[bool]]:
    """Say what the verdict makes of a world."""
    return world.false_edges() | world.found()


def beside(world: World) -> dict[str, list[bool]]:
    """Say what the verdict and StepM make of a world."""
    ours = {"last": world.false_edges()["last"]} | world.found()
    return ours | {f"stepm {name}": values for name, values in world.stepm().items()}


def counted(cell: Cell, first: int, worlds: int, says: Says) -> dict[str, list[int]]:
    """Count the worlds [first, first + worlds) of a cell in which each figure is true, by number of trials."""
    total: dict[str, list[int]] = {}
    for seed in range(first, first + worlds):
        for name, values in says(World(cell, seed)).items():
            total[name] = [a + b for a, b in zip(total.get(name, [0] * len(values)), values, strict=True)]
    return total


RETURNS: dict[str, tuple[list[Cell], Says]] = {"returns": (CELLS, judged), "stepm": (BESIDE, beside)}


# ------------------------------------------------------------------ worlds of candles

N_BARS, N_SYMBOLS = 3_000, 3
NOISE = {"random_walk": 200, "GARCH": 100, "storms": 100, "jumps": 50, "gaps": 50}  # worlds of each kind
PLANTED = {"planted_edge": 50, "macd": 50}
PROFILES = ("default", "published")


def candles(kind: str, seed: int) -> Bars:
    """Return the bars of a world: of our simulator, or GARCH and storms of `tests.support.known_worlds`, which rise."""
    if kind in known_worlds.NOISE:
        every = known_worlds.world(kind, 0.0, seed, N_BARS)
        planes = {name: np.ascontiguousarray(getattr(every, name)[:, :N_SYMBOLS]) for name in ("open", "high", "low", "close", "volume")}
        return replace(every, symbols=every.symbols[:N_SYMBOLS], **planes)
    return simulate(kind, seed=seed, n_bars=N_BARS, n_symbols=N_SYMBOLS)


def findings(kind: str, seed: int) -> dict[str, str]:
    """Train trees on a world, as each profile does, and return what is found of its chain."""
    bars, found = candles(kind, seed), {}
    for name in PROFILES:
        made = research.train(bars, profile=name, preset="tiny", models=["xgb", "lgbm"], use_store=False, processes=1)
        found[name] = research.backtest(bars, made, Params.profile(name)).summary["evidence"]["finding"]
    return found


# ------------------------------------------------------------------ what is kept


def read() -> dict[str, Any]:
    return {"returns": {}, "stepm": {}, "product": {}} | (json.loads(PLACE.read_text()) if PLACE.exists() else {})


def write(part: str, name: str, found: Mapping[str, Any]) -> None:
    """Keep one cell; the other part may be measured by another process."""
    kept = read()
    kept[part][name] = found
    with replacing(PLACE) as draft:
        draft.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")


def measure_returns(part: str, worlds: int) -> None:
    """Measure up to `worlds` worlds of every cell of a part, BATCH of each before more of any."""
    started, (cells, says) = time.monotonic(), RETURNS[part]
    for cell in cells:
        known = read()[part].get(cell.name)
        first = counted(cell, 0, FIRST, says)
        if known is None or known["first"] != first:
            write(part, cell.name, {"code": source_hash("research"), "trials": cell.trials, "worlds": FIRST, "first": first, "sums": first})
    for most in range(BATCH, worlds + 1, BATCH):
        for cell in cells:
            known = read()[part][cell.name]
            if known["worlds"] >= (stop := min(most, cell.worlds)):
                continue
            more = counted(cell, known["worlds"], stop - known["worlds"], says)
            sums = {key: [a + b for a, b in zip(values, more[key], strict=True)] for key, values in known["sums"].items()}
            write(part, cell.name, known | {"worlds": stop, "sums": sums})
            shares = {key: [round(100.0 * n / stop, 1) for n in values] for key, values in sums.items()}
            say(f"{time.monotonic() - started:6.0f} s  {cell.name}, {stop:,} worlds: {shares}")


def measure_product(share: float) -> None:
    """Measure up to a share of the worlds of every kind."""
    started = time.monotonic()
    for kind, worlds in (NOISE | PLANTED).items():
        known = read()["product"].get(kind)
        if known is None or any(known["findings"][name][0] != found for name, found in findings(kind, 0).items()):
            known = {"code": source_hash("research"), "findings": {name: [] for name in PROFILES}}
        for seed in range(len(known["findings"][PROFILES[0]]), round(share * worlds)):
            for name, found in findings(kind, seed).items():
                known["findings"][name].append(found)
            write("product", kind, known)
            counts = {name: f"{each.count('edge')} edges" for name, each in known["findings"].items()}
            say(f"{time.monotonic() - started:6.0f} s  {kind}, {seed + 1} worlds: {counts}")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=(*RETURNS, "product"))
    parser.add_argument("--worlds", type=int, default=2_000, help="of returns, in a cell, at most")
    parser.add_argument("--share", type=float, default=1.0, help="of the worlds of candles")
    asked = parser.parse_args()
    measure_product(asked.share) if asked.what == "product" else measure_returns(asked.what, asked.worlds)


if __name__ == "__main__":
    main()
