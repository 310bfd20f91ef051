"""Worlds whose opinions have a price: votes with probabilities, volatilities, funding, and three maps that begin inside."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from qtcore.chain.price import carry_block, no_map, pricing_of
from qtcore.types import N_KNOTS
from tests.conftest import awkward_bars
from tests.support.cells import random_market, random_probs, random_regime, random_votes

PRICED = {
    "ensemble.rule": "mean",
    "decide.rule": "edge",
    "meta.mode": "bet",
    "governor.sizing_mode": "kelly_edge",
    "governor.order": "by_edge",
    "governor.min_confidence": 0.0,
    "broker.max_holding_bars": 5,
}
KINDS = {  # of an opinion with a price
    "priced": {},
    "of votes": {"ensemble.rule": "vote"},
    "dear": {"broker.fee_rate": 0.002, "decide.min_edge": 0.001},
    "alone": {"meta.enabled": False, "arbiter.enabled": False},
    "floored": {"governor.min_confidence": 0.5},
    "book": {"governor.book": "cross_section", "governor.neutral": "dollar_beta", "governor.max_daily_trades": 100},
    "in order": {"governor.order": "symbols", "governor.sizing_mode": "kelly_confidence"},
}


def random_maps(rng: np.random.Generator, firsts: list[int]) -> np.ndarray:
    """Maps that begin at the cells `firsts`: the first knows of no edge, the last has a seat for everybody."""
    maps = np.repeat(no_map(), len(firsts))
    n = np.arange(len(firsts))
    maps["first"], maps["start"] = firsts, n
    maps["factors"] = rng.uniform(0.5, 1.5, maps["factors"].shape)
    maps["slope"], maps["variance"] = np.where(n > 0, rng.uniform(0.3, 1.0, len(n)), 0.0), rng.uniform(3.0, 8.0, len(n))
    maps["win"][1:] = np.linspace(0.4, 0.7, N_KNOTS)
    maps["is_seated"], maps["skip"], maps["full"] = n > 0, 0.3, 0.6
    maps["arbiter_slope"][-1], maps["arbiter_variance"], maps["arbiter_win"] = 0.5, 6.0, np.linspace(0.45, 0.55, N_KNOTS)
    return maps


def priced_world(n: int, n_symbols: int, seed: int = 0, *, meta: bool = True, probs: bool = True, funding: bool = True) -> SimpleNamespace:
    """Bars, votes, indicators, what the meta model says, pricing and maps of a block."""
    rng = np.random.default_rng(seed)
    votes, volatility = random_votes(rng, n, n_symbols, with_probs=probs), rng.uniform(0.001, 0.02, (n, n_symbols))
    volatility[rng.random((n, n_symbols)) < 0.05] = np.nan
    carry = np.zeros((n, n_symbols))
    if funding:
        carry_block(rng.normal(0.0, 3e-4, (n, n_symbols)), 0.3, np.zeros(n_symbols), carry)
    return SimpleNamespace(
        bars=awkward_bars(n, seed, n_symbols),
        votes=votes,
        arbiter=random_market(rng, n, n_symbols),
        regime=random_regime(rng, n, n_symbols),
        probs=random_probs(rng, n, n_symbols) if meta else None,
        volatility=volatility,
        carry=carry,
        pricing=pricing_of(volatility, carry, np.random.default_rng([seed, 9]).normal(1.0, 0.5, (n, n_symbols))),
        maps=random_maps(rng, [0, n_symbols * (n // 4), n_symbols * (n // 2) + 3]),
    )


LENGTHS = (0, 12, 3)  # bars of the horizons of `with_horizons`; the first is that of `broker.max_holding_bars`


def with_horizons(w: SimpleNamespace, n_horizons: int, seed: int = 0) -> SimpleNamespace:
    """Let the voters of a priced world speak of later horizons too, two of them never and the others not in every cell."""
    rng, probs = np.random.default_rng([seed, 3]), [w.votes.probs]
    for _ in range(1, n_horizons):
        told = rng.dirichlet([0.6, 0.6, 0.6], w.votes.action.shape)
        told[w.votes.action < 0] = np.nan
        told[rng.random(w.votes.action.shape) < 0.1] = np.nan
        told[[1, 3]] = np.nan
        probs.append(told)
    parts = [w.maps]
    for bars in LENGTHS[1:n_horizons]:
        maps = random_maps(rng, w.maps["first"].tolist())
        maps["slope"] *= 1.1
        for name in ("is_seated", "skip", "full"):
            maps[name] = w.maps[name]
        maps["bars"] = bars
        parts.append(maps)
    votes = replace(w.votes, probs=np.ascontiguousarray(np.concatenate(probs, axis=3)))
    return SimpleNamespace(**vars(w) | {"votes": votes, "maps": np.concatenate(parts)})
