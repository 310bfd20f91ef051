"""Model section of the report: the metadata of the artefacts that voted, read from the run's folder, as tables and sentences."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qtcore.types import MODELS
from research.files import Kind, read_json
from research.report.rows import Table
from research.report.words import DASH, count, layer_name, number, percent, signed_percent, span
from research.runs.folder import META_TRIED
from research.training.models.folder import LOSSES, SHARES, read_metadata

TRIED = Kind("what `qt audit meta` wrote", "run it again", {"rows": {...: {...: Any}}, "absent": {...: str}, "sentence": str})


def artefacts(folder: Path, voters: Sequence[str] = MODELS) -> list[dict[str, Any]]:
    """Read the metadata of every artefact in a run's `models`, in the order of its voters and folds; empty where the run holds none."""
    metas = read_metadata(folder / "models")
    order = [*voters, "meta"]
    return sorted((m for m in metas if m.get("slot") in order), key=lambda m: (order.index(m["slot"]), m.get("split", {}).get("fold", 0)))


def model_name(meta: dict[str, Any]) -> str:
    """Name of the model; a learned meta layer says what it is and sees."""
    return f"meta model ({meta['kind']}, {meta['vector']})" if meta["slot"] == "meta" else layer_name(meta["slot"])


def model_table(metas: list[dict[str, Any]]) -> Table:
    """List every fold of every model: is it accepted, on how many cells, against which baselines, and why not."""
    headers = [
        "model",
        "fold",
        "status",
        "cells fitted",
        "cells scored",
        "accuracy",
        "majority",
        "volatility",
        "balanced",
        "standard error",
    ]
    headers += ["log loss", "unweighted", "base rate", "volatility", "HOLD said", "why"]
    rows = []
    for meta in metas:
        split = meta.get("split", {})
        fitted = meta.get("n_train", split.get("cells", {}).get("fit"))
        row = [model_name(meta), str(split.get("fold", 0) + 1), status_of(meta), count(fitted)]
        row += [count(meta.get("n_scored")), *(percent(meta.get(n)) for n in (*SHARES, "balanced_accuracy_error"))]
        row += [number(meta.get(n), 3) for n in LOSSES]
        row += [percent(meta.get("predicted_shares", {}).get("HOLD"), 0), reason_of(meta)]
        rows.append(row)
    return Table(headers, rows, texts=(2, 15))


def status_of(meta: dict[str, Any]) -> str:
    """Say whether a model was accepted, unskilled or rejected, and whether its labels were synthetic."""
    return str(meta.get("status", "unknown")) + (", synthetic" if meta.get("synthetic") else "")


def reason_of(meta: dict[str, Any]) -> str:
    """Why a model was not accepted; a dash where it was."""
    found = [text for text in meta.get("warnings", []) if text.startswith(("rejected: ", "unskilled: "))]
    return found[0].split(": ", 1)[1] if found else DASH


def status_text(metas: list[dict[str, Any]]) -> str:
    """Say how many models may be believed."""
    if not metas:
        return "No artefacts of models lie in this run: its predictions were imported, so there is nothing to show of their training."
    unskilled, rejected = (sum(meta.get("status") == status for meta in metas) for status in ("unskilled", "rejected"))
    if not unskilled + rejected:
        return f"All {len(metas)} fitted models beat the volatility baseline in log loss or chance in direction on their own test folds."
    why = f"{unskilled} without skill (neither log loss nor direction beyond chance), {rejected} rejected"
    return f"{unskilled + rejected} of {len(metas)} fitted models are not accepted: {why}. A backtest uses them, flagged."


def tried_on(folder: Path) -> dict[str, Any] | None:
    """Read what `qt audit meta` kept: `rows` by name, `absent` with reasons, `sentence`; None where nothing was tried."""
    path = folder / META_TRIED
    return read_json(path, TRIED) if path.exists() else None


def tried_table(kept: dict[str, Any]) -> Table:
    """List what `qt audit meta` tried on the run, beside its base models and ensemble."""
    headers = ["", "balanced accuracy", "95 % interval", "less the best base model", "95 % interval", "less the ensemble", "95 % interval"]
    rows = [
        [
            layer_name(name),
            percent(row["balanced_accuracy"]),
            span([row["low"], row["high"]]),
            *(
                text
                for column in ("minus_best", "minus_ensemble")
                for text in (signed_percent(row[column], 1), span([row[f"{column}_low"], row[f"{column}_high"]]))
            ),
        ]
        for name, row in kept["rows"].items()
    ]
    if not kept["absent"]:
        return Table(headers, rows)
    why = [[name, *[DASH] * 6, reason] for name, reason in kept["absent"].items()]
    return Table([*headers, "not trained because"], [[*row, ""] for row in rows] + why, texts=(7,))


def importance_table(metas: list[dict[str, Any]]) -> Table | None:
    """List every feature with its importance in each model, mean over folds: gain as a share, permutation as balanced accuracy lost."""
    slots = list(dict.fromkeys(meta["slot"] for meta in metas if meta.get("importance")))
    if not slots:
        return None
    found = {slot: [meta["importance"] for meta in metas if meta["slot"] == slot and meta.get("importance")] for slot in slots}
    features = list(dict.fromkeys(name for folds in found.values() for fold in folds for part in fold.values() for name in part))
    rows = []
    for name in features:
        row = [name]
        for slot in slots:
            drop, gain = _mean(found[slot], "permutation", name), _mean(found[slot], "gain", name)
            row += [signed_percent(drop, 2), percent(gain)]
        rows.append(row)
    return Table(["feature", *(title for slot in slots for title in (f"{layer_name(slot)}, permutation", "gain"))], rows)


def _mean(folds: list[dict[str, Any]], kind: str, name: str) -> float | None:
    values = [fold[kind][name] for fold in folds if name in (fold.get(kind) or {})]
    return sum(values) / len(values) if values else None
