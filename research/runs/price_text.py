"""Price texts: what a cell's opinion may be counted on to earn, what it costs, and on what evidence, for `qt explain`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qtcore import Params, Result
from qtcore.chain.price import FUNDING, VOLATILITY, bid_rule, costs_rule, leans_of, net_rule, win_rule
from qtcore.choices import EnsembleRule
from qtcore.types import N_MODELS, NS_PER_HOUR, Action
from research.errors import several
from research.runs.money import BASIS_POINTS
from research.training.edge import block_ns, quantile
from research.training.maps import MapSchedule


class CellPrice:
    """One cell of a priced run with the map that valued it; `row` and `told` are None before the first map."""

    def __init__(self, result: Result, t: int, s: int, params: Params, maps: MapSchedule | None, interval: int) -> None:
        """Find the map of the cell. maps: those of the run's predictions; interval: of its bars, ns."""
        assert result.pricing is not None
        assert result.decisions.lean is not None
        self.lean, self.score = float(result.decisions.lean[t, s]), float(result.decisions.arbiter_score[t, s])
        self.volatility, carry = float(result.pricing[VOLATILITY, t, s]), float(result.pricing[FUNDING, t, s])
        self.costs = costs_rule(params.broker.fee_rate, params.broker.slippage_rate)
        self.least, first = params.decide.min_edge, params.broker.max_holding_bars
        self.lengths = (first, *(bars for bars, _ in maps.later)) if maps is not None else (first,)
        holding = result.decisions.holding
        self.horizon = first if holding is None else int(holding[t, s])  # of the ensemble that speaks, or of the arbiter that trades
        self.carry, self.arbiter_carry = self.horizon * carry, first * carry
        self.row: Any
        self.row, self.told = (None, {}) if maps is None else maps.of(self.horizon).at(int(result.close_time[t]))
        self.first: Any
        self.first, self.told_first = (None, {}) if maps is None else maps.at(int(result.close_time[t]))
        self.is_mean, self.is_present = params.ensemble.rule == EnsembleRule.MEAN, ~np.isnan(leans_of(result.votes[t : t + 1])[:, 0, s])
        weights = np.where(self.is_present, params.ensemble.weights, 0.0) * (1.0 if self.row is None else self.row["factors"])
        self.shares = weights / weights.sum() if weights.any() else weights
        self.block_hours = float("nan") if maps is None else block_hours(maps.params, interval)

    def layer(self) -> dict[str, Any]:
        """Say what the ensemble's opinion is worth: its lean, its edge before and after costs, and the map's evidence."""
        if self.row is None:
            return {"name": "price", "says": "no edge: nothing was known before the first map", "saw": {}}
        bid = float(bid_rule(self.lean, self.volatility, self.row["slope"]))
        net = float(net_rule(bid, self.costs, self.carry))
        win = float(win_rule(self.row["win"], abs(self.lean)))
        funding = (self.carry if bid > 0.0 else -self.carry) + 0.0  # no -0.0
        saw = {
            "lean": f"{self.lean:+.4f} (p(BUY) - p(SELL); -1 to +1)",
            "volatility": f"{self.volatility:.4%} (of a bar's return)",
            "gross edge": f"{bp(abs(bid))} (what the trade may be counted on to earn before costs)",
            "fees and slippage": f"{bp(self.costs)} (both sides)",
            "expected funding": f"{bp(funding if bid != 0.0 else 0.0)} (paid over {self.horizon} bars)",
            "net edge": f"{bp(net)} (trades above decide.min_edge, {bp(self.least)})" if bid != 0.0 else "none",
            **({"horizon": self._horizon()} if len(self.lengths) > 1 else {}),
            "win probability": "unknown, because too few trades were known before"
            if win != win
            else f"{win:.4f} (that the trade pays its costs)",
            "map": map_text(self.told.get("ensemble", {}), float(self.row["slope"])),
            "block of time": block_text(self.block_hours),
        }
        says = "no edge"
        if bid != 0.0:
            side, word = "BUY" if bid > 0.0 else "SELL", "enough" if net > self.least else "not enough"
            says = f"net edge {bp(net)} on the {side} side, {word} to trade"
        return {"name": "price", "says": says, "saw": saw}

    def _horizon(self) -> str:
        return f"{self.horizon} bars (of {', '.join(map(str, self.lengths))}: that with the largest edge speaks)"

    def voter(self, m: int, name: str) -> dict[str, str]:
        """Say what a slot's voter counted for in the mean of the cell's period, and whether it keeps its place; nothing of a vote."""
        if not self.is_mean:
            return {}
        place = self.told.get("voters", {}).get(name)
        found = {"weight": f"{self.shares[m]:.4f} (of 1, in the mean of this period)"}
        return found if place is None else found | {"place": place_text(place)}

    def voters(self, n: int, names: Sequence[str]) -> int | str:
        """Return the number of voters, and who of them had lost its place, so that the mean left it out."""
        factors = np.ones(N_MODELS) if self.row is None else self.row["factors"]
        lost = [name for m, name in enumerate(names) if self.is_mean and self.is_present[m] and factors[m] == 0.0]
        return f"{n}, among them {' and '.join(lost)}, which lost {'its place' if len(lost) == 1 else 'their places'}" if lost else n

    def meta(self) -> dict[str, str]:
        """Say what the learned meta layer's answer does in mode `bet`."""
        if self.first is None:
            return {}
        limits = f"a bet is left out up to a probability of {self.first['skip']:.4f}, whole from {self.first['full']:.4f} on"
        return {"thresholds": limits, "seat": seat_text(self.told_first.get("meta", {}), bool(self.first["is_seated"]))}

    def arbiter(self) -> dict[str, str]:
        """Say what the arbiter's score is worth, and whether it has a seat."""
        if self.first is None:
            return {}
        told, slope = self.told_first.get("arbiter", {}), float(self.first["arbiter_slope"])
        net = float(net_rule(bid_rule(self.score, self.volatility, slope), self.costs, self.arbiter_carry))
        edge = f"{bp(net)} (trades above decide.min_edge, {bp(self.least)})" if slope > 0.0 and self.score == self.score else "none"
        return {"net edge": edge, "map": map_text(told, float(told.get("counts", slope))), "seat": seat_text(told, slope > 0.0)}


def map_text(told: Mapping[str, Any], counts: float) -> str:
    """Say a map's slope and what it was fitted on. told: its evidence; counts: what may be counted on of the slope.

    >>> map_text({"slope": 0.21, "error": 0.03, "n_cells": 2400, "n_effective": 14.2}, 0.13)
    'slope 0.13, shrunk from 0.21 with an error of 0.03, on what 2,400 leans came to, worth 14.2 blocks of time'
    >>> map_text({"slope": 0.04, "error": 0.03, "n_cells": 2400, "n_effective": 14.2}, 0.0).partition(", on")[0]
    'slope 0: the estimate of 0.04 with an error of 0.03 has a 99 % lower bound of -0.03934, above 0 needed'
    """
    if told.get("error") is None:
        known = f"{told.get('n_cells', 0):,}, worth {told.get('n_effective', 0.0):.1f} blocks of time"
        return f"slope {counts:.4g}: too few leans were known before ({known})"
    of = f"{told['slope']:.4g} with an error of {told['error']:.4g}"
    bound = f"has a 99 % lower bound of {lower_bound(told):.4g}, above 0 needed"
    found = f"slope {counts:.4g}, shrunk from {of}" if counts > 0.0 else f"slope 0: the estimate of {of} {bound}"
    return f"{found}, on what {told['n_cells']:,} leans came to, worth {told['n_effective']:.1f} blocks of time"


def lower_bound(told: Mapping[str, Any]) -> float:
    """Return the bound of a slope that must be above 0. told: its evidence, with an error."""
    return float(told["slope"] - quantile(told["n_effective"]) * told["error"])


def seat_text(told: Mapping[str, Any], is_seated: bool) -> str:
    """Say whether a layer acts in a period, and what the chain earned with it before. told: its evidence.

    >>> seat_text({"gain": {"mean": 0.0001, "lower": -0.0002, "n_blocks": 20}}, False)
    'no seat, it advises: with it the chain earned 1.0 bp more a block of time (95 % lower bound -2.0 bp, above 0 needed; 20 blocks)'
    >>> seat_text({"gain": {"mean": 0.0, "lower": 0.0, "n_blocks": 20}}, False)
    'no seat, it advises: it would have changed no bet before (20 blocks of time)'
    >>> seat_text({"counts": 0.0, "slope": 0.04, "error": 0.03, "n_effective": 14.2}, False)
    'no seat, it advises: its own map knows no edge (99 % lower bound of its slope -0.03934, above 0 needed)'
    """
    word, gain = "has a seat" if is_seated else "no seat, it advises", told.get("gain") or {}
    if not is_seated and told.get("counts") == 0.0:
        known = told.get("error") is not None
        why = f"99 % lower bound of its slope {lower_bound(told):.4g}, above 0 needed" if known else "too few trades were known before"
        return f"{word}: its own map knows no edge ({why})"
    if gain.get("lower") is None:
        return f"{word}: {untried_text(gain, not told.get('beside', True))}"
    if is_idle(gain):
        return f"{word}: it would have changed no bet before ({several(gain['n_blocks'], 'blocks')} of time)"
    bound = f"95 % lower bound {bp(gain['lower'], '+')}, above 0 needed; {gain['n_blocks']} blocks"
    return f"{word}: with it the chain earned {more_text(gain['mean'])} a block of time ({bound})"


def more_text(gained: float) -> str:
    """Say how much more or less a chain earned.

    >>> more_text(0.0001), more_text(-0.0006)
    ('1.0 bp more', '6.0 bp less')
    """
    return f"{bp(abs(gained))} {'less' if gained < 0.0 else 'more'}"


def untried_text(gain: Mapping[str, Any], is_alone: bool = False) -> str:
    """Say why there is no bound of what a layer added; is_alone: to a chain whose ensemble has no map, else to one that has."""
    n, since = gain.get("n_blocks", 0), "" if is_alone else " beside an ensemble with a map"
    if n:
        return f"too little was known before{since} ({several(n, 'blocks')} of time)"
    return "not tried, as no map let the chain trade before" if is_alone else "not tried, as the ensemble had no map before"


def is_idle(gain: Mapping[str, Any]) -> bool:
    """Say whether the chain earned the same with a layer and without it in every block of time, so that the layer was not tried."""
    return gain["mean"] == gain.get("lower") == 0.0


def block_hours(params: Mapping[str, Any], interval: int) -> float:
    """Return how long a block of time is. params: of the maps; interval: of a bar, ns."""
    return block_ns(params["broker.max_holding_bars"] * interval) / NS_PER_HOUR


def block_text(hours: float) -> str:
    """Write the length of a block of time.

    >>> block_text(72.0), block_text(75.0)
    ('3 days', '75 hours')
    """
    return f"{hours / 24.0:g} days" if hours % 24.0 == 0.0 else f"{hours:g} hours"


def place_text(told: Mapping[str, Any]) -> str:
    """Say whether a voter keeps its place in a period, and what the chain earned with it before. told: its evidence.

    >>> place_text({"is_kept": True, "gain": {"mean": 0.0001, "upper": 0.0004, "n_blocks": 20}})
    'keeps its place: with it the chain earned 1.0 bp more a block of time (95 % upper bound +4.0 bp, below 0 loses it; 20 blocks)'
    """
    word, gain = "keeps its place" if told["is_kept"] else "lost its place", told["gain"]
    if gain.get("upper") is None:
        return f"{word}: {untried_text(gain)}"
    if is_idle(gain):
        return f"{word}: without it no bet would have changed before ({several(gain['n_blocks'], 'blocks')} of time)"
    bound = f"95 % upper bound {bp(gain['upper'], '+')}, below 0 loses it; {gain['n_blocks']} blocks"
    return f"{word}: with it the chain earned {more_text(gain['mean'])} a block of time ({bound})"


def answered(action: int, win: float) -> str:
    """Say the arbiter's answer where opinions have a price; without a seat nobody knows how often it pays."""
    name = Action(action).name
    return name if win != win else f"{name}, win probability {win:.4f}"


def bp(fraction: float, sign: str = "") -> str:
    """Write a fraction in basis points: one decimal, or two digits of what would read 0.0. sign: `+` writes that of a gain too.

    >>> bp(0.001), bp(0.0), bp(-2.04e-7, "+"), bp(3e-4, "+")
    ('10.0 bp', '0.0 bp', '-0.002 bp', '+3.0 bp')
    """
    points = BASIS_POINTS * fraction
    return f"{points:{sign}{'.2g' if 0.0 < abs(points) < 0.05 else '.1f'}} bp"
