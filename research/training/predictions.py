"""Out-of-sample predictions of the base models: frozen arrays on the grid of the bars, stored as Parquet.

Rows before the first test fold are absent: a bar that a model was fitted on is never predicted. Column names of the file: `close_time`,
`open_time`, `symbol`, `fold` (-1 none), `provenance` (one of `ORIGINS`), `label` (-1 none) and per slot `xgb_p_sell`, `xgb_p_hold`,
`xgb_p_buy`, `xgb_action` (-1 absent), `xgb_confidence`, by the names of the voters, and of a later horizon of 24 bars `xgb_p_sell_24` and
so on. Row t * S + s is bar t and symbol s.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qtcore.params import Params
from qtcore.types import F8, I8, MAP, MODELS, N_MODELS, Action, Bars, Votes
from qtcore.voters import slots_of
from research.data.clock import iso
from research.data.grid import closes_of
from research.errors import ModelError, refusing
from research.files import replacing
from research.training.knowledge import FLAG, parse_until
from research.training.labels import Label, score_labels
from research.training.maps import MapSchedule
from research.training.models.schedule import ModelSet

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

SCHEMA_VERSION = 1  # of the stored file
CELLS_PER_GROUP = 131_072  # rows of a row group in the file, so that a long history is read in blocks
SIDES = ("p_sell", "p_hold", "p_buy")
ORIGINS = ("none", "walk_forward", "imported", "undeclared", "contaminated")
FIRST = np.iinfo(np.int64).min
OF_ONE = np.dtype([(name, MAP[name]) for name in MAP.names or () if name != "bars"], align=True)  # a map of the only horizon
SUM_TOLERANCE = 1e-3  # of the sum of three probabilities: some were rounded to three digits


@dataclass(frozen=True)
class Predictions:
    """Out-of-sample predictions of up to five models.

    open_time, close_time [n]: ns UTC. probs [5, n, S, 3 H]: SELL HOLD BUY of each of H horizons, NaN absent; None when only actions are
    known. action and labels are of the first horizon, that of the `label`; later: the others, in bars.
    action [5, n, S]: int8, -1 absent. confidence [5, n, S]: NaN absent. fold [n]: int16, -1 where nothing was predicted.
    names [5]: who votes in each slot (`qtcore.voters.slots_of`). maps: what their opinions are worth, None where that was not fitted.
    labels [n, S]: int8, -1 invalid, of the resolved `label`. models: the schedule that made them, None when imported.
    notes: sentences about what is absent, refused or ignored.
    knows_until: latest moment of the data that their maker knew, ns UTC, None where nobody declared one (`declare`). contaminated [n, S]:
    where he said something of a bar that he knew; it is absent here. None: nowhere.
    """

    open_time: I8
    close_time: I8
    symbols: tuple[str, ...]
    probs: F8 | None
    action: NDArray[np.int8]
    confidence: F8
    fold: NDArray[np.int16]
    labels: NDArray[np.int8]
    label: Label
    models: ModelSet | None = None
    imported: bool = False
    notes: tuple[str, ...] = ()
    names: tuple[str, ...] = MODELS
    maps: MapSchedule | None = None
    knows_until: int | None = None
    contaminated: NDArray[np.bool_] | None = None
    later: tuple[int, ...] = ()

    @property
    def n(self) -> int:
        """Number of bars."""
        return len(self.close_time)

    @property
    def slots(self) -> tuple[str, ...]:
        """Models that voted at least once, in slot order."""
        return tuple(name for m, name in enumerate(self.names) if (self.action[m] >= 0).any())

    @property
    def seed(self) -> int | None:
        """Seed of the training; None when these were not trained here."""
        return None if self.models is None else self.models.config.get("plan", {}).get("seed")

    @property
    def condition(self) -> str | None:
        """On what an edge of them hangs that only their maker can say; None where our walk-forward made them, or he did say it."""
        return "these predictions were made without data later than each bar" if self.imported and self.knows_until is None else None

    def votes(self) -> Votes:
        """Return what the engine takes."""
        return Votes(self.action, self.confidence, self.probs, self.names, None if self.maps is None else self.maps.every)

    def of_horizon(self, k: int, label: Label, labels: NDArray[np.int8]) -> "Predictions":
        """Return what is said of the horizon number k alone; of who is silent there, what he says of the first, as the chain hears it.

        label, labels [n, S]: of that horizon.
        """
        assert self.probs is not None
        own, first = self.probs[..., 3 * k : 3 * k + 3], self.probs[..., :3]
        votes = Votes.from_probs(np.where(np.isnan(own).any(axis=-1, keepdims=True), first, own))
        alone: dict[str, Any] = {"probs": votes.probs, "action": votes.action, "confidence": votes.confidence}
        return replace(self, label=label, labels=labels, later=(), maps=None, **alone)

    def __getitem__(self, rows: slice) -> "Predictions":
        """Cut a block of rows; arrays are views."""
        per_row = {name: getattr(self, name)[rows] for name in ("open_time", "close_time", "fold", "labels")}
        per_model = {name: getattr(self, name)[:, rows] for name in ("action", "confidence")}
        known = None if self.contaminated is None else self.contaminated[rows]
        return replace(self, probs=None if self.probs is None else self.probs[:, rows], contaminated=known, **per_row, **per_model)

    def silent_before(self, row: int) -> "Predictions":
        """Return the predictions without a vote and without an edge before a row; what opinions were worth there holds from it on."""
        action, confidence = self.action.copy(), self.confidence.copy()
        action[:, :row], confidence[:, :row] = Action.ABSENT, np.nan
        probs = self.probs
        if probs is not None:
            probs = probs.copy()
            probs[:, :row] = np.nan
        maps = None if self.maps is None else self.maps.since(int(self.close_time[row]))
        return replace(self, action=action, confidence=confidence, probs=probs, maps=maps)

    @classmethod
    def from_probs(
        cls, bars: Bars, probs: F8, fold: NDArray[np.int16], labels: NDArray[np.int8], label: Label, **rest: Any
    ) -> "Predictions":
        """Make predictions of probabilities [5, n, S, 3 H]: the action is the first largest, the confidence its probability."""
        votes = Votes.from_probs(probs)
        return cls(bars.open_time, bars.close_time, bars.symbols, probs, votes.action, votes.confidence, fold, labels, label, **rest)

    @classmethod
    def from_models(
        cls,
        models: ModelSet | str | Path,
        bars: Bars,
        params: Params | None = None,
        custom: Any = (),
        progress: Callable[[int, int, str], Any] | None = None,
    ) -> "Predictions":
        """Serve bars from a trained schedule: each by the artefact valid at its close, none before the first.

        params: the chain's; by default those of the training. progress(done, total, text) is called now and then. Raises UserError where
        the parameters would give the models other features.
        """
        from research.training.models.inputs import model_inputs
        from research.training.models.schedule import fold_of, labels_of

        known = models if isinstance(models, ModelSet) else ModelSet.load(models)
        if params is not None:
            known.check_params(params)
        inputs = model_inputs(bars, params or known.params(), custom, known.feature_names)
        labels, label = labels_of(known, bars)
        probs = known.serve(inputs.matrix, bars.close_time, inputs.names, progress)
        about: dict[str, Any] = {"models": known, "names": known.names, "notes": known.notes, "maps": known.map_schedule}
        about["later"] = known.later
        made = cls.from_probs(bars, probs, fold_of(known, bars.close_time), labels, label, **about)
        if (until := known.knows_until) is None:
            return made
        withheld = ((bars.close_time <= until) & (made.fold >= 0))[:, None] & ~np.isnan(bars.close)
        return replace(made, knows_until=until, contaminated=withheld)

    def declare(self, knows_until: Any) -> "Predictions":
        """Return these predictions with what their maker knew: those of bars that closed by `knows_until` are contaminated and do not vote.

        knows_until: latest moment of any data that went into them, in the forms of `load_bars(start=...)`; a date means its whole day, UTC;
        None changes nothing. Of two declarations the later counts: no bar becomes evidence by being declared again. Raises UserError where
        no vote is left, and on predictions that have their models.

        >>> from research.data import simulate
        >>> random = Predictions.random(simulate("random_walk", n_bars=50), seed=1)
        >>> bool((random.declare("2000-01-01 09:00").votes().action[:, :9] >= 0).any())
        False
        """
        if knows_until is None:
            return self
        if self.models is not None:
            raise ModelError(f"{FLAG} must be told to the training of models, was told afterwards; research.train(bars, knows_until=...)")
        until = max(parse_until(knows_until), FIRST if self.knows_until is None else self.knows_until)
        known = self.close_time <= until
        withheld = known[:, None] & (self.action >= 0).any(axis=0)
        if not withheld.any():
            return replace(self, knows_until=until)
        if not (self.action[:, ~known] >= 0).any():
            raise ModelError(none_left(until, int(self.close_time[withheld.any(axis=1)][-1])))
        what = f"predictions are of bars up to {iso(until)}, which their maker knew: contaminated, they do not vote and are no evidence"
        mask = known[:, None]
        return replace(
            self,
            probs=None if self.probs is None else np.where(mask[..., None], np.nan, self.probs),
            action=np.where(mask, np.int8(-1), self.action),
            confidence=np.where(mask, np.nan, self.confidence),
            notes=(*self.notes, f"{int(withheld.sum()):,} of {int((self.action >= 0).any(axis=0).sum()):,} {what}"),
            maps=None if self.imported else self.maps,
            knows_until=until,
            contaminated=withheld if self.contaminated is None else withheld | self.contaminated,
        )

    @classmethod
    def random(cls, bars: Bars, seed: int = 0, models: tuple[str, ...] = MODELS[:4], label: str | Label = "L3") -> "Predictions":
        """Return seeded predictions without content, for trials of the chain; a hole has none. They count as imported, and know nothing.

        >>> from research.data import simulate
        >>> Predictions.random(simulate("random_walk", n_bars=50), seed=1)
        <imported predictions of xgb, lgbm, nhits, patchtst: 50 bars, 5 symbols, 100% voted, L3>
        """
        rng = np.random.default_rng(seed)
        probs = np.full((N_MODELS, bars.n, len(bars.symbols), 3), np.nan)
        with refusing(ModelError):
            names = slots_of(models)
        for name in models:
            probs[names.index(name)] = rng.dirichlet((1.0, 1.0, 1.0), (bars.n, len(bars.symbols)))
        probs[:, np.isnan(bars.close)] = np.nan
        labels, rule = score_labels(bars, label)
        about: dict[str, Any] = {"names": names, "imported": True, "notes": ("random predictions",), "knows_until": int(bars.open_time[0])}
        return cls.from_probs(bars, probs, np.full(bars.n, -1, np.int16), labels, rule, **about)

    @classmethod
    def import_file(
        cls,
        path: str | Path,
        bars: Bars,
        label: str | Label = "auto",
        params: Params | None = None,
        time_zone: str | None = None,
        knows_until: Any = None,
    ) -> "Predictions":
        """Read predictions of the user's own (Parquet, CSV or JSON lines) onto the bars; see `research.training.import_predictions`.

        knows_until: what their maker knew (`declare`); the file may say it too, and the later counts.
        """
        from research.training.import_predictions import import_predictions

        made: Predictions = import_predictions(path, bars, label, (params or Params()).broker, time_zone)
        return made.declare(knows_until)

    def align(self, bars: Bars) -> "Predictions":
        """Return these predictions on the grid of `bars`, absent where they say nothing. Raises UserError when none match.

        Labels travel with their cells, so a part of the bars keeps the labels that it was trained and scored with. What imported opinions
        are worth stays with the bars on which it was found.
        """
        if self.symbols == bars.symbols and np.array_equal(self.close_time, bars.close_time):
            return self
        row, column, here, there = matching(self.close_time, self.symbols, bars)
        n_matched = len(row) * len(column)
        if n_matched == 0:
            raise ModelError(mismatch(0, self.n * len(self.symbols), self.close_time, self.symbols, bars))
        shape = (bars.n, len(bars.symbols))
        to, source = np.ix_(here, there), np.ix_(row, column)

        def placed(plane: NDArray, empty: Any) -> NDArray:
            out = np.full(shape + plane.shape[2:], empty, plane.dtype)
            out[to] = plane[source]
            return out

        fold = np.full(bars.n, -1, np.int16)
        fold[here] = self.fold[row]
        return replace(
            self,
            open_time=bars.open_time,
            close_time=bars.close_time,
            symbols=bars.symbols,
            probs=None if self.probs is None else np.stack([placed(p, np.nan) for p in self.probs]),
            action=np.stack([placed(a, -1) for a in self.action]),
            confidence=np.stack([placed(c, np.nan) for c in self.confidence]),
            fold=fold,
            labels=placed(self.labels, -1),
            maps=None if self.imported else self.maps,
            contaminated=None if self.contaminated is None else placed(self.contaminated, False),
        )

    def columns(self) -> dict[str, Any]:
        """Return the columns of the stored table, [n * S] each; times as int64 ns."""
        n_symbols = len(self.symbols)
        fold = np.repeat(self.fold, n_symbols)
        out: dict[str, Any] = {
            "close_time": np.repeat(self.close_time, n_symbols),
            "open_time": np.repeat(self.open_time, n_symbols),
            "symbol": np.tile(np.arange(n_symbols, dtype=np.int32), self.n),
            "fold": fold,
            "provenance": self._origins(fold),
            "label": self.labels.ravel(),
        }
        for m, slot in enumerate(self.names):
            if self.probs is not None:
                out |= {f"{slot}_{side}": self.probs[m, :, :, i].ravel() for i, side in enumerate(sides_of(self.later))}
            out[f"{slot}_action"] = self.action[m].ravel()
            out[f"{slot}_confidence"] = self.confidence[m].ravel()
        return out

    def _origins(self, fold: NDArray[np.int16]) -> NDArray[np.int8]:
        """Return the number in `ORIGINS` of each row of the table."""
        foreign = ("undeclared" if self.condition else "imported") if self.imported else "none"
        known = np.zeros(len(fold), bool) if self.contaminated is None else self.contaminated.ravel()
        codes = {name: code for code, name in enumerate(ORIGINS)}
        return np.select([known, fold >= 0], [codes["contaminated"], codes["walk_forward"]], codes[foreign]).astype(np.int8)

    def save(self, path: str | Path) -> Path:
        """Write Parquet: to a temporary file first, renamed when it is complete. The models are saved by `models.save(folder)`."""
        import pyarrow.parquet as pq

        target = Path(path)
        block = max(1, CELLS_PER_GROUP // max(1, len(self.symbols)))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with (
                replacing(target) as draft,
                pq.ParquetWriter(draft, self._schema(), compression="zstd", write_page_checksum=True) as writer,
            ):
                for start in range(0, max(self.n, 1), block):
                    writer.write_table(self[start : start + block]._table())
        except OSError as error:
            raise ModelError(f"predictions must be writable to {str(target)!r}, was not: {error.strerror or error}") from error
        return target

    def _schema(self) -> Any:
        about = {
            "schema_version": SCHEMA_VERSION,
            "symbols": self.symbols,
            "names": self.names,
            "label": self.label.to_dict(),
            "imported": self.imported,
            "has_probs": self.probs is not None,
            "notes": self.notes,
        }
        if self.maps is not None:
            about["maps"] = self.maps.to_dict()
        if self.knows_until is not None:
            about["knows_until"] = self.knows_until
        if self.later:
            about["later"] = self.later
        return self[:0]._table().schema.with_metadata({"qt_predictions": json.dumps(about)})

    def _table(self) -> Any:
        import pyarrow as pa

        columns = {name: pa.array(values) for name, values in self.columns().items()}
        for name in ("close_time", "open_time"):
            columns[name] = columns[name].cast(pa.timestamp("ns", tz="UTC"))
        columns["symbol"] = pa.DictionaryArray.from_arrays(columns["symbol"], list(self.symbols)).cast(pa.string())
        columns["provenance"] = pa.DictionaryArray.from_arrays(columns["provenance"], list(ORIGINS)).cast(pa.string())
        return pa.table(columns)

    @classmethod
    def load(cls, path: str | Path, models: ModelSet | None = None) -> "Predictions":
        """Read what `save` wrote. Raises UserError on another file or version."""
        from research.training.predictions_file import stream_predictions

        blocks = list(stream_predictions(path, models=models))
        first = blocks[0]
        if len(blocks) == 1:
            return first
        merged: dict[str, Any] = {}
        per_row, per_model = ("open_time", "close_time", "fold", "labels", "contaminated"), ("action", "confidence", "probs")
        for name, axis in (*((name, 0) for name in per_row), *((name, 1) for name in per_model)):
            parts = [getattr(block, name) for block in blocks]
            merged[name] = None if parts[0] is None else np.concatenate(parts, axis=axis)
        return replace(first, **merged)

    def to_pandas(self) -> "pd.DataFrame":
        """Return the stored table, indexed by `open_time` and `symbol`."""
        import pandas as pd

        frame: pd.DataFrame = self._table().to_pandas()
        return frame.set_index(["open_time", "symbol"])

    def to_polars(self) -> "pl.DataFrame":
        """Return the stored table as a polars frame."""
        import polars as pl

        frame = pl.from_arrow(self._table())
        assert isinstance(frame, pl.DataFrame)
        return frame

    def __repr__(self) -> str:
        share = float((self.action >= 0).any(axis=0).mean()) if self.action.size else 0.0
        kind = "imported" if self.imported else "walk-forward"
        size = f"{self.n} bars, {len(self.symbols)} symbols, {share:.0%} voted, {self.label.id}"
        return f"<{kind} predictions of {', '.join(self.slots) or 'no model'}: {size}>"


def sides_of(later: Sequence[int]) -> tuple[str, ...]:
    """Return the last words of the columns of a voter's probabilities; later: horizons after the first, in bars.

    >>> sides_of([24])
    ('p_sell', 'p_hold', 'p_buy', 'p_sell_24', 'p_hold_24', 'p_buy_24')
    """
    return (*SIDES, *(f"{side}_{bars}" for bars in later for side in SIDES))


def aligned(predictions: Any, bars: Bars) -> Predictions:
    """Bring a user's predictions onto the grid of `bars`. Raises UserError where they are none, or none match."""
    if not isinstance(predictions, Predictions):
        what = f"predictions must be research.Predictions, was {type(predictions).__name__}"
        raise ModelError(f"{what}; research.Predictions.import_file(source, bars) reads a file or a frame")
    placed = predictions.align(bars)
    if placed.contaminated is not None and placed.contaminated.any() and not (placed.action >= 0).any():
        raise ModelError(none_left(placed.knows_until or FIRST, int(bars.close_time[-1])))
    return placed


def none_left(until: int, last: int) -> str:
    """Say that whoever made predictions knew all bars that they are of, the last closing at `last`; times in ns UTC."""
    rule = f"{FLAG} must lie before the last prediction, {iso(last)}, was {iso(until)}"
    return f"{rule}: their maker knew every bar, so none is left as evidence; give later bars"


def matching(close_time: I8, symbols: tuple[str, ...], bars: Bars) -> tuple[I8, I8, I8, I8]:
    """Rows and columns of a grid that exist in `bars`, and where: (rows, columns, rows of bars, columns of bars).

    A close just before the full bar, as exchanges write it, is that close.
    """
    meant = closes_of(close_time, bars.close_time, bars.interval)
    _, row, here = np.intersect1d(meant, bars.close_time, return_indices=True)
    at = {name: s for s, name in enumerate(bars.symbols)}
    column = np.array([s for s, name in enumerate(symbols) if name in at], np.int64)
    there = np.array([at[symbols[s]] for s in column], np.int64)
    return row.astype(np.int64), column, here.astype(np.int64), there


def mismatch(n_matched: int, n_rows: int, close_time: I8, symbols: tuple[str, ...], bars: Bars) -> str:
    """Say how predictions and bars differ, how many rows matched, and what to do."""
    if not len(close_time):
        return "predictions must have at least one row, was empty; make them again"
    common = sorted(set(symbols) & set(bars.symbols))
    head = f"predictions must match the bars by close_time and symbol, {n_matched} of {n_rows} rows did"
    if not common:
        return f"{head}: their symbols are {_some(symbols)}, those of the bars {_some(bars.symbols)}; rename or select symbols"
    if np.isin(close_time, bars.open_time).any() and not np.isin(close_time, bars.close_time).any():
        return f"{head}: their times are the bars' open times; write the close (open plus the bar's length) into close_time"
    span = [iso(int(t)) for t in (close_time.min(), close_time.max(), bars.close_time[0], bars.close_time[-1])]
    return f"{head}: they cover {span[0]} to {span[1]}, the bars {span[2]} to {span[3]} (UTC); load the same period and bar length"


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")


def hash_votes(votes: Votes) -> str:
    """Name what the base models said, by content."""
    digest, maps = hashlib.sha256(), votes.maps
    if maps is not None and not maps["bars"].any():
        alone = np.zeros(len(maps), OF_ONE)  # as before there were horizons, so that a run keeps its name
        for name in OF_ONE.names or ():
            alone[name] = maps[name]
        maps = alone
    for plane in (votes.action, votes.confidence, votes.probs, maps):
        if plane is not None:
            digest.update(np.ascontiguousarray(plane).data)
    return digest.hexdigest()[:32]
