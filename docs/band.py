"""Measures what the no-trade band of a book is worth on real candles, for docs/error_rates.md: beside rebalancing every bar and every day.

.venv/bin/python docs/band.py CANDLES          (the 19 symbols with the largest turnover; the candles are hourly)

Slopes are taken as they were estimated, not as they may be counted on: on these candles no evidence is strong enough for a trade.
"""

import sys
from dataclasses import replace

import numpy as np

import research
from qtcore import Bars, Params
from research.training.predictions import Predictions

RULES = {"band": {}, "every bar": {"governor.band": 0.0}, "every day": {"governor.band": 0.0, "governor.rebalance_bars": 24}}
BOOK = {"governor.book": "cross_section", "governor.neutral": "dollar", "governor.max_daily_trades": 100_000}
PARAMS = Params().with_values(BOOK | {"features.sets": "v5_rel,cross_section"})
DAYS, DRAWS, N_SYMBOLS = 5, 5_000, 19  # of a block of the bootstrap


def daily(bars: Bars, made: Predictions, rule: dict[str, float]) -> tuple[np.ndarray, int]:
    """Trade the tested bars under one rule: daily log returns, and the number of fills."""
    run = research.backtest(bars, made, PARAMS.with_values(rule))
    equity = run.result.equity[made.fold >= 0]
    return np.diff(np.log(np.append(PARAMS.broker.initial_cash, equity[23::24]))), len(run.result.fills)


def interval(gaps: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return mean and 95 % interval of daily gaps, a year, by a circular block bootstrap."""
    rng, n = np.random.default_rng(seed), len(gaps)
    starts = rng.integers(0, n, (DRAWS, -(-n // DAYS)))
    drawn = gaps[(starts[:, :, None] + np.arange(DAYS)) % n].reshape(DRAWS, -1)[:, :n].mean(axis=1)
    return 365.0 * np.array([gaps.mean(), *np.percentile(drawn, [2.5, 97.5])])


def main() -> None:
    """Print a line for each comparison."""
    everyone = research.load_bars(sys.argv[1])
    turnover = np.nansum(everyone.close * everyone.volume, axis=0)
    bars = research.load_bars(sys.argv[1], symbols=[everyone.symbols[s] for s in np.argsort(-turnover)[:N_SYMBOLS]])
    made = research.train(bars, ["lgbm", "linear"], "XS@4", PARAMS, n_folds=4)
    assert made.maps is not None
    maps = made.maps.maps.copy()
    maps["slope"] = [max(0.0, told["ensemble"]["slope"]) for told in made.maps.evidence]
    made = replace(made, maps=replace(made.maps, maps=maps))
    found = {name: daily(bars, made, rule) for name, rule in RULES.items()}
    for other in ("every bar", "every day"):
        mean, low, high = interval(found["band"][0] - found[other][0])
        fills = f"{found['band'][1]:,} fills against {found[other][1]:,}"
        sys.stdout.write(f"band less {other}: {mean:+.1%} a year ({low:+.1%} to {high:+.1%}), {fills}\n")


if __name__ == "__main__":
    main()
