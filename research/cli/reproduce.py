"""Commands `qt reproduce` and `qt compare`: whether a run comes out again, and how several differ."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from research.cli.common import Json, LayersFile, Quiet, print_json, progress
from research.cli.show import MUTED, console
from research.cli.show import path as show_path

RunFolder = Annotated[Path, typer.Argument(help="folder of a finished run", metavar="RUN")]


def reproduce(
    run: RunFolder,
    no_train: Annotated[bool, typer.Option("--no-train", help="serve the stored models instead of fitting them again")] = False,
    layers: LayersFile = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Make a run again from its manifest and compare every array's hash; exit 1 when one differs."""
    from research.training.models.layers import using
    from research.verify.reproduce import sentence
    from research.workflow.recording import reproduce as again

    with using(layers), progress(quiet or json) as update:
        report = again(run, is_training=not no_train, progress=update)
    if json:
        print_json(report | {"sentence": sentence(report), "stages": [_finite(stage) for stage in report["stages"]]})
    else:
        if not quiet:
            _stages(report)
        console.print(sentence(report), soft_wrap=True, markup=False)
    if not report["equal"]:
        raise typer.Exit(1)


def compare(
    runs: Annotated[list[Path], typer.Argument(help="folders of two or more finished runs", metavar="RUN RUN...")],
    out: Annotated[Path | None, typer.Option("--out", help="HTML page to write")] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Show several runs side by side: verdict, figures, and the parameters in which they differ."""
    from research.report.compare import bases, mixed, write_page
    from research.report.compare import compare as side_by_side

    table = side_by_side(runs)
    if json:
        from research.files import plain

        print_json(plain(table.to_dict()))
    elif not quiet:
        for names, text in bases(runs):
            console.print(f"{names}: {text}", soft_wrap=True, markup=False)
        for text in mixed(table):
            console.print(text, soft_wrap=True)
        drawn = Table("", box=None, padding=(0, 2, 0, 0))
        for name in table.columns:
            drawn.add_column(name, style=MUTED if table.loc["figures", name] else "")
        for name, row in table.iterrows():
            drawn.add_row(str(name), *("" if x is None or x != x else str(x) for x in row))
        console.print(drawn)
    if out is not None:
        written = write_page(runs, out)
        if not json:
            show_path(written)


def _stages(report: dict) -> None:
    drawn = Table("stage", "arrays", "result", "largest distance", box=None, padding=(0, 2, 0, 0))
    for stage in report["stages"]:
        same, n = "same bits" if stage["arrays"] else "as stored", len(stage["differing"])
        result = Text(f"{n} differ", "bold red") if n else Text(same)
        drawn.add_row(stage["stage"], str(stage["arrays"]), result, "" if stage["distance"] is None else f"{stage['distance']:.3g}")
    console.print(drawn)
    for note in report["notes"]:
        console.print(note, soft_wrap=True, markup=False)


def _finite(stage: dict) -> dict:
    """Write an infinite distance as text: JSON has no infinity."""
    return stage | {"distance": str(stage["distance"]) if stage["distance"] == float("inf") else stage["distance"]}
