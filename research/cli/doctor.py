"""Command `qt doctor`: environment diagnosis, what this machine has and what will hurt."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from qtcore import __version__, jit
from research.data.machine import memory
from research.errors import EXTRAS
from research.files import home
from research.training.models import fits

LIBRARIES = ("numpy", "numba", "pandas", "polars", "pyarrow", "scikit-learn", "xgboost", "lightgbm", "matplotlib", "arch", *EXTRAS)


def examine() -> dict[str, Any]:
    """Look at versions, processors, accelerator, caches and folders; `problems` lists what a user should mend, in sentences."""
    versions = {name: _version(name) for name in LIBRARIES}
    paths = {"ledger (QT_HOME)": home(), "machine code (QTCORE_CACHE)": jit.cache_folder(), "results": Path("reports").resolve()}
    folders = {name: {"path": str(path), "writable": _is_writable(path), "free_gib": _free_gib(path)} for name, path in paths.items()}
    report = {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "qtcore": __version__,
        "source_hash": jit.source_hash(),
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": None if (size := memory()) is None else round(size / 2**30, 1),
        "gpu": _gpu(),
        "versions": versions,
        "folders": folders,
        "stored_fits": dict(zip(("count", "bytes"), fits.usage())),
        "environment": {key: value for key, value in sorted(os.environ.items()) if key.startswith(("NUMBA_", "OMP_", "QT"))},
    }
    return report | {"problems": list(_problems(report))}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gpu() -> str | None:
    """Name of the first CUDA or Metal device, None without one; torch is imported only here."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name(0))
    return "Apple Metal" if torch.backends.mps.is_available() else None


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _is_writable(path: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=_existing(path)):
            return True
    except OSError:
        return False


def _free_gib(path: Path) -> float:
    return round(shutil.disk_usage(_existing(path)).free / 2**30, 1)


def _problems(report: dict[str, Any]) -> Any:
    for name, version in report["versions"].items():
        if version is None and name not in EXTRAS:
            yield f"{name} is missing: run `make test` or install requirements.lock"
    for name, folder in report["folders"].items():
        if not folder["writable"]:
            yield f"the folder of {name}, {folder['path']}, cannot be written"
        elif folder["free_gib"] < 1.0:
            yield f"the folder of {name}, {folder['path']}, has only {folder['free_gib']} GiB free; a run wants about 1"
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        yield "NUMBA_DISABLE_JIT is set: kernels run interpreted, the same bits hundreds of times slower"
    if report["memory_gib"] is not None and report["memory_gib"] < 4:
        yield f"{report['memory_gib']} GiB of memory: histories above a million rows should be streamed"
