"""Import of the user's own predictions: a Parquet, CSV or JSON-lines file or a frame, one row per close and symbol.

Columns: `close_time` (or `timestamp`, meaning the close, or `open_time` alone), `symbol` and per voter `xgb_action` and `xgb_confidence`,
or `xgb_p_sell`, `xgb_p_hold`, `xgb_p_buy`; optional `xgb_status` and `xgb_version`. The voter may have any name (`qtcore.voters`). A column
`knows_until` says of each row what its maker knew of the data (`research.training.knowledge`).
JSON lines may nest them as the chain's own log does:
`{"timestamp": ..., "symbol": ..., "base_predictions": {"xgb": {"action": "BUY", "confidence": 0.7}}}` (`spec` 12.1).

Only the status `active` votes (D-37). An unknown action, or a confidence or probability outside [0, 1], is an `error`: it does not vote
and is counted in the notes; `foreign_codes` says which codes are read. Where these predictions come from cannot be proven (D-99), nor what
their maker says of it: without a word of his they are `undeclared`.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qtcore.check import as_bars
from qtcore.rules import Broker
from qtcore.types import F8, I8, MODELS, N_MODELS, Bars, InputError, Votes
from qtcore.voters import ALIASES, LAYERS, slots_of
from research.data import fingerprint, schema
from research.data.schema import plain
from research.data.unread import NAMES
from research.data.zones import Reading
from research.errors import ModelError, several
from research.files import Kind, check_file
from research.training.foreign_codes import (
    ABSENT,
    MOST_ODD,
    UNKNOWN,
    ActionColumn,
    agreed_coding,
    plain_numbers,
    read_actions,
    read_shares,
    signed_numbers,
)
from research.training.foreign_files import read_file
from research.training.foreign_rows import TIME_NAMES, place
from research.training.knowledge import are_dates, read_until, says_until
from research.training.labels import Label, learned_rows, score_labels
from research.training.predictions import SIDES, SUM_TOLERANCE, Predictions, matching

if TYPE_CHECKING:
    import pandas as pd

STATUSES = ("active", "shadow", "fallback", "insufficient", "error")
OPENS = ("open_time", "opentime", "timeopen", "time_open")
CLOSES = tuple(name for name in schema.TIME_NAMES if not re.search("open|start|begin", name))
MOST_ROUNDED = 0.0151  # that the sum of three probabilities of two decimals may be off 1
PARTS = ("action", "confidence", *SIDES, "status", "version")

PREDICTIONS = Kind("a readable file of predictions, Parquet, CSV or JSON lines", "name another with --predictions")


def import_predictions(
    source: Any, bars: Bars, label: str | Label = "auto", broker: Broker | None = None, time_zone: str | None = None
) -> Predictions:
    """Place predictions on the bars. Raises UserError where they cannot be read, match no bar, may mean several things or hold no vote.

    source: path of a Parquet, CSV or JSON-lines file, or a pandas or polars frame. A file that this program stored keeps its folds and,
    with label "auto", its labels. time_zone: IANA name of the zone of times that name none, as that of the candles; None: UTC.
    """
    bars = as_bars(bars)
    if isinstance(source, str | Path):
        check_file(source, PREDICTIONS)
    if isinstance(source, str | Path) and _is_ours(Path(source)):
        stored = _stored(Path(source), bars)
        return stored if label in ("auto", stored.label.id) else _relabelled(stored, bars, label, broker)
    notes: list[str] = []
    try:
        votes, until = _planes(source, bars, notes, Reading(time_zone))
    except InputError as error:
        raise ModelError(f"{error}; data/README.md lists the accepted forms") from error
    assert votes.probs is not None
    complete = not (np.isnan(votes.probs).any(axis=-1) & (votes.action >= 0)).any()
    labels, rule = score_labels(bars, label, broker)
    if label == "auto" and rule.is_percentile:
        until = np.datetime64(int(bars.close_time[learned_rows(bars.n)]), "ns").astype("datetime64[D]")
        notes.append(f"label auto is {rule.id} by the bars before {until}, which a trade before then cannot know; run.label names one")
    return Predictions(
        bars.open_time,
        bars.close_time,
        bars.symbols,
        votes.probs if complete else None,
        votes.action,
        votes.confidence,
        np.full(bars.n, -1, np.int16),
        labels,
        rule,
        imported=True,
        notes=tuple(notes),
        names=votes.names,
    ).declare(None if until is None else np.datetime64(until, "ns"))


def _planes(source: Any, bars: Bars, notes: list[str], reading: Reading) -> tuple[Votes, int | None]:
    """Read what others wrote, and until when they knew the data, as far as they say so. Raises UserError.

    The probabilities are there, NaN where they were not given.
    """
    frame, skipped = _read(source)
    notes += [f"{skipped} lines are no JSON objects and were skipped"] if skipped else []
    frame = _with_roles(frame, bars, notes)
    row, column, keep = place(frame, bars, notes, reading)
    named = next(name for name in TIME_NAMES if name in frame.columns)
    is_dated = named != "open_time" and are_dates(frame[named])  # the day of an open ends when its bar closes
    until = read_until(frame, keep, bars.close_time[row], is_dated, reading)
    frame = frame.drop(columns=[name for name in frame.columns if says_until(name)])
    shape = (N_MODELS, bars.n, len(bars.symbols))
    action, confidence, probs = np.full(shape, -1, np.int8), np.full(shape, np.nan), np.full((*shape, 3), np.nan)
    last = _last(row * len(bars.symbols) + column)
    differs = np.zeros(len(row), bool)
    found = _columns(frame, notes)
    names = slots_of(found)
    for m, votes in _votes(frame, found, names, keep, notes):
        for plane, values in zip((action, confidence, probs), map(np.asarray, votes)):
            counted = values[last]
            plane[m][row, column] = counted
            differs |= ~((values == counted) | ((values != values) & (counted != counted))).reshape(len(row), -1).all(axis=1)
    if twice := int(np.count_nonzero(last != np.arange(len(last)))):
        other = f"{int(differs.sum())} of them with another prediction" if differs.any() else "with the same predictions"
        notes.append(f"{twice} rows repeat a close_time and symbol, {other}; the last one counts")
    if not (action >= 0).any():
        raise ModelError(f"predictions must hold a vote, was without: {'; '.join(notes) or 'every action is absent'}")
    return Votes(action, confidence, probs, names), until


def _last(cell: I8) -> I8:
    """Return for each row the number of the last row of its cell [k]."""
    last = np.zeros(int(cell.max()) + 1, np.int64)
    np.maximum.at(last, cell, np.arange(len(cell)))
    return last[cell]


def _stored(path: Path, bars: Bars) -> Predictions:
    """Read a file of our own onto the bars."""
    stored = Predictions.load(path)
    placed = stored.align(bars)
    n_cells, rows, columns = stored.n * len(stored.symbols), *matching(stored.close_time, stored.symbols, bars)[:2]
    if ignored := n_cells - len(rows) * len(columns):
        placed = replace(placed, notes=(*placed.notes, f"{ignored} of {n_cells} rows match no bar and were ignored"))
    if stored.imported and stored.maps is not None and stored.maps.data != fingerprint(bars):
        what = "the worth of their opinions was found on other bars and is not read; it is found anew where decide.rule is edge"
        placed = replace(placed, maps=None, notes=(*placed.notes, what))
    return placed


def _is_ours(path: Path) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return b"qt_predictions" in (pq.read_schema(path).metadata or {})
    except (OSError, pa.ArrowException, UnicodeDecodeError):
        return False


def _relabelled(stored: Predictions, bars: Bars, label: str | Label, broker: Broker | None) -> Predictions:
    if stored.later:
        what = f"label of predictions of several horizons must be theirs, {stored.label.id}"
        raise ModelError(f"{what}, was {label if isinstance(label, str) else label.id}; leave it out")
    labels, rule = score_labels(bars, label, broker)
    maps = None if stored.imported and rule != stored.label else stored.maps  # what is held for another time is worth something else
    return replace(stored, labels=labels, label=rule, maps=maps)


def _read(source: Any) -> tuple["pd.DataFrame", int]:
    """Return the table with lower-case column names, each once, and the number of lines that could not be read."""
    import pandas as pd

    skipped = 0
    if isinstance(source, str | Path):
        frame, skipped = read_file(Path(source))
    elif hasattr(source, "to_pandas"):
        frame = source.to_pandas()
    elif isinstance(source, pd.DataFrame):
        frame = source if isinstance(source.index, pd.RangeIndex) else source.reset_index()
    else:
        raise ModelError(f"predictions must be a path, a pandas or a polars frame, was {type(source).__name__}")
    if len(frame) == 0:
        raise ModelError(f"predictions must have at least one row, was empty: {source if isinstance(source, str | Path) else 'frame'}")
    spelled = {str(name).strip().lower(): str(name).strip() for name in frame.columns}
    frame = frame.rename(columns=lambda name: str(name).strip().lower())
    frame.attrs["spelled"] = spelled
    if twice := frame.columns[frame.columns.duplicated()].tolist():
        raise ModelError(f"predictions must name a column once, capital letters or not, was {twice[0]!r} twice; rename one or leave it out")
    return frame, skipped


def _with_roles(frame: "pd.DataFrame", bars: Bars, notes: list[str]) -> "pd.DataFrame":
    """Name the columns of the time and the symbol, whatever their source calls them; what was assumed is noted.

    An index without a name is the time where no column is and it holds dates; one of numbers counts rows.
    """
    by_name = {plain(name): name for name in reversed(frame.columns.tolist())}
    roles = {"close_time": schema.ALIASES["close_time"], "open_time": OPENS, "symbol": schema.ALIASES["symbol"]}
    found = {role: next((by_name[name] for name in names if name in by_name), None) for role, names in roles.items()}
    if found["close_time"] is None and "timestamp" not in frame.columns:
        index = [name for name in schema.NAMELESS if name in by_name and found["open_time"] is None]
        dates = [name for name in index if not _has_numbers(frame[by_name[name]])]
        found["timestamp"] = next((by_name[name] for name in (*CLOSES, *dates) if name in by_name), None)
        if found["timestamp"] is not None:
            notes.append(f"column {found['timestamp'] or 1} is read as the close of each bar")
    if "symbol" not in frame.columns and plain(found["symbol"] or "") in NAMES:
        notes.append(f"symbol is column {found['symbol']}")
    frame = frame.rename(columns={name: role for role, name in found.items() if name is not None and role not in frame.columns})
    if "symbol" not in frame.columns and len(bars.symbols) == 1:
        notes.append(f"no column of symbols; every row is of {bars.symbols[0]}")
        frame = frame.assign(symbol=bars.symbols[0])
    return frame


def _has_numbers(column: "pd.Series") -> bool:
    import pandas as pd

    return not pd.api.types.is_datetime64_any_dtype(column) and bool(pd.to_numeric(column, errors="coerce").notna().any())


def _columns(frame: "pd.DataFrame", notes: list[str]) -> dict[str, dict[str, str]]:
    """Find the columns of each voter, in the order in which they stand: {name: {part: column}}.

    Raises UserError where a known voter lacks some, or another one a probability. Of other names only whoever has all columns of a vote
    is a voter: a table may hold other things that are called so.
    """
    found: dict[str, dict[str, str]] = {}
    reserved: dict[str, set[str]] = {}
    spelled = frame.attrs.get("spelled", {})
    for name in frame.columns:
        for part in PARTS:
            if name.endswith(f"_{part}"):
                model = name.removesuffix(f"_{part}")
                if name.partition("_")[0] in LAYERS:
                    reserved.setdefault(model, set()).add(part)
                    continue
                known = ALIASES.get(model, model)
                found.setdefault(known if known in MODELS else spelled.get(name, name)[: len(model)], {})[part] = name
    lacking = {voter: parts for voter, parts in found.items() if not _is_vote(parts)}
    for voter, parts in lacking.items():
        if voter in MODELS or sum(part.startswith("p_") for part in parts) == 2:
            raise ModelError(
                f"predictions must hold {voter}_action and {voter}_confidence, or {voter}_p_sell, _p_hold, _p_buy, was "
                f"{' and '.join(f'{voter}_{part}' for part in sorted(parts))} alone; add what is missing"
            )
        del found[voter]
    read = {name for parts in found.values() for name in parts.values()}
    if lacking:
        whole = "a voter has NAME_action and NAME_confidence, or NAME_p_sell, NAME_p_hold and NAME_p_buy"
        notes.append(f"columns of {', '.join(sorted(lacking))} were ignored: {whole}")
    if layers := [name for name, parts in reserved.items() if _is_vote(parts) and name != "ensemble"]:  # that stands in logs of ours
        notes.append(
            f"columns of {', '.join(layers)} were not read: that is a layer's name and no voter's; rename them where a model is meant"
        )
    named = tuple(plain(name) for name in (*MODELS, *ALIASES))
    if unread := [str(name) for name in frame.columns if name not in read and plain(name).startswith(named)]:
        notes.append(
            f"columns that name a model were not read: {', '.join(unread[:8])}; they must end in {', '.join(map('_{}'.format, PARTS))}"
        )
    if not found:
        raise ModelError(
            f"predictions must hold columns such as xgb_action and xgb_confidence, was {', '.join(map(str, frame.columns[:12]))}"
        )
    return found


def _is_vote(parts: Iterable[str]) -> bool:
    return {"action", "confidence"} <= set(parts) or set(SIDES) <= set(parts)


def _votes(
    frame: "pd.DataFrame", found: Mapping[str, Mapping[str, str]], names: tuple[str, ...], keep: I8, notes: list[str]
) -> Iterator[tuple[int, tuple[NDArray[np.int8], F8, F8]]]:
    """Read each voter's columns as a whole; yield its slot and (action int8, confidence, probs [k, 3]) of the rows `keep`."""
    said = {slot: {part: frame[name].to_numpy() for part, name in found[slot].items()} for slot in names if slot in found}
    probs = {slot: _probs(slot, parts, notes) for slot, parts in said.items()}
    actions = {slot: _actions(slot, parts, probs[slot][1]) for slot, parts in said.items() if "action" in parts}
    coding = agreed_coding(actions.values())
    for slot, parts in said.items():
        given = None
        if slot in actions:
            action = actions[slot].actions(coding)
            notes += actions[slot].notes
            notes += _differing(slot, action[keep], probs[slot][1][keep], "confidence" in parts)
            if "confidence" in parts:
                given = action, read_shares(parts["confidence"], f"{slot}_confidence", action != ABSENT, notes)
        elif "confidence" in parts:
            notes.append(f"{slot}_confidence is not read without {slot}_action; the probabilities count")
        yield names.index(slot), _model(slot, parts, given, probs[slot], keep, notes)


def _differing(slot: str, action: NDArray[np.int64], likely: NDArray[np.int8], is_read: bool) -> list[str]:
    """Tell how many actions are not of the largest probability, as where a threshold made them, and which of the two count.

    Raises UserError where many are its opposite: no threshold does that.
    """
    both = (action >= 0) & (likely >= 0)
    n, differ, opposite = (int(np.count_nonzero(both & (np.abs(action - likely) >= least))) for least in (0, 1, 2))
    if opposite > MOST_ODD * n:
        raise ModelError(
            f"{slot}_action must agree with {slot}_p_sell, _p_hold and _p_buy, was the opposite of the largest probability in "
            f"{opposite:,} of {n:,} rows; leave out what is wrong, or name the probabilities in their order"
        )
    counted = "actions" if is_read else "probabilities"
    return [f"{differ:,} of {n:,} actions of {slot} differ from the largest probability; the {counted} count"] if differ else []


def _probs(slot: str, said: Mapping[str, NDArray], notes: list[str]) -> tuple[F8, NDArray[np.int8], NDArray[np.bool_]]:
    """Return probabilities [k, 3], the class of the largest (-1 absent) and which rows are no probabilities."""
    k = len(next(iter(said.values())))
    if not all(side in said for side in SIDES):
        return np.full((k, 3), np.nan), np.full(k, -1, np.int8), np.zeros(k, bool)
    read = [signed_numbers(said[side], f"{slot}_{side}") for side in SIDES]
    probs = np.column_stack([numbers for numbers, _ in read])
    if any(is_percent for _, is_percent in read) and not all(is_percent for _, is_percent in read):
        raise ModelError(f"{slot}_p_sell, _p_hold and _p_buy must all be written with a per cent sign, or none of them, was a mix")
    given, total = ~np.isnan(probs).all(axis=1), probs.sum(axis=1)
    if read[0][1] or (given.any() and (np.abs(total[given] - 100.0) <= 100.0 * MOST_ROUNDED).all()):
        notes.append(f"{slot}_p_sell, _p_hold and _p_buy are read as per cent")
        probs, total = probs / 100.0, total / 100.0
    off = np.abs(total - 1.0)
    if (off[given] > SUM_TOLERANCE).any() and (off[given] <= MOST_ROUNDED).all():
        notes.append(
            f"{slot}_p_sell, _p_hold and _p_buy are rounded (sums of {total[given].min():g} to {total[given].max():g}); divided by them"
        )
        probs, total = probs / total[:, None], np.where(given, 1.0, total)
    bad = given & ~((np.abs(total - 1.0) <= SUM_TOLERANCE) & (probs >= 0.0).all(axis=1) & (probs <= 1.0).all(axis=1))
    if 2 * int(bad.sum()) > int(given.sum()):
        where = f"a sum of {total[bad][0]:g} in row {int(np.argmax(bad)) + 1} and others in {int(bad.sum()):,} rows"
        raise ModelError(
            f"{slot}_p_sell, _p_hold, _p_buy must be probabilities that sum to 1, or per cent that sum to 100, was with {where}"
        )
    votes = Votes.from_probs(np.where((given & ~bad)[:, None], probs, np.nan)[None, :, None])
    return probs, votes.action[0, :, 0], bad


def _actions(slot: str, said: Mapping[str, NDArray], likely: NDArray[np.int8]) -> ActionColumn:
    silent = np.isnan(plain_numbers(said["confidence"])[0]) if "confidence" in said else False
    return read_actions(said["action"], f"{slot}_action", silent, likely)


def _model(
    slot: str,
    said: Mapping[str, NDArray],
    given: tuple[NDArray[np.int64], F8] | None,
    probable: tuple[F8, NDArray[np.int8], NDArray[np.bool_]],
    keep: I8,
    notes: list[str],
) -> tuple[NDArray[np.int8], F8, F8]:
    """Settle one model's rows `keep`: (action int8, confidence, probs [k, 3]), absent where it may not vote.

    given: action and confidence of every row where the file has them; probable: what `_probs` returned.
    """
    probs, likely, bad = (part[keep] for part in probable)
    action = likely.astype(np.int64)
    confidence = np.where(likely >= 0, np.max(np.where(np.isnan(probs), -1.0, probs), axis=1), np.nan)
    if given is not None:
        own, sure = given[0][keep], given[1][keep]
        voted = own != ABSENT
        bad |= voted & ((own == UNKNOWN) | ~((sure >= 0.0) & (sure <= 1.0)))
        action, confidence = np.where(voted, own, action), np.where(voted, sure, confidence)
    status = _statuses(said, len(probable[1]))[keep]
    status[bad & (status == "active")] = "error"
    silent = status != "active"
    spoken = Counter(status[silent & ((action != ABSENT) | bad)].tolist())
    for name, count in sorted(spoken.items()):
        why = " (unknown action, or a confidence or probability outside [0, 1])" if name == "error" else ""
        notes.append(f"{several(count, 'predictions')} of {slot} without a vote: status {name}{why}")
    silent |= action < 0
    return np.where(silent, -1, action).astype(np.int8), np.where(silent, np.nan, confidence), np.where(silent[:, None], np.nan, probs)


def _statuses(said: Mapping[str, NDArray], k: int) -> NDArray:
    status = _each(said["status"], _status).astype(object) if "status" in said else np.full(k, "active", dtype=object)
    if "version" in said:
        status[_each(said["version"], lambda value: "INSUFFICIENT" in str(value).upper())] = "insufficient"
    return status


def _status(value: Any) -> str:
    text = "" if value is None or value != value else str(value).strip().lower()
    return "active" if text in ("", "none", "nan", "<na>") else text if text in STATUSES else "error"


def _each(values: NDArray, read: Callable[[Any], Any]) -> NDArray:
    """Read every value; a column has few different ones, so each is read once."""
    import pandas as pd

    codes, different = pd.factorize(values, use_na_sentinel=False)
    return np.array([read(value) for value in different])[codes]
