"""Page of a study: what carries skill, what survives costs, break-even costs, and what the search was worth."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from research.errors import several
from research.report import render
from research.report.svg import BAD, CHAIN, GOOD, INK, MARKET, MUTED, Picture, picture
from research.report.terms import verdict_parts
from research.report.words import lacked_text

ROW_HEIGHT = 0.34  # inches of a picture for each row of it


def build(summary: Mapping[str, Any], path: Path) -> Path:
    """Write the page of a study to `path` and return it. summary: what `study.json` holds."""
    return render("study.html", _content(summary), path)


def _content(s: Mapping[str, Any]) -> dict[str, Any]:
    data, best, held = s["data"], s["best"], s["held_back"]
    n, size = len(s["money"]), several(len(data["symbols"]), "symbols")
    return {
        "title": f"Study of {several(n, 'combinations')}",
        "subtitle": f"{several(data['n_candles'], 'candles')} of {size}, {data['start']} to {data['end']}",
        "verdict": _verdict(s),
        "notices": _notices(s),
        "doubt": None,
        "lacked": data["lacked"],
        "lacked_text": lacked_text(len(data["lacked"])),
        "tiles": _tiles(s),
        "assumptions": _terms(s),
        "sentences": s["sentences"],
        "gains": bars_picture([(_pair(r), r["gain"]) for r in s["skill"] if r["gain"]], 100.0, "points of balanced accuracy", "difference"),
        "ranks": bars_picture([(_pair(r), r["information"]) for r in s["skill"] if r["information"]], 1.0, "rank correlation", "value"),
        "skill": {"headers": SKILL, "rows": [_skill_row(r) for r in s["skill"]], "texts": [1], "groups": []},
        "paper": {"headers": PAPER, "rows": [_paper_row(r) for r in s["skill"] if r["ranks"]], "texts": [1], "groups": []},
        "money_picture": money_picture(s["money"]),
        "money": dict(zip(("headers", "rows"), money_table(s["money"]))) | {"texts": [1, 2], "groups": []},
        "best": best,
        "untraded": s["untraded"],
        "held": held,
        "opened": None if held["opened"] is None else _opened(held["opened"]),
    }


def ranked(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return combinations by falling t value, those without one last."""
    return sorted(rows, key=lambda row: -float("inf") if row["t"] is None else row["t"], reverse=True)


SKILL = ["Features", "Target", "Balanced accuracy", "More than base", "Direction", "Log loss", "of volatility", "Rank correlation", "Worth"]
PAPER = ["Features", "Target", "Held, bars", "Gross Sharpe", "Turnover a day", "Break-even a side"]
FIGURES = ["Gross Sharpe", "Net Sharpe", "Net return", "Trades", "Turnover a day", "Break-even a side", "Cost a side"]


def _verdict(s: Mapping[str, Any]) -> dict[str, str]:
    return verdict_parts(s["best"] or s["untraded"])


def _notices(s: Mapping[str, Any]) -> list[tuple[str, str]]:
    held = s["held_back"]
    if held["opened"] is not None and held["openings"] > 1:
        return [("warn", f"What was held back has been opened {held['openings']} times: it is no longer unseen.")]
    return []


def _opened(opened: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "money": {"headers": FIGURES, "rows": [_figures(opened)], "texts": [], "groups": []},
        "skill": {"headers": SKILL, "rows": [_skill_row(opened["skill"])], "texts": [1], "groups": []},
    }


def _tiles(s: Mapping[str, Any]) -> list[dict[str, str]]:
    rows, best, held = s["money"], s["best"], s["held_back"]
    before, after = (sum(r[name] is not None and r[name]["ci95"][0] > 0.0 for r in rows) for name in ("gross", "net"))
    opened = held["opened"]
    return [
        {"label": "Combinations", "value": f"{len(rows):,}", "note": "each is a trial of this market"},
        {"label": "Earn before costs", "value": f"{before:,}", "note": "interval of the gross Sharpe ratio above 0"},
        {"label": "Earn after costs", "value": f"{after:,}", "note": "interval of the net Sharpe ratio above 0"},
        {
            "label": "T value of the best",
            "value": "none" if best is None or best["test"]["t"] is None else f"{best['test']['t']:.2f}",
            "note": "nothing to test" if best is None else f"above {best['test']['critical']:.2f} needed after the search",
        },
        {
            "label": "Trials counted",
            "value": "none" if best is None else f"{best['trials']['trials']:,}",
            "note": "ever made on these candles",
        },
        {
            "label": "Held back",
            "value": "unopened" if opened is None else _ratio(opened["net"]),
            "note": f"{several(held['bars'], 'bars')} from {held['from']}" + ("" if opened is None else ", net Sharpe ratio"),
        },
    ]


def _terms(s: Mapping[str, Any]) -> list[tuple[str, str]]:
    data, plan = s["data"], s["plan"]
    names = data["symbols"]
    shown = ", ".join(names[:6]) + ("" if len(names) <= 6 else f" and {len(names) - 6} others")
    costs = sorted({row["cost"] for row in s["money"]})
    return [
        ("Symbols", shown),
        ("Studied", f"the first {several(data['seen'], 'bars')}, walk-forward"),
        ("Tested", f"from {data['tested_from']} in {several(data['folds'], 'folds')} of {several(data['fold_bars'], 'bars')}"),
        ("Features", ", ".join(dict.fromkeys(row["families"] for row in s["money"]))),
        ("Targets", ", ".join(plan["targets"])),
        ("Books", ", ".join(plan["books"])),
        ("Costs", f"fee and slippage a side {', '.join(_bp(cost) for cost in costs)}; fills at the next bar's open"),
    ]


def _pair(row: Mapping[str, Any]) -> str:
    return f"{row['families']}, {row['target']}"


def _skill_row(r: Mapping[str, Any]) -> list[str]:
    gain, ranks = r["gain"], r["information"]
    return [
        r["families"],
        r["target"],
        _share(r["balanced_accuracy"], r["balanced_ci95"]),
        "" if gain is None else f"{100 * gain['difference']:+.1f} ({100 * gain['ci95'][0]:+.1f} to {100 * gain['ci95'][1]:+.1f})",
        _share(r["direction_accuracy"], r["direction_ci95"]),
        *("none" if r[name] is None else f"{r[name]:.4f}" for name in ("log_loss", "volatility_log_loss")),
        "none" if ranks is None else f"{ranks['value']:+.3f} ({ranks['ci95'][0]:+.3f} to {ranks['ci95'][1]:+.3f})",
        f"{r['n_effective']:,.0f} of {r['n']:,}" if r["n_effective"] is not None else "none",
    ]


def _paper_row(r: Mapping[str, Any]) -> list[str]:
    ranks = r["ranks"]
    even = "none" if ranks["break_even"] is None else _bp(ranks["break_even"])
    return [r["families"], r["target"], str(r["horizon"]), _interval(ranks["gross"]), f"{ranks['turnover']:.2f}", even]


def money_table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return headers and cells of the table of combinations, those with the largest t value first."""
    told = [[r["families"], r["target"], r["book"], "none" if r["t"] is None else f"{r['t']:.2f}", *_figures(r)] for r in ranked(rows)]
    return ["Features", "Target", "Book", "T value", *FIGURES], told


def _figures(r: Mapping[str, Any]) -> list[str]:
    return [
        _interval(r["gross"]),
        _interval(r["net"]),
        f"{100 * r['net_return']:+.1f} %",
        f"{r['n_trades']:,}",
        f"{r['turnover']:.2f}",
        "none" if r["break_even"] is None else _bp(r["break_even"]),
        _bp(r["cost"]),
    ]


def _share(value: float | None, ci95: Sequence[float | None]) -> str:
    low, high = ci95
    return "none" if value is None or low is None or high is None else f"{100 * value:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def _interval(figure: Mapping[str, Any] | None) -> str:
    return "none" if figure is None else f"{figure['value']:.2f} ({figure['ci95'][0]:.2f} to {figure['ci95'][1]:.2f})"


def _ratio(figure: Mapping[str, Any] | None) -> str:
    return "none" if figure is None else f"{figure['value']:.2f}"


def _bp(share: float) -> str:
    return f"{1e4 * share:.1f} bp"


def bars_picture(rows: Sequence[tuple[str, Mapping[str, Any]]], scale: float, words: str, name: str) -> Picture | None:
    """Draw a figure of each row with its interval; green where that is above 0, red where it is below."""
    if not rows:
        return None

    def draw(figure: Any, is_narrow: bool) -> None:
        ax = figure.subplots()
        figure.subplots_adjust(left=0.46 if is_narrow else 0.26, right=0.97, top=0.98, bottom=0.5 / (ROW_HEIGHT * len(rows) + 0.6))
        for i, (_, row) in enumerate(reversed(rows)):
            low, high = (scale * end for end in row["ci95"])
            colour = GOOD if low > 0.0 else BAD if high < 0.0 else MARKET
            ax.plot([low, high], [i, i], color=colour, lw=2.0)
            ax.plot([scale * row[name]], [i], "o", color=colour, ms=4.5)
        ax.axvline(0.0, color=MUTED, lw=0.8)
        ax.set_yticks(range(len(rows)), [label for label, _ in reversed(rows)], fontsize=7 if is_narrow else 8.5)
        ax.set_ylim(-0.6, len(rows) - 0.4)
        ax.grid(False)
        ax.set_xlabel(words)

    height = ROW_HEIGHT * len(rows) + 0.6
    return picture(draw, f"{words.capitalize()} of each pair, with 95 % intervals", (height, height))


def money_picture(rows: Sequence[Mapping[str, Any]]) -> Picture | None:
    """Draw gross and net Sharpe ratios of the combinations, the best first."""
    shown = [row for row in ranked(rows) if row["net"] is not None and row["gross"] is not None][:40]
    if not shown:
        return None

    def draw(figure: Any, is_narrow: bool) -> None:
        ax = figure.subplots()
        height = ROW_HEIGHT * len(shown) + 0.9
        figure.subplots_adjust(left=0.52 if is_narrow else 0.32, right=0.97, top=1.0 - 0.32 / height, bottom=0.5 / height)
        for i, row in enumerate(reversed(shown)):
            for name, shift, colour in (("gross", 0.14, MARKET), ("net", -0.14, CHAIN)):
                low, high = row[name]["ci95"]
                ax.plot([low, high], [i + shift] * 2, color=colour, lw=1.8)
                ax.plot([row[name]["value"]], [i + shift], "o", color=colour, ms=4, label=name if i == 0 else None)
        ax.axvline(0.0, color=MUTED, lw=0.8)
        names = [f"{r['families']}, {r['target']}, {r['book']}" for r in reversed(shown)]
        ax.set_yticks(range(len(shown)), names, fontsize=7 if is_narrow else 8.5, color=INK)
        ax.set_ylim(-0.6, len(shown) - 0.4)
        ax.grid(False)
        ax.set_xlabel("Sharpe ratio a year")
        ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, frameon=False, fontsize=8, borderaxespad=0.2)

    height = ROW_HEIGHT * len(shown) + 0.9
    return picture(draw, "Sharpe ratios before and after costs, with 95 % intervals", (height, height))
