"""Terminal tables of results, for people; `--json` prints the same as JSON, `--quiet` only the path."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from research.cli.common import print_json
from research.cli.terminal import Terminal
from research.errors import EXTRAS, several
from research.report.words import NOT_ENOUGH, lacked_text, percent, scored, span
from research.runs.verdict import FAILING
from research.training.models.folder import LOSSES, SHARES

console = Terminal()
MUTED = "dim"  # of figures that are in doubt
MOST_WIDE = 10_000  # columns of a table that must not be cut


def path(value: Path) -> None:
    """Print a path alone on its line, never wrapped, so that a pipe can use it."""
    console.print(str(value), soft_wrap=True)


def heading(text: str) -> None:
    """Print a line above a part of what a command shows."""
    console.print(f"\n{text}", style="bold")


def wide(table: Table) -> None:
    """Print a table whole, also where the terminal or pipe claims fewer columns: a cut figure is worse than a wrapped line."""
    needed = Measurement.get(console, console.options.update(max_width=MOST_WIDE), table)
    least = needed.maximum if all(column.no_wrap for column in table.columns) else needed.minimum
    Terminal(width=max(console.width, 130, least)).print(table)


def run(finished: Any, quiet: bool, json: bool) -> None:
    """Show a run: what fails it, headline table, proof, verdict, path of the report."""
    from research.evidence import headline
    from research.report.terms import basis
    from research.training.weights import silent

    report, summary = finished.folder / "report.html", finished.summary
    if json:
        print_json(summary)
        return
    if quiet:
        path(report)
        return
    verdict_first(summary["evidence"])
    console.print()
    console.print(basis(summary), soft_wrap=True, markup=False)
    lacked(summary["data"]["lacked"])
    console.print()
    table = Table("", "", box=None, show_header=False, padding=(0, 2))
    muted = MUTED if summary["figures"] else ""
    for name, value in headline(summary).items():
        table.add_row(name, str(value), style="" if name in ("verdict", "proof", "figures") else muted)
    console.print(table)
    console.print()
    if told := summary["traders"]["seats"]:
        acts = ", ".join(f"{row['layer']} {sum(row['acts'])}" for row in told)
        console.print(f"periods of {len(told[0]['acts'])} in which a layer could act: {acts}", soft_wrap=True, markup=False)
    for text in summary["traders"]["sentences"]:
        console.print(text, soft_wrap=True, markup=False)
    if muted:
        console.print(f"accuracy of the layers, {summary['figures']}", soft_wrap=True)
    wide(_layers(summary, _rejected(finished.predictions.models), muted))
    console.print()
    n_voting, models = len(finished.predictions.slots), finished.predictions.models
    for text in (*silent(finished.params, finished.predictions), *finished.unread, *(models.notes if models is not None else ())):
        console.print(text, soft_wrap=True, markup=False)
    if models is not None and n_voting < (expected := summary["assumptions"]["models_expected"]):
        remedy = "`qt train DATA --out DIR`, then `qt backtest DATA --models DIR`, has them all"
        console.print(f"{n_voting} of {expected} models voted; {remedy}", soft_wrap=True)
    for text in _remarks(summary, finished.verification):
        console.print(text, soft_wrap=True, markup=False)
    if finished.verification:
        certificate(finished.verification, quiet=True)
    console.print()
    console.print(f"verdict: {summary['evidence']['sentence']}", soft_wrap=True, markup=False)
    console.print("report: ", end="")
    path(report)


def verdict_first(said: dict[str, Any]) -> None:
    """Open with the verdict where it is one that fails the command. said: `verdict` and its `sentence`."""
    if said["verdict"] in FAILING:
        console.print(f"verdict: {said['sentence']}", soft_wrap=True, markup=False, style="bold red")


def verdict(said: dict[str, Any]) -> None:
    """Open a view of a finished run with its verdict; a journal has none. said: `verdict` and its `sentence`."""
    if said["verdict"] is not None:
        style = "bold red" if said["verdict"] in FAILING else None
        console.print(f"verdict: {said['sentence']}", soft_wrap=True, markup=False, style=style)


def bounds(found: Any) -> None:
    """Say what a run's candles leave open of its net PnL. found: `research.evidence.intrabar.Bounds`."""
    from research.evidence.intrabar import bounds_text

    console.print(f"net PnL {found.net:+,.2f}, {bounds_text(found.figures)}", soft_wrap=True, markup=False)


def fails(said: dict[str, Any], quiet: bool) -> bool:
    """Whether the command must exit 1. Where standard output is not for people (`quiet`), a verdict that fails goes to standard error.

    said: `verdict` and its `sentence`.
    """
    failing: bool = said["verdict"] in FAILING
    if failing and quiet:
        failure(f"verdict: {said['sentence']}")
    return failing


def lacked(sentences: Sequence[str], beside: bool = False) -> None:
    """Show in one block what was lost or assumed of the data; beside: on standard error, for standard output is not for people."""
    out = Terminal(stderr=True) if beside else console
    out.print(f"what the data lacked: {lacked_text(len(sentences))}")
    for text in sentences:
        out.print(f"  - {text}", soft_wrap=True, markup=False)


def _layers(summary: dict[str, Any], rejected: dict[str, str], style: str) -> Table:
    table = Table(
        "layer",
        "accuracy",
        "95 % interval",
        "majority",
        "volatility",
        "balanced",
        "direction",
        "n",
        "n_eff",
        "",
        box=None,
        padding=(0, 2, 0, 0),
    )
    for column in table.columns:
        column.no_wrap = True
        column.justify = "left" if column.header in ("layer", "") else "right"
    for name, block in scored(summary, summary).items():
        size = f"{block['n']:,}", f"{block['n_effective']:,.0f}", rejected.get(name, "")
        if block["accuracy"] is None or not block["enough"]:
            table.add_row(name, NOT_ENOUGH, "", "", "", "", "", *size, style=style)
            continue
        direction = percent(block["direction_accuracy"]) if block["direction_enough"] else NOT_ENOUGH
        shares = (percent(block.get(f"{name}_accuracy")) for name in ("majority", "volatility", "balanced"))
        figures = percent(block["accuracy"]), span(block["ci95"]), *shares
        table.add_row(name, *figures, direction, *size, style=style)
    return table


def _rejected(models: Any) -> dict[str, str]:
    """Say by model in how many folds its artefact was without skill, rejected, or trained on synthetic labels."""
    out = {}
    for slot in models.slots if models is not None else ():
        metas = [a.meta for a in models.artefacts if a.slot == slot]
        counts = {word: sum(meta.get("status") == word for meta in metas) for word in ("unskilled", "rejected")}
        parts = [f"{word} in {n} of {several(len(metas), 'folds')}" for word, n in counts.items() if n]
        parts += ["synthetic labels"] if any(meta.get("synthetic") for meta in metas) else []
        out[slot] = ", ".join(parts)
    return out


def _remarks(summary: dict[str, Any], proof: dict[str, Any]) -> list[str]:
    """Say what the report warns of above its figures, if a learned meta layer helped, and how much was missing."""
    from research.report.page import notices

    told = notices(summary, proof, {})
    out = [text for kind, text in told if kind != "note" or summary["evidence"]["plausibility"]["findings"]]
    out += [row["sentence"] for row in summary["meta_against"]]
    absent = summary["provenance"]["total"]["absent"]
    return out + ([f"{percent(absent, 2)} of the base predictions that were due are absent."] if absent else [])


def failure(sentence: str) -> None:
    """Say on standard error what made a finished command fail."""
    Terminal(stderr=True).print(sentence, soft_wrap=True)


def certificate(proof: dict[str, Any], quiet: bool) -> None:
    """Show what was proven: one line a check unless quiet, every failure in full, what is not covered."""
    failed = [check for check in proof["checks"] if not check["passed"]]
    if not quiet:
        table = Table("proof", "checked", "result", box=None, padding=(0, 2, 0, 0))
        for check in proof["checks"]:
            table.add_row(check["name"], check["checked"], "passed" if check["passed"] else Text("FAILED", "bold red"))
        console.print(table)
        for text in proof.get("not_covered", []):
            console.print(f"not covered: {text}", soft_wrap=True, markup=False)
    for check in failed:
        console.print(f"FAILED {check['name']}: {check['detail']}", soft_wrap=True, markup=False)
    console.print(
        f"verified: {several(len(proof['checks']) - len(failed), 'checks')} passed" + (f", {len(failed)} FAILED" if failed else "")
    )


def proof(certified: dict[str, Any], summary: dict[str, Any], quiet: bool, json: bool) -> None:
    """Show the proof of a finished run, and the verdict it leads to: first where that fails, last always."""
    if json:
        print_json({name: summary[name] for name in ("verdict", "proven", "failed_check", "figures")} | certified)
        return
    verdict_first(summary["evidence"])
    certificate(certified, quiet)
    console.print(f"verdict: {summary['evidence']['sentence']}", soft_wrap=True, markup=False)


def training(predictions: Any, lacks: list[str], out: Path, quiet: bool, json: bool) -> None:
    """Show what training left: one row a fold and model, what its data lacked, then the folder."""
    from research.report.terms import training_basis

    rows = predictions.models.table()
    if json:
        print_json(rows)
        return
    if not quiet:
        console.print(training_basis(predictions), soft_wrap=True, markup=False)
        names = (*SHARES, *LOSSES[1:])
        heads = (
            "model",
            "fold",
            "scored",
            "accuracy",
            "majority",
            "volatility",
            "balanced",
            "log loss",
            "base rates",
            "volatility",
            "status",
        )
        table = Table(*heads, box=None, padding=(0, 1, 0, 0))
        for row in rows:
            shown = ("-" if row[name] is None else f"{row[name]:.3f}" if "loss" in name else f"{row[name]:.1%}" for name in names)
            table.add_row(row["model"], str(row["fold"] + 1), f"{row['n_scored']:,}", *shown, row["status"])
        wide(table)
        lacked(lacks)
        for note in (text for text in predictions.notes if text not in lacks):
            console.print(note, soft_wrap=True, markup=False)
        if n_warnings := len(predictions.models.warnings):
            console.print(f"{several(n_warnings, 'warnings')}, in the artefacts' metadata: {out}/fold_*/*_meta.json", soft_wrap=True)
        n_fits = sum(len(part.config["boundaries"]) * len(part.config["plan"]["models"]) for part in predictions.models.parts)
        console.print(f"{predictions.models.n_stored} of {several(n_fits, 'fits')} from the store")
    path(out)


def scenarios(outcome: Any, out: Path | None, quiet: bool) -> None:
    """Show a scenario run: failures with their differences, skips with their defect, counts per component, the total last."""
    if out is not None:
        out.write_text(outcome.to_json(), encoding="utf-8")
    if not quiet:
        for case in outcome.notable():
            console.print(f"{case.outcome:8} {case.id}  {case.title}: {'; '.join(case.detail)}", soft_wrap=True, markup=False)
        table = Table("component", "passed", "failed", "skipped", box=None, padding=(0, 2))
        for row in outcome.table():
            table.add_row(row["component"], *(str(row[name]) for name in ("passed", "failed", "skipped")))
        console.print(table)
    console.print(outcome.summary)


def explanation(value: dict[str, Any]) -> None:
    """Show one decision: the run's verdict, then a block a layer, in the order of the chain."""
    verdict(value)
    console.print(Text.assemble((str(value["symbol"]), "bold"), f" decided at {value['close_time']}"))
    for layer in value["layers"]:
        console.print()
        console.print(Text.assemble((layer["name"], "bold"), f"  {layer['says']}"))
        for name, seen in layer["saw"].items():
            console.print(f"    {name:<24} {f'{seen:.8g}' if isinstance(seen, float) else seen}")


def served(sentences: Sequence[str]) -> None:
    """Show before the first bar who serves without being accepted, and what is set and not read."""
    for text in sentences:
        console.print(text, soft_wrap=True, markup=False)


def lived(told: dict[str, Any]) -> None:
    """Show what `qt live` did: bars, equity, latency."""
    begun = f", continued after bar {told['resumed']:,}" if told["resumed"] else ""
    console.print(f"{several(told['bars'], 'bars')} decided{begun}; equity {told['equity']:,.2f}{'; stopped' if told['stopped'] else ''}")
    if not told["orders"] and told["edge_bp"] is not None:
        after = f"the largest edge after costs was {told['edge_bp']:.1f} bp"
        near = after if told["gross_edge_bp"] > 0.0 else "no map of a layer that acts knows an edge"
        console.print(f"no order was sent: {near}; an order needs one above decide.min_edge, and the governor's approval", soft_wrap=True)
    if told["median_ms"] is not None:
        console.print(f"closed bar to journal: median {told['median_ms']:.2f} ms, 99th percentile {told['p99_ms']:.2f} ms")
    path(Path(told["journal"]))


def gap(report: dict[str, Any]) -> None:
    """Show whether a journal is its own backtest, and what the market changed."""
    same = "every decision and the equity are the same bits" if report["identical"] else f"DIFFERENT: {report['first_difference']}"
    console.print(f"{several(report['bars'], 'bars')} run again: {same}", soft_wrap=True, markup=False)
    if report["broker_mismatches"]:
        console.print(
            f"{several(report['broker_mismatches'], 'bars')} on which the broker's fills were not the engine's; see the journal's events"
        )
    if report["late_bars"]:
        console.print(
            f"decided after the next bar had closed, where nobody could have traded as booked: {several(report['late_bars'], 'bars')}"
        )
    if (pnl := report.get("pnl")) is None:
        if any((report["broker"] or {}).values()):
            told = ", ".join(f"{name} {value:+,.2f}" for name, value in report["broker"].items())
            console.print(f"the broker's account against the engine's: {told}", markup=False)
        console.print("--reference FILE compares with the candles as they are known today", markup=False)
        return
    counts = {"missing_candles": "missing", "revised_candles": "revised", "candles_gone": "gone"}
    table = Table("", "quote", "candles", box=None, padding=(0, 2, 0, 0))
    table.columns[1].justify = table.columns[2].justify = "right"
    for name in ("live", "reference", "difference"):
        table.add_row(name, f"{pnl[name]:,.2f}")
    for name, value in pnl["parts"].items():
        table.add_row(f"  of it {name.replace('_', ' ')}", f"{value:+,.2f}", f"{pnl['counts'][counts[name]]:,}" if name in counts else "")
    console.print(table)


def parameters(rows: list[dict[str, Any]]) -> None:
    """List what `--set` takes, one a line: name, default, what is allowed, meaning, when it is read; none cut, so a search finds it."""
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        default = "nothing" if row["default"] in ("", None) else row["default"]
        read = f"; read where {row['read']}" if row["read"] else ""
        console.print(f"{row['name']:<{width}}  {default}  ({row['allowed']})  {row['meaning']}{read}", soft_wrap=True)


def machine(report: dict[str, Any]) -> None:
    """Show what `qt doctor` found; problems last."""
    table = Table("", "", box=None, show_header=False, padding=(0, 2))
    for name in ("qtcore", "source_hash", "python", "platform", "processors", "memory_gib", "gpu"):
        table.add_row(name.replace("_", " "), str(report[name] if report[name] is not None else "none"))
    for name, version in report["versions"].items():
        table.add_row(name, version or (f"not installed, extra {EXTRAS[name]}" if name in EXTRAS else "missing"))
    for name, folder in report["folders"].items():
        state = "writable" if folder["writable"] else "NOT writable"
        table.add_row(name, f"{folder['path']} ({state}, {folder['free_gib']} GiB free)")
    stored = report["stored_fits"]
    table.add_row("stored fits", f"{stored['count']} ({stored['bytes'] / 2**20:.0f} MiB); `qt models clean` removes them")
    console.print(table)
    console.print()
    for problem in report["problems"] or ["no known problem"]:
        console.print(problem)
