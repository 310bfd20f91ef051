"""Finding: whether the figures show an edge. One of three, and the two numbers that decided; the verdict is made of it and the proof.

`spec` D-98: where fewer than 15 blocks of time held anything it is `not enough data`; where the t value of what was earned beyond the
market (`research.evidence.alpha`) is above what luck reaches in one of twenty families of all that was tried
(`research.evidence.sign_test`) it is `edge`; else `no edge`. An `edge` on bars where a leak would not be noticed is `not enough data` too
(`research.evidence.planted`), and one of fills that nobody can have (`fill_in_doubt`). What a reader may believe of it also hangs on the
proof: `research.runs.verdict`.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.choices import FillAt
from qtcore.rules import Reason, rule_of
from qtcore.sweep.hedge import Hedged
from research.errors import several
from research.evidence.alpha import BLOCK_PIECES, PIECES, Hedge, Outcome
from research.evidence.sign_test import DRAWS
from research.evidence.standing import others_text
from research.evidence.trials import TrialSummary
from research.runs.record import RunRecord
from research.training.scoring.bootstrap import Bootstrap, block_length, interval
from research.training.scoring.opinions import ENOUGH

LEAST_HELD, FEW_HELD = 15, 20  # blocks of time in which something was held: needed; fewer than are said beside the verdict
Z = 1.96
TAIL_SKEW, TAIL_WON, TAIL_LOSS = -1.0, 0.7, 2.0  # blocks skewed below it; or a larger share won with losses so many times the gains
TAILS = "It sells tails: it gains a little often and loses much rarely. No test can know a loss that has not happened."
EVER = {1: 0.05, 20: 0.17, 100: 0.23}  # share of noise that reads edge at least once when asked after each of so many trials


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


def sells_tails(skew: float, ret: NDArray[np.float64]) -> bool:
    """Say whether a book gains a little often and loses much rarely. skew: of its blocks; ret [T]: net returns of its closed trades."""
    if skew < TAIL_SKEW:
        return True
    gains, losses = ret[ret > 0.0], ret[ret < 0.0]
    if len(ret) < ENOUGH or len(gains) <= TAIL_WON * len(ret):
        return False
    return len(losses) == 0 or bool(-losses.mean() > TAIL_LOSS * gains.mean())


def decide(test: Mapping[str, Any]) -> str:
    """Apply `spec` D-98. test: what `tested` returned."""
    if not test["blocks_held"] >= LEAST_HELD:
        return "not enough data"
    return "edge" if test["t"] is not None and test["t"] > test["critical"] else "no edge"


def tested(outcome: Outcome, hedge: Hedge, blocks_held: int, tried: TrialSummary) -> dict[str, Any]:
    """Describe the test of one run: what it earned beyond the market, and what its t value was compared with.

    outcome: one row. Result: `alpha` {per_year, ci95, unexplained}, `test` {t, t_raw, critical, p, blocks, blocks_held, is_daily, skew,
    autocorrelation, is_market, n_edges, independent, declared}; t is None where the account never moved or is the market.
    """
    found = dict(zip(Hedged, outcome.measured[0].tolist(), strict=True))
    per_year, error = hedge.per_year * found[Hedged.ALPHA], hedge.per_year * found[Hedged.ERROR]
    t = None if math.isnan(found[Hedged.T]) else found[Hedged.T]
    return {
        "alpha": {
            "per_year": per_year,
            "ci95": [per_year - Z * error, per_year + Z * error] if t is not None else [math.nan, math.nan],
            "unexplained": found[Hedged.UNEXPLAINED],
        },
        "test": {
            "t": t,
            "t_raw": None if t is None else found[Hedged.T_RAW],
            "critical": tried.critical,
            "p": None if t is None else tried.p,
            "blocks": len(hedge.keys),
            "blocks_held": blocks_held,
            "is_daily": hedge.is_daily,
            "skew": found[Hedged.SKEW],
            "autocorrelation": found[Hedged.LAG],
            "is_market": t is None and found[Hedged.ALPHA] != 0.0,
            "n_edges": tried.n_edges,
            "independent": tried.independent,
            "declared": tried.declared,
        },
    }


def reason(evidence: Mapping[str, Any]) -> str:
    """Say which numbers decided, for the sentence of a verdict."""
    test, alpha = evidence["test"], evidence["alpha"]
    blocks = (
        "blocks of five days" if test["is_daily"] else f"blocks (each {BLOCK_PIECES} of the {PIECES} or more equal pieces of a short test)"
    )
    if evidence["finding"] == "not enough data":
        return f"something was held in {test['blocks_held']} of {test['blocks']} {blocks}, and {LEAST_HELD} are needed."
    if evidence["sharpe"]["refused"]:
        return f"the Sharpe ratio was {evidence['sharpe']['refused']}."
    if test["t"] is None:
        return "this is the market: its returns leave less than a millionth of what the account did unexplained."
    low, high = (f"{100.0 * x:+.1f}" for x in alpha["ci95"])
    is_above = test["t"] > test["critical"]
    earned = f"what it earned beyond the market is {100.0 * alpha['per_year']:+.1f} % a year (95 % interval {low} to {high} %)"
    luck = (
        f"{'above' if is_above else 'not above'} the {test['critical']:.2f} that the best of {_tries(evidence)} reaches by luck in 1 of 20"
    )
    few = f"; something was held in only {test['blocks_held']} {blocks}" if test["blocks_held"] < FEW_HELD else ""
    tails = f" {TAILS}" if test.get("sells_tails") else ""
    return f"{earned}, and its t value of {test['t']:.2f} is {luck} (p = {p_text(test['p'])}){few}.{tails}{_looks(evidence)}"


def ever_rate(n_trials: int) -> float:
    """Return in which share of noise one of `n_trials` verdicts, asked after each, reads edge: EVER, between in the logarithm."""
    return float(np.interp(math.log(n_trials), np.log(list(EVER)), list(EVER.values())))


def p_text(p: float) -> str:
    """Write a p-value, never as less than the draws can show."""
    return f"{p:.3f}" if p > 1.5 / (DRAWS + 1) else f"{1.0 / DRAWS:.4f} or less"


def _tries(evidence: Mapping[str, Any]) -> str:
    """Count the trials, and say what some of them are not."""
    trials, declared = evidence["trials"], evidence["test"]["declared"]
    others, aside = others_text(trials), trials.get("set_aside", 0)
    told = ["as many as were declared beforehand"] if declared >= trials["trials"] and declared else []
    told += [f"{others} among them"] if others else []
    told += [f"{aside:,} more set aside by resets of the ledger"] if aside else []
    return ", ".join([several(max(declared, trials["trials"]), "trials"), *told]) + ("," if told else "")


def _looks(evidence: Mapping[str, Any]) -> str:
    """Say what asking again after every trial costs, unless their number was declared beforehand."""
    tries, declared = evidence["trials"]["trials"], evidence["test"]["declared"]
    if (declared >= tries and declared) or tries < 2:
        return ""
    said = f"{tries:,} trials are more than the {declared:,} declared" if declared else "the number of trials was not declared beforehand"
    return f" Noise that is asked after each of so many reads edge at least once in {100.0 * ever_rate(tries):.0f} %: {said} (`--declare`)."


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


def fill_in_doubt(fill: FillAt) -> str | None:
    """Say why fills of this kind show no edge; None where they could be had.

    >>> fill_in_doubt(FillAt.NEXT_OPEN), fill_in_doubt(FillAt.WORST)[:21]
    (None, 'broker.fill was worst')
    """
    why = {FillAt.CLOSE: "no order reaches the close that decides it", FillAt.WORST: "the worst price of a bar is a bound and no fill"}
    if fill not in why:
        return None
    return f"broker.fill was {fill.name.lower()}, and {why[fill]}; an edge shows at the next open, at the next close or a bar later."


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
