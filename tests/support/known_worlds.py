"""Worlds whose edge is known, and worlds without one: what a chain whose opinions have a price makes of them.

`python -m tests.support.known_worlds --kind reversion --strength 60 --seeds 10` prints a line for each world and their sums; `--kind noise
--seeds 40` does so for worlds in which nothing can be known. The seeds are the first of `SEEDS`.

The strength of a world is how often trained trees have the side of a move beyond the label's threshold right, in percent; `PULL` holds what
makes it so, found on seeds of `TUNED` alone: those of reversion and volume at 55 % on all, the others on the first two. Figures are from
the second test fold on, the first that can know what an opinion is worth.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np

import research
from qtcore import Params
from qtcore.chain.outcome import outcomes
from qtcore.chain.price import costs_rule
from qtcore.types import F8, NS_PER_HOUR, Bars
from research.data.worlds import Block, candles, draw, first_prices
from research.evidence.surrogates import surrogate
from research.training.edge import leaning
from tests.conftest import shared_data

N, S, START = 8_000, 8, 946_684_800_000_000_000  # hourly bars from 2000-01-01 UTC
SEEDS, TUNED = range(1_301, 1_341), range(13, 25)  # written down before the first run
VOLATILITY, DRIFT, CORRELATION, TAIL = 0.007, 3e-5, 0.3, 5  # of a bar's return; TAIL: degrees of freedom of its moves
KINDS = {"reversion": (-1.0, 0.8), "momentum": (1.0, 0.9), "volume": (0.0, 0.9)}  # how a move enters the state, and the state's memory
PULL = {  # deviations of the next bar's return that a state of 1 is worth, by strength
    "reversion": {52: 0.035, 55: 0.075, 60: 0.135, 68: 0.255},
    "momentum": {52: 0.025, 55: 0.045, 60: 0.075, 68: 0.115},
    "volume": {52: 0.055, 55: 0.085, 60: 0.155, 68: 0.26},
}
NOISE = ("GARCH", "storms", "real")
CHAIN, PUBLISHED = Params(), Params.profile("published").with_values({"ensemble.weights": [0.25] * 4 + [0.0]})
ALONE = CHAIN.with_values({"meta.enabled": False, "arbiter.enabled": False})
LEVELS = (0.0, *np.geomspace(1e-4, 2e-2, 19).tolist())  # of `decide.min_edge`, from which hindsight chooses
BINS = 20  # of the confidence


def blocks(rng: np.random.Generator, kind: str, pull: float) -> Iterator[Block]:
    """Yield candles: a state of each symbol pulls its price, its volatility lasts, its moves have fat tails.

    The state has a deviation of about 1. In `reversion` and `momentum` it is made of the moves before; in `volume` it moves by itself, and
    the volume shows it. The volatility is GARCH(1,1), but in `storms`: low or three times as high, each for 100 bars in the mean.
    """
    sign, memory = KINDS.get(kind, (0.0, 0.9))
    fresh = (1.0 - memory * memory) ** 0.5
    price, state, variance = first_prices(S), np.zeros(S), np.full(S, 0.2 if kind == "storms" else 1.0)
    while True:
        inside, gap, noise = draw(rng, S, CORRELATION)
        tail = np.sqrt((TAIL - 2.0) / rng.chisquare(TAIL, noise.shape))
        own, turns = rng.standard_normal(noise.shape), rng.random(len(noise)) < 0.01
        shock = inside.sum(axis=2) / inside.shape[2] ** 0.5 * tail
        sigma, led = np.empty(noise.shape), np.empty(noise.shape)
        for t in range(len(noise)):
            sigma[t], led[t] = np.sqrt(variance), state
            move = pull * state + shock[t]
            state = memory * state + fresh * (sign * np.clip(move, -4.0, 4.0) if sign else own[t])
            if kind != "storms":
                variance = np.clip(0.02 + variance * (0.90 + 0.08 * shock[t] ** 2), 0.1, 16.0)
            elif turns[t]:
                variance = 2.0 - variance
        volume = 1_000.0 * sigma * (0.3 + np.abs(shock)) * (0.5 + noise)
        if kind == "volume":
            shown = np.concatenate([led[1:], state[None]])  # of bar t: what pulls bar t + 1
            volume = 1_000.0 * np.exp(0.5 * shown) * (0.75 + 0.5 * noise)
        drift = DRIFT + VOLATILITY * sigma * pull * led
        yield candles(rng, price, inside, gap, VOLATILITY * sigma * tail, drift, volume)


def world(kind: str, pull: float, seed: int, n: int = N) -> Bars:
    """Return the bars of a world. kind: a key of `KINDS` or one of `NOISE`, whose `real` skips where the candles are not at hand."""
    if kind == "real":
        bars = research.load_bars(shared_data("crypto_spot_1h_long.parquet"), calendar="regular", start="2021-01-01")
        first = int(np.random.default_rng(seed).integers(bars.n - n))
        return surrogate(replace(bars[first : first + n], origin=""), "sign_flip", seed)
    rng, made = np.random.default_rng(seed), list[Block]()
    for block in blocks(rng, kind, pull):
        made.append(block)
        if sum(len(part[0]) for part in made) >= n:
            break
    planes = [np.ascontiguousarray(np.concatenate(plane)[:n]) for plane in zip(*made)]
    times = START + NS_PER_HOUR * np.arange(n, dtype=np.int64)
    return Bars(times, times + NS_PER_HOUR, *planes, tuple(f"KNOWN{i + 1}" for i in range(S)), NS_PER_HOUR)


@dataclass(frozen=True)
class Measured:
    """What became of a world. Gains are net returns, fractions of equity.

    direction: share of moves beyond the label's threshold whose side the ensemble leans to. move: mean size over the horizon, in round-trip
    costs. hindsight [20]: gain at each of `LEVELS` with the estimated slopes. wins [3, BINS]: cells, confidence and trades that pay, summed
    by confidence, over the cells that lean. slopes: of the maps from the second fold on. alone: gain without meta layer and arbiter; seats:
    of arbiter and meta layer, shares of these folds. has_edge: whether the verdict claims one.
    """

    direction: float
    move: float
    gain: float
    trades: int
    hindsight: F8
    published: float
    published_trades: int
    wins: F8
    slopes: tuple[float, ...]
    alone: float
    seats: tuple[float, float]
    has_edge: bool
    seconds: float


def measure(bars: Bars, label: str = "L1", preset: str = "tiny") -> Measured:
    """Train on a world, meta layer too, trade on opinions with a price and on the ensemble's alone; train and trade as `published` does."""
    began, plan = perf_counter(), {"preset": preset, "models": ["xgb", "lgbm"], "processes": 1}
    made, other = (research.train(bars, label=label, profile=profile, use_store=False, **plan) for profile in ("default", "published"))
    priced = research.backtest(bars, made, CHAIN, meta=learned(bars, made))
    alone, published = research.backtest(bars, made, ALONE), research.backtest(bars, other, PUBLISHED)
    maps = priced.predictions.maps.maps[1:]
    first, horizon = int(np.flatnonzero(made.fold == 1)[0]), made.label.horizon
    costs = costs_rule(CHAIN.broker.fee_rate, CHAIN.broker.slippage_rate)
    lean, labels = priced.result.decisions.lean[first:], made.labels[first:]
    moved = np.isin(labels, (0, 2)) & (np.abs(lean) > 0.0)
    result = leaning(lean, outcomes(bars, CHAIN.with_values({"broker.max_holding_bars": horizon}))[0][:, first:])
    return Measured(
        float(np.mean((lean > 0.0)[moved] == (labels == 2)[moved])),
        float(np.nanmean(np.abs(bars.close[horizon:] / bars.close[:-horizon] - 1.0))) / costs,
        *since(priced, first),
        hindsight(bars, made),
        *since(published, first),
        by_confidence(priced.result.decisions.raw_confidence[first:], result > costs, np.isfinite(result)),
        tuple(maps["slope"].tolist()),
        since(alone, first)[0],
        (float(np.mean(maps["arbiter_slope"] > 0.0)), float(np.mean(maps["is_seated"]))),
        priced.summary["evidence"]["finding"] == "edge",
        perf_counter() - began,
    )


def learned(bars: Bars, made: research.Predictions) -> Any:
    """Return the learned meta layer, None where it cannot be trained."""
    try:
        return research.train_meta(bars, made, CHAIN)
    except research.UserError:
        return None


def since(run: Any, first: int) -> tuple[float, int]:
    """Return gain and trades from the row `first` on."""
    equity, begun = run.result.equity, run.trades["decision_time"].to_numpy("datetime64[ns]").astype(np.int64)
    return float(equity[-1] / equity[first] - 1.0), int(np.count_nonzero(begun >= run.bars.close_time[first]))


def hindsight(bars: Bars, made: research.Predictions) -> F8:
    """Return the gain at each of `LEVELS` [20], with the estimates of the slopes in place of what may be counted on."""
    maps = made.maps.maps.copy()
    maps["slope"] = [max(0.0, told["ensemble"]["slope"]) for told in made.maps.evidence]
    made = replace(made, maps=replace(made.maps, maps=maps))
    return research.sweep(bars, made, {"decide.min_edge": LEVELS}, CHAIN, record=False).table()["total_return"].to_numpy()


def by_confidence(confidence: F8, pays: Any, known: Any) -> F8:
    """Sum cells, confidence and trades that pay within `BINS` steps of the confidence, [3, BINS]; only where `known`."""
    known = known & np.isfinite(confidence)
    at = np.minimum((confidence[known] * BINS).astype(int), BINS - 1)
    return np.stack([np.bincount(at, weights, BINS) for weights in (np.ones(len(at)), confidence[known], pays[known])])


def calibration_error(wins: F8) -> float:
    """Return the expected calibration error of sums by confidence [3, BINS]."""
    return float(np.abs(wins[1] - wins[2]).sum() / max(1.0, wins[0].sum()))


def summary(found: list[Measured]) -> str:
    """Say what became of worlds of one strength. Hindsight chooses world by world, or one level for all."""
    gains, levels = np.array([m.gain for m in found]), np.array([m.hindsight for m in found])
    means = {
        name: np.mean([getattr(m, name) for m in found]) for name in ("direction", "published", "trades", "published_trades", "seconds")
    }
    added, n = gains - np.array([m.alone for m in found]), len(found)
    reach = 1.96 * float(np.std(added, ddof=1)) / n**0.5 if n > 1 else np.nan
    slopes, error = np.concatenate([m.slopes for m in found]), calibration_error(np.sum([m.wins for m in found], axis=0))
    best = int(levels.sum(axis=0).argmax())
    return "; ".join(
        [
            f"direction {means['direction']:.1%}",
            f"net gain in {np.mean(gains > 0.0):.0%} of {len(found)} worlds, mean {gains.mean():+.2%}, worst {gains.min():+.2%}",
            f"sum {gains.sum():+.3f}, in hindsight {levels.max(axis=1).sum():+.3f} or {levels[:, best].sum():+.3f} at {LEVELS[best]:.4f}",
            f"published {means['published']:+.2%}; trades {means['trades']:.1f} against {means['published_trades']:.1f}",
            f"{np.mean([m.trades > 0 for m in found]):.0%} of worlds and {np.mean(slopes > 0.0):.0%} of folds trade",
            f"against the ensemble alone {added.mean():+.2%} (+-{reach:.2%}), worst {added.min():+.2%}, "
            f"above -1 % in {np.mean(added > -0.01):.0%} of worlds",
            "seats of arbiter and meta layer in {:.0%} and {:.0%} of folds".format(*np.mean([m.seats for m in found], axis=0)),
            f"the verdict claims an edge in {sum(m.has_edge for m in found)}",
            f"calibration error {error:.1%}; {means['seconds']:.1f} s a world",
        ]
    )


def worlds(kind: str, strength: int, n: int) -> Iterator[tuple[str, int, Bars]]:
    """Yield kind, seed and bars of `n` worlds; `noise` takes the kinds of `NOISE` in turn."""
    for k, seed in enumerate(SEEDS[:n]):
        name = NOISE[k % len(NOISE)] if kind == "noise" else kind
        yield name, seed, world(name, 0.0 if kind == "noise" else PULL[kind][strength], seed)


def main() -> None:
    """Print a line for each world, and their sums."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=[*KINDS, "noise"], required=True)
    parser.add_argument("--strength", type=int, choices=[52, 55, 60, 68], default=60)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--label", default="L1")
    parser.add_argument("--preset", default="tiny")
    asked = parser.parse_args()
    found = []
    for kind, seed, bars in worlds(asked.kind, asked.strength, asked.seeds):
        found.append(m := measure(bars, asked.label, asked.preset))
        slopes = " ".join(f"{slope:.2f}" for slope in m.slopes)
        told = (
            f"direction {m.direction:.1%}, move {m.move:.1f}, gain {m.gain:+.2%} of {m.hindsight.max():+.2%}, published {m.published:+.2%}"
        )
        print(f"{kind} {seed}: {told}, trades {m.trades} against {m.published_trades}, slopes {slopes}, {m.seconds:.1f} s", flush=True)
    print(f"{asked.kind}{'' if asked.kind == 'noise' else f' {asked.strength}'}, {asked.label}: {summary(found)}")


if __name__ == "__main__":
    main()
