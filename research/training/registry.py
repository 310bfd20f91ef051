"""Model registry: trained models in use, on disk. Versions by name, one of them current.

    <QT_HOME>/registry/<name>/1/schedule.json ...      a version is a copy of a trained set, never changed again
    <QT_HOME>/registry/<name>/current.json             {"version": 2, "history": [...]}

A version is copied under another name and renamed, and `current.json` is written beside its place and renamed: whoever reads sees the old
version or the new one, nothing between. `load_for_live` is the door to money: it refuses what research only flags.
"""

import re
import shutil
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from research.errors import ConfigError, ModelError, UserError
from research.files import Kind, home, read_json, save_json, writable
from research.training.models.artefacts import Schedule
from research.training.models.schedule import ModelSet

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
POINTER = Kind("the pointer of a registry to a version", "promote the models again", {"version": int, "history": [dict]})
LEFT_OUT = shutil.ignore_patterns("predictions.parquet", "*.tmp", ".*")


def registry_folder() -> Path:
    """Folder of the registry: `QT_HOME/registry`."""
    return home() / "registry"


@dataclass(frozen=True)
class Entry:
    """A name in the registry. version: the one that was asked for, else the current one; history: what was done, oldest first."""

    name: str
    folder: Path
    version: int
    history: tuple[dict[str, Any], ...]
    current: int

    @property
    def path(self) -> Path:
        """Folder of the version."""
        return self.folder / str(self.version)

    @property
    def versions(self) -> list[int]:
        """Every version that is kept, oldest first."""
        return sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdecimal())


def entries(root: Path | None = None) -> list[Entry]:
    """Return every name in the registry, sorted."""
    base = root or registry_folder()
    names = sorted(path.parent.name for path in base.glob("*/current.json")) if base.is_dir() else []
    return [find(name, base) for name in names]


def pointer(name: str, root: Path | None = None) -> Path:
    """Return the file that says which version of a name is the current one; it is replaced whole, so a look at it is enough."""
    return (root or registry_folder()) / name / "current.json"


def find(name: str, root: Path | None = None) -> Entry:
    """Return the entry of a `name` or `name@version`. Raises UserError where there is none, or its pointer is damaged."""
    base = root or registry_folder()
    asked = name
    name, at, version = asked.partition("@")
    folder = base / name
    if not NAME.fullmatch(name) or not (folder / "current.json").exists():
        known = ", ".join(sorted(path.parent.name for path in base.glob("*/current.json"))) or "none"
        raise ModelError(f"model must be a name in the registry {base} ({known}), was {asked!r}; put it there with `qt models promote`")
    stored = read_json(folder / "current.json", POINTER)
    entry = Entry(name, folder, stored["version"], tuple(stored["history"]), stored["version"])
    if not entry.path.is_dir():
        raise ModelError(f"{folder / 'current.json'} must name a version that is there, was {entry.version}; promote the models again")
    if not at:
        return entry
    if not version.isdecimal() or int(version) not in entry.versions:
        raise ModelError(f"version of {name} must be one of {', '.join(map(str, entry.versions))}, was {version!r}")
    return replace(entry, version=int(version))


def resolve(models: str | Path, root: Path | None = None) -> Path:
    """Return the folder of trained models that `models` means: a folder, a name in the registry, or `name@version`."""
    path = Path(models)
    if path.is_dir():
        return path
    if path.parent != Path() or not NAME.fullmatch(str(models).partition("@")[0]):
        raise ModelError(f"models must be a folder that `qt train` wrote or a name in the registry, was {str(models)!r}")
    return find(str(models), root).path


def promote(folder: str | Path, name: str | None = None, root: Path | None = None) -> Entry:
    """Copy a trained set, a folder or what `name@version` means, into the registry and make it the current version of `name`.

    Without `name` it is that of the folder, or the one that the registry has. Raises UserError when the set is half-written, damaged, or of
    another version of this program; nothing is changed then.
    """
    source, own = Path(folder), Path(folder).resolve().name
    if not source.exists() and "@" in str(folder):
        source, own = resolve(folder, root), str(folder).partition("@")[0]
    source = source / "models" if (source / "models" / "schedule.json").exists() else source
    label = name or own
    if not NAME.fullmatch(label):
        rule = "consist of letters, digits, dot, dash and underscore (the version gets its number by itself)"
        raise ConfigError(f"name (--as) must {rule}, was {label!r}; give another with --as")
    _whole(source)
    target = (root or registry_folder()) / label
    with writable("registry", target, "free space or choose --registry"):
        target.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".", dir=target))
        try:
            shutil.copytree(source, draft, ignore=LEFT_OUT, dirs_exist_ok=True)
            _whole(draft)
            version = 1 + max((int(path.name) for path in target.iterdir() if path.name.isdecimal()), default=0)
            draft.chmod(0o755)
            draft.rename(target / str(version))
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        history = find(label, root).history if (target / "current.json").exists() else ()
        return _point(target, version, history, f"promoted from {source.resolve()}")


def rollback(name: str, root: Path | None = None) -> Entry:
    """Make the version before the current one current again, or that of `name@version`. Raises UserError when there is none before."""
    entry = find(name, root)
    earlier = [version for version in entry.versions if version < entry.current]
    if not earlier:
        raise ModelError(f"{entry.name} must have an earlier version to go back to, was at {entry.current}, its first")
    target = entry.version if "@" in name else earlier[-1]
    if target not in earlier:
        raise ModelError(
            f"{entry.name} must go back to a version before the current {entry.current}, was {target}; `qt models promote` goes forward"
        )
    _whole(entry.folder / str(target))
    return _point(entry.folder, target, entry.history, f"rolled back from {entry.current}")


def describe(entry: Entry) -> dict[str, Any]:
    """Summarise a version of a name, as `qt models list` shows it. balanced_accuracy: mean over folds, by model."""
    models = ModelSet.load(entry.path, is_checked=False)
    metas = [a.meta for a in models.artefacts]
    spans = [time for meta in metas for span in meta.get("split", {}).get("close_time", {}).values() for time in span]
    scores = {slot: [m["balanced_accuracy"] for m in metas if m.get("slot") == slot and "balanced_accuracy" in m] for slot in models.slots}
    return {
        "name": entry.name,
        "version": entry.version,
        "current": entry.current,
        "versions": entry.versions,
        "models": list(models.slots),
        "label": models.config["label"]["id"],
        "symbols": sorted({symbol for meta in metas for symbol in meta.get("symbols", ())}),
        "data_from": str(np.datetime64(min(spans), "ns"))[:19] if spans else None,
        "data_to": str(np.datetime64(max(spans), "ns"))[:19] if spans else None,
        "balanced_accuracy": {slot: round(float(np.mean(values)), 4) for slot, values in scores.items() if values},
        "accepted": sum(meta.get("status") == "accepted" for meta in metas),
        "artefacts": len(metas),
        "live_refuses": live_refusal(entry.path),
        "synthetic": any(meta.get("synthetic", True) for meta in metas),
        "folder": str(entry.path),
        "history": list(entry.history),
        "problems": _problems(models),
    }


def _problems(models: ModelSet) -> list[str]:
    """Say what is wrong with a set; of models whose file of layers is not in use, that it is needed."""
    try:
        return list(models.check())
    except UserError as error:
        return [str(error)]


def load_for_live(
    models: str | Path | ModelSet, *, allow_rejected: bool = False, allow_synthetic: bool = False, may_advise: bool = False
) -> ModelSet:
    """Load models to trade with: a folder or a registry name. Looks at the artefacts that serve from now on.

    may_advise: a model without skill may speak, as where an opinion trades by its edge (`decide.rule`). Raises UserError when one is
    damaged or missing, trained on synthetic labels (`spec` D-24), rejected, or without skill where it may not advise (D-74), unless
    allowed.
    """
    known = models if isinstance(models, ModelSet) else ModelSet.load(resolve(models), is_checked=False)
    if broken := known.check():
        raise ModelError(f"models must be whole to go live, were not: {broken[0]}")
    if not known.serving:
        raise ModelError("models must have an artefact that is still valid to go live, was without; train again")
    check_live(known, allow_rejected, allow_synthetic, may_advise)
    return known


def unfit(*served: Any) -> dict[str, list[str]]:
    """Name by cause the artefacts of schedules that serve from now on though they are `unskilled`, `rejected` or `synthetic`."""
    serving = [a for schedule in served if schedule is not None for a in schedule.serving]
    found = {
        "unskilled": [a.slot for a in serving if a.meta.get("status") == "unskilled"],
        "rejected": [a.slot for a in serving if a.meta.get("status") not in ("accepted", "unskilled")],
        "synthetic": [a.slot for a in serving if a.meta.get("synthetic", True)],
    }
    return {cause: names for cause, names in found.items() if names}


def live_refusal(folder: Path) -> str | None:
    """Return why `qt live` would refuse the models of a folder and the meta layer beside them, None where it would serve them."""
    from research.training.meta.schedule import MetaSchedule

    try:
        load_for_live(ModelSet.load(folder, is_checked=False))
        if (folder / "meta" / "schedule.json").exists():
            check_live(MetaSchedule.load(folder / "meta"), False, False, False)
    except UserError as error:
        return str(error)
    return None


def check_live(schedule: Schedule[Any, Any], allow_rejected: bool, allow_synthetic: bool, may_advise: bool) -> None:
    """Raise UserError unless every artefact that serves from now on, base model or meta layer, is whole and its metadata allow it."""
    for artefact in schedule.serving:
        name, status = "the meta layer" if artefact.slot == "meta" else artefact.slot, artefact.meta.get("status")
        if schedule.fitted(artefact) is None:
            (why,) = replace(schedule, artefacts=(artefact,)).check()
            raise ModelError(f"{name} must be whole to go live, was not: {why}")
        if artefact.meta.get("synthetic", True) and not allow_synthetic:
            raise ModelError(f"{name} must be trained on real labels to go live, was synthetic; pass --allow-synthetic to do it anyway")
        if status != "accepted" and not allow_rejected and not (may_advise and status == "unskilled"):
            why = next(iter(artefact.meta.get("warnings", ())), f"status is {status}")
            remedy = "; where decide.rule is edge it advises and does not trade" if status == "unskilled" else ""
            raise ModelError(f"{name} must be accepted to go live, was not: {why}; train another or pass --allow-rejected{remedy}")


def _whole(folder: Path) -> None:
    """Raise UserError unless the folder holds a complete, undamaged schedule."""
    if not (folder / "schedule.json").exists():
        raise ModelError(f"models must be a finished folder of `qt train`, was {folder} without schedule.json; train again")
    if broken := ModelSet.load(folder, is_checked=False).check():
        raise ModelError(f"models must be whole to be promoted, were not: {broken[0]}")


def _point(folder: Path, version: int, history: tuple[dict[str, Any], ...], what: str) -> Entry:
    """Make `version` current and remember it."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    entry = Entry(folder.name, folder, version, (*history, {"time": now, "version": version, "what": what}), version)
    save_json(folder / "current.json", {"version": version, "history": entry.history})
    return entry
