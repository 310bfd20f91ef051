"""Commands `qt audit`: what a mistake in the method is worth."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from research.cli import show
from research.cli.common import (
    Adjusted,
    ConfigFile,
    Data,
    DayStart,
    From,
    Json,
    Profile,
    Quiet,
    Seed,
    Sets,
    Symbols,
    TimeZone,
    To,
    print_json,
    progress,
    resolve,
    split_symbols,
)
from research.files import check_target, save_json, writable

audit_app = typer.Typer(no_args_is_help=True, help="Show what a mistake in the method is worth.")
FEATURES = {"relative": ("v5_rel",), "raw": ("v5",), "both": ("v5_rel", "v5")}


@audit_app.command()
def leakage(
    data: Data,
    model: Annotated[str, typer.Option(help="xgb, lgbm or linear")] = "xgb",
    label: Annotated[str, typer.Option(help="label that is learned, or auto")] = "L3",
    features: Annotated[str, typer.Option(help="relative; raw: with price levels, which tell the time; both")] = "raw",
    preset: Annotated[
        str, typer.Option(help="parameters of the model; published: without regularisation and early stopping")
    ] = "published",
    folds: Annotated[int, typer.Option(min=1, help="folds of the walk-forward split")] = 4,
    symbols: Symbols = None,
    start: From = None,
    end: To = None,
    time_zone: TimeZone = None,
    day_start: DayStart = None,
    adjusted: Adjusted = False,
    out: Annotated[Path | None, typer.Option(help="write the figures to this JSON file")] = None,
    seed: Seed = 42,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Train the same pipeline on a shuffled split, the wrong one, and walk-forward; show what the mistake would claim."""
    from research.errors import ConfigError
    from research.evidence.leakage import audit_leakage
    from research.workflow.backtest_job import Job, load

    if features not in FEATURES:
        raise ConfigError(f"--features must be one of {', '.join(FEATURES)}, was {features!r}")
    asked = resolve("default", None, None, seed)
    if out is not None:
        check_target(out)
    names = split_symbols(symbols)
    job = Job(data, asked, names, start=start, end=end, time_zone=time_zone, day_start=day_start, adjusted=adjusted)
    loaded = load(job)
    show.lacked(loaded.lacks(asked.params), quiet or json)
    with progress(quiet or json) as update:
        found = audit_leakage(loaded.bars, model, label, FEATURES[features], preset=preset, n_folds=folds, seed=seed, progress=update)
    if _told(found, out, json):
        return
    if not quiet:
        show.wide(table(found.rows))
    for sentence in found.sentences:
        show.console.print(sentence, soft_wrap=True, markup=False)


@audit_app.command()
def features(
    data: Data,
    model: Annotated[str, typer.Option(help="xgb, lgbm or linear")] = "lgbm",
    label: Annotated[str, typer.Option(help="label that is learned, or auto")] = "L3",
    families: Annotated[str, typer.Option(help="which, comma-separated; empty: all")] = "",
    preset: Annotated[str, typer.Option(help="parameters of the model")] = "fast",
    folds: Annotated[int, typer.Option(min=1, help="folds of the walk-forward split")] = 4,
    symbols: Symbols = None,
    start: From = None,
    end: To = None,
    time_zone: TimeZone = None,
    day_start: DayStart = None,
    adjusted: Adjusted = False,
    profile: Profile = "default",
    config: ConfigFile = None,
    set_: Sets = None,
    out: Annotated[Path | None, typer.Option(help="write the figures to this JSON file")] = None,
    seed: Seed = 42,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Show what each family of features adds to what a model knows, alone and beside all others, and what it costs."""
    from research.evidence.feature_audit import audit_features
    from research.workflow.backtest_job import Job, load

    asked = resolve(profile, config, set_, seed)
    if out is not None:
        check_target(out)
    job = Job(data, symbols=split_symbols(symbols), start=start, end=end, time_zone=time_zone, day_start=day_start, adjusted=adjusted)
    loaded = load(job)
    show.lacked(loaded.lacks(asked.params), quiet or json)
    wanted = tuple(families.replace(",", " ").split())
    options = {"preset": preset, "n_folds": folds, "seed": seed}
    with progress(quiet or json) as update:
        found = audit_features(loaded.bars, model, label, wanted, asked.params, progress=update, **options)  # type: ignore[arg-type]
    if _told(found, out, json):
        return
    if not quiet:
        show.wide(family_table(found.rows))
    show.console.print(found.sentence, soft_wrap=True, markup=False)


@audit_app.command()
def cpcv(
    data: Data,
    model: Annotated[str, typer.Option(help="xgb, lgbm or linear")] = "xgb",
    label: Annotated[str, typer.Option(help="label that is learned")] = "L3",
    groups: Annotated[int, typer.Option(min=2, help="groups of time")] = 10,
    tested: Annotated[int, typer.Option(min=1, help="groups that are tested at once: 10 and 2 give 45 fits and 9 paths")] = 2,
    preset: Annotated[str, typer.Option(help="parameters of the model")] = "fast",
    symbols: Symbols = None,
    start: From = None,
    end: To = None,
    time_zone: TimeZone = None,
    day_start: DayStart = None,
    adjusted: Adjusted = False,
    profile: Profile = "default",
    config: ConfigFile = None,
    set_: Sets = None,
    out: Annotated[Path | None, typer.Option(help="write the figures to this JSON file")] = None,
    seed: Seed = 42,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Train by combinatorial purged cross-validation; show how the result spreads over the histories that could have been."""
    from research.evidence.cpcv import FIGURES, audit_cpcv
    from research.report.words import number, percent
    from research.workflow.backtest_job import Job, load

    asked = resolve(profile, config, set_, seed)
    if out is not None:
        check_target(out)
    job = Job(data, symbols=split_symbols(symbols), start=start, end=end, time_zone=time_zone, day_start=day_start, adjusted=adjusted)
    loaded = load(job)
    show.lacked(loaded.lacks(asked.params), quiet or json)
    options = {"n_groups": groups, "n_test": tested, "preset": preset, "seed": seed}
    with progress(quiet or json) as update:
        found = audit_cpcv(loaded.bars, model, label, asked.params, progress=update, **options)  # type: ignore[arg-type]
    if _told(found, out, json):
        return
    if not quiet:
        shown = Table("", "lowest", "quarter", "median", "three quarters", "highest", box=None)
        for name in ("accuracy", *FIGURES):
            style = number if name in ("sharpe", "n_trades") else percent
            shown.add_row(name, *(style(value) for value in found.spread(name).values()))
        show.wide(shown)
    show.console.print(found.sentence, soft_wrap=True, markup=False)


@audit_app.command()
def meta(
    run: Annotated[Path, typer.Argument(help="folder of a finished run whose models were trained here", metavar="RUN")],
    seed: Seed = 42,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Try every learned meta layer walk-forward on a run's predictions; the run's report then shows what was tried."""
    from research.evidence.meta_comparison import best_variant
    from research.evidence.meta_trials import try_on_run
    from research.report import build
    from research.report.models import tried_on, tried_table

    with progress(quiet or json) as update:
        found = try_on_run(run, seed=seed, progress=update)
    path, kept = build(run), tried_on(run)
    assert kept is not None
    if json:
        print_json(kept)
        return
    if not quiet:
        shown = tried_table(kept)
        out = Table(*shown.headers, box=None, padding=(0, 1, 0, 0))
        out.columns[0].no_wrap = True
        for row in shown.rows:
            out.add_row(*row)
        show.wide(out)
    show.console.print(best_variant(found), soft_wrap=True, markup=False)
    show.path(path)


def _told(found: Any, out: Path | None, json: bool) -> bool:
    """Write the figures to the file that was asked for, and as JSON where that was; say whether nothing else is to be shown."""
    if out is not None:
        with writable("file of figures", out):
            save_json(out, found.to_dict())
    if json:
        print_json(found.to_dict())
    return json


def table(rows: list[dict[str, Any]]) -> Table:
    """Lay the two splits side by side, each figure with its interval, beside majority and volatility baseline."""
    from research.report.words import NOT_ENOUGH, count, percent, span

    def cell(b: dict[str, Any], name: str, limits: str, enough: str) -> str:
        return f"{percent(b[name])} ({span(b[limits])})" if b[enough] else NOT_ENOUGH

    heads = ("split", "features", "accuracy (95 %)", "majority", "volatility", "balanced (95 %)", "direction (95 %)", "cells", "n_eff")
    out = Table(*heads, box=None)
    for b in rows:
        figures = [cell(b, "accuracy", "ci95", "enough"), percent(b["majority_accuracy"]), percent(b["volatility_accuracy"])]
        figures += [
            cell(b, "balanced_accuracy", "balanced_ci95", "enough"),
            cell(b, "direction_accuracy", "direction_ci95", "direction_enough"),
        ]
        out.add_row(b["split"], b["features"], *figures, count(b["n"]), count(b["n_effective"]))
    for column in out.columns:
        column.no_wrap = True
    return out


def family_table(rows: list[dict[str, Any]]) -> Table:
    """Show what each family adds, with its interval, beside what it costs."""
    from research.report.words import NOT_ENOUGH, count, percent, span

    def gain(row: dict[str, Any], name: str) -> str:
        if not row["enough"]:
            return NOT_ENOUGH
        return f"{100 * row[name]['difference']:+.1f} ({span(row[name]['ci95'])})"

    what = {"alone": "added to the base", "beside": "added to all others", "all": "against the base"}
    heads = ("family", "", "balanced", "points (95 %)", "direction, points (95 %)", "n_eff", "ns")
    out = Table(*heads, box=None)
    for row in rows:
        cost = "" if row["nanoseconds"] is None else f"{row['nanoseconds']:.0f}"
        figures = percent(row["balanced_accuracy"]["a"]), gain(row, "balanced_accuracy"), gain(row, "direction_accuracy")
        out.add_row(row["family"], what[row["kind"]], *figures, count(row["n_effective"]), cost)
    for column in out.columns:
        column.no_wrap = True
    return out
