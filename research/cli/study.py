"""Command `qt study`: families of features, targets and books tried together, the last part of the data held back."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from research.cli import show
from research.cli.common import Declare, Json, LayersFile, Out, Profile, Quiet, Seed, Sets, print_json, progress, resolve

SHOWN = 20  # combinations in the terminal; the page has all


def study(
    plan: Annotated[Path, typer.Argument(help="TOML file with a table [study], beside it those of a configuration", metavar="STUDY.TOML")],
    opens: Annotated[
        bool, typer.Option("--held-back", help="also trade the best combination on what is held back, which is then no longer unseen")
    ] = False,
    profile: Profile = "default",
    set_: Sets = None,
    layers: LayersFile = None,
    declare: Declare = None,
    out: Out = None,
    seed: Seed = 42,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Try families of features, targets and books together, walk-forward; each combination counts as a trial."""
    from research.training.models.layers import using
    from research.workflow.study_job import run_study

    config = resolve(profile, plan, set_, seed)
    with using(layers, config.models) as own, progress(quiet or json) as update:
        found = run_study(config, out, opens=opens, layers=own, declare=declare, progress=update)
    best = found.summary["best"]
    if json:
        print_json(found.summary)
    elif quiet:
        show.path(found.page)
    else:
        for text in found.summary["sentences"]:
            show.console.print(text, soft_wrap=True, markup=False)
        show.lacked(found.summary["data"]["lacked"])
        show.wide(_table(found.summary["money"]))
        if best is not None:
            show.console.print(best["sentence"], soft_wrap=True, markup=False)
        show.path(found.page)
    if best is not None and show.fails(best, quiet or json):
        raise typer.Exit(1)


def _table(rows: list[dict[str, Any]]) -> Table:
    from research.report.study import money_table

    headers, cells = money_table(rows)
    table = Table(box=None, padding=(0, 2))
    for header in headers:
        table.add_column(header, no_wrap=True)
    for row in cells[:SHOWN]:
        table.add_row(*row)
    return table
