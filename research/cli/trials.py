"""Command `qt trials`: what has been tried on which market, and what the best of it is worth."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from research.cli.common import Adjusted, DayStart, Json, TimeZone, print_json
from research.cli.show import console, lacked, wide
from research.errors import ConfigError, several

WORD = "forget"
SomeData = Annotated[str | None, typer.Argument(help="only trials on these candles, whatever they were called", metavar="[DATA]")]


def trials(
    data: SomeData = None,
    reset: Annotated[bool, typer.Option("--reset", help=f"put the ledger aside; asks for the word {WORD!r}")] = False,
    merge: Annotated[Path | None, typer.Option(help="count what another ledger counted too", metavar="FILE")] = None,
    time_zone: TimeZone = None,
    day_start: DayStart = None,
    adjusted: Adjusted = False,
    json: Json = False,
) -> None:
    """List the markets that were tried: trials, effective number, best Sharpe ratio, and the highest t value beside the needed one."""
    from research.data import load
    from research.data.sketch import sketch
    from research.evidence.ledger import Ledger
    from research.evidence.sharpe import ABSURD
    from research.evidence.standing import others_text
    from research.evidence.tried import tried_table

    ledger = Ledger()
    if reset:
        _reset(ledger)
        return
    if merge is not None:
        _merge(ledger, merge)
        return
    loaded = None if data is None else load(data, time_zone=time_zone, day_start=day_start, adjusted=adjusted)
    if loaded is not None:
        lacked(loaded.lacks(), json)
    table = tried_table(ledger, None if loaded is None else sketch(loaded.bars))
    if json:
        rows = table.reset_index().assign(first=table["first"].astype(str).to_numpy(), last=table["last"].astype(str).to_numpy())
        print_json({"ledger": str(ledger.path), "lineages": _plain(rows), "resets": ledger.resets()})
        return
    tried = _columns("market", "sets", "candles", "trials", "declared", "among them", "effective", "last")
    worth = _columns("market", "best Sharpe", "by luck", "deflated", "proof", "highest t", "needed")
    for lineage, row in table.iterrows():
        absurd = abs(row["sharpe"]) > ABSURD
        figures = ["refused"] * 3 if absurd else [_figure(row[name]) for name in ("sharpe", "expected_best", "deflated")]
        counts = (
            f"{row['data_sets']:,}",
            f"{row['candles']:,}",
            f"{row['trials']:,}",
            f"{row['declared']:,}" if row["declared"] else "",
            others_text(row),
            f"{row['effective']:,.0f}",
            f"{row['last']:%Y-%m-%d}",
        )
        tried.add_row(str(lineage), *counts)
        proof = "passed" if row["proven"] else "not proven" if row["best"] else ""
        worth.add_row(str(lineage), *figures, proof, _figure(row["t"]), _figure(row["critical"]))
    if len(table):
        wide(tried)
        console.print()
        wide(worth)
        console.print(
            "highest t: of what a proven run or a row of a sweep earned beyond the market (rows of a sweep below 1 are not kept, as none "
            "can be an edge); above what is needed after all trials it is an edge. Best Sharpe and what luck alone would show are a year. "
            "Deflated is the probability of skill if trials differed by luck alone: one absurd trial makes it small, and it decides "
            "nothing. What invalid and implausible trials earned counts for nothing",
            soft_wrap=True,
        )
        for lineage, row in table[table["best"] != ""].iterrows():
            console.print(f"best of market {lineage}: {row['best']}", soft_wrap=True, markup=False)
    else:
        console.print("no trials yet" if data is None else "no trials on these candles yet")
    for earlier in ledger.resets():
        console.print(f"{several(earlier['trials'], 'earlier trials')} set aside in {earlier['file']}", soft_wrap=True)
    console.print(f"ledger: {ledger.path}", soft_wrap=True)


def _reset(ledger: Any) -> None:
    """Ask for the word, then put the ledger aside."""
    console.print(f"Every verdict so far counted these trials. Type {WORD} to set the ledger at {ledger.path} aside:", soft_wrap=True)
    try:
        answer = input()
    except (EOFError, RuntimeError, ValueError) as error:  # the end of a file, no standard input, a closed one or no text
        raise ConfigError(f"the word {WORD} must be typed, was no answer; the ledger is unchanged, use a terminal") from error
    if answer.strip() != WORD:
        raise ConfigError(f"the word must be {WORD}, was {answer.strip()!r}; the ledger is unchanged")
    aside = ledger.reset()
    console.print("there was no ledger" if aside is None else f"set aside: {aside}", soft_wrap=True)


def _merge(ledger: Any, path: Path) -> None:
    from research.evidence.tried import tried_table

    declared = tried_table(ledger)["declared"]
    merged = ledger.merge(path)
    console.print(f"{several(merged.trials, 'trials')} added to {ledger.path}", soft_wrap=True)
    if merged.renamed:
        console.print(
            f"{several(merged.renamed, 'markets')} began with other candles there: the luck of those trials is drawn apart, which asks for "
            "a little more of an edge",
            soft_wrap=True,
        )
    holds = set(tried_table(ledger).query("declared > 0").index)
    for lineage, n in declared[declared > 0].items():
        if lineage not in holds:
            console.print(
                f"market {lineage}: {several(int(n), 'trials')} were declared before the first, but trials were added that are older: "
                "it counts as not declared",
                soft_wrap=True,
            )


def _columns(*names: str) -> Table:
    """Begin a table; what was tried and what it is worth are two, so that a terminal of 80 columns holds each."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _figure(value: float) -> str:
    return "" if value != value else f"{value:.2f}"


def _plain(rows: Any) -> list[dict[str, Any]]:
    from research.files import plain

    found: list[dict[str, Any]] = plain(rows.to_dict(orient="records"))
    return found
