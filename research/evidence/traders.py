"""Traders: layers that opened the trades of a run, why one opened none, and, where opinions have a price, how near it came."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from qtcore.chain.price import FUNDING, VOLATILITY, costs_rule
from qtcore.choices import DrawdownBasis
from qtcore.rules import Reason, Rule, rule_of
from qtcore.types import F8, NS_PER_DAY, NS_PER_HOUR, Action, Source, Verdict
from research.errors import several
from research.evidence.seats import fitted_at, map_rows, seats, served, slopes
from research.runs.money import BASIS_POINTS
from research.runs.price_text import block_hours, block_text, bp, is_idle, lower_bound, untried_text
from research.runs.record import RunRecord
from research.training.maps import MapSchedule

FULL = 1.0 - 1e-9  # of the largest position: what rounding leaves of it
HIGH = 99.0  # percentile of the edges that is shown
HARDLY = 0.2  # of all trades: an ensemble with a smaller share says what stood in its way


def traders(run: RunRecord, rows: slice, n_trades: int) -> dict[str, Any]:
    """Say what `attribution.by_source` does not: who made no trade and why, how many trades got the largest position, and the edges.

    rows: the tested ones. `edges`, seats and what they were found at need opinions with a price; without one they are empty or None.
    """
    is_priced = run.result.decisions.edge is not None
    said = [] if run.own.judge is not None else list(Absent(run, rows, n_trades).sentences() if is_priced else refused(run, rows, n_trades))
    told = {"sentences": said, "at_max_position": at_max_position(run), "edges": edges(run, rows) if is_priced else None}
    told |= {"seats": seats(run, rows) if is_priced else [], "fitted_at": fitted_at(run) if is_priced else {}}
    maps = run.predictions.maps if is_priced else None
    return told | {"block_hours": None if maps is None else block_hours(maps.params, run.bars.interval)}


def declined(run: RunRecord, rows: slice, n_trades: int) -> str | None:
    """Say which layer came nearest to a trade where the chain wished for none on the tested rows; None where it did, or nobody voted."""
    said = run.result.decisions
    wished = (said.raw_action[rows] != Action.HOLD) & (said.n_voters[rows] > 0)
    if said.edge is None or run.own.judge is not None or n_trades or wished.any() or not said.n_voters[rows].any():
        return None
    return Absent(run, rows, n_trades).nearest()


def refused(run: RunRecord, rows: slice, n_trades: int) -> Iterator[str]:
    """Say of an ensemble without a price that opened few trades or none which rule took most of its BUY and SELL, and what binds."""
    d, opened = run.result.decisions, int(np.count_nonzero(run.trades["source"] == Source.ENSEMBLE))
    voted = d.n_voters[rows] > 0
    sides = voted & (d.ensemble_action[rows] != Action.HOLD)
    if opened and opened >= HARDLY * n_trades:
        return
    none = f"The ensemble made {f'{opened:,} of {n_trades:,} trades' if n_trades else 'no trade'} because"
    n_sides, said = int(sides.sum()), f"said BUY or SELL on {int(sides.sum()):,} of {several(int(voted.sum()), 'cells')}"
    if not n_sides:
        yield f"{none} {f'it {said} with a vote' if voted.any() else 'no model voted'}."
        return
    is_wish = (d.source[rows] == Source.ENSEMBLE) & (d.raw_action[rows] != Action.HOLD)
    reasons = np.where(is_wish, run.result.governor_reason[rows], d.meta_reason[rows])[sides]
    codes, counts = np.unique(reasons[~np.isin(reasons, (Reason.APPROVED, Reason.EXIT_SIGNAL))], return_counts=True)
    text = f"{none} it {said}"
    if len(codes):
        rule = rule_of(int(codes[np.argmax(counts)]))
        text += f", of which {_named(rule)} took the most, {int(counts.max()):,}"
    least, sure = run.params.governor.min_confidence, d.ensemble_confidence[rows][sides]
    if least > 0.0:
        n_sure = int((sure >= least).sum())
        text += f"; its confidence reaches governor.min_confidence of {least:g} on {n_sure:,} of them and is {sure.max():.3f} at most"
    yield f"{text}."


def _named(rule: Rule) -> str:
    """Name a rule with its parameter, if it has one."""
    return f"{rule.reason.name}{f' ({rule.parameter})' if rule.parameter else ''}"


def at_max_position(run: RunRecord) -> int:
    """Count approved entries that got `governor.max_position` of their base."""
    governor, result = run.params.governor, run.result
    base = result.equity if governor.drawdown_basis == DrawdownBasis.EQUITY else result.balance
    entered = result.governor_reason == Reason.APPROVED
    return int(np.count_nonzero(entered & (np.abs(result.size) >= FULL * governor.max_position * base[:, None])))


def edges(run: RunRecord, rows: slice) -> dict[str, Any]:
    """Compare net edges with what a trade costs, basis points: by symbol, and by the UTC hour of the decision.

    `estimate` is the largest edge before costs by the slopes as they were estimated: what the evidence is too weak to count on.
    """
    edge, time = run.result.decisions.edge, run.bars.close_time[rows]
    assert edge is not None
    net, hour = BASIS_POINTS * edge[rows], time % NS_PER_DAY // NS_PER_HOUR
    guess = BASIS_POINTS * _estimated(run, rows)
    broker = run.params.broker
    return {
        "costs": BASIS_POINTS * costs_rule(broker.fee_rate, broker.slippage_rate),
        "min_edge": BASIS_POINTS * run.params.decide.min_edge,
        "all": _of(net, guess),
        "by_symbol": {name: _of(net[:, s], guess[:, s]) for s, name in enumerate(run.bars.symbols)},
        "by_hour": {f"{h:02d}": _of(net[hour == h], guess[hour == h]) for h in np.unique(hour).tolist()},
    }


def _estimated(run: RunRecord, rows: slice) -> F8:
    """Return the edges of the ensemble before costs by the estimated slopes, [m, S], fractions; NaN where none was fitted."""
    maps, lean, pricing = run.predictions.maps, run.result.decisions.lean, run.result.pricing
    assert lean is not None
    assert pricing is not None
    guesses = [np.full(len(lean[rows]), np.nan)]
    if maps is not None:
        at = np.searchsorted(maps.maps["start"], run.bars.close_time[rows], side="right")
        guesses = [_guesses(schedule)[at] for schedule in (maps, *(own for _, own in maps.later))]
    found: F8 = slopes(run, rows, guesses[0], guesses[1:]) * np.abs(lean[rows]) * pricing[VOLATILITY, rows]
    return found


def _guesses(maps: MapSchedule) -> F8:
    """Return the slopes of the ensemble as they were estimated, NaN before the first map and where there is no estimate."""
    fits = [told["ensemble"] for told in maps.evidence]
    return np.array([np.nan, *(max(0.0, fit["slope"]) if fit["error"] is not None else np.nan for fit in fits)])


def _of(net: F8, guess: F8) -> dict[str, Any]:
    known, guessed = net[~np.isnan(net)], guess[~np.isnan(guess)]
    found = (known.max(), np.percentile(known, HIGH)) if len(known) else (np.nan, np.nan)
    estimate = float(guessed.max()) if len(guessed) else np.nan
    return {"cells": len(known), "largest": float(found[0]), "p99": float(found[1]), "estimate": estimate}


class Absent:
    """Layers that opened no trade, and what stood in their way."""

    def __init__(self, run: RunRecord, rows: slice, n_trades: int) -> None:
        """Lay out the tested cells and the map of each bar."""
        self.run, self.rows, self.n_trades, self.said = run, rows, n_trades, run.result.decisions
        pricing = run.result.pricing
        assert pricing is not None
        self.volatility, carry = pricing[VOLATILITY, rows], pricing[FUNDING, rows]
        holding = self.said.holding
        self.arbiter_carry = run.params.broker.max_holding_bars * carry
        self.carry = self.arbiter_carry if holding is None else holding[rows] * carry
        each = map_rows(run, rows)
        self.maps, self.slope = each[0], slopes(run, rows, each[0]["slope"], list(each[1:]["slope"]))
        self.periods = [row for row, _ in served(run, rows)]
        self.told = [told for _, told in served(run, rows)]
        broker = run.params.broker
        self.costs = costs_rule(broker.fee_rate, broker.slippage_rate)

    def sentences(self) -> Iterator[str]:
        """Say for each layer that never acts why not, and which limit took most of what was wished."""
        opened = set(self.run.trades["source"].tolist())
        if Source.ENSEMBLE not in opened:
            yield f"{self._none('ensemble')} {self._ensemble()}."
        if (text := self._meta()) is not None:
            yield text
        if Source.ARBITER not in opened:
            yield f"{self._none('arbiter')} {self._arbiter()}."
        if (text := self._limited()) is not None:
            yield text

    def nearest(self) -> str:
        """Say which layer's edge came nearest to a trade, and what it fell short of."""
        is_arbiter = self._net(Source.ARBITER).max() > self._net(Source.ENSEMBLE).max()
        layer, why = ("arbiter", self._arbiter()) if is_arbiter else ("ensemble", self._ensemble())
        return f"the chain wished for no trade; nearest came the {layer}: {why}."

    def _bid(self, source: Source) -> F8:
        """Return what a layer may be counted on to earn, [m, S], with the sign of its side; 0.0 where there is nothing."""
        assert self.said.lean is not None
        is_arbiter = source == Source.ARBITER
        leans = self.said.arbiter_score if is_arbiter else self.said.lean
        slope = self.maps["arbiter_slope"][:, None] if is_arbiter else self.slope
        bid: F8 = np.nan_to_num(slope * leans[self.rows] * self.volatility)
        return bid

    def _net(self, source: Source) -> F8:
        """Return what is left of a layer's bids after their costs; minus infinity where there is none."""
        bid, carry = self._bid(source), self.arbiter_carry if source == Source.ARBITER else self.carry
        net: F8 = np.where(bid != 0.0, np.abs(bid) - self.costs - np.where(bid > 0.0, carry, -carry), -np.inf)
        return net

    def _none(self, layer: str) -> str:
        return f"The {layer} made {f'0 of {self.n_trades:,} trades' if self.n_trades else 'no trade'} because"

    def _ensemble(self) -> str:
        if not (self.said.n_voters[self.rows] > 0).any():
            return "no model voted"
        if short := self._short_of(Source.ENSEMBLE):
            return short
        if (self.slope > 0.0).any():
            return f"it leaned to no side, or no volatility was known, {self._acting('slope')} its slope counts"
        costs = f"{bp(self.costs)} (broker.fee_rate, broker.slippage_rate)"
        return f"{self._unproven('ensemble')}; its edge before costs is 0.0 bp, beside costs of {costs}"

    def _arbiter(self) -> str:
        params = [part for _, part in self.run.params.spans(self.run.bars.close_time[self.rows])]
        if not any(part.arbiter.enabled for part in params):
            return "arbiter.enabled is off"
        if not (self.said.arbiter_action[self.rows] >= 0).any():
            return "the ensemble was never in doubt, so that it was not asked"
        if short := self._short_of(Source.ARBITER):
            return short
        if (self.maps["arbiter_slope"] > 0.0).any():
            return f"no score of its own or no volatility was known {self._acting('arbiter_slope')} it had a seat"
        return self._unseated("arbiter")

    def _meta(self) -> str | None:
        """Say that the learned meta layer changed no bet, or what it changed, as it opens no trades itself."""
        params = [part for _, part in self.run.params.spans(self.run.bars.close_time[self.rows])]
        changed = int(np.count_nonzero(self.said.verdict[self.rows] == Verdict.OVERRIDE))
        traded = (self.said.raw_action[self.rows] != Action.HOLD) & (self.said.source[self.rows] == Source.ENSEMBLE)
        bets = int(np.count_nonzero(traded))
        if not any(part.meta.enabled for part in params):
            return "The meta layer changed no bet because meta.enabled is off."
        if self.run.meta is None:
            return "The meta layer changed no bet because it has no learned model."
        if not bets and not changed:
            return "The meta layer changed no bet because the ensemble made none; its rules count leans, which are no bets without an edge."
        if changed:
            return None
        why, is_seated = self._unseated("meta"), self.maps["is_seated"] > 0
        if is_seated.any():
            inside = int(np.count_nonzero(traded[is_seated]))
            done = f"left whole all {inside:,} that were made" if inside else "was asked about none"
            why = f"it {done} {self._acting('is_seated')} it had a seat"
        return f"The meta layer changed 0 of {several(bets, 'bets')} because {why}."

    def _acting(self, field: str) -> str:
        """Name the periods in which a map lets a layer act, by the field of the map that says so."""
        n = sum(bool(row[field] > 0) for row in self.periods)
        return f"in the {n} of {several(len(self.periods), 'periods')} in which" if n else "wherever"

    def _limited(self) -> str | None:
        """Say which limit of the governor refused more than half of the wishes for a new position; None where some passed of each."""
        wished = self.said.raw_action[self.rows] != Action.HOLD
        codes, counts = np.unique(self.run.result.governor_reason[self.rows][wished], return_counts=True)
        refused = {code: n for code, n in zip(codes.tolist(), counts.tolist()) if rule_of(code).parameter}
        n_wishes = sum(refused.values()) + int(counts[codes == Reason.APPROVED].sum())
        code = max(refused, key=refused.__getitem__, default=None)
        if code is None or not self.n_trades or 2 * refused[code] <= n_wishes:
            return None
        return f"The governor refused {refused[code]:,} of {n_wishes:,} wishes for a new position, by {_named(rule_of(code))}."

    def _short_of(self, source: Source) -> str:
        """Say what the bid of a layer that came nearest fell short of; empty where there is none."""
        bid, least = self._bid(source), self.run.params.decide.min_edge
        if not bid.any():
            return ""
        net = self._net(source)
        at = np.unravel_index(int(np.argmax(net)), net.shape)
        gross = float(abs(bid[at]))
        cost = gross - float(net[at])
        if gross <= cost:
            rates = f"broker.fee_rate, broker.slippage_rate{' and funding' if cost != self.costs else ''}"
            return f"its largest edge before costs was {bp(gross)}, below its costs of {bp(cost)} ({rates})"
        if gross - cost <= least:
            return f"its largest edge after costs was {bp(gross - cost)}, not above decide.min_edge of {bp(least)}"
        wished = (self.said.raw_action[self.rows] != Action.HOLD) & (self.said.source[self.rows] == source)
        if not wished.any() and source == Source.ENSEMBLE:
            return f"the meta layer left out every bet whose edge before costs, up to {bp(gross)}, was above costs of {bp(cost)}"
        if not wished.any():
            return f"the layers before it had the word wherever its edge before costs, up to {bp(gross)}, was above costs of {bp(cost)}"
        codes, counts = np.unique(self.run.result.governor_reason[self.rows][wished], return_counts=True)
        rule = rule_of(int(codes[np.argmax(counts)]))
        most = f"the governor turned away all {int(wished.sum()):,} of its wishes, most by {_named(rule)}"
        return f"{most}; its largest edge before costs was {bp(gross)}"

    def _unproven(self, layer: str) -> str:
        """Say that the lower bound of a layer's slope is nowhere above 0, and what came nearest."""
        fits = [each[layer] for each in self.told if each.get(layer, {}).get("error")]
        none = f"the 99 % lower bound of its slope is above 0 in {_none_of(self.told)}"
        if not fits:
            return f"{none}: too few trades were known"
        best = max(fits, key=lower_bound)
        return f"{none}: the nearest is {lower_bound(best):.3g}, of a slope of {best['slope']:.3g} with an error of {best['error']:.3g}"

    def _unseated(self, layer: str) -> str:
        """Say that a layer had a seat in no period, and what came nearest."""
        told = [each.get(layer, {}) for each in self.told]
        if layer == "arbiter" and not any(each.get("counts", 0.0) > 0.0 for each in told):
            return self._unproven(layer)
        none = f"it earned a seat in {_none_of(told)}"
        gains = [each.get("gain") or {} for each in told]
        tried = [gain for gain in gains if gain.get("lower") is not None]
        bounds = [gain["lower"] for gain in tried if not is_idle(gain)]
        if not tried:
            most_known = max(told, key=lambda each: (each.get("gain") or {}).get("n_blocks", 0))
            return f"{none}: {untried_text(most_known.get('gain') or {}, not most_known.get('beside', True))}"
        idle = f"before {len(tried) - len(bounds)} of them it would have changed no bet"
        if not bounds:
            return f"{none}: {idle}" + ("" if len(tried) == len(told) else ", and before the others too little was known")
        maps = self.run.predictions.maps
        assert maps is not None
        block = block_text(block_hours(maps.params, self.run.bars.interval))
        most = f"{bp(max(bounds), '+')} a block of time ({block}), above 0 needed"
        where = "" if len(bounds) == len(tried) else f"{idle}; where it would, "
        return f"{none}: {where}the 95 % lower bound of what it added was at most {most}"


def _none_of(periods: Sequence[Any]) -> str:
    return "no period" if len(periods) < 2 else f"none of {len(periods):,} periods"
