"""Journal export to a run's folder: its inputs go through the engine once more; what comes out must be what was journalled.

`qt status JOURNAL --export DIR` writes what `qt backtest` writes, so `qt report`, `qt compare`, `qt explain`, `qt verify` read it. What one
set of parameters and one meta layer decided from the first bar on, without history before it, is proven like any run. Any other journal
cannot be run again from the folder alone: what is missing stands in the manifest as a layer of its own, and `qt verify` compares the stored
hashes, does the accounts again, and says what it could not prove.
"""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from qtcore import Result
from qtcore.chain.trade import TradeResult
from qtcore.features import Planes
from qtcore.types import Decisions
from research.errors import UserError
from research.live.monitoring.gap import Inputs, engine_of, first_difference, joined_votes, read_inputs, results
from research.live.monitoring.journal_source import JournalSource
from research.live.session.reload import LAYERS
from research.live.storage.codec import LATER, MAPS, cell_columns, joined
from research.runs.former import profile_now
from research.runs.record import RunRecord
from research.training.knowledge import COLUMN
from research.training.labels import Label, score_labels
from research.training.maps import MapSchedule
from research.training.meta.schedule import MetaSchedule
from research.training.models.layers import NONE, given, in_use
from research.training.predictions import Predictions


def journal_record(journal: Path, meta: MetaSchedule | None = None) -> RunRecord:
    """Return a journal as the record of a run. meta: the meta layer that it was decided with, where that lies elsewhere by now.

    Raises UserError where the journal is empty or does not give itself again.
    """
    source = JournalSource(journal)
    inputs = read_inputs(source)
    engine, (first_bar,) = engine_of(inputs, meta), source.rows("SELECT MIN(bar) AS first_bar FROM bars")[0]
    parts = list(results(engine, inputs, meta=meta))
    equity = np.concatenate([part.equity for part in parts])
    if found := first_difference(source, inputs, equity, [cell_columns(part) for part in parts]):
        raise UserError(f"journal must give its own decisions again to be exported, did not: {found}; see `qt live-gap`")
    result, closing = _joined(parts), engine.finish()[1]
    for fills in (result.fills, closing):
        fills["bar"] -= first_bar  # counted from the first exported bar
    told = dict(inputs.models[-1][1])
    labels, label = score_labels(inputs.bars, Label(**told["label"]) if "label" in told else "L1")
    nobody = np.full(inputs.bars.n, -1, np.int16)
    votes = inputs.votes
    when, said = (inputs.bars.open_time, inputs.bars.close_time, inputs.bars.symbols), (votes.probs, votes.action, votes.confidence)
    maps = MapSchedule.from_dict(told[MAPS]) if MAPS in told else None
    until = told.get(COLUMN, int(inputs.bars.open_time[0]))  # models that are served, and ours, know no bar that they decide
    about: dict[str, Any] = {"imported": True, "names": votes.names, "maps": maps, "knows_until": until}
    predictions = Predictions(*when, *said, nobody, labels, label, **about, later=tuple(told.get(LATER, ())))
    learned, own = engine.meta_model, given(**in_use().chain) if LAYERS in told else NONE
    return RunRecord(
        inputs.bars,
        predictions,
        inputs.params[-1][1],
        result,
        closing,
        notes=(f"exported from the journal {journal.name}",),
        command=f"qt status {journal}",
        profile=profile_now(source.about.get("profile", "default"), source.about.get("version")),
        meta=learned if isinstance(learned, MetaSchedule) else None,
        own_layers=(*own.chain, *_missing(inputs)),
        own=own,
    )


def _missing(inputs: Inputs) -> list[str]:
    """Name what a folder does not hold of how its bars were decided."""
    out = []
    if int(inputs.state["clock"][0]) >= 0:  # bars were run before the first one
        out.append("history before the journal")
    if len({str(params.flat()) for _, params in inputs.params}) > 1:
        out.append("sequence of parameters")
    if len({models.get("meta") for _, models in inputs.models}) > 1:
        out.append("sequence of meta layers")
    if len({str(models.get(MAPS)) for _, models in inputs.models}) > 1:
        out.append("sequence of maps")
    return out


def _joined(parts: list[Result]) -> Result:
    """Put blocks of results behind one another."""
    last = parts[-1]
    planes = Planes(
        np.concatenate([p.planes.values for p in parts], axis=1), last.planes.slots, np.concatenate([p.planes.valid for p in parts])
    )
    decisions = Decisions(**{name: np.concatenate([getattr(p.decisions, name) for p in parts]) for name in last.decisions.columns})
    rows: dict[str, Any] = {each.name: np.concatenate([getattr(p, each.name) for p in parts]) for each in fields(TradeResult)}
    answers = [p.meta_probs for p in parts]
    probs = None if any(a is None for a in answers) else np.concatenate([a for a in answers if a is not None], axis=1)
    pricing = None if last.pricing is None else np.concatenate([p.pricing for p in parts if p.pricing is not None], axis=1)
    bars, votes = joined([p.bars for p in parts]), replace(joined_votes([p.votes for p in parts]), maps=last.votes.maps)
    return replace(last, bars=bars, planes=planes, votes=votes, opinion=lambda: decisions, meta_probs=probs, pricing=pricing, **rows)
