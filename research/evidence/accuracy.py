"""Accuracy tables: whose opinions are scored, on which cells. Total and regimes, symbols, reliability, meta against base.

All of it is drawn by one bootstrap, whose block length is the longest that any of the opinions asks for.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.choices import EnsembleRule
from qtcore.rules import Reason
from qtcore.types import F8, Action, Source, Verdict
from research.runs.record import RunRecord
from research.training.meta.scores import meta_scores
from research.training.scoring.baseline import out_of_sample
from research.training.scoring.bootstrap import Bootstrap, block_length
from research.training.scoring.differences import meta_against
from research.training.scoring.opinions import Opinion, ScoreSums, blocks, tally
from research.training.scoring.reliability import reliability

LAYERS = ("ensemble", "meta", "arbiter", "arbiter_calls", "final")
SCORED = {  # what the rows score where opinions have a price
    "ensemble": "ensemble's class",
    "meta": "bets after meta",
    "arbiter": "bets after arbiter",
    "arbiter_calls": "arbiter's side",
    "final": "approved trades",
}
SYMBOLS_AT_ONCE = 10  # columns whose sums are resampled together


@dataclass(frozen=True)
class Scores:
    """Accuracy blocks and what belongs to them.

    by_slice: `{opinion: {slice: block}}`, by_symbol: `{symbol: {"models": ..., "layers": ...}}`, blocks without their confusion;
    reliability: `{opinion: ...}` of those that state a probability of a class; against: meta layers beside base models and ensemble.
    """

    by_slice: dict[str, dict[str, dict[str, Any]]]
    by_symbol: dict[str, dict[str, dict[str, Any]]]
    reliability: dict[str, dict[str, Any]]
    against: list[dict[str, Any]]
    bootstrap: Bootstrap

    @property
    def models(self) -> list[str]:
        """Names of base and meta models."""
        return [name for name in self.by_slice if name not in LAYERS]

    def split(self, name: str) -> dict[str, dict[str, Any]]:
        """Blocks of one slice under `models` and `layers`."""
        models = {m: self.by_slice[m][name] for m in self.models}
        return {"models": models, "layers": {layer: self.by_slice[layer][name] for layer in LAYERS}}


def scores(run: RunRecord, regime: NDArray[np.int8], rows: slice, more: NDArray[np.float64]) -> Scores:
    """Score everybody. regime: cells; rows: tested bars; more: a series per bar whose dependence counts for the block length too."""
    said, labels, baseline = opinions(run), run.labels, out_of_sample(run.bars, run.predictions)
    tallies = {name: tally(opinion, labels, regime, baseline=baseline) for name, opinion in said.items()}
    block = block_length([*(t.residual[rows] for t in tallies.values()), more], run.params.broker.max_holding_bars)
    bootstrap = Bootstrap(rows.stop - rows.start, block)
    models = [name for name in said if name not in LAYERS]
    return Scores(
        {name: blocks(counted, bootstrap, rows) for name, counted in tallies.items()},
        symbol_blocks(said, labels, bootstrap, rows, run.bars.symbols, baseline),
        {name: reliability(said[name], labels, bootstrap, rows) for name in (*models, "ensemble", "arbiter") if said[name].is_of_class},
        meta_against(said, [m for m in models if m in run.result.votes.names], labels, bootstrap, rows),
        bootstrap,
    )


def symbol_blocks(
    said: dict[str, Opinion],
    labels: NDArray[np.int8],
    bootstrap: Bootstrap,
    rows: slice,
    symbols: tuple[str, ...],
    baseline: Opinion,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Score every opinion on every symbol alone, the volatility baseline beside it."""
    out: dict[str, dict[str, dict[str, Any]]] = {symbol: {"models": {}, "layers": {}} for symbol in symbols}
    for start in range(0, len(symbols), SYMBOLS_AT_ONCE):
        part = slice(start, min(start + SYMBOLS_AT_ONCE, len(symbols)))
        names = symbols[part]
        group = np.broadcast_to(np.arange(len(names), dtype=np.int8), (len(labels), len(names)))
        for name, opinion in said.items():
            counted: ScoreSums = tally(opinion.symbols(part), labels[:, part], group, len(names), baseline.symbols(part))
            kind = "layers" if name in LAYERS else "models"
            for symbol, block in blocks(counted, bootstrap, rows, np.eye(len(names)), names).items():
                del block["confusion"]
                out[symbol][kind][name] = block
    return out


def opinions(run: RunRecord) -> dict[str, Opinion]:
    """Say who is scored, and where (`spec` D-91, D-23).

    Models and layers count on the cells where every voting model spoke, the arbiter also on its calls, the final layer on approvals. Where
    opinions have a price the ensemble counts by its likeliest class, and what comes after it by the sides that trade (`SCORED`): HOLD is no
    bet, and a confidence is how often a trade pays. The arbiter, asked wherever there is doubt, counts on their cells too.
    """
    decisions, votes = run.result.decisions, run.result.votes
    voting = [m for m in range(len(votes.names)) if (votes.action[m] >= 0).any()]
    everyone = np.all(votes.action[voting] >= 0, axis=0) if voting else np.zeros(run.labels.shape, bool)

    def where(mask: Any, action: Any) -> Any:
        return np.where(mask, action, np.int8(-1))

    out = {}
    for m in voting:
        said = None if votes.probs is None else votes.probs[m, ..., :3]
        probs = None if said is None or np.isnan(said[everyone]).any() else said
        out[votes.names[m]] = Opinion(where(everyone, votes.action[m]), votes.confidence[m], probs)
    if learned := meta_scores(run.result, run.params):
        out |= {name: Opinion(where(everyone, said[0]), said[1], said[2]) for name, said in learned.items()}
    approved = run.result.governor_reason == Reason.APPROVED
    if decisions.edge is not None:
        bets = np.where(decisions.source == Source.ARBITER, np.int8(Action.HOLD), decisions.raw_action)
        out["ensemble"] = Opinion(where(everyone, decisions.ensemble_action), decisions.ensemble_confidence, _mean_probs(run))
        out["meta"] = Opinion(where(everyone, bets), decisions.raw_confidence, is_of_class=False)
        out["arbiter"] = Opinion(where(everyone, decisions.raw_action), decisions.raw_confidence, is_of_class=False)
        out["arbiter_calls"] = Opinion(where(everyone, decisions.arbiter_action), decisions.arbiter_confidence, is_of_class=False)
        out["final"] = Opinion(where(approved, decisions.raw_action), decisions.raw_confidence, is_of_class=False)
        return out
    replaced = (decisions.source == Source.META) & (
        decisions.verdict != Verdict.NONE
    )  # an override, or an error that failed closed and holds
    after_meta = np.where(replaced, decisions.raw_action, decisions.ensemble_action)
    meta_confidence = np.where(replaced, decisions.raw_confidence, decisions.ensemble_confidence)
    out["ensemble"] = Opinion(where(everyone, decisions.ensemble_action), decisions.ensemble_confidence)
    out["meta"] = Opinion(where(everyone, after_meta), meta_confidence)
    out["arbiter"] = Opinion(where(everyone, decisions.raw_action), decisions.raw_confidence)
    out["arbiter_calls"] = Opinion(decisions.arbiter_action, decisions.arbiter_confidence)
    out["final"] = Opinion(where(approved, decisions.raw_action), decisions.raw_confidence)
    return out


def _mean_probs(run: RunRecord) -> F8 | None:
    """Return the ensemble's mean probabilities, SELL HOLD BUY [n, S, 3]; None where it is a vote, or where the lean is an own judge's."""
    decisions = run.result.decisions
    if run.params.ensemble.rule != EnsembleRule.MEAN or run.own.judge is not None:
        return None
    lean, action, sure = decisions.lean, decisions.ensemble_action, decisions.ensemble_confidence
    assert lean is not None
    buy = np.where(action == Action.BUY, sure, np.where(action == Action.SELL, sure + lean, 0.5 * (1.0 - sure + lean)))
    return np.stack([buy - lean, 1.0 - 2.0 * buy + lean, buy], axis=-1)
