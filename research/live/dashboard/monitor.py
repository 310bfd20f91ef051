"""Terminal dashboard of `spec` 13.2, drawn once or again and again.

The parts that matter most come first, so that a low window cuts off what matters least; a wide one shows two parts side by side.
"""

from datetime import UTC, datetime
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.jupyter import JupyterMixin
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from qtcore.types import Action
from research.live.monitoring.envelope_view import bands_of, written
from research.live.monitoring.health import LEVELS, status
from research.live.monitoring.journal_source import JournalSource
from research.live.monitoring.run_source import RunSource
from research.runs.verdict import FAILING

CELLS = 20  # of a share's bar
WIDE = 120  # columns from which two parts stand side by side
ROOMY = 160  # columns from which a decision has room for the numbers of the meta layer
COLOURS = {"BUY": "green", "SELL": "red", "HOLD": "dim", "healthy": "green", "warning": "yellow", "critical": "red", "unknown": "dim"}


def share_bar(share: float) -> str:
    """Draw a share as 20 cells.

    >>> share_bar(0.25)
    '#####...............'
    """
    filled = round(share * CELLS)
    return "#" * filled + "." * (CELLS - filled)


class Screen(JupyterMixin):
    """The whole view: governor, positions, models, signals, last decisions, seats, health; as wide as the terminal, or in a notebook."""

    def __init__(self, source: JournalSource | RunSource) -> None:
        """Take a look; drawing needs the source no more."""
        now, tally, book = status(source), source.tally(), source.book()
        self.head = [*_verdict(now), _head(now), *(_alarm(alarm) for alarm in now["alarms"])]
        self.pairs = [
            (_governor(now, book.recent), _health(now)),
            (_models(tally.counts(), now), _signals(*tally.signals)),
        ]
        self.bands = _bands(bands_of(now, source.is_live))
        self.positions = _positions(book.positions, source.orders(), now["figures"] is not None)
        self.last = source.last(10)
        self.seats = _seats(now)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lay it out."""
        is_wide = options.max_width >= WIDE
        yield from self.head
        pairs: list[RenderableType] = []
        for left, right in self.pairs:
            if is_wide:
                grid = Table.grid(expand=True)
                grid.add_column(ratio=1)
                grid.add_column(ratio=1)
                grid.add_row(left, right)
                pairs.append(grid)
            else:
                pairs += [left, right]
        governor, *others = pairs
        yield Group(governor, self.positions, _decisions(self.last, options.max_width), *self.seats, *others, *self.bands)


def screen(source: JournalSource | RunSource) -> Screen:
    """Return the whole view of now."""
    return Screen(source)


def _verdict(now: dict[str, Any]) -> list[Text]:
    """Tell the verdict of a finished run."""
    if now["verdict"] is None:
        return []
    return [Text(f"verdict: {now['sentence']}", style="bold red" if now["verdict"] in FAILING else "bold")]


def _head(now: dict[str, Any]) -> Text:
    runner = now["runner"]
    state = "finished run" if runner is None else "stopped" if runner["is_running"] is False else "live, on paper"
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(now["source"], style="bold")
    text.append(f"  {state}", style="green" if state == "live, on paper" else "dim")
    text.append(f"  {now['health']['said']}\n", style="dim" if now["figures"] else COLOURS[now["health"]["level"]])
    text.append(f"last bar {(now['last_bar'] or 'none')[:16].replace('T', ' ')} UTC, seen {datetime.now(UTC):%Y-%m-%d %H:%M:%S}")
    return text


def _alarm(alarm: Any) -> Text:
    """Tell an alarm: a dict of level, name and text, or a text alone."""
    known = alarm if isinstance(alarm, dict) else {"text": str(alarm)}
    colour = COLOURS.get(str(known.get("level")), "yellow")
    return Text.assemble(("! ", f"bold {colour}"), (f"{known.get('name', 'alarm')}: ", colour), str(known.get("text", known)))


def _panel(table: RenderableType, title: str) -> Panel:
    return Panel(table, title=title, title_align="left", padding=(0, 1))


def _table(*heads: str, right: tuple[str, ...] = (), gap: int = 2) -> Table:
    table = Table(box=None, show_header=bool(heads), padding=(0, gap, 0, 0), header_style="dim")
    for head in heads:
        table.add_column(head, justify="right" if head in right else "left", no_wrap=True)
    return table


def _models(counts: dict[str, Any], now: dict[str, Any]) -> Panel:
    names = ("SELL", "HOLD", "BUY")
    table = _table("model", "status", "votes", *names, right=("votes", *names))
    for model, votes in counts["models"].items():
        is_active = model in now["active_models"]
        row = (f"{votes.get(name, 0):,}" for name in names)
        table.add_row(model, Text("active", "green") if is_active else Text("inactive", "dim"), f"{sum(votes.values()):,}", *row)
    return _panel(table, "ACTIVE MODELS")


def _signals(title: str, counts: dict[str, int]) -> Panel:
    table, total = _table(), sum(counts.values())
    for action in (Action.BUY, Action.SELL, Action.HOLD):
        n = counts.get(action.name, 0)
        share = n / total if total else 0.0
        table.add_row(Text(action.name, COLOURS[action.name]), share_bar(share), f"{share:.1%}", f"{n:,}/{total:,}")
    return _panel(table, title.upper())


def _governor(now: dict[str, Any], recent: tuple[float, ...]) -> Panel:
    g = now["governor"]
    wins = sum(pnl > 0.0 for pnl in recent)
    table = _table()
    table.add_row("equity", Text(f"{g['equity']:,.2f}", "bold"), "balance", f"{g['balance']:,.2f}")
    table.add_row("peak", f"{g['peak_balance']:,.2f}", "drawdown", f"{g['drawdown_pct']:.2%}")
    table.add_row("exposure", f"{g['exposure_pct']:.1%}", "open positions", str(g["active_positions"]))
    table.add_row("recent win rate", f"{g['recent_win_rate']:.0%} ({wins}/{len(recent)})", "recent P&L", f"{sum(recent):+,.2f}")
    table.add_row("today's trades", f"{g['daily_trades']}/{g['max_daily_trades']}", "total trades", f"{g['total_trades']:,}")
    refused = sorted((rule for rule in g["rules"] if rule["refused"]), key=lambda rule: -rule["refused"])
    said = Text("refused: " + (", ".join(f"{rule['label']} {rule['refused']:,}" for rule in refused) or "none"), style="dim")
    return _panel(Group(table, said), "GOVERNOR" + (" (halted)" if g["is_halted"] else ""))


def _health(now: dict[str, Any]) -> Panel:
    table = _table("rate", "value and band", "level", gap=1)  # two panels of it beside each other need every column of 120
    for row in now["health"]["rows"]:
        table.add_row(row["name"], row["said"], Text(row["level"] if row["level"] in LEVELS[1:] else "", COLOURS[row["level"]]))
    return _panel(table, "HEALTH")


def _seats(now: dict[str, Any]) -> list[Panel]:
    """Say which layers and voters act now, and on what evidence; nothing where each that is on acts."""
    if not any(told["text"] for told in now["layers"].values()):
        return []
    table = _table("layer", "now", "newest evidence")
    table.columns[2].no_wrap = False
    for layer, told in now["layers"].items():
        table.add_row(layer, Text(told["word"], "green" if told["word"] in ("acts", "on") else "dim"), told["text"])
    return [_panel(table, "SEATS OF THE LAYERS")]


def _bands(bands: dict[str, Any]) -> list[RenderableType]:
    """Show the envelope and what is due; nothing for a finished run, which is what they compare with."""
    if not bands["due"]:
        return []
    table = _table("figure", "now", "band", "usual", "is", right=("now", "band", "usual"))
    table.columns[0].no_wrap = False  # a long name takes two lines before 80 columns cut a band or the judgement
    for row in bands["rows"]:
        state = Text("out", "yellow") if row["is_out"] else Text("in", "green")
        table.add_row(row["name"], written(row, "value"), f"{written(row, 'low')} to {written(row, 'high')}", written(row, "usual"), state)
    more = f"; {bands['inside']} steadier features not shown" if bands["inside"] else ""
    said = Text(bands["text"] + more, style="dim")
    causes = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for due in bands["due"]:
        state = (
            Text(f"due since {due['since'][5:16].replace('T', ' ')}: {due['text']}", "yellow")
            if due["text"]
            else Text(f"not due; it is {due['rule']}", "dim")
        )
        causes.add_row(due["cause"], state)
    is_due = any(due["text"] for due in bands["due"])
    return [
        _panel(Group(table, said) if bands["rows"] else said, "LIVE ENVELOPE"),
        _panel(causes, f"RETRAIN DUE: {'yes' if is_due else 'no'}"),
    ]


def _positions(positions: tuple[dict[str, Any], ...], orders: list[dict[str, Any]], is_doubted: bool) -> RenderableType:
    if not positions and not orders:
        return Text(" no position is open", style="dim")
    table = _table("symbol", "side", "unrealised", "notional", "entry", "stop", right=("unrealised", "notional", "entry", "stop"))
    for p in positions:
        pnl = p["unrealised"]
        told = "" if pnl is None else Text(f"{pnl:+,.2f}", "dim" if is_doubted else "red" if pnl < 0.0 else "green")
        stop = "" if p["stop_price"] is None else f"{p['stop_price']:.6g}"
        side = Text("long", "green") if p["side"] == "long" else Text("short", "red")
        table.add_row(p["symbol"], side, told, f"{p['notional']:,.2f}", f"{p['entry_price']:.6g}", stop)
    waiting = ", ".join(f"close {o['symbol']}" if o["kind"] == "exit" else f"{o['side']} {o['symbol']}" for o in orders)
    return _panel(Group(table, Text(f"at the next open: {waiting}", style="dim")) if waiting else table, "OPEN POSITIONS")


def _decisions(rows: list[dict[str, Any]], width: int) -> Panel:
    """Show the last decisions, time, symbol and sides whole. A narrow terminal leaves out the meta layer, or its numbers; reasons wrap."""
    is_priced, is_wide = any(d["edge"] is not None for d in rows), width >= WIDE
    more = (*(["edge, bp"] if is_priced else []), *(["ensemble", "meta"] if is_wide else []))
    table = _table("time", "symbol", "wish", *more, "final", "governor", right=("edge, bp",))
    for column in table.columns:
        column.no_wrap = column.header not in ("meta", "governor")
    for d in rows:
        edge = [] if not is_priced else ["" if d["edge"] is None else f"{d['edge']:+.1f}"]
        reason = d["meta"]["reason"] if width >= ROOMY else d["meta"]["reason"].partition(" (")[0]
        said: list[Text | str] = [_colour(d["ensemble"]), f"{d['meta']['word']} {reason}"] if is_wide else []
        table.add_row(d["time"][5:16].replace("T", " "), d["symbol"], _colour(d["raw"]), *edge, *said, _colour(d["final"]), d["governor"])
    return _panel(table, "LAST DECISIONS")


def _colour(answer: dict[str, Any]) -> Text:
    action, confidence = answer["action"], answer.get("confidence")
    return Text(f"{action}{'' if confidence is None else f' {confidence:.2f}'}", COLOURS[action])
