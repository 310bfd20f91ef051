"""How does a schedule of fitted models lie on disk? Artefacts by fold, then `schedule.json`, which vouches for every other file.

    schedule.json                          written last: a folder without it is half-written; holds its own hash
    fold_00/xgb_v20260112_120000_v5.ubj    and `..._scaler.json`, which holds the model's hash; `..._meta.json`, whose hash the entry holds

Base models (`schedule`) and meta models (`research.meta.schedule`) lie alike; what their files mean is their own business.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from research.errors import UserError
from research.files import save_json
from research.models.base import ModelAbsentError, scaler_path

Entry = tuple[dict[str, Any], Path, dict[str, Any]]  # an artefact's own fields, its file, its metadata


def meta_path(path: Path) -> Path:
    """Path of the metadata that belong to a model file."""
    return path.with_name(f"{path.stem}_meta.json")


def write_schedule(target: Path, artefacts: Iterable[Any], document: Mapping[str, Any], what: str) -> tuple[Any, ...]:
    """Write all files, `schedule.json` last, and return the artefacts that lie there. Raises UserError when that is impossible.

    artefacts: dataclasses with `fold`, `path`, `meta` and `meta_hash`; their other fields go into the schedule. what: for the error.
    """
    try:
        moved = tuple(_put(target, artefact) for artefact in artefacts)
        own = [{f.name: getattr(a, f.name) for f in fields(a) if f.name not in ("path", "meta")} for a in moved]
        entries = [entry | {"file": a.path.relative_to(target).as_posix()} for entry, a in zip(own, moved)]
        text = json.dumps({**document, "artefacts": entries}, sort_keys=True)  # as it will be read back: tuples are lists
        whole = json.loads(text) | {"hash": hashlib.sha256(text.encode()).hexdigest()}
        target.mkdir(parents=True, exist_ok=True)
        save_json(target / "schedule.json", whole)
    except OSError as error:
        raise UserError(f"{what} must be writable to {str(target)!r}, was not: {error.strerror or error}") from error
    return moved


def _put(target: Path, artefact: Any) -> Any:
    path = target / f"fold_{artefact.fold:02d}" / artefact.path.name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path != artefact.path:
        shutil.copyfile(artefact.path, path)
        shutil.copyfile(scaler_path(artefact.path), scaler_path(path))
    meta_path(path).write_text(json.dumps(artefact.meta, indent=1, sort_keys=True), encoding="utf-8")
    return replace(artefact, path=path, meta_hash=_hash(meta_path(path)))


def read_schedule(folder: Path, version: int, what: str) -> tuple[dict[str, Any], list[Entry]]:
    """Read what `write_schedule` wrote: the document and its entries. Ask `check_whole` once the document's own rules hold.

    Raises UserError where the file is missing, damaged, or of another schema version; the artefacts' files are not opened.
    """
    path = folder / "schedule.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        found = document["schema_version"]
        if found == version:
            return document, [_entry(folder, dict(entry)) for entry in document["artefacts"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} must be {what} as `qt train` writes it, was damaged ({error}); train again") from error
    raise UserError(f"{path} must be of schema version {version}, was {found}; train again")


def _entry(folder: Path, entry: dict[str, Any]) -> Entry:
    path = folder / entry.pop("file")
    return entry, path, json.loads(meta_path(path).read_text(encoding="utf-8")) if meta_path(path).exists() else {}


def check_whole(folder: Path, document: Mapping[str, Any]) -> None:
    """Raise UserError unless the document of `read_schedule` has the hash that was written with it."""
    rest = {name: value for name, value in document.items() if name != "hash"}
    if document.get("hash") != hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest():
        raise UserError(f"{folder / 'schedule.json'} must be as the training wrote it, was altered; train again")


def check_meta(artefact: Any) -> None:
    """Raise ModelAbsentError unless the metadata, which say whether a model may trade, are those of the schedule."""
    if artefact.meta_hash and _hash(meta_path(artefact.path)) != artefact.meta_hash:
        raise ModelAbsentError(f"{meta_path(artefact.path).name} must be as the training wrote it, was altered; train again")


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "missing"
