"""Model diagnostics: reliability, learning curves and feature importance, one small panel a model."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from research.report.figures import NOTE
from research.report.svg import BAD, CHAIN, ENSEMBLE, GOOD, INK, MARKET, MUTED, PAPER, Picture, picture
from research.report.words import count, layer_name, percent

ACROSS = (4, 2)  # panels beside each other on a wide and on a narrow page
POINTS = 60  # of a learning curve
TOP = 10  # features shown
STEPS = {"xgb": "rounds", "lgbm": "rounds", "linear": "ridges, strong to weak"}  # of a fit; else epochs


def reliability(found: dict[str, Any]) -> Picture | None:
    """Draw accuracy over confidence with intervals, and below it how many cells lie in each bin; None where nothing was scored."""
    shown = {name: r for name, r in found.items() if sum(r["n"])}
    if not shown:
        return None

    def panel(figure: Any, box: Any, name: str, is_left: bool) -> None:
        r = shown[name]
        upper, lower = box.subgridspec(2, 1, height_ratios=(2.6, 1), hspace=0.14).subplots(sharex=True)
        n = np.array(r["n"], float)
        edges = np.linspace(0.0, 1.0, len(n) + 1)
        upper.plot([0, 1], [0, 1], color=MARKET, lw=1.0)
        for k in np.flatnonzero(n):
            low, high = r["ci95"][k]
            is_enough = r["enough"][k] and low is not None
            if is_enough:
                upper.plot([r["confidence"][k]] * 2, [low, high], color=CHAIN, lw=1.4)
            upper.plot(
                r["confidence"][k], r["accuracy"][k], "o", ms=4.2, color=CHAIN if is_enough else PAPER, mec=CHAIN if is_enough else MUTED
            )
        lower.bar(edges[:-1], n, width=np.diff(edges) * 0.9, align="edge", color=MARKET, alpha=0.7)
        upper.set_title(layer_name(name))
        upper.set_xlim(0.0, 1.0)
        upper.set_ylim(0.0, 1.02)
        lower.set_xticks([0.0, 0.5, 1.0], ["0", "0.5", "1"])
        top = int(n.max())
        lower.set_yticks([0, top], ["0", count(top) if top < 10_000 else f"{top / 1000:.0f}k"])
        lower.set_xlabel(f"confidence\nECE {percent(r['ece'])}, by chance {percent(r['ece_by_chance'])}")
        if is_left:
            upper.set_ylabel("share right")
            lower.set_ylabel("cells")

    return _panels(list(shown), panel, "Reliability of models, ensemble and chain", 2.6)


def curves(metas: list[dict[str, Any]]) -> Picture | None:
    """Draw training and validation loss of every fold, the kept round marked; None where no model recorded them."""
    by_slot: dict[str, list[dict[str, Any]]] = {}
    for meta in metas:
        if history_of(meta):
            by_slot.setdefault(meta["slot"], []).append(history_of(meta))
    if not by_slot:
        return None

    def panel(figure: Any, box: Any, name: str, is_left: bool) -> None:
        ax = figure.add_subplot(box)
        for history in by_slot[name]:
            for part, colour, width in (("train", MARKET, 0.9), ("valid", CHAIN, 1.2)):
                x, y = _thinned(history.get(part) or [])
                ax.plot(x, y, color=colour, lw=width)
            best, valid = history.get("best"), history.get("valid") or []
            if best is not None and 0 <= best < len(valid):
                ax.plot(best + 1, valid[best], "o", ms=4.2, color=GOOD, mec=PAPER, mew=0.6)
        ax.set_title(layer_name(name))
        ax.set_xlabel(STEPS.get(name, "epochs"))
        ax.locator_params(nbins=4)
        if is_left:
            ax.set_ylabel("loss")

    return _panels(list(by_slot), panel, "Learning curves of the models, one line a fold", 2.0)


def importance(metas: list[dict[str, Any]]) -> Picture | None:
    """Draw the ten most important features of each model: permutation on the held-out folds, and gain; None where none is recorded."""
    by_slot: dict[str, list[dict[str, Any]]] = {}
    for meta in metas:
        if meta.get("importance"):
            by_slot.setdefault(meta["slot"], []).append(meta["importance"])
    if not by_slot:
        return None

    def panel(figure: Any, box: Any, name: str, is_left: bool) -> None:
        ax = figure.add_subplot(box)
        drops, gains = (_by_feature(by_slot[name], kind) for kind in ("permutation", "gain"))
        main, colour = (drops, CHAIN) if drops else (gains, ENSEMBLE)
        names = sorted(main, key=lambda f: -float(main[f].mean()))[:TOP]
        y = np.arange(len(names))[::-1]
        for at, feature in zip(y, names):
            folds = 100.0 * main[feature]
            ax.plot([folds.min(), folds.max()], [at, at], color=MUTED, lw=1.2)
            ax.plot(folds.mean(), at, "o", ms=4.6, color=colour if folds.mean() >= 0.0 else BAD, mec=PAPER, mew=0.6)
            if drops and feature in gains:
                ax.annotate(
                    f"{100 * gains[feature].mean():.0f}",
                    (1.0, at),
                    xycoords=("axes fraction", "data"),
                    xytext=(3, 0),
                    va="center",
                    **NOTE,
                    color=MUTED,
                )
        ax.axvline(0.0, color=MUTED, lw=0.7)
        ax.set_yticks(y, names, color=INK, fontsize=8.0)
        ax.set_ylim(-0.7, TOP - 0.3)
        ax.set_title(layer_name(name))
        ax.set_xlabel("balanced accuracy lost, points" if drops else "share of gain, %")
        ax.locator_params(axis="x", nbins=4)
        ax.grid(True, axis="x")
        ax.grid(False, axis="y")

    return _panels(list(by_slot), panel, "Most important features of the models", 2.9, across=(2, 1), gap=1.35)


def lag_profiles(found: Mapping[str, Any]) -> Picture | None:
    """Draw the correlation of each model's lean with the return of single bars, and the ceiling over those that the label reads.

    found: `plausibility` of a summary's evidence. Grey bars had closed, blue ones had not, red ones are surely above the ceiling; strokes
    reach from the lower to the upper end. None without a profile.
    """
    profiles = {name: p for name, p in found.get("lags", {}).items() if any(x is not None for x in p["correlation"])}
    if not profiles:
        return None
    ceiling = next(row["ceiling"] for row in found["ceilings"] if row["name"] == "lag_correlation")
    columns = [[np.nan if x is None else x for x in p[name]] for p in profiles.values() for name in ("low", "high")]
    low, high = min(np.nanmin(columns), -0.5 * ceiling), max(np.nanmax(columns), 1.15 * ceiling)

    def panel(figure: Any, box: Any, name: str, is_left: bool) -> None:
        ax = figure.add_subplot(box)
        lag, value, ends = (np.array(profiles[name][key], float) for key in ("lag", "correlation", "low"))
        colours = [MARKET if k < 1 else BAD if end > ceiling else CHAIN for k, end in zip(lag, ends)]
        ax.bar(lag, value, width=0.7, color=colours, alpha=0.85)
        ax.vlines(lag, ends, 2.0 * value - ends, color=MUTED, lw=1.0)
        ax.plot([0.5, lag[-1] + 0.5], [ceiling] * 2, color=BAD, lw=1.2, ls=(0, (4, 3)))
        ax.axhline(0.0, color=MUTED, lw=0.7)
        ax.axvline(0.5, color=MUTED, lw=0.7)
        ax.set_ylim(1.08 * low, 1.08 * high)
        step = -(-len(lag) // 9)
        shown = [int(k) for k in lag if k % step == 0]
        ax.set_xticks(shown, ["t" if k == 0 else f"{k:+d}" for k in shown])
        ax.set_title(layer_name(name))
        ax.set_xlabel("bar, from the decision on")
        if is_left:
            ax.set_ylabel("rank correlation")

    return _panels(list(profiles), panel, "Lag profiles: in which bars the knowledge of each model sits", 2.2)


def history_of(meta: dict[str, Any]) -> dict[str, Any]:
    """Losses per round, `{"train": [...], "valid": [...], "best": k}`, empty where none were recorded."""
    found: dict[str, Any] = meta.get("history") or meta.get("params", {}).get("history") or {}
    return found


def _by_feature(folds: list[dict[str, Any]], kind: str) -> dict[str, NDArray]:
    """Values of every feature over the folds that have them."""
    names = {name for fold in folds for name in fold.get(kind) or {}}
    return {n: np.array([fold[kind][n] for fold in folds if n in (fold.get(kind) or {})], float) for n in names}


def _thinned(values: list[float]) -> tuple[NDArray, NDArray]:
    at = np.unique(np.linspace(0, len(values) - 1, min(len(values), POINTS)).astype(int)) if values else np.zeros(0, int)
    return at + 1, np.asarray(values, float)[at]


def _panels(
    names: list[str],
    panel: Callable[[Any, Any, str, bool], None],
    alt: str,
    tall: float,
    across: tuple[int, int] = ACROSS,
    gap: float = 0.55,
) -> Picture:
    """Set one panel of `tall` inches a name, `across` beside each other; `gap` inches between columns, in which labels stand."""

    def draw(figure: Any, is_narrow: bool) -> None:
        columns = min(across[is_narrow], max(len(names), 2 - is_narrow))
        rows = -(-len(names) // columns)
        width, height = figure.get_size_inches()
        wide = (width - gap * columns - 0.15) / columns
        free = height / rows - 0.85
        grid = figure.add_gridspec(
            rows,
            columns,
            left=gap / width,
            right=1 - 0.15 / width,
            top=1 - 0.3 / height,
            bottom=0.5 / height,
            wspace=gap / wide,
            hspace=0.85 / free,
        )
        for k, name in enumerate(names):
            panel(figure, grid[k // columns, k % columns], name, k % columns == 0)

    heights = [tall * -(-len(names) // columns) for columns in across]
    return picture(draw, alt, (heights[0], heights[1]))
