"""Reproduction of a run from its folder alone: the same bars, training, predictions, decisions and money, array by array.

`manifest.json` holds a hash of every array. The run is made again from its bars, the plan of its training and its parameters; stages are
compared in the order of the chain, and the first one that differs is named, with the largest distance and where it begins.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore import Bars
from research.runs.backtest import backtest
from research.runs.folder import RunFiles, array_hashes, manifest_of, read_run
from research.runs.record import RunRecord
from research.runs.tables import decision_planes
from research.runs.verdict import told
from research.training.models.layers import NONE, Layers
from research.training.predictions import Predictions

# Stages in the order of the chain, and the arrays of the manifest that each one makes.
STAGES: dict[str, tuple[str, ...]] = {
    "data": ("bars.",),
    "training": (),
    "predictions": ("votes.", "decisions.label"),
    "features": ("decisions.volatility", "decisions.trend_strength"),
    "ensemble": ("decisions.ensemble_", "decisions.consensus", "decisions.n_voters"),
    "meta": ("decisions.verdict", "decisions.meta_"),
    "arbiter": ("decisions.arbiter_", "decisions.raw_", "decisions.source"),
    "governor": ("decisions.governor_reason", "decisions.final_", "decisions.size"),
    "account": ("fills", "decisions.cell_pnl", "equity", "balance", "exposure"),
}


def make_again(
    folder: str | Path, *, is_training: bool = True, layers: Layers = NONE, progress: Any = None
) -> tuple[RunRecord, dict[str, Any]]:
    """Make a finished run again and compare every array's hash; return the new record and the report.

    is_training: fit the base models again; else the stored ones serve. layers: of the user's own, at hand. progress(done,
    total, text) is called before each part. The report: `equal`, `first` (the first stage that differs, None),
    `stages` (stage, arrays, differing, distance, where), `stored` (the verdict),
    `changed` (source, versions: what is not as it was), `notes` (what was taken as stored). Nothing is written; the trial ledger does not
    count it. Raises UserError when the folder is incomplete, or was made with layers of the user's own that are not at hand.
    """
    report = progress or (lambda done, total, text: None)
    files = read_run(folder)
    manifest, notes = files.manifest, list[str]()
    report(0, 3, "read the folder")
    own = files.own(layers)
    bars, stored, params, meta = files.chain(own)
    report(1, 3, "train" if is_training else "serve the models")
    predictions, fits = _predictions(files, bars, stored, is_training, own, notes)
    report(2, 3, "run the chain")
    if meta is not None:
        notes.append("the learned meta layer was taken as stored and served again")
    run = backtest(bars, predictions, params, meta=meta, **own.engine, ceilings=files.ceilings)
    run.profile, run.command = manifest["profile"], manifest["command"]
    run.manifest = {"trials": manifest["trials"]}  # the number that was recorded (`spec` D-97)
    again, arrays = array_hashes(run), manifest["arrays"]
    stages = [_stage(name, files, run, again, arrays) for name in STAGES]
    stages[1] |= {"arrays": len(fits), "differing": [name for name, is_same in fits.items() if not is_same]}
    first = next((s["stage"] for s in stages if s["differing"]), None)
    if first is None:
        run.verification = files.verify  # a proof of the same bits
    report(3, 3, "compare")
    return run, {
        "run": str(files.path),
        "equal": first is None,
        "first": first,
        "stages": stages,
        "stored": files.summary["verdict"],
        "trials": manifest["trials"]["trials"],
        "changed": _changed(manifest, manifest_of(run, files.path.name, manifest["trials"])),
        "notes": notes,
    }


def sentence(report: Mapping[str, Any]) -> str:
    """Say the outcome in one sentence."""
    n = sum(stage["arrays"] for stage in report["stages"])
    if report["equal"]:
        verdict, doubt = report["verdict"]["again"], report["verdict"]["figures"]
        aside = f" ({doubt})" if doubt not in (None, verdict) else ""
        return f"reproduced: {n} arrays and models have the bits of the first run; verdict {told(verdict, report['verdict'])}{aside}"
    stage = next(s for s in report["stages"] if s["stage"] == report["first"])
    far = "" if stage["distance"] is None else f", largest distance {stage['distance']:.3g}"
    text = f"not reproduced: the first stage that differs is {stage['stage']} ({', '.join(stage['differing'])}){far}"
    text += f", first at {stage['where']}" if stage["where"] else ""
    return text + (f"; not as it was: {', '.join(report['changed'])}" if report["changed"] else "")


def _predictions(
    files: RunFiles, bars: Bars, stored: Predictions, is_training: bool, own: Layers, notes: list[str]
) -> tuple[Predictions, dict[str, bool]]:
    """Train or serve again; also which artefacts are the same, by name."""
    from research.data.facts import fingerprint
    from research.training.models.schedule import ModelSet

    folder = files.path / "models"
    if stored.imported or not (folder / "schedule.json").exists():
        why = "they were imported" if stored.imported else "their models are not in the folder"
        notes.append(f"predictions were taken as stored: {why}")
        return stored, {}
    models = ModelSet.load(folder, is_checked=False)
    stored_fits = _fits(models)
    for artefact in stored_fits.values():
        artefact.check_code()
    is_own = all(a.meta["data_fingerprint"] == fingerprint(bars) for a in stored_fits.values())
    if is_training and is_own:
        from research.parallel import n_processors
        from research.training.plan import TrainingPlan
        from research.training.walk_forward import run_plan

        plan, workers = TrainingPlan.stored(models.config["plan"]), (n_processors(), "local", None)
        made = run_plan(bars, plan, _own_features(own, models), store=None, workers=workers)
        assert made.models is not None
        new = _fits(made.models)
        same = {name: name in new and a.identity == new[name].identity for name, a in stored_fits.items()}
        if all(same.values()) and any("digest" not in a.meta and a.hash != new[name].hash for name, a in stored_fits.items()):
            notes.append("calibrations differ in the last digits, as on another processor; the stored models, otherwise the same, served")
            return Predictions.from_models(models, bars, files.params(), _own_features(own, models)), same
        return made, same
    why = "they were trained on other bars than these" if not is_own else "training was not asked for"
    notes.append(f"models were taken as stored and served again: {why}")
    return Predictions.from_models(models, bars, files.params(), _own_features(own, models)), {}


def _fits(models: Any) -> dict[str, Any]:
    """Return the artefacts of every horizon by what they are called."""
    own = {f"{a.slot} fold {a.fold + 1}": a for a in models.artefacts}
    return own | {f"{a.slot} of {part.horizon} bars, fold {a.fold + 1}": a for part in models.further for a in part.artefacts}


def _own_features(own: Layers, models: Any) -> tuple[Any, ...]:
    """Return the own features that the models read, in their order."""
    known = {feature.name: feature for feature in own.features}
    return tuple(known[name] for name in models.feature_names if name in known)


def _stage(name: str, files: RunFiles, run: RunRecord, again: Mapping[str, str], stored: Mapping[str, str]) -> dict[str, Any]:
    """Compare the arrays of one stage: how many, which differ, how far at most, and where the first difference is."""
    mine = [key for key in stored if key.startswith(STAGES[name])]
    differing = [key for key in mine if again.get(key) != stored[key]]
    out: dict[str, Any] = {"stage": name, "arrays": len(mine), "differing": differing, "distance": None, "where": None}
    for key in differing:
        distance, where = _distance(key, files, run)
        if distance is not None and (out["distance"] is None or distance > out["distance"]):
            out["distance"] = distance
        out["where"] = out["where"] or where
    return out


def _distance(key: str, files: RunFiles, run: RunRecord) -> tuple[float | None, str | None]:
    """Largest distance between the stored and the new array, and the first bar that differs; None where that has no meaning."""
    stored, new = _pair(key, files, run)
    if stored is None or new is None:
        return None, None
    if stored.shape != new.shape:
        return float("inf"), f"shape {stored.shape} against {new.shape}"
    a, b = np.asarray(stored, np.float64), np.asarray(new, np.float64)
    differs = (a != b) & ~(np.isnan(a) & np.isnan(b))
    if not differs.any():
        return 0.0, None
    gap = np.abs(a - b)[differs]
    row = int(np.argwhere(differs)[0][0])
    time = np.datetime_as_string(np.datetime64(int(run.bars.close_time[row]), "ns"), unit="m")
    return float(np.inf if np.isnan(gap).any() else gap.max()), f"bar {row}, closed {time} UTC"


def _pair(key: str, files: RunFiles, run: RunRecord) -> tuple[NDArray | None, NDArray | None]:
    """Return the stored and the new array of a manifest name, bars first; fills and times have none."""
    group, _, name = key.partition(".")
    if group == "decisions":
        return files.planes("decisions", [name])[name], decision_planes(run)[name]
    if key in ("equity", "balance", "exposure"):
        return files.frame("equity", [key])[key].to_numpy(), getattr(run.result, key)
    if group == "votes":
        stored = files.predictions()
        planes = [None if x is None else np.moveaxis(x, 1, 0) for x in (getattr(stored, name), getattr(run.predictions, name))]
        return planes[0], planes[1]
    return None, None


def _changed(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name what is not as it was: source of a package, versions, platform."""
    out = [f"source of {name}" for name, value in then["source_hash"].items() if now["source_hash"].get(name) != value]
    versions = ((name, was, now["versions"].get(name)) for name, was in then["versions"].items())
    out += [f"{name} {was} is now {value}" for name, was, value in versions if was != value]
    return out + (["platform"] if then["platform"] != now["platform"] else [])
