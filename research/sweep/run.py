"""Sweep runner: a million settings in chunks, each drawn, run and written; finished chunks are kept, and every row counts as a trial."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qtcore import Bars, Params
from qtcore.features.custom import Feature, own_features
from qtcore.meta import MetaSource
from qtcore.profiles import LATER
from research.data import fingerprint, load_bars
from research.errors import ConfigError, UserError, need
from research.evidence.family import Drawn
from research.evidence.ledger import Ledger
from research.evidence.trials import TrialSummary
from research.files import Kind, read_json, replacing, save_json
from research.parallel import Pool, opened
from research.runs.backtest import priced, resolved
from research.runs.case import Case
from research.runs.folder import check_output
from research.runs.metrics import figure_names
from research.runs.search_plan import SearchPlan
from research.runs.space import BLOCK, Space
from research.sweep.adaptive import Adaptive
from research.sweep.counting import Counter
from research.sweep.rules import parse_objective, parse_rules
from research.sweep.trials import PART, SweepResult, read_part
from research.sweep.work import LANES, Piece, Settings
from research.training.meta.schedule import MetaSchedule
from research.training.models.layers import Layers, given
from research.training.predictions import Predictions, aligned, hash_votes

SCHEMA_VERSION = 1
MARK = "sweep.json"  # by which the folder of a sweep is known
MARKER = Kind("a sweep's description as `qt sweep` wrote it", "choose another --out", {"space": {"base": dict}}, has_large=True)
PART_CELLS = 4_000_000_000  # cells times settings of one part: some ten seconds; what a stop can lose
BYTES_PER_FIGURE = 9  # on the disk, at most
PIECE_CELLS, PIECES = 500_000_000, 4  # of what one worker among several is given at a time: a second; at least so many for each worker


def sweep(
    bars: Bars | Any,
    predictions: Predictions,
    grid: Mapping[str, Any] | None = None,
    params: Params | None = None,
    *,
    plan: SearchPlan | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    engine: str = "local",
    address: str | None = None,
    meta: MetaSource | None = None,
    judge: Any = None,
    trade: Callable[..., int] | None = None,
    custom: Iterable[Feature] = (),
    record: bool | str | Callable[[SweepResult], TrialSummary] = True,
    progress: Any = None,
    **asked: Any,
) -> SweepResult:
    """Run the chain over `bars` once for every setting of `grid` and return the trials.

    grid: `{"layer.name": values}`, values as a sequence or as text `low:high:step`, `a,b,c`; `low:high` in a random search. params: what
    the grid does not name. Further keywords are the fields of `SearchPlan`, in place of those of `plan`: `search` is `grid`; `random` with
    that many `settings` from `seed`; or `adaptive`, which looks for the largest `objective` that keeps `where`. by_regime: also figures of
    the fifteen regime slices. where: constraints such as `max_drawdown < 0.15`, for `SweepResult.best`. out: folder that results stream to;
    `resume` goes on with what lies there. engine, address: `local`, or `ray` and where it runs, as `research.parallel.opened` takes them;
    the results are the same bits. meta: a learned meta layer, as `backtest` takes it. judge, trade, custom: layers of your own, as
    `backtest` takes them; each setting is then run alone, on this machine. record: count every row in the trial ledger; what the candles
    are called there; or the function that is given the finished rows to count them. Raises UserError on a grid, folder or ledger that does
    not do.

    >>> import research
    >>> bars = research.load_bars("simulated:random_walk?n_bars=400&n_symbols=2")
    >>> trials = research.sweep(bars, research.Predictions.random(bars), {"decide.min_edge": [0.0, 0.001]}, record=False)
    >>> len(trials.table())
    2
    """
    plan = SearchPlan.told(**{**vars(plan or SearchPlan()), **asked, **({} if grid is None else {"grid": grid})})
    bars = bars if isinstance(bars, Bars) else load_bars(bars)
    predictions = aligned(predictions, bars)
    own = given(judge=judge, trade=trade, features=own_features(custom))
    space = checked(plan, resolved(params or Params(), predictions), own, meta, engine, is_counted=bool(record))
    predictions = priced(bars, predictions, space.base, judge, own.features, meta)
    case = Case.of(bars, predictions, plan.by_regime, meta, own)
    return searched(space, case, plan, record=record, out=out, resume=resume, engine=engine, address=address, progress=progress)


def checked(plan: SearchPlan, params: Params, own: Layers, meta: MetaSource | None, engine: str = "local", *, is_counted: bool) -> Space:
    """Return the settings of a plan around `params`, before the work.

    Raises UserError where the chain, or layers of the user's own, cannot try them, and where the ledger cannot count them.
    """
    space = plan.space(params)
    check_plan(plan, engine, is_own=bool(own.chain))
    if not own.chain:  # which may read what the chain does not
        space.check_read()
    _check_modes(space, meta)
    if is_counted:
        Ledger().resets()  # one that is damaged or gone is told before the work
    return space


def searched(
    space: Space,
    case: Case,
    plan: SearchPlan,
    *,
    record: bool | str | Callable[[SweepResult], TrialSummary],
    out: str | Path | None = None,
    resume: bool = False,
    engine: str = "local",
    address: str | None = None,
    progress: Any = None,
) -> SweepResult:
    """Try the settings of `space` on predictions that know what they are worth. Arguments and errors as in `sweep`."""
    if plan.search == "adaptive":
        space = Adaptive.begin(space, plan.objective, plan.where, figure_names(plan.by_regime))
    if progress is not None and engine != "local":
        progress(0, space.size, "sweep: connecting")
    counter = Counter(space, case, record if isinstance(record, str) else "") if record and not callable(record) else None
    with opened(engine, address) as pool:
        store = Store(None if out is None else Path(out), space, case, resume)
        work = Settings(space, case, None if counter is None else counter.drawing)
        trials = SweepResult(space, case, store.parts, tuple(plan.where), folder=store.folder, resumed=frozenset(store.parts))
        try:
            if isinstance(space, Adaptive):
                space.run(store, lambda first, last: _done(store, counter, first, *work.part(first, last)), progress)
            else:
                _run_parts(store, work, pool, counter, progress)
        except KeyboardInterrupt:
            remedy = "" if store.folder is None else "; --resume goes on"
            raise KeyboardInterrupt(f"stopped with {store.n_done:,} of {space.size:,} settings done{remedy}") from None
        finally:
            if record and len(trials):
                trials.tried = record(trials) if callable(record) else counter.finish(trials)  # type: ignore[union-attr]
        if store.folder is not None:
            store.note({"engine": engine, "workers": pool.n_workers, "drivers": trials.drivers})
    return trials


def check_plan(plan: SearchPlan, engine: str, is_own: bool = False) -> None:
    """Raise UserError where no such figure exists, no trial can keep the constraints, or the search cannot be done here.

    is_own: whether layers of the user's take the place of the chain's.
    """
    if is_own and engine != "local":
        raise ConfigError(f"a sweep with an own judge or trade loop must run on the local engine, was {engine}; leave --engine out")
    names = figure_names(plan.by_regime)
    parse_objective(plan.objective, names)
    parse_rules(plan.where, names)
    if plan.search == "adaptive":
        if engine != "local":
            raise ConfigError(f"--search adaptive must run on the local engine, was {engine}; each batch waits for the one before it")
        need("optuna", "--search adaptive")


def check_resume(folder: Path) -> None:
    """Raise UserError where there is no sweep to go on with."""
    if not (folder / MARK).exists():
        raise ConfigError(f"--resume must find a sweep, was {folder} without {MARK}; leave --resume out")


def _check_modes(space: Space, meta: MetaSource | None) -> None:
    """Raise UserError where a setting would serve the meta layer in a mode that it was not trained for."""
    if isinstance(meta, MetaSchedule):
        for mode in next((axis.values for axis in space.axes if axis.name == "meta.mode"), (space.base.meta.mode,)):
            meta.check_mode(space.base.with_values({"meta.mode": mode}))


def _done(store: "Store", counter: Counter | None, first: int, table: pd.DataFrame, drawn: Drawn) -> None:
    """Count the rows of a part, if they are counted, then keep them: a process that dies between the two hides no trial."""
    try:
        if counter is not None:
            counter.part(table, drawn)
    finally:
        store.keep(first, table)


def _run_parts(store: "Store", work: Settings, pool: Pool, counter: Counter | None, progress: Any) -> None:
    """Run every part that is not there yet: whole where there is one worker, else in pieces, so that all are busy to the end."""
    size, rows = work.space.size, store.step
    if pool.n_workers > 1:
        rows = max(LANES, min(PIECE_CELLS // max(1, work.case.cells), size // (PIECES * pool.n_workers)) // LANES * LANES)
        work = work.packed()
    started, n_done, n_run = time.monotonic(), store.n_done, 0
    items = (item for first, last in store.missing() for item in work.pieces(first, last, rows))
    found: dict[int, list[Piece]] = {}  # of parts that are not whole yet
    with closing(pool.map(work, items, waiting=1)) as results:
        for (first, last, picked), done in results:
            pieces = found.setdefault(first, [])
            pieces.append((picked, *done))
            n_run += len(done[0])
            if sum(len(piece[1]) for piece in pieces) == last - first:
                drawn = sum((piece[-1] for piece in pieces), Drawn())
                _done(store, counter, first, work.table(first, last, found.pop(first)), drawn)
            if progress is not None:
                progress(n_done + n_run, size, f"sweep: {n_run / max(time.monotonic() - started, 1e-9):,.0f} settings/s")


def _part(folder: Path, first: int) -> Path:
    """Name the file of the part that begins with setting `first`."""
    return folder / "trials" / f"part-{first:09d}.parquet"


def _check_part(table: pd.DataFrame, where: Any, first: int, last: int, space: Space, names: Sequence[str]) -> None:
    """Raise UserError unless a stored part has the columns `names` and the settings [first, last) of the space, in their order."""
    if list(table.columns) != list(names):
        raise PART.error(where, f"with the columns {', '.join(map(str, table.columns))[:160]}")
    texts = {axis.name for axis, shown in zip(space.axes, space.shown(), strict=True) if any(isinstance(value, str) for value in shown)}
    for name in names:
        if name not in texts and not pd.api.types.is_numeric_dtype(table[name]):
            raise PART.error(where, f"{name} as {table[name].dtype}, not numbers")
    if not np.array_equal(table["trial"].to_numpy(), np.arange(first, last)):
        raise PART.error(where, f"without the trials {first:,} to {last - 1:,} in their order")
    if isinstance(space, Adaptive):  # what it asks for follows from earlier parts
        known = {axis.name: table[axis.name].isin(shown).all() for axis, shown in zip(space.axes, space.shown()) if not axis.is_free}
        known |= {axis.name: table[axis.name].between(axis.low, axis.high).all() for axis in space.axes if axis.is_free}
    else:
        known = {name: np.array_equal(table[name].to_numpy(), column) for name, column in space.columns(space.draw(first, last)).items()}
    for name, is_known in known.items():
        if not is_known:
            raise PART.error(where, f"{name} as no setting of this sweep")


@dataclass
class Store:
    """Where results lie: `parts` in memory, or one Parquet file a part below `folder`, written whole or not at all."""

    folder: Path | None
    parts: dict[int, pd.DataFrame | Path]
    size: int
    step: int

    def __init__(self, folder: Path | None, space: Space, case: Case, resume: bool) -> None:
        wanted = max(64, PART_CELLS // max(1, case.cells))
        self.folder, self.parts, self.size = folder, {}, space.size
        self.step = space.batch or min(BLOCK, 1 << (wanted.bit_length() - 1))
        if folder is None:
            return
        about = {
            "schema_version": SCHEMA_VERSION,
            "space": space.describe(),
            "data_fingerprint": fingerprint(case.bars),
            "votes": hash_votes(case.votes),
            "by_regime": case.by_regime,
            "layers": {"own": sorted(case.own.chain), "hash": case.own.hash} if case.own.chain else None,
            "rows_per_part": self.step,
        }
        self._open(folder, about, resume)
        names = SweepResult(space, case, self.parts).columns
        for first, part in self.parts.items():
            _check_part(read_part(part), part, first, min(first + self.step, self.size), space, names)
        self._check_space(folder, len(figure_names(case.by_regime)) + len(space.axes) + 3)

    @property
    def n_done(self) -> int:
        """Settings whose results are there."""
        return sum(min(self.step, self.size - first) for first in self.parts)

    def missing(self) -> Iterator[tuple[int, int]]:
        """Name the parts that are not there yet, in order."""
        for first in range(0, self.size, self.step):
            if first not in self.parts:
                yield first, min(first + self.step, self.size)

    def keep(self, first: int, table: pd.DataFrame) -> None:
        """Keep the part that begins with setting `first`."""
        if self.folder is None:
            self.parts[first] = table
            return
        path = _part(self.folder, first)
        try:
            with replacing(path) as draft:
                table.to_parquet(draft, index=False, compression="zstd", write_page_checksum=True)
        except OSError as error:
            raise UserError(
                f"results must be writable to {path}, was not: {error.strerror or error}; free space and use --resume"
            ) from error
        self.parts[first] = path

    def _open(self, folder: Path, about: dict[str, Any], resume: bool) -> None:
        """Start a folder, or go on with one of the same sweep."""
        marker = folder / MARK
        check_output(folder, MARK)
        if resume:
            check_resume(folder)
            known = read_json(marker, MARKER)
            known["space"]["base"] = LATER | known["space"]["base"]  # an earlier version lacks some
            changed = [name for name, value in about.items() if known.get(name) != json.loads(json.dumps(value))]
            if changed:
                raise ConfigError(f"--resume must go on with the same sweep, was another {changed[0]} in {folder}; choose another --out")
            known_parts = ((first, _part(folder, first)) for first in range(0, self.size, self.step))
            self.parts.update({first: path for first, path in known_parts if os.path.lexists(path)})
            (folder / "trials").mkdir(exist_ok=True)
            return
        if marker.exists():
            shutil.rmtree(folder)
        (folder / "trials").mkdir(parents=True)
        save_json(marker, about)

    def note(self, computed_by: dict[str, Any]) -> None:
        """Say in the folder who made it."""
        assert self.folder is not None
        marker = self.folder / MARK
        save_json(marker, read_json(marker, MARKER) | {"computed_by": computed_by})

    def _check_space(self, folder: Path, n_columns: int) -> None:
        needed, free = (self.size - self.n_done) * n_columns * BYTES_PER_FIGURE, shutil.disk_usage(folder).free
        if needed > free:
            raise UserError(
                f"a sweep's results must fit on the disk, was {self.size:,} settings of up to {needed / 1e9:,.1f} GB with {free / 1e9:,.1f}"
                " GB free; take larger steps or another --out"
            )
