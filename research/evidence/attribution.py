"""PnL attribution to layers and rules: the run again, exactly, with layers and rules put in one at a time.

The ladder begins with the ensemble alone: its votes are traded with the run's sizes, costs and holding time, and no rule of the governor.
Then come meta layer, arbiter, and the governor's rules in the order in which they are asked. Each step is a full replay through the same
kernels, with an account of its own; its contribution is the change of PnL against the step before. So contributions add up to the run's
PnL, in total and in every regime, without a residual row (within 1e-9 of the initial cash). What a rule is worth in the finished chain is
another question: `effect` is the run less the same run without that rule alone. Effects do not add up, because rules overlap.

Intervals: stationary bootstrap of the differences per bar, blocks cut in time (`spec` D-93).

"Never worse than the base ensemble" is answered by the run less the same run without meta layer and arbiter, under the same governor:
`supported` when nothing differs or the 95 % interval of the mean difference lies at or above 0; `not enough data` when the chain's trades
are worth fewer than 30 independent ones; else `not supported`.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from qtcore.chain.trade import TradeState, run_trade
from qtcore.rules import Reason, switches
from qtcore.types import F8, Decisions
from research.evidence.finding import independent_trades
from research.runs.benchmark import bar_returns, drawdown
from research.runs.record import RunRecord
from research.runs.round_trips import opens
from research.runs.tables import tested_rows
from research.training.regimes import CELLS, SLICES, regime_cells, slice_sums
from research.training.scoring.bootstrap import Bootstrap, block_length, interval
from research.training.scoring.opinions import ENOUGH

FIGURES = (
    "pnl",
    "contribution",
    "low",
    "high",
    "effect",
    "effect_low",
    "effect_high",
    "accuracy",
    "n_trades",
    "max_drawdown",
    "fees",
    "turnover",
)


@dataclass(frozen=True)
class Attribution:
    """What each layer and rule did.

    table: rows (layer, regime) with `total` and the fifteen slices, columns FIGURES; quote, but for `accuracy` and `max_drawdown`
    (fractions); NaN where a figure does not exist. never_worse: `answer`, `sentence`, `per_year`, `ci95`, `n_effective`.
    """

    table: pd.DataFrame
    never_worse: dict[str, Any]

    def totals(self) -> list[dict[str, Any]]:
        """Return the rows of the whole market, ladder first, as plain records."""
        rows = self.table.xs("total", level="regime").reset_index()
        found: list[dict[str, Any]] = rows.to_dict(orient="records")
        return found


def attribute(run: RunRecord) -> Attribution:
    """Replay `run` step by step; see the head of this module. A run of 100,000 cells takes about a second."""
    rows, regime = tested_rows(run), regime_cells(*run.result.planes.regime[:2])
    rules = {name: off for name, off in switches(in_ladder=True).items() if _changes(run.params, off)}
    others = switches(in_ladder=False)  # in every step; only their marginal effect is asked
    ensemble, meta = run.ensemble_only, run._again({"arbiter.enabled": False})
    free = {name: value for off in rules.values() for name, value in off.items()}
    steps: dict[str, Any] = {"ensemble": _trade(run, ensemble.decisions, free)}
    if run.params.meta.enabled or run.params.stages:
        steps["meta"] = _trade(run, meta.decisions, free)
    if run.params.arbiter.enabled or run.params.stages:
        steps["arbiter"] = _trade(run, run.result.decisions, free)
    for name in rules:
        free = {key: value for key, value in free.items() if key not in rules[name]}
        steps[name] = _trade(run, run.result.decisions, free)
    without: dict[str, Any] = {"meta": run._again({"meta.enabled": False}), "arbiter": meta} | {
        name: _trade(run, run.result.decisions, off) for name, off in (rules | others).items()
    }
    bootstrap = _bootstrap(run, rows, ensemble)
    parts, before = [], None
    for name, step in (steps | dict.fromkeys(others)).items():
        parts.append(_rows(run, name, regime, (before, step, without.get(name)), (bootstrap, rows)))
        before = step if step is not None else before
    return Attribution(pd.concat(parts), never_worse(run, bootstrap, rows))


def never_worse(run: RunRecord, bootstrap: Bootstrap, rows: slice) -> dict[str, Any]:
    """Answer whether meta layer and arbiter ever cost against the ensemble alone under the same governor."""
    from research.data import bars_per_year

    per_year = float(bars_per_year(run.bars))
    difference = _per_bar(run, run.result)[rows] - _per_bar(run, run.ensemble_only)[rows]
    low, high = _bounds(difference, bootstrap) / (rows.stop - rows.start) * per_year / run.params.broker.initial_cash
    mean = float(difference.mean() * per_year / run.params.broker.initial_cash)
    n_effective = independent_trades(run, rows, bootstrap)[1]
    is_same = not np.any(difference)
    answer = "supported" if is_same or (low >= 0.0 and n_effective >= ENOUGH) else "not supported"
    answer = "not enough data" if n_effective < ENOUGH and not is_same else answer
    figures = f"{100 * mean:+.2f} % of the initial cash a year (95 % interval {100 * low:+.2f} to {100 * high:+.2f} %)"
    why = {
        "supported": "they changed no bar" if is_same else f"the difference is {figures}, its interval lies at or above 0",
        "not supported": f"the difference is {figures}; the interval must lie at or above 0",
        "not enough data": f"the trades are worth {n_effective:.0f} independent ones, and {ENOUGH} are needed; the difference is {figures}",
    }[answer]
    sentence = f"Never worse than the base ensemble: {answer}. Meta layer and arbiter against the ensemble alone: {why}."
    return {"answer": answer, "sentence": sentence, "per_year": mean, "ci95": [float(low), float(high)], "n_effective": n_effective}


def _changes(params: Any, off: dict[str, Any]) -> bool:
    known = params.flat()
    return any(known[name] != value for name, value in off.items())


def _trade(run: RunRecord, decisions: Decisions, values: dict[str, Any]) -> tuple[Any, Decisions]:
    """Trade an opinion on a fresh account, the run's parameters with `values`."""
    params = run.params.with_values(values)
    state = TradeState.fresh(params, len(run.bars.symbols))
    return run_trade(run.bars, decisions.raw_action, decisions.raw_confidence, params, state, money=decisions.money), decisions


def _bootstrap(run: RunRecord, rows: slice, ensemble: Any) -> Bootstrap:
    net = bar_returns(run.result.equity[rows])
    block = block_length([net, net - bar_returns(ensemble.equity[rows])], run.params.broker.max_holding_bars)
    return Bootstrap(rows.stop - rows.start, block)


def _result(step: Any) -> tuple[Any, Decisions]:
    """Split a step into result and opinion: it is a replay of the account alone, or a whole engine's."""
    return step if isinstance(step, tuple) else (step, step.decisions)


def _per_bar(run: RunRecord, result: Any) -> F8:
    """PnL of every bar [n], quote."""
    return np.diff(result.equity, prepend=run.params.broker.initial_cash)


def _bounds(per_bar: F8, bootstrap: Bootstrap) -> F8:
    bounds: F8 = interval(bootstrap.sums(per_bar[:, None]))[:, 0]
    return bounds


def _rows(
    run: RunRecord, name: str, regime: NDArray[np.int8], replays: tuple[Any, Any, Any], tools: tuple[Bootstrap, slice]
) -> pd.DataFrame:
    """Sixteen rows of one step. replays: the step before, the step, the run without it, or None."""
    before, step, without = replays
    bootstrap, tested = tools
    out = pd.DataFrame(math.nan, index=pd.MultiIndex.from_product([[name], SLICES], names=["layer", "regime"]), columns=list(FIGURES))
    if step is not None:
        result, decisions = _result(step)
        own = _sums(result.pnl, regime)
        out["pnl"] = own
        out["contribution"] = own if before is None else own - _sums(_result(before)[0].pnl, regime)
        gain = _per_bar(run, result) - (0.0 if before is None else _per_bar(run, _result(before)[0]))
        out.loc[(name, "total"), ["low", "high"]] = _bounds(gain[tested], bootstrap)
        _describe(out, run, result, decisions, regime)
    if without is not None:
        other = _result(without)[0]
        out["effect"] = _sums(run.result.pnl, regime) - _sums(other.pnl, regime)
        gain = _per_bar(run, run.result) - _per_bar(run, other)
        out.loc[(name, "total"), ["effect_low", "effect_high"]] = _bounds(gain[tested], bootstrap)
    return out


def _describe(out: pd.DataFrame, run: RunRecord, result: Any, decisions: Decisions, regime: NDArray[np.int8]) -> None:
    """Fill in accuracy of approvals, trades, fees and turnover by slice, and the drawdown of the whole."""
    approved = (result.governor_reason == Reason.APPROVED) & (run.labels >= 0)
    scored = slice_sums(np.bincount(regime[approved], minlength=len(CELLS)))
    right = slice_sums(np.bincount(regime[approved & (decisions.raw_action == run.labels)], minlength=len(CELLS)))
    with np.errstate(invalid="ignore"):
        out["accuracy"] = right / scored
    fills = result.fills
    kind = regime[np.maximum(fills["bar"] - 1, 0), fills["symbol"]]  # a cell's PnL runs from its close to the next (D-94)
    for figure, weights in (("n_trades", opens(fills)), ("fees", fills["fee"]), ("turnover", np.abs(fills["qty"] * fills["price"]))):
        out[figure] = slice_sums(np.bincount(kind, weights, minlength=len(CELLS)))
    out.loc[(out.index[0][0], "total"), "max_drawdown"] = drawdown(np.append(run.params.broker.initial_cash, result.equity)).max()


def _sums(pnl: F8, regime: NDArray[np.int8]) -> F8:
    """PnL of the sixteen slices from PnL per bar and symbol: a bar's PnL belongs to the regime at the close before it (D-94)."""
    kind = np.vstack([regime[:1], regime[:-1]])
    return slice_sums(np.bincount(kind.reshape(-1), pnl.reshape(-1), minlength=len(CELLS)))
