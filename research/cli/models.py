"""Commands `qt models`: which trained models are in use, how good they are, and the way forward and back."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from research.cli.common import Json, LayersFile, Quiet, print_json
from research.cli.show import console, failure, path
from research.errors import several

models_app = typer.Typer(no_args_is_help=True, help="The registry of trained models, and the store of fits.")

Name = Annotated[str, typer.Argument(help="name in the registry, or NAME@VERSION", metavar="NAME")]
Registry = Annotated[Path | None, typer.Option("--registry", help="folder of the registry; default: QT_HOME/registry")]


@models_app.command("list")
def list_(registry: Registry = None, layers: LayersFile = None, json: Json = False) -> None:
    """List every name: current version, models, label, data, balanced accuracy out of sample, acceptance."""
    from research.training.models.layers import using
    from research.training.registry import describe, entries

    with using(layers):
        rows = [describe(entry) for entry in entries(registry)]
    if json:
        print_json(rows)
        return
    table = Table("name", "version", "label", "data", "balanced accuracy", "accepted", "", box=None, padding=(0, 2, 0, 0))
    for row in rows:
        scores = ", ".join(f"{slot} {value:.1%}" for slot, value in row["balanced_accuracy"].items())
        span = f"{(row['data_from'] or '?')[:10]} to {(row['data_to'] or '?')[:10]}"
        flags = ("synthetic " if row["synthetic"] else "") + ("not for live " if row["live_refuses"] else "")
        flags += "DAMAGED" if row["problems"] else ""
        table.add_row(row["name"], str(row["version"]), row["label"], span, scores, f"{row['accepted']} of {row['artefacts']}", flags)
    console.print(table if rows else "no models yet; `qt models promote DIR` puts a folder of `qt train` here")


@models_app.command()
def show(name: Name, registry: Registry = None, layers: LayersFile = None, json: Json = False) -> None:
    """Show one name: its current version, or the one of NAME@VERSION, what was done before, problems."""
    from research.training.models.layers import using
    from research.training.registry import describe, find

    with using(layers):
        facts = describe(find(name, registry))
    if json:
        print_json(facts)
        return
    table = Table("", "", box=None, show_header=False, padding=(0, 2))
    for key, value in facts.items():
        if key not in ("history", "problems"):
            text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
            table.add_row(key.replace("_", " "), ", ".join(map(str, text)) if isinstance(text, list) else str(text))
    console.print(table)
    for step in facts["history"]:
        console.print(f"{step['time']}  version {step['version']}  {step['what']}", soft_wrap=True, markup=False)
    for problem in facts["problems"]:
        console.print(f"problem: {problem}", soft_wrap=True, markup=False)


@models_app.command()
def promote(
    folder: Annotated[Path, typer.Argument(help="folder that `qt train` or `qt backtest` wrote, or NAME@VERSION", metavar="DIR")],
    name: Annotated[str | None, typer.Option("--as", help="name in the registry; default: the folder's")] = None,
    registry: Registry = None,
    layers: LayersFile = None,
    quiet: Quiet = False,
) -> None:
    """Copy trained models into the registry and make them the current version of a name."""
    from research.training.models.layers import using
    from research.training.registry import describe
    from research.training.registry import promote as do

    with using(layers):
        entry = do(folder, name, registry)
        facts = describe(entry)
    if not quiet:
        console.print(f"{entry.name} is now version {entry.version}; use it with --models {entry.name}")
    if facts["live_refuses"] is not None:
        what = f"accepted: {facts['accepted']} of {several(facts['artefacts'], 'models')}"
        failure(f"warning: `qt live` will refuse version {entry.version}: {facts['live_refuses']} ({what}); backtests serve it, flagged")
    path(entry.path)


@models_app.command()
def rollback(name: Name, registry: Registry = None, quiet: Quiet = False) -> None:
    """Go back to the version before the current one, or to that of NAME@VERSION; nothing is deleted."""
    from research.training.registry import rollback as do

    entry = do(name, registry)
    if not quiet:
        console.print(f"{entry.name} is now version {entry.version}")
    path(entry.path)


@models_app.command()
def clean(
    gib: Annotated[float, typer.Option("--keep", min=0.0, help="GiB of stored fits to keep, those asked for last")] = 0.0,
) -> None:
    """Remove stored fits, which only save time: what is missing is fitted again. The registry is not touched."""
    from research.training.models import fits

    count, freed = fits.trim(int(gib * 2**30))
    left, size = fits.usage()
    kept = f"{left} left ({size / 2**20:.0f} MiB) in {fits.folder()}"
    console.print(f"removed {several(count, 'fits')} ({freed / 2**20:.0f} MiB); {kept}", soft_wrap=True)
