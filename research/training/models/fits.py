"""Fit store: fits that are known already, on disk, keyed by the content of everything that a fit reads.

An entry is a folder `<QT_HOME>/store/fits/<key>/`: the model and its scaler, if it has one, the test fold's probabilities, and `entry.json`
with the answer of the fit and the hash of each file. It is written under another name and renamed, so half an entry is never found; an
altered one is noticed by its hashes and fitted again. So a second identical training fits nothing, and one that was stopped goes on where
it was.

The proof that nothing looks ahead (`research.training.walk_forward.retrain_fold`) never reads the store.
"""

import contextlib
import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.jit import source_hash
from qtcore.types import F8, I8
from research.errors import ModelError, UserError
from research.files import Kind, home, read_bytes, read_json
from research.parallel import versions
from research.training.models.base import F4, model_class, scaler_path
from research.training.models.imports import imports_of
from research.training.splits import Fold

SCHEMA_VERSION = 1
LIMIT = 2 << 30  # bytes kept after a training; the fits that were asked for longest ago leave first
READ = (
    "slot",
    "target",
    "features",
    "preset",
    "seed",
    "max_train_rows",
    "calibration",
    "horizon",
    "weights",
    "limits",
)  # fields of a job that change what is fitted

ENTRY = Kind(
    "a stored fit",
    "it is fitted again",
    {"schema_version": int, "hash": str, "answer": {"absent": (str, None)}, "files": {...: str}},
    has_large=True,
)

Job = Mapping[str, Any]
_SEEN: dict[Callable[..., Any], str] = {}  # what a class in use here was made of


def folder() -> Path:
    """Folder of the stored fits."""
    return home() / "store" / "fits"


def fit_key(job: Job, content: str) -> str:
    """Name a fit by everything it reads. content: `content_of` its fold."""
    parts = {name: job[name] for name in READ} | {"content": content, "source": _source(job["target"]), "machine": machine()}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def content_of(matrix: F4, labels: NDArray[np.int8], ends: I8, ahead: F8, fold: Fold, lookback: int) -> str:
    """Hash the arrays a fold's fit reads: matrix rows from its first window to its last test row, roles, classes of rows with a role, ends.

    matrix [n, S, F], labels int8 [n, S], ends [n] or [n, S]: rows in which labels end, read of the fitted ones; ahead [n, S]: what
    a score is fitted to, or of shape (0, 0). Rows after the last test
    row change nothing, so more bars leave earlier folds known.
    """
    rows = np.concatenate([fold.fit, fold.valid, fold.test])
    learned = np.concatenate([fold.fit, fold.valid]) if ahead.size else slice(0, 0)
    first, stop = max(0, int(rows.min()) - lookback + 1), int(rows.max()) + 1
    digest = hashlib.sha256(f"{first},{lookback}".encode())
    for array in (matrix[first:stop], fold.fit, fold.valid, fold.test, labels[rows], ends[fold.fit], ahead[learned]):
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _source(target: str) -> str:
    """Hash the code of the models and what the model's own class is made of. Raises ModelError where that changed after it was imported."""
    own = json.dumps(imports_of(target.partition(":")[0]), sort_keys=True)
    made_by = model_class(target)
    if _SEEN.setdefault(made_by, own) != own:
        raise ModelError(f"the source of {target} must be as it was when it was first used here, was changed since; start Python again")
    return _models() + hashlib.sha256(own.encode()).hexdigest()


@cache
def _models() -> str:
    return source_hash(__package__)


@cache
def machine() -> str:
    """Name what else moves bits: Python, the libraries, the processor's kind, an accelerator that a fit would use."""
    gpu = f"{Path('/dev/nvidiactl').exists()},{os.environ.get('CUDA_VISIBLE_DEVICES')}"
    return json.dumps([platform.python_version(), versions(), platform.system(), platform.machine(), gpu])


def keep(root: Path, key: str, answer: Mapping[str, Any], path: Path) -> None:
    """Store a fit: its answer, and unless the model is absent its files at `path`. A folder that cannot be written keeps nothing."""
    draft = None
    try:
        root.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".", dir=root))
        hashes = {}
        for name, source in files_of(path).items() if answer["absent"] is None else ():
            if name == "scaler.json" and not source.exists():
                continue
            shutil.copyfile(source, draft / name)
            hashes[name] = _hash(draft / name)
        body = {"schema_version": SCHEMA_VERSION, "answer": answer, "files": hashes}
        (draft / "entry.json").write_text(json.dumps(body | {"hash": _hash_of(body)}), encoding="utf-8")
        draft.rename(root / key)
    except OSError:  # a full or read-only disk, or another process was faster: the training goes on without
        if draft is not None:
            shutil.rmtree(draft, ignore_errors=True)


def fetch(root: Path, key: str, path: Path) -> dict[str, Any] | None:
    """Put the files of a stored fit at `path` and return its answer; None where there is none. An entry that was altered is removed."""
    entry = root / key
    if not entry.is_dir():
        return None
    try:
        body = read_json(entry / "entry.json", ENTRY)
        said = body.pop("hash")
        if said != _hash_of(body) or body["schema_version"] != SCHEMA_VERSION:
            raise ENTRY.error(entry, "altered")
        for name, target in files_of(path).items() if body["answer"]["absent"] is None else ():
            if name == "scaler.json" and name not in body["files"]:
                continue
            content = read_bytes(entry / name, ENTRY)
            if hashlib.sha256(content).hexdigest() != body["files"].get(name):
                raise ENTRY.error(entry / name, "altered")
            target.write_bytes(content)
        os.utime(entry / "entry.json")  # asked for just now
    except (OSError, UserError):
        shutil.rmtree(entry, ignore_errors=True)
        for leftover in files_of(path).values():
            leftover.unlink(missing_ok=True)
        return None
    answer: dict[str, Any] = body["answer"]
    return answer


def usage() -> tuple[int, int]:
    """Count the stored fits and their bytes."""
    sizes = [size for _, size, _ in _entries(folder())]
    return len(sizes), sum(sizes)


def trim(limit: int = LIMIT) -> tuple[int, int]:
    """Remove the fits that were asked for longest ago until the rest takes at most `limit` bytes; return how many left and their bytes."""
    entries = sorted(_entries(folder()))
    total, count, freed = sum(size for _, size, _ in entries), 0, 0
    for _, size, path in entries:
        if total - freed <= limit:
            break
        shutil.rmtree(path, ignore_errors=True)
        count, freed = count + 1, freed + size
    return count, freed


def _entries(root: Path) -> list[tuple[float, int, Path]]:
    """(last asked for, bytes, folder) of every entry, drafts of fits that were killed included."""
    found = []
    for path in root.iterdir() if root.is_dir() else ():
        with contextlib.suppress(OSError):
            stats = [file.stat() for file in path.iterdir()]
            found.append((max((s.st_mtime for s in stats), default=0.0), sum(s.st_size for s in stats), path))
    return found


def files_of(path: Path) -> dict[str, Path]:
    """Files of a fit by the name they have in an entry; path: of the model."""
    return {"model": path, "scaler.json": scaler_path(path), "test.npz": Path(f"{path}.npz")}


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _hash_of(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
