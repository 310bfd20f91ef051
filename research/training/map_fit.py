"""Map fitting: what the opinions of each fold are worth, from the trades that had ended before it began.

The rows of a fold are predicted by models that were fitted before it, and those that a fold holds out by its own models, which saw none of
them: the leans that a map learns from are out of sample. A fold also gets factors of the voters' weights from their log loss on earlier
folds, shrunk towards equal ones, and a map of the arbiter's score.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from qtcore.arbiter import score_cells
from qtcore.chain.decide import decide
from qtcore.chain.outcome import outcomes
from qtcore.chain.price import BETA_NAME, VOLATILITY_NAME, carry_block, carry_weight, costs_rule, leans_of, maps_on, no_map, pricing_of
from qtcore.chain.trade import TradeState, run_trade
from qtcore.choices import EnsembleRule
from qtcore.features import FeatureBank
from qtcore.meta import Hits, MetaSource, hit_bars, meta_probs
from qtcore.params import Params
from qtcore.types import F8, I8, N_MODELS, Bars, Decisions, Votes
from research.data import fingerprint
from research.training.edge import EdgeMap, blocks_of, fit_win, leaning
from research.training.labels import learned_rows
from research.training.maps import JUDGED, MapSchedule
from research.training.seats import Gain, gains

BY_EDGE = {"decide.rule": "edge", "meta.mode": "bet"}  # under which opinions have a price
SHRUNK = 30.0  # blocks of earlier folds after which a voter's log loss counts as much as equal weights
FULL = 0.1  # of probability above breaking even: from there a bet is made whole
PERIODS = 24  # into which predictions without folds are cut
SMALL = 0.01  # nats: a difference of log losses that says little
TINY = 1e-15  # probabilities are at least this before the logarithm


@dataclass(frozen=True)
class Held:
    """Rows [R] before a period that its models did not learn from, and what they say of them, [5, R, S]."""

    rows: I8
    votes: Votes


@dataclass(frozen=True)
class Trades:
    """What every cell of a market would have earned, and what is known of it. [n, S], results and ends [2, n, S]: of a short and a long.

    Where the book hedges the market, results are those `beyond_market`.
    """

    bars: Bars
    params: Params
    pricing: F8
    planes: Any
    results: F8
    ends: I8
    block: I8
    score: F8

    @classmethod
    def of(cls, bars: Bars, params: Params) -> Self:
        """Work out the trades of `bars`; params: with a horizon."""
        bank = FeatureBank(params, bars.symbols, bars.interval, (VOLATILITY_NAME, *((BETA_NAME,) if params.reads_beta else ())))
        planes = bank.compute(bars)
        results, ends = outcomes(bars, params)
        if params.hedges_market:
            results, ends = beyond_market(results, ends, bars.open)
        score = np.empty(bars.close.size)
        score_cells(planes.arbiter.reshape(len(planes.arbiter), -1), score, 0, len(score))
        block = blocks_of(bars.close_time, params.broker.max_holding_bars * bars.interval)
        carry = np.zeros(bars.close.shape)
        if bars.funding is not None:
            carry_block(bars.funding, carry_weight(bars.interval), np.zeros(len(bars.symbols)), carry)
        pricing = pricing_of(planes[VOLATILITY_NAME], carry, planes[BETA_NAME] if params.reads_beta else None)
        return cls(bars, params, pricing, planes, results, ends, block, score.reshape(bars.close.shape))

    @property
    def volatility(self) -> F8:
        """Of a bar's return, [n, S]."""
        return self.planes[VOLATILITY_NAME]

    def said(self, votes: Votes, rows: Any, params: Params, maps: NDArray, probs: F8 | None = None) -> Decisions:
        """Decide the rows that `votes` are of. probs [3, rows, S]: what the learned meta layer says."""
        planes = self.planes.arbiter[:, rows], self.planes.regime[:, rows]
        return decide(votes, *planes, params, probs, pricing=self.pricing[:, rows], maps=maps)

    def lean(self, votes: Votes, rows: Any, factors: F8) -> F8:
        """Return how far the ensemble leans in the rows that `votes` are of, its voters' weights times `factors` [5]."""
        alone = no_map()
        alone["factors"] = factors
        found = self.said(votes, rows, self.params, alone).lean
        assert found is not None
        return found

    def equity(self, votes: Votes, params: Params, maps: NDArray, probs: F8 | None = None) -> F8:
        """Trade all bars and return the equity at each close, [n]. maps: MAP [F] by `start`; probs: as in `said`.

        No drawdown halts it: a chain that has stopped for good says nothing of the layers in it from there on.
        """
        params = params.with_values({"governor.max_drawdown": 1.0})
        n_symbols = len(self.bars.symbols)
        said = self.said(votes, slice(None), params, maps_on(maps, self.bars.close_time, n_symbols), probs)
        fresh = TradeState.fresh(params, n_symbols)
        return run_trade(self.bars, said.raw_action, said.raw_confidence, params, fresh, money=said.money).equity

    def fit(self, lean: F8, stop: int, *held: tuple[I8, F8]) -> tuple[EdgeMap, F8]:
        """Fit a map, and how often a trade pays, on the trades that had ended before row `stop`.

        lean [n, S]; held: further leans [R, S] of the rows [R], which count beside those of `lean`.
        """
        rows, leans = (np.concatenate(each) for each in zip((np.arange(stop), lean[:stop]), *held))
        result = leaning(leans, np.where(self.ends[:, rows] < stop, self.results[:, rows], np.nan))
        block, broker = np.repeat(self.block[rows, None], leans.shape[1], axis=1), self.params.broker
        won = fit_win(leans, result, costs_rule(broker.fee_rate, broker.slippage_rate))
        return EdgeMap.fit(leans, self.volatility[rows], result, block), won


def beyond_market(results: F8, ends: I8, open_: F8) -> tuple[F8, I8]:
    """Return results beyond the mean of their bar and side, and the bar in which all trades of that bar have ended, [2, n, S] each.

    Until then nobody knows the mean, of whatever symbol. ends: -1 where there is no result; open_ [n, S]: a trade that was entered and has
    not ended yet lets its whole bar wait.
    """
    known, n = ends >= 0, ends.shape[1]
    mean = np.where(known, results, 0.0).sum(axis=2, keepdims=True) / np.maximum(known.sum(axis=2, keepdims=True), 1)
    waits = ~np.isnan(np.vstack([open_[1:], np.full(open_[:1].shape, np.nan)]))
    last = np.where(known, ends, np.where(waits, n, -1)).max(axis=(0, 2))
    return results - mean, np.where(known, last[:, None], -1)


def fit_maps(
    bars: Bars,
    votes: Votes,
    labels: NDArray[np.int8],
    label_rows: int,
    starts: Sequence[int],
    params: Params,
    held: Sequence[Held] = (),
    learned: int = 0,
) -> MapSchedule:
    """Fit one map for each period of `bars`, and seat its layers; the periods begin at the rows `starts`, ascending.

    votes: out of sample, absent before the first period. labels int8 [n, S]: -1 unknown, known `label_rows` rows later. params: the
    chain's, with a horizon, taken `with_edge`. held [F]: what each period holds out, nothing where nobody does. learned: rows that taught
    the rule of the labels, so that nobody knows one before them.
    """
    params = with_edge(params)
    trades = Trades.of(bars, params)
    stops = [start - label_rows if start >= learned else 0 for start in starts]
    factors = np.stack([voter_factors(votes, labels, trades.block, stop) for stop in stops])
    kept, told_voters = _kept(trades, votes, starts, factors, held)
    maps, opinions = _ensemble(trades, votes, starts, factors * kept, held)
    arbiter = [trades.fit(np.nan_to_num(trades.score), start) for start in starts]
    maps["arbiter_variance"] = [own.variance for own, _ in arbiter]
    maps["arbiter_win"] = np.stack([win for _, win in arbiter])
    tried = maps.copy()
    tried["arbiter_slope"] = [own.counts for own, _ in arbiter]
    found, knows = [Gain()] * len(starts), maps["slope"] > 0.0
    if params.arbiter.enabled and np.any(tried["arbiter_slope"] > 0.0):
        # beside an ensemble that has a map counts what it added to one that had: what it earned alone is another question
        pair = trades.equity(votes, params, tried), trades.equity(votes, params, maps)
        beside = gains(*pair, trades.block, starts, knows)
        alone = gains(*pair, trades.block, starts, knows | (tried["arbiter_slope"] > 0.0))
        found = [a if is_known else b for is_known, a, b in zip(knows, beside, alone)]
    is_seated = np.array([each.lower > 0.0 for each in found])
    maps["arbiter_slope"] = np.where(is_seated, tried["arbiter_slope"], 0.0)
    evidence = [
        {
            "ensemble": _told(opinions[k]),
            "arbiter": _told(arbiter[k][0]) | {"is_seated": bool(is_seated[k]), "gain": found[k].to_dict(), "beside": bool(knows[k])},
            "voters": told_voters[k],
        }
        for k in range(len(starts))
    ]
    return MapSchedule(maps, tuple(evidence), params.flat())


def usual(params: Params, *kept: str) -> Params:
    """Return the parameters at which maps are fitted, and with them seats and bets: those of the profile that `params` were set over.

    So a fee, a limit or a weight that is swept or set finds them as they were, and a setting in a sweep is the same run alone. What an
    opinion is, a vote or a mean, is that of `params`; so are the layers `kept`, and a book that hedges the market, whose opinions are worth
    what symbols do beyond it.
    """
    same = ("ensemble.rule", *(("governor.book", "governor.neutral") if params.hedges_market else ()))
    own = {name: value for name, value in params.flat().items() if name in same or name.partition(".")[0] in kept}
    return Params.profile(params.made_of).with_values(own | BY_EDGE)


def with_edge(params: Params) -> Params:
    """Return parameters under which opinions have a price. Raises InputError where the others do not go with that."""
    return params.with_values(BY_EDGE)


def fit_lean(bars: Bars, votes: Votes, lean: F8, starts: Sequence[int], params: Params) -> MapSchedule:
    """Fit one map for each period from leans [n, S] that are known, those of an own opinion layer: no voter, no arbiter and no seat."""
    trades = Trades.of(bars, params)
    fits = [trades.fit(lean, start) for start in starts]
    evidence = tuple({"ensemble": _told(fitted)} for fitted, _ in fits)
    return MapSchedule(_rows(bars, starts, fits, np.ones((len(starts), N_MODELS))), evidence, params.flat(), JUDGED)


def _ensemble(trades: Trades, votes: Votes, starts: Sequence[int], factors: F8, held: Sequence[Held]) -> tuple[NDArray, list[EdgeMap]]:
    """Fit the maps of the ensemble, whose voters have factors [F, 5] of their weights; each from the leans before its period."""
    lean, fits = np.zeros(trades.bars.close.shape), []
    for k, (start, stop) in enumerate(pairwise([*starts, trades.bars.n])):
        also = ((part.rows, trades.lean(part.votes, part.rows, factors[k])) for part in held[k : k + 1])
        fits.append(trades.fit(lean, start, *also))
        lean[start:stop] = trades.lean(votes[start:stop], slice(start, stop), factors[k])
    return _rows(trades.bars, starts, fits, factors), [fitted for fitted, _ in fits]


def _rows(bars: Bars, starts: Sequence[int], fits: Sequence[tuple[EdgeMap, F8]], factors: F8) -> NDArray:
    maps = np.repeat(no_map(), len(starts))
    maps["start"], maps["factors"] = bars.close_time[list(starts)], factors
    maps["slope"] = [fitted.counts for fitted, _ in fits]
    maps["variance"] = [fitted.variance for fitted, _ in fits]
    maps["win"] = np.stack([win for _, win in fits])
    return maps


def _kept(trades: Trades, votes: Votes, starts: Sequence[int], factors: F8, held: Sequence[Held]) -> tuple[F8, list[dict[str, Any]]]:
    """Say which voters keep their place in each period, [F, 5] of 0 and 1, and what the chain earned with each, by its name.

    Each is tried alone against the chain of all, maps refitted. Of those that had voted before the period one always stays.
    """
    kept, told, params = np.ones((len(starts), N_MODELS)), [dict[str, Any]() for _ in starts], trades.params
    voting = [m for m in range(N_MODELS) if (votes.action[m] >= 0).any() and params.ensemble.weights[m] > 0.0]
    if len(voting) < 2 or params.ensemble.rule != EnsembleRule.MEAN:  # a vote has no factors: nobody can be left out of it
        return kept, told
    quiet = params.with_values({"arbiter.enabled": False})
    maps, _ = _ensemble(trades, votes, starts, factors, held)
    whole = trades.equity(votes, quiet, maps)
    for m in voting:
        others = factors.copy()
        others[:, m] = 0.0
        without, _ = _ensemble(trades, votes, starts, others, held)
        has_map = (maps["slope"] > 0.0) | (without["slope"] > 0.0)
        found = gains(whole, trades.equity(votes, quiet, without), trades.block, starts, has_map)
        for k, each in enumerate(found):
            kept[k, m] = 0.0 if each.upper < 0.0 else 1.0
            told[k][votes.names[m]] = {"is_kept": bool(kept[k, m]), "gain": each.to_dict()}
    spoke: NDArray[np.bool_] = np.any(votes.action >= 0, axis=2)
    for k, start in enumerate(starts):
        before = [m for m in voting if spoke[m, :start].any()]
        if not np.any(kept[k, before]):
            kept[k] = 1.0
            told[k] = {name: each | {"is_kept": True} for name, each in told[k].items()}
    return kept, told


def bets_of(bars: Bars, predictions: Any) -> tuple[NDArray[np.int8], I8]:
    """Say of every cell that leans to a side whether the trade pays after its costs: 2 pays, 0 loses, -1 unknown or no bet, int8 [n, S].

    Also the row in which the trades of each row have ended, [n]. predictions: with maps, at whose parameters it is said.
    """
    params, votes = Params.stored(predictions.maps.params), predictions.votes()
    trades = Trades.of(bars, params)
    net, trades = _bets(trades, votes)
    labels = np.where(np.isnan(net), -1, np.where(net > 0.0, 2, 0)).astype(np.int8)
    reach = max(params.broker.max_holding_bars, *(bars for bars, _ in predictions.maps.later), 0) + 1
    ended = np.maximum(trades.ends.max(axis=(0, 2)), np.arange(bars.n) + reach)
    return labels, np.maximum.accumulate(ended)


def _bets(trades: Trades, votes: Votes) -> tuple[F8, Trades]:
    """Return what a trade on the ensemble's lean earned after costs, [n, S], and the trades, each of the horizon that speaks there.

    votes: with maps. Blocks of time are as long as the longest horizon asks for.
    """
    assert votes.maps is not None
    quiet = trades.params.with_values({"arbiter.enabled": False})  # whose trade would be another
    maps = maps_on(votes.maps, trades.bars.close_time, len(trades.bars.symbols))
    said = trades.said(votes, slice(None), quiet, maps)
    assert said.lean is not None
    for bars in np.unique(votes.maps["bars"][votes.maps["bars"] > 0]).tolist() if said.holding is not None else ():
        own = Trades.of(trades.bars, trades.params.with_values({"broker.max_holding_bars": bars}))
        speaks = said.holding == bars
        results, ends = np.where(speaks, own.results, trades.results), np.where(speaks, own.ends, trades.ends)
        trades = replace(trades, results=results, ends=ends, block=min(trades.block, own.block, key=lambda block: int(block[-1])))
    broker = trades.params.broker
    return leaning(said.lean, trades.results) - costs_rule(broker.fee_rate, broker.slippage_rate), trades


def seat_meta(bars: Bars, predictions: Any, meta: MetaSource, name: str) -> MapSchedule:
    """Give the learned meta layer a seat in the periods before which the chain earned more with it, and its thresholds.

    A bet is left out where it does not break even at the model's probability (by what bets before won and lost), and whole from `FULL`
    above that. predictions: with maps, at whose parameters it is tried; name: of the meta layer, kept with the evidence.
    """
    schedule, votes = predictions.maps, predictions.votes()
    params = Params.stored(schedule.params)
    trades = Trades.of(bars, params)
    before = np.full(len(bars.symbols), np.nan)
    hits = Hits.fresh(horizon, len(before)).advance(leans_of(votes), bars.close) if (horizon := hit_bars(meta)) else None
    probs = meta_probs(meta, votes, trades.planes, before, bars.close_time, hits)
    net, trades = _bets(trades, votes)
    maps = schedule.maps.copy()
    ended, starts = trades.ends.max(axis=0), np.searchsorted(bars.close_time, maps["start"]).tolist()
    for row, start in zip(maps, starts):
        known = net[:start][(ended[:start] < start) & ~np.isnan(net[:start])]
        won, lost = known[known > 0.0], known[known < 0.0]
        is_told = len(won) and len(lost)
        row["skip"] = -lost.mean() / (won.mean() - lost.mean()) if is_told else 0.0
        row["full"], row["is_seated"] = row["skip"] + FULL, 0
    tried = maps.copy()
    tried["is_seated"] = 1
    whole = [replace(schedule, maps=own).every for own in (tried, maps)]
    has_map = np.any(whole[1]["slope"].reshape(-1, len(maps)) > 0.0, axis=0)
    found = gains(trades.equity(votes, params, whole[0], probs), trades.equity(votes, params, whole[1]), trades.block, starts, has_map)
    maps["is_seated"] = [each.lower > 0.0 for each in found]
    told = [{"name": name, "is_seated": bool(row["is_seated"]), "gain": each.to_dict()} for row, each in zip(maps, found)]
    evidence = tuple(each | {"meta": own} for each, own in zip(schedule.evidence, told))
    return replace(schedule, maps=maps, evidence=evidence)


def price_predictions(bars: Bars, votes: Votes, labels: NDArray[np.int8], label_rows: int, params: Params) -> MapSchedule:
    """Fit maps of votes that come without folds: in periods of equal length from the first vote on, each from what was known before."""
    starts, learned = periods(votes.action), learned_rows(bars.n)
    return replace(fit_maps(bars, votes, labels, label_rows, starts, params, learned=learned), data=fingerprint(bars))


def periods(action: NDArray[np.int8]) -> list[int]:
    """Return the first row of each of `PERIODS` periods from the first vote on. action [5, n, S]."""
    voted = np.flatnonzero((action >= 0).any(axis=(0, 2)))
    n, first = action.shape[1], int(voted[0]) if len(voted) else 0
    return sorted({first + (n - first) * k // PERIODS for k in range(PERIODS)})


def _told(fitted: EdgeMap) -> dict[str, Any]:
    """Return a map's fields as JSON holds them: no infinite error."""
    return {name: None if value == np.inf else value for name, value in asdict(fitted).items()}


def voter_factors(votes: Votes, labels: NDArray[np.int8], block: I8, stop: int) -> F8:
    """Return factors [5] of the voters' weights: how much lower each one's log loss is than the class shares', on rows before `stop`.

    Where few blocks of time are known they are near 1; so they are for a voter without probabilities or without better ones.
    """
    factors = np.ones(N_MODELS)
    if votes.probs is None or stop <= 0:
        return factors
    truth, skill, known_blocks = labels[:stop], np.full(N_MODELS, np.nan), 0
    for m in range(N_MODELS):
        probs = votes.probs[m, :stop, :, :3]
        known = (truth >= 0) & ~np.isnan(probs).any(axis=-1)
        if not known.any():
            continue
        classes = truth[known].astype(np.int64)
        shares = np.bincount(classes, minlength=3) / len(classes)
        base = -np.mean(np.log(np.maximum(shares, TINY))[classes])
        loss = -np.mean(np.log(np.maximum(probs[known][np.arange(len(classes)), classes], TINY)))
        skill[m] = max(0.0, float(base - loss))
        known_blocks = max(known_blocks, len(np.unique(block[:stop][known.any(axis=1)])))
    told = ~np.isnan(skill)
    if told.any():
        share = known_blocks / (known_blocks + SHRUNK)
        factors[told] = 1.0 + share * ((skill[told] + SMALL) / (np.mean(skill[told]) + SMALL) - 1.0)
    return factors
