"""Command `qt audit nullworlds`: the whole procedure on surrogate markets without an edge. Would it find as much there?"""

from pathlib import Path
from typing import Annotated

import typer

from research.cli import show
from research.cli.common import (
    Adjusted,
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


def nullworlds(
    data: Data,
    worlds: Annotated[int, typer.Option(min=1, help="surrogate markets; 39 can reach p = 0.025")] = 39,
    kind: Annotated[list[str] | None, typer.Option(help="sign_flip, phase or bootstrap, repeatable; default: all in turn")] = None,
    block: Annotated[float, typer.Option(help="mean rows that are mirrored or drawn together")] = 1.0,
    models: Annotated[str, typer.Option(help="base models to train, A,B")] = "lgbm",
    folds: Annotated[int, typer.Option(min=1, help="walk-forward folds")] = 3,
    out: Annotated[Path, typer.Option(help="file of finished worlds; the same command goes on from it")] = Path("reports/nullworlds.jsonl"),
    symbols: Symbols = None,
    start: From = None,
    end: To = None,
    time_zone: TimeZone = None,
    day_start: DayStart = None,
    adjusted: Adjusted = False,
    profile: Profile = "default",
    set_: Sets = None,
    seed: Seed = 42,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Train, choose thresholds and trade on the real market and on surrogates; print the p-value of the whole procedure."""
    from qtcore.params import Params
    from research.data import load
    from research.evidence.nullworlds import Procedure, null_worlds
    from research.evidence.surrogates import KINDS

    plain, params = Params.profile(profile).flat(), resolve(profile, None, set_, seed).params
    loaded = load(data, split_symbols(symbols), start, end, time_zone=time_zone, day_start=day_start, adjusted=adjusted)
    show.lacked(loaded.lacks(params), quiet or json)
    values = {name: value for name, value in params.flat().items() if plain.get(name) != value}
    names = tuple(models.replace(",", " ").split())
    procedure = Procedure(names, n_folds=folds, seed=seed, values=values, profile=profile)
    with progress(quiet or json) as update:
        found = null_worlds(
            loaded.bars, procedure, n_worlds=worlds, kinds=tuple(kind or KINDS), block=block, seed=seed, out=out, progress=update
        )
    if json:
        print_json(found.to_dict())
    else:
        show.console.print(found.sentence, soft_wrap=True, markup=False)
