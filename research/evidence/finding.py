"""Finding: whether the figures show an edge. One of three, and the two numbers that decided; the verdict is made of it and the proof.

`spec` D-98: fewer than 30 effective trades is `not enough data`; a deflated Sharpe probability above 0.95 **and** an interval of the net
minus exposure-matched market return above 0 is `edge`; everything else is `no edge`. An `edge` on bars where a leak would not be noticed is
`not enough data` too (`research.evidence.planted`). What a reader may believe of it also hangs on the proof: `research.runs.verdict`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.rules import Reason, rule_of
from research.evidence.standing import others_text
from research.runs.record import RunRecord
from research.training.scoring.bootstrap import Bootstrap, block_length, interval
from research.training.scoring.opinions import ENOUGH

EDGE_PROBABILITY = 0.95


def effective_trades(ret: NDArray[np.float64], row: NDArray[np.int64], bootstrap: Bootstrap) -> float:
    """How many independent trades these are: n times the ratio of the variances of the mean return, never above n (`spec` D-93).

    ret: net return of each closed trade; row: bar of its entry, counted from the first bar that `bootstrap` draws.
    """
    n = len(ret)
    if n < 2:
        return float(n)
    columns = np.stack([np.bincount(row, w, minlength=bootstrap.n_rows) for w in (None, ret)], axis=-1)
    drawn = bootstrap.sums(columns)
    means = drawn[drawn[:, 0] > 0, 1] / drawn[drawn[:, 0] > 0, 0]
    variance = float(np.var(means))
    return min(float(n), float(np.var(ret)) / variance) if variance > 0.0 else 1.0


def independent_trades(run: RunRecord, rows: slice, bootstrap: Bootstrap) -> tuple[int, float]:
    """Count a run's closed trades, those that the end of the data closed left out, and what they are worth (`effective_trades`)."""
    closed = run.trades[(run.trades["exit_reason"] > 0) & (run.trades["exit_reason"] != Reason.END_OF_DATA)]
    row = np.searchsorted(run.bars.close_time[rows], closed.index.asi8, side="right")
    return len(closed), effective_trades(closed["ret"].to_numpy(), np.minimum(row, bootstrap.n_rows - 1), bootstrap)


def excess(net: NDArray[np.float64], market: NDArray[np.float64], bootstrap: Bootstrap, bars_per_year: float) -> dict[str, Any]:
    """Mean net return above the market at the same exposure, a year, with its 95 % interval; NaN without bars."""
    difference = net - market
    if not len(difference):
        return {"per_year": np.nan, "ci95": [np.nan, np.nan]}
    samples = bootstrap.sums(difference[:, None])[:, 0] / bootstrap.n_rows
    low, high = interval(samples[:, None])[:, 0] * bars_per_year
    return {"per_year": float(difference.mean() * bars_per_year), "ci95": [float(low), float(high)]}


def decide(n_effective: float, deflated: float | None, excess_low: float) -> str:
    """Apply `spec` D-98. deflated: None when the Sharpe ratio was refused."""
    if not n_effective >= ENOUGH:
        return "not enough data"
    if deflated is not None and deflated > EDGE_PROBABILITY and excess_low > 0.0:
        return "edge"
    return "no edge"


def reason(evidence: dict[str, Any]) -> str:
    """Say which numbers decided, for the sentence of a verdict; of no edge what fell short comes first."""
    trades = evidence["trades"]
    if evidence["finding"] == "not enough data":
        worth = f"{trades['n']:,} closed trades are worth {trades['n_effective']:.0f} independent ones"
        return f"{worth}, and {ENOUGH} are needed."
    low, high = (f"{100.0 * x:+.1f}" for x in evidence["excess"]["ci95"])
    is_above, is_below = evidence["excess"]["ci95"][0] > 0.0, evidence["excess"]["ci95"][1] < 0.0
    side = "" if is_above else f", which {'lies below' if is_below else 'holds'} 0"
    market = (
        f"the net return minus that of the market at the same exposure is {100.0 * evidence['excess']['per_year']:+.1f} % a year "
        f"(95 % interval {low} to {high} %{side}; must lie above 0)"
    )
    if evidence["sharpe"]["refused"]:
        return f"the Sharpe ratio was {evidence['sharpe']['refused']}, {'although' if is_above else 'and'} {market}."
    tries, others = evidence["trials"]["trials"], others_text(evidence["trials"])
    aside = evidence["trials"].get("set_aside", 0)
    count = f"{tries:,} trial{'' if tries == 1 else 's'}" + (f", {others} among them," if others else "")
    count += f"{'' if others else ','} {aside:,} more set aside by resets of the ledger," if aside else ""
    skill = f"the probability of skill after {count} (deflated Sharpe) is {evidence['sharpe']['deflated']:.2f} (above 0.95 needed)"
    if (is_skilled := evidence["sharpe"]["deflated"] > EDGE_PROBABILITY) == is_above:
        return f"{skill}, and {market}{'' if is_above else '; both fall short'}."
    return f"{market}, although {skill}." if is_skilled else f"{skill}, although {market}."


def judge_picks(picks: Any, daily: NDArray[np.float64], least: int) -> dict[str, Any]:
    """Say whether picking the best setting of one fold paid on the next.

    picks: table of `research.sweep.walk_forward`; daily: net returns of the scored folds, one after the other. Fewer than `least` days or
    30 trades is `not enough data`; a 95 % interval of the mean daily return (stationary bootstrap) above 0 is `paid`; else `not
    shown to pay`. Result: `verdict`, `sentence`, `n_folds`, `n_days`, `n_trades`, `per_day`, `ci95` (means of a day), and the mean yearly
    Sharpe ratios `picked`, `scored` and `median`.
    """
    n_trades = int(picks["scored.n_trades"].sum()) if len(picks) else 0
    out: dict[str, Any] = {"n_folds": len(picks), "n_days": len(daily), "n_trades": n_trades, "per_day": None, "ci95": None}
    means = {name: picks[f"{name}.sharpe"].mean() if len(picks) else np.nan for name in ("picked", "scored", "median")}
    out |= {name: float(mean) if np.isfinite(mean) else None for name, mean in means.items()}
    if len(daily) < least or n_trades < ENOUGH:
        need = f"{least} days and {ENOUGH} trades are needed"
        said = f"Not enough data: {len(picks)} picks were scored over {len(daily):,} days with {n_trades:,} trades, and {need}."
        return out | {"verdict": "not enough data", "sentence": said}
    bootstrap = Bootstrap(len(daily), block_length([daily], 1))
    low, high = interval(bootstrap.sums(daily[:, None]) / bootstrap.n_rows)[:, 0]
    verdict = "paid" if low > 0.0 else "not shown to pay"
    chosen, earned, blind = ("none" if out[name] is None else f"{out[name]:.2f}" for name in ("picked", "scored", "median"))
    said = (
        f"Picking {'paid' if low > 0.0 else 'was not shown to pay'}: over {len(picks)} folds that the picks had not seen, the mean net "
        f"return was {1e4 * daily.mean():+.1f} basis points a day (95 % interval {1e4 * low:+.1f} to {1e4 * high:+.1f}; must lie above 0); "
        f"the mean Sharpe ratio a year was {chosen} where they were picked, {earned} where they were scored, and {blind} for the median "
        "setting there."
    )
    return out | {"verdict": verdict, "sentence": said, "per_day": float(daily.mean()), "ci95": [float(low), float(high)]}


def no_trades(counts: dict[str, int], n_trades: int, declined: bool = False) -> str | None:
    """Say why nothing, or little, was traded and name the rule that blocked most; None from 100 trades on.

    counts: those of `layer_rates` in total. declined: no cell had an edge to trade on (`research.evidence.traders`).
    """
    if n_trades >= 100:
        return None
    opening = "No trades" if n_trades == 0 else f"Only {n_trades} trades"
    if counts["cells"] == 0:
        return f"{opening}, because no base model voted on any bar; give predictions that cover these bars."
    if declined:
        return f"{opening}, because the chain declined: on none of {counts['cells']:,} cells with a vote was an edge large enough to trade."
    if counts["wished"] == 0:
        return f"{opening}, because ensemble, meta layer and arbiter said HOLD on all {counts['cells']:,} cells with a vote."
    vetoes = {name.removeprefix("veto."): n for name, n in counts.items() if name.startswith("veto.")}
    name, n = max(vetoes.items(), key=lambda item: item[1])
    if n == 0:
        said = f"{counts['wished']:,} of {counts['cells']:,} cells with a vote said BUY or SELL"
        return f"{opening}, because only {said}; no rule of the governor blocked them."
    rule = rule_of(Reason[name])
    remedy = f"; {rule.parameter} sets it" if rule.parameter else ""
    return f"{opening}, because the rule {name} blocked {n:,} of {counts['wished']:,} BUY and SELL decisions{remedy}."
