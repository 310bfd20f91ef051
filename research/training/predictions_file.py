"""Stored predictions: the Parquet file of `Predictions.save`, read back cell by cell. Each row is placed by its close time and symbol.

The columns `close_time` and `symbol` are read first. Where they come as they were written, bar by bar and symbol by symbol, the rest is
read a row group at a time. Rows in any other order are put in order, all of them in memory. What is no whole grid of bars and symbols, or
holds a value that `save` never writes, is refused: a file that was altered says nothing for certain.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qtcore.types import I8, MODELS, N_MODELS, InputError, Votes
from qtcore.voters import slots_of
from research.data.clock import iso, utc_ns
from research.errors import ModelError
from research.files import Kind, check_file, parse_json, reason
from research.training.labels import LABEL_SHAPE, Label
from research.training.maps import MapSchedule
from research.training.predictions import ORIGINS, SCHEMA_VERSION, SUM_TOLERANCE, Predictions, sides_of

if TYPE_CHECKING:
    import pyarrow as pa

    from research.training.models.schedule import ModelSet

KEYS = ("close_time", "symbol")
REMEDY = "make it again, or import it without its metadata as predictions of your own"
STORED = Kind("a Parquet file of predictions as this program stored them", REMEDY)
ABOUT = Kind("JSON that says what the file holds", REMEDY, {"schema_version": int})
ABOUT_THIS = replace(
    ABOUT,
    shape={"symbols": [str], "label": LABEL_SHAPE, "imported": bool, "has_probs": bool, "notes": [str]}
    | {"names?": [str], "maps?": dict, "knows_until?": int, "later?": [int]},
)
ACTION_CODES = "-1 (absent), 0 (SELL), 1 (HOLD) or 2 (BUY)"


def stream_predictions(path: str | Path, models: "ModelSet | None" = None) -> Iterator[Predictions]:
    """Read a stored file in blocks of whole bars, in order of time; an ordered file is never in memory as a whole.

    Raises UserError where the file is damaged, not ours or of another version, where close times and symbols are no whole grid (a cell
    twice, a cell or a column missing, an unknown symbol), and where a column holds what no prediction can be.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_file(path, STORED)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            about = _about((file.schema_arrow.metadata or {}).get(b"qt_predictions"), path)
            _check_columns(file.schema_arrow.names, about, path)
            if file.num_row_groups and _is_ordered(file, about, path):
                for group in range(file.num_row_groups):
                    yield _block(file.read_row_group(group), about, path, models)
            else:
                yield _block(_in_order(file.read(), about, path), about, path, models)
    except (OSError, pa.ArrowException, UnicodeDecodeError, MemoryError) as error:
        raise STORED.error(path, f"damaged or no Parquet file ({reason(error)})") from error


def _about(raw: bytes | None, path: str | Path) -> dict[str, Any]:
    """Read what `save` wrote beside the columns."""
    if raw is None:
        raise ModelError(f"{path} must be predictions that this program stored, was another file; import it with --predictions")
    where = f"the metadata qt_predictions of {path}"
    about: dict[str, Any] = parse_json(raw, ABOUT, where)
    if (version := about["schema_version"]) != SCHEMA_VERSION:
        raise ModelError(f"{path} must be of schema version {SCHEMA_VERSION}, was {version!r}; make it again")
    ABOUT_THIS.check(about, where)
    names, label = about["symbols"], about["label"]
    if not names or len(set(names)) < len(names):
        raise ABOUT.error(where, "with no symbol, or one twice")
    if unknown := set(label) - {field.name for field in fields(Label)}:
        raise ABOUT.error(where, f"with {min(unknown)} in its label")
    if label["horizon"] < 1:
        raise ABOUT.error(where, f"with a label of {label['horizon']} bars")
    later = tuple(about.get("later", ()))
    if any(b <= a for a, b in pairwise([label["horizon"], *later])) or (later and not about["has_probs"]):
        raise ABOUT.error(where, f"with horizons of {label['horizon']}, {', '.join(map(str, later))} bars")
    maps = MapSchedule.from_dict(about["maps"]) if "maps" in about else None
    if maps is not None and tuple(bars for bars, _ in maps.later) != later:
        raise ABOUT.error(where, "with maps of other horizons")
    return {**about, "label": Label(**label), "names": _names(about.get("names", MODELS), where), "maps": maps, "later": later}


def _names(names: Sequence[str], where: str) -> tuple[str, ...]:
    """Check who votes in each slot; a file of an earlier version holds the known voters."""
    try:
        is_sound = slots_of(names) == tuple(names)
    except InputError as error:
        raise ABOUT.error(where, f"with other voters ({error})") from error
    if not is_sound:
        raise ABOUT.error(where, f"with the voters {', '.join(names)}")
    return tuple(names)


def _check_columns(names: list[str], about: Mapping[str, Any], path: str | Path) -> None:
    parts = (*sides_of(about["later"]), "action", "confidence") if about["has_probs"] else ("action", "confidence")
    wanted = [*KEYS, "open_time", "fold", "label", *(f"{slot}_{part}" for slot in about["names"] for part in parts)]
    wanted += ["provenance"] if "knows_until" in about else []
    if missing := [name for name in wanted if name not in names]:
        raise ModelError(f"{path} must have the columns that it was stored with, was without {', '.join(missing[:5])}; {REMEDY}")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ModelError(f"{path} must have each column once, was with {twice[0]} twice; {REMEDY}")


def _keys(table: "pa.Table", about: Mapping[str, Any], path: str | Path) -> tuple[I8, I8]:
    """Return close time and number of the symbol of each row."""
    import pyarrow as pa
    import pyarrow.compute as pc

    names = table["symbol"].cast(pa.string())
    codes = pc.index_in(names, pa.array(about["symbols"])).combine_chunks()
    if codes.null_count:
        unknown = names.filter(pc.is_null(codes))[0].as_py()
        raise ModelError(f"{path} must hold the symbols {', '.join(about['symbols'])}, was with {unknown!r}; {REMEDY}")
    return utc_ns(table["close_time"], f"column close_time of {path}"), codes.to_numpy().astype(np.int64)


def _is_ordered(file: Any, about: Mapping[str, Any], path: str | Path) -> bool:
    """Say whether every row group holds whole bars, bars ascending and the symbols of each in their order."""
    n_symbols, last = len(about["symbols"]), np.iinfo(np.int64).min
    for group in range(file.num_row_groups):
        times, codes = _keys(file.read_row_group(group, columns=list(KEYS)), about, path)
        if len(times) % n_symbols or not np.array_equal(codes, np.tile(np.arange(n_symbols), len(codes) // n_symbols)):
            return False
        bars = times.reshape(-1, n_symbols)
        if len(bars) and ((bars != bars[:, :1]).any() or bars[0, 0] <= last or (np.diff(bars[:, 0]) <= 0).any()):
            return False
        last = bars[-1, 0] if len(bars) else last
    return True


def _in_order(table: "pa.Table", about: Mapping[str, Any], path: str | Path) -> "pa.Table":
    """Sort rows by bar and symbol. Raises UserError unless each cell of the grid is there once."""
    times, codes = _keys(table, about, path)
    close_time, row = np.unique(times, return_inverse=True)
    n_symbols = len(about["symbols"])
    counts = np.bincount(row * n_symbols + codes, minlength=len(close_time) * n_symbols)
    for wrong, text in ((counts > 1, "more than once"), (counts == 0, "missing")):
        if n_wrong := int(np.count_nonzero(wrong)):
            t, s = divmod(int(np.argmax(wrong)), n_symbols)
            where = f"{n_wrong:,} of {len(counts):,} {text}, the first {about['symbols'][s]} at {iso(close_time[t])}"
            raise ModelError(f"{path} must hold every symbol at every close_time once, was with {where}; {REMEDY}")
    return table.take(np.argsort(row * n_symbols + codes, kind="stable"))


def _block(table: "pa.Table", about: Mapping[str, Any], path: str | Path, models: "ModelSet | None") -> Predictions:
    """Turn rows in the order of the grid into predictions, every value checked."""
    symbols = tuple(about["symbols"])
    shape = (-1, len(symbols))

    def whole(name: str, kind: Any, high: int, codes: str) -> NDArray:
        return _whole(table[name], name, high, codes, path).astype(kind).reshape(shape)

    def plane(name: str) -> NDArray:
        return _numbers(table[name], name, path).reshape(shape)

    def per_bar(name: str, values: NDArray) -> NDArray:
        if (values != values[:, :1]).any():
            raise ModelError(f"{path} must have one {name} for all symbols of a bar, was with several; {REMEDY}")
        return np.ascontiguousarray(values[:, 0])

    action = np.stack([whole(f"{slot}_action", np.int8, 2, ACTION_CODES) for slot in about["names"]])
    confidence = np.stack([plane(f"{slot}_confidence") for slot in about["names"]])
    close_time, open_time = (
        per_bar(name, utc_ns(table[name], f"column {name} of {path}").reshape(shape)) for name in ("close_time", "open_time")
    )
    if (open_time >= close_time).any():
        raise ModelError(f"{path} must have open_time before close_time, was not so; {REMEDY}")
    probs = None
    if about["has_probs"]:
        sides = sides_of(about["later"])
        probs = np.empty((N_MODELS, *action.shape[1:], len(sides)))
        for m, slot in enumerate(about["names"]):
            for i, side in enumerate(sides):
                probs[m, :, :, i] = plane(f"{slot}_{side}")
    _check_votes(Votes(action, confidence, probs, about["names"]), about["imported"], path)
    fold = per_bar("fold", whole("fold", np.int16, 2**15 - 1, "-1 (none) or the number of a fold"))
    if about["maps"] is not None and not about["imported"] and (action[:, fold < 0] >= 0).any():
        raise ModelError(f"{path} must have a fold for every vote of a training with maps, was without; {REMEDY}")
    return Predictions(
        open_time=open_time,
        close_time=close_time,
        symbols=symbols,
        probs=probs,
        action=action,
        confidence=confidence,
        fold=fold,
        labels=whole("label", np.int8, 2, ACTION_CODES.replace("absent", "none")),
        label=about["label"],
        models=models,
        names=about["names"],
        imported=about["imported"],
        notes=tuple(about["notes"]),
        maps=about["maps"],
        knows_until=about.get("knows_until"),
        later=about["later"],
        contaminated=_contaminated(table, about, action, close_time, path),
    )


def _contaminated(
    table: "pa.Table", about: Mapping[str, Any], action: NDArray[np.int8], close_time: I8, path: str | Path
) -> NDArray[np.bool_] | None:
    """Return the cells [n, S] of which something was said that does not vote; None in a file that says nothing of its maker's knowledge."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if "knows_until" not in about:
        return None
    said = pc.equal(table["provenance"].cast(pa.string()), ORIGINS[-1]).fill_null(False)
    out: NDArray[np.bool_] = np.asarray(said.to_numpy()).astype(bool).reshape(action.shape[1:])
    known = close_time <= about["knows_until"]
    if (action[:, known] >= 0).any() or out[~known].any():
        raise ModelError(f"{path} must hold votes of the bars after {iso(about['knows_until'])} alone, was otherwise; {REMEDY}")
    return out


def _numbers(column: "pa.ChunkedArray", name: str, path: str | Path) -> NDArray:
    """Return a column of numbers as float64, NaN where empty."""
    import pyarrow as pa

    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
        raise ModelError(f"{path} must hold numbers in {name}, was {kind}; {REMEDY}")
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), np.float64)


def _whole(column: "pa.ChunkedArray", name: str, high: int, codes: str, path: str | Path) -> NDArray:
    """Return a column of whole numbers in [-1, high] as float64."""
    values = _numbers(column, name, path)
    wrong = ~((values >= -1.0) & (values <= high) & (values == np.floor(values)))
    if wrong.any():
        at = int(np.argmax(wrong))
        raise ModelError(f"{path} must hold {codes} in {name}, was {values[at]:g} in row {at + 1} of its block; {REMEDY}")
    return values


def _check_votes(votes: Votes, is_imported: bool, path: str | Path) -> None:
    """Raise UserError on votes that contradict themselves.

    Predictions of our models name the first largest probability and its value. Imported ones may follow thresholds of their own.
    """
    action, confidence, probs = votes.action, votes.confidence, votes.probs
    voted = action >= 0
    bad = np.where(voted, ~((confidence >= 0.0) & (confidence <= 1.0)), ~np.isnan(confidence))
    rule = "a confidence in [0, 1] for each vote and none without one"
    if not bad.any() and probs is not None:
        each = probs.reshape(*probs.shape[:3], probs.shape[3] // 3, 3)  # of every horizon
        known = ~np.isnan(each).all(axis=4)
        with np.errstate(invalid="ignore"):
            sound = (each >= 0.0).all(axis=4) & (np.abs(each.sum(axis=4) - 1.0) <= SUM_TOLERANCE)
        bad, rule = (known & ~sound).any(axis=3), "probabilities in [0, 1] that sum to 1"
        if not bad.any() and not is_imported:
            said = Votes.from_probs(probs)
            bad = voted & ((action != said.action) | ~(np.abs(confidence - said.confidence) <= SUM_TOLERANCE))
            rule = "the most likely class as action and its probability as confidence"
    if bad.any():
        slot = votes.names[int(np.argmax(bad.any(axis=(1, 2))))]
        raise ModelError(f"{path} must hold {rule}, was otherwise in {int(bad.sum()):,} cells, first of {slot}; {REMEDY}")
