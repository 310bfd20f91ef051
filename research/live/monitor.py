"""How does it look in a terminal? The text dashboard of `spec` 13.2, drawn once or again and again."""

from typing import Any

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from qtcore.types import MODELS, Action
from research.live.health import status
from research.live.source import JournalSource, RunSource

CELLS = 20  # of a share's bar
COLOURS = {"BUY": "green", "SELL": "red", "HOLD": "dim", "healthy": "green", "warning": "yellow", "critical": "red", "unknown": "dim"}


def share_bar(share: float) -> str:
    """Draw a share as 20 cells.

    >>> share_bar(0.25)
    '#####...............'
    """
    filled = round(share * CELLS)
    return "#" * filled + "." * (CELLS - filled)


def screen(source: JournalSource | RunSource) -> Group:
    """Return the whole view: models, signals, governor, positions, last decisions, health."""
    now, counts, book = status(source), source.tally().counts(), source.book()
    head = Text(
        f"{source.name}  {'live, on paper' if source.is_live else 'finished run'}  last bar {now['last_bar'] or 'none'}", style="bold"
    )
    if now["emergency_stop"]:
        head.append("  kill switch on: no entries", style="bold red")
    parts: list[Any] = [head, _models(counts), _signals(counts), _governor(now, book.recent), _health(now)]
    if book.positions:
        parts.append(_positions(book.positions))
    return Group(*parts, _decisions(source.last(8)))


def _models(counts: dict[str, Any]) -> Panel:
    table = Table("model", "status", "predictions", "SELL", "HOLD", "BUY", box=None, padding=(0, 2, 0, 0))
    for model in MODELS:
        votes = counts["models"][model]
        total = sum(votes.values())
        row = (str(votes.get(name, 0)) for name in ("SELL", "HOLD", "BUY"))
        table.add_row(model, "active" if total else "[dim]inactive[/]", f"{total:,}", *row)
    return Panel(table, title="ACTIVE MODELS", title_align="left")


def _signals(counts: dict[str, Any]) -> Panel:
    table, total = Table(box=None, show_header=False, padding=(0, 2, 0, 0)), sum(counts["ensemble"].values())
    for action in (Action.BUY, Action.SELL, Action.HOLD):
        n = counts["ensemble"].get(action.name, 0)
        share = n / total if total else 0.0
        table.add_row(f"[{COLOURS[action.name]}]{action.name}[/]", share_bar(share), f"{share:.1%}", f"{n:,}/{total:,}")
    return Panel(table, title="SIGNAL VARIETY", title_align="left")


def _governor(now: dict[str, Any], recent: tuple[float, ...]) -> Panel:
    g = now["governor"]
    wins = sum(pnl > 0.0 for pnl in recent)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_row("balance", f"{g['balance']:,.2f}", "equity", f"{g['equity']:,.2f}")
    table.add_row("peak", f"{g['peak_balance']:,.2f}", "drawdown", f"{g['drawdown_pct']:.2%}")
    table.add_row("exposure", f"{g['exposure_pct']:.1%}", "open positions", str(g["active_positions"]))
    table.add_row("recent win rate", f"{g['recent_win_rate']:.0%} ({wins}/{len(recent)})", "recent P&L", f"{sum(recent):,.2f}")
    table.add_row("today's trades", f"{g['daily_trades']}/{g['max_daily_trades']}", "total trades", f"{g['total_trades']:,}")
    return Panel(table, title="GOVERNOR" + (" (halted)" if g["is_halted"] else ""), title_align="left")


def _health(now: dict[str, Any]) -> Panel:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for row in now["health"]["rows"]:
        value = "n/a" if row["value"] is None else f"{row['value']:.1%}"
        table.add_row(row["name"], value, f"of {row['n']:,}", f"[{COLOURS[row['level']]}]{row['level']}[/]", row["band"])
    return Panel(table, title="HEALTH", title_align="left")


def _positions(positions: tuple[dict[str, Any], ...]) -> Panel:
    table = Table("symbol", "side", "quantity", "entry", "notional", "unrealised", box=None, padding=(0, 2, 0, 0))
    for p in positions:
        unrealised = "" if p["unrealised"] is None else f"{p['unrealised']:,.2f}"
        table.add_row(p["symbol"], p["side"], f"{p['qty']:.6g}", f"{p['entry_price']:.7g}", f"{p['notional']:,.2f}", unrealised)
    return Panel(table, title="OPEN POSITIONS", title_align="left")


def _decisions(rows: list[dict[str, Any]]) -> Panel:
    table = Table("time", "symbol", "ensemble", "meta", "final", "governor", box=None, padding=(0, 2, 0, 0))
    for d in rows:
        ensemble = f"{d['ensemble']['action']} {d['ensemble']['confidence'] or 0.0:.2f}"
        final = d["final"]["action"]
        meta = f"{d['meta']['verdict']} {d['meta']['reason']}"
        table.add_row(d["time"][:16].replace("T", " "), d["symbol"], ensemble, meta, f"[{COLOURS[final]}]{final}[/]", d["governor"])
    return Panel(table, title="LAST DECISIONS", title_align="left")
