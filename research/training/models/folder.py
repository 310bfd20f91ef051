"""Model folder: a schedule of fitted models on disk. Artefacts by fold, then `schedule.json`, which vouches for every other file.

    schedule.json                          written last: a folder without it is half-written; holds its own hash
    fold_00/xgb_v20260112_120000_v5.ubj    and `..._scaler.json`, which holds the model's hash; `..._meta.json`, whose hash the entry holds

Base models (`schedule`) and meta models (`research.training.meta.schedule`) lie alike; what their files mean is their own business.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from research.errors import ModelError
from research.files import Kind, read_bytes, read_json, save_json, writable
from research.training.models.base import ModelAbsentError, scaler_path

ENTRY = {"file": str, "fold": int, "valid_from": int, "valid_until": int, "hash": str, "meta_hash": str}
SCHEDULE = {
    "schema_version": int,
    "feature_names": [str],
    "feature_hash": str,
    "hash": str,
    "notes": [str],
    "artefacts": [ENTRY],
}
SHARES = ("accuracy", "majority_baseline", "volatility_baseline", "balanced_accuracy")
LOSSES = ("log_loss", "log_loss_unweighted", "base_rate_log_loss", "volatility_log_loss")
FIGURES = ("n_scored", *SHARES, "balanced_accuracy_error", *LOSSES, "log_loss_gain", "direction_accuracy")
FIGURE = (float, None)
CURVES = (None, {"train?": (None, [FIGURE]), "valid?": (None, [FIGURE]), "best?": (int, None)})
METADATA = Kind(
    "the metadata of a model as the training wrote it",
    "train again",
    {
        **{f"{name}?": str for name in ("slot", "target", "suffix", "status", "kind", "vector", "digest")},
        **{f"{name}?": [str] for name in ("features", "warnings", "symbols")},
        **{f"{name}?": (float, None) for name in (*FIGURES, "n_train")},
        "lookback?": int,
        "params?": {"preset": str, "history?": CURVES},
        "predicted_shares?": {...: (float, None)},
        "split?": {"fold?": int, "cells?": {...: int}, "close_time?": {...: [int]}},
        "synthetic?": bool,
        "history?": CURVES,
        "importance?": (None, {...: (None, {...: FIGURE})}),
    },
)
Entry = tuple[dict[str, Any], Path, dict[str, Any]]  # an artefact's own fields, its file, its metadata


def meta_path(path: Path) -> Path:
    """Path of the metadata that belong to a model file."""
    return path.with_name(f"{path.stem}_meta.json")


def write_schedule(target: Path, artefacts: Iterable[Any], document: Mapping[str, Any], what: str) -> tuple[Any, ...]:
    """Write all files, `schedule.json` last, and return the artefacts that lie there. Raises UserError when that is impossible.

    artefacts: dataclasses with `fold`, `path`, `meta` and `meta_hash`; their other fields go into the schedule. what: for the error.
    """
    artefacts = tuple(artefacts)
    if gone := [artefact.path for artefact in artefacts if not artefact.path.exists()]:
        rule = f"{what} must have all their files to be kept"
        raise ModelError(f"{rule}, were without {len(gone)} of {len(artefacts)}: {gone[0]}; train again")
    with writable(what, target):
        moved = tuple(_put(target, artefact) for artefact in artefacts)
        own = [{f.name: getattr(a, f.name) for f in fields(a) if f.name not in ("path", "meta")} for a in moved]
        entries = [entry | {"file": a.path.relative_to(target).as_posix()} for entry, a in zip(own, moved)]
        text = json.dumps({**document, "artefacts": entries}, sort_keys=True)  # as it will be read back: tuples are lists
        whole = json.loads(text) | {"hash": hashlib.sha256(text.encode()).hexdigest()}
        target.mkdir(parents=True, exist_ok=True)
        save_json(target / "schedule.json", whole)
    return moved


def _put(target: Path, artefact: Any) -> Any:
    path = target / f"fold_{artefact.fold:02d}" / artefact.path.name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path != artefact.path:
        shutil.copyfile(artefact.path, path)
        if scaler_path(artefact.path).exists():
            shutil.copyfile(scaler_path(artefact.path), scaler_path(path))
    save_json(meta_path(path), artefact.meta)
    return replace(artefact, path=path, meta_hash=_hash(meta_path(path)))


def read_schedule(folder: Path, version: int, what: str, shape: Mapping[str, Any]) -> tuple[dict[str, Any], list[Entry]]:
    """Read what `write_schedule` wrote: the document and its entries. Ask `check_whole` once the document's own rules hold.

    shape: of the document beyond what every schedule has, see `files.misfit`. Raises UserError where the file is missing, damaged, or of
    another schema version; the artefacts' files are not opened.
    """
    path = folder / "schedule.json"
    kind = Kind(f"{what} as `qt train` writes it", "train again", SCHEDULE | dict(shape))
    document: dict[str, Any] = read_json(path, replace(kind, shape={"schema_version": int}))
    if document["schema_version"] != version:
        raise ModelError(f"{path} must be of schema version {version}, was {document['schema_version']}; train again")
    kind.check(document, path)
    return document, [_entry(folder, dict(entry)) for entry in document["artefacts"]]


def _entry(folder: Path, entry: dict[str, Any]) -> Entry:
    name = Path(entry.pop("file"))
    if name.is_absolute() or ".." in name.parts or "\0" in str(name):
        raise ModelError(f"{folder / 'schedule.json'} must name files in its own folder, was {str(name)!r}; train again")
    if unknown := set(entry) - set(ENTRY) - {"slot"}:
        raise ModelError(
            f"{folder / 'schedule.json'} must describe models by known names, was with {', '.join(sorted(unknown))}; train again"
        )
    path = folder / name
    return entry, path, read_json(meta_path(path), METADATA) if meta_path(path).exists() else {}


def check_whole(folder: Path, document: Mapping[str, Any]) -> None:
    """Raise UserError unless the document of `read_schedule` has the hash that was written with it."""
    rest = {name: value for name, value in document.items() if name != "hash"}
    if document.get("hash") != hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest():
        raise ModelError(f"{folder / 'schedule.json'} must be as the training wrote it, was altered; train again")


def read_metadata(folder: Path) -> list[dict[str, Any]]:
    """Read the metadata of every artefact below a folder, in the order of their names.

    Raises UserError where a schedule there vouches for others, or was altered itself.
    """
    known: dict[Path, str] = {}
    for schedule in sorted(folder.rglob("schedule.json")):
        document = Kind("a schedule as `qt train` writes it", "train again", SCHEDULE).check(read_json(schedule, METADATA), schedule)
        check_whole(schedule.parent, document)
        known |= {meta_path(schedule.parent / entry["file"]): entry.get("meta_hash", "") for entry in document["artefacts"]}
    found = sorted(folder.rglob("*_meta.json"))
    for path in found:
        if known.get(path) and _hash(path) != known[path]:
            raise ModelError(f"{path} must be as the training wrote it, was altered; train again")
    return [read_json(path, METADATA) for path in found]


def check_meta(artefact: Any) -> None:
    """Raise ModelAbsentError unless the metadata, which say whether a model may trade, are those of the schedule."""
    if artefact.meta_hash and _hash(meta_path(artefact.path)) != artefact.meta_hash:
        raise ModelAbsentError(f"{meta_path(artefact.path).name} must be as the training wrote it, was altered; train again")


def _hash(path: Path) -> str:
    return hashlib.sha256(read_bytes(path, METADATA)).hexdigest() if path.exists() else "missing"
