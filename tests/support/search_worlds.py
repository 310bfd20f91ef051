"""A search of 100 settings on worlds whose answer is known: fair prices, votes by lot, or votes that now and then know the next move.

`python -m tests.support.search_worlds` prints the table of 40 fair worlds and the power curve.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np

import research
from qtcore import Engine
from qtcore.chain.trade import TradeState, run_trade
from qtcore.types import N_MODELS, Bars, Votes
from research.evidence import sharpe as sr
from research.evidence import sign_test
from research.evidence.alpha import Hedge
from research.evidence.finding import decide
from research.runs.benchmark import bar_returns
from tests.support import PUBLISHED

DAYS = 365.0
FREE = {"broker.fee_rate": 0.0, "broker.slippage_rate": 0.0}
OPEN = {
    "governor.stop_loss": 1.0,
    "governor.max_drawdown": 1.0,
    "governor.cooldown_minutes": 0,
    "governor.max_exposure": 1.0,
    "governor.max_position": 0.25,
}
KEPT = (1.0, 0.6, 0.4, 0.25, 0.15, 0.10, 0.07, 0.05, 0.03, 0.02)  # share of the votes that a confidence floor lets pass
FLOORS = tuple(0.95 - 0.45 * share for share in KEPT)
HORIZONS = (2, 3, 4, 5, 6, 8, 10, 11, 12, 13)
SETTINGS = tuple(itertools.product(FLOORS, HORIZONS))


@dataclass(frozen=True)
class Judged:
    """What a search found in one world: the best setting's Sharpe a year, its PSR and DSR, and the verdict."""

    sharpe: float
    probabilistic: float
    deflated: float
    verdict: str


def votes_of(bars: Bars, knowledge: float, seed: int) -> Votes:
    """Four models with one voice: a side by lot, its confidence uniform in 0.5 to 0.95.

    With chance `knowledge` / (2 sqrt(u)), u the share of votes that are surer, the side is where the price goes in ten days: every floor
    then keeps about the same Sharpe ratio, as its fewer trades know more.
    """
    rng = np.random.default_rng([seed, 7])
    surer, lot, luck = rng.random((3, *bars.close.shape))
    move = np.zeros(bars.close.shape)
    move[:-11] = bars.open[11:] - bars.open[1:-10]  # ordered at close t, held from open t+1 to open t+11
    is_up = np.where((luck < 0.5 * knowledge / np.sqrt(surer)) & (move != 0.0), move > 0.0, lot < 0.5)
    confidence = 0.95 - 0.45 * surer
    probs = np.full((N_MODELS, *bars.close.shape, 3), np.nan)
    rest = (1.0 - confidence) / 2.0
    probs[: N_MODELS - 1] = np.where(is_up[..., None], np.stack([rest, rest, confidence], -1), np.stack([confidence, rest, rest], -1))
    return Votes.from_probs(probs)


def world(seed: int, n_days: int) -> Bars:
    return research.simulate("random_walk", seed=seed, n_bars=n_days, n_symbols=4, interval="1d", correlation=0.3)


def trade_all(bars: Bars, votes: Votes, values: dict, settings=SETTINGS) -> list:
    """The account's result of every setting; the opinion is formed once."""
    base = PUBLISHED.with_values(OPEN | values | {"broker.max_holding_bars": 1})
    decisions = Engine(base).run(bars, votes).decisions
    out = []
    for floor, horizon in settings:
        params = base.with_values({"governor.min_confidence": floor, "broker.max_holding_bars": horizon})
        out.append(run_trade(bars, decisions.raw_action, decisions.raw_confidence, params, TradeState.fresh(params, len(bars.symbols))))
    return out


def judge(bars: Bars, results: list) -> Judged:
    """Take the best Sharpe ratio and apply `spec` D-98, every setting counted as a trial."""
    measured = [sr.moments(bar_returns(r.equity)) for r in results]
    ratios = np.array([m.sharpe for m in measured])
    top = int(np.nanargmax(ratios))
    hedge = Hedge.of(bars, slice(0, bars.n))
    cash = np.full(len(results), PUBLISHED.broker.initial_cash)
    found = hedge.outcome(np.stack([r.equity[hedge.ends] for r in results]), cash)
    mine = found.rows(np.array([top]))
    among = sign_test.judge(f"{bars.close[-1, 0]}", mine, [found])
    verdict = decide({"blocks_held": hedge.blocks_of(results[top].worth > 0.0), "t": mine.t[0], "critical": among.critical})
    m, deflated = measured[top], sr.deflated_sharpe(measured[top], len(results), float(np.nanvar(ratios, ddof=1)))
    return Judged(m.sharpe * math.sqrt(DAYS), sr.probabilistic_sharpe(m), deflated, verdict)


def fair_worlds(n_worlds: int, n_days: int = 730) -> list[Judged]:
    """Search without knowledge and without costs."""
    out = []
    for seed in range(n_worlds):
        bars = world(seed, n_days)
        out.append(judge(bars, trade_all(bars, votes_of(bars, 0.0, seed), FREE)))
    return out


def knowledge_for(targets: tuple[float, ...], n_worlds: int, n_days: int) -> list[float]:
    """Find the knowledge with which the truly best setting earns each Sharpe ratio a year, net of costs.

    Truly best: in the mean of `n_worlds` worlds that no search sees.
    """
    tried = (0.0, 0.06, 0.12, 0.20, 0.30, 0.45)
    best = []
    for knowledge in tried:
        ratios = np.zeros(len(SETTINGS))
        for seed in range(1_000, 1_000 + n_worlds):
            bars = world(seed, n_days)
            results = trade_all(bars, votes_of(bars, knowledge, seed), {})
            ratios += [np.nan_to_num(sr.moments(bar_returns(r.equity)).sharpe) * math.sqrt(DAYS) / n_worlds for r in results]
        best.append(float(ratios.max()))
    return [float(np.interp(target, best, tried)) for target in targets]


def planted_worlds(knowledge: float, n_worlds: int, n_days: int = 5 * 365) -> list[Judged]:
    """Search with knowledge, costs paid."""
    out = []
    for seed in range(n_worlds):
        bars = world(seed, n_days)
        out.append(judge(bars, trade_all(bars, votes_of(bars, knowledge, seed), {})))
    return out


def power_curve(targets: tuple[float, ...] = (1.0, 1.5, 2.0, 2.7, 3.5), n_worlds: int = 40, n_days: int = 5 * 365) -> dict[float, int]:
    """Count the worlds in which a planted net Sharpe ratio a year is called an edge."""
    levels = knowledge_for(targets, 12, n_days)
    return {t: sum(j.verdict == "edge" for j in planted_worlds(k, n_worlds, n_days)) for t, k in zip(targets, levels)}


def main() -> None:
    import sys

    fair = fair_worlds(40)
    lines = [
        f"40 fair worlds x 100 settings: best Sharpe {np.mean([j.sharpe for j in fair]):.2f} in the mean, "
        f"{max(j.sharpe for j in fair):.2f} at most",
        f"  looks significant (PSR > 0.95): {sum(j.probabilistic > 0.95 for j in fair)}, deflated (DSR > 0.95): "
        f"{sum(j.deflated > 0.95 for j in fair)}, verdict edge: {sum(j.verdict == 'edge' for j in fair)}",
        *(f"planted net Sharpe {target:.1f} over 5 years: edge in {n} of 40" for target, n in power_curve().items()),
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
