"""Trial statistics by market: what has been tried, and what the best of it is worth. The table of `qt trials`."""

import math
from typing import Any

import pandas as pd

from research.data.sketch import Sketch
from research.evidence import sharpe as sr
from research.evidence.ledger import Ledger
from research.evidence.standing import PENDING, PROVEN
from research.runs.verdict import IMPLAUSIBLE, INVALID


def tried_table(ledger: Ledger, data: Sketch | None = None) -> pd.DataFrame:
    """List the lineages of a ledger, one row each; `data`: only those that share half their candles with it.

    Columns: data_sets, candles, trials, declared (beforehand), of the trials invalid, implausible and pending (not proven), effective,
    first, last (UTC), best (the command of the best whose returns count), proven (was it), sharpe (a year), expected_best (a year, of that
    many trials without skill), probabilistic and deflated (probabilities of skill before and after counting the trials), t and critical
    (the highest t value of what was earned beyond the market, and what it had to exceed; `research.evidence.sign_test`).
    """
    rows = []
    for row in ledger.lineages(data):
        tried, best = row["tried"], row["best"]
        m = _moments(best)
        per_year = math.sqrt(best["bars_per_year"]) if best and best["bars_per_year"] else math.nan
        t, critical = row["highest"] or (math.nan, math.nan)
        rows.append(
            {
                "lineage": row["lineage"],
                "data_sets": row["data_sets"],
                "candles": row["candles"],
                "trials": tried.trials,
                "declared": tried.declared,
                **{name: getattr(tried, name) for name in (INVALID, IMPLAUSIBLE, PENDING)},
                "effective": tried.effective,
                "first": pd.Timestamp(row["first"], tz="UTC"),
                "last": pd.Timestamp(row["last"], tz="UTC"),
                "best": best["name"] if best else "",
                "proven": bool(best) and best["standing"] == PROVEN,
                "sharpe": m.sharpe * per_year,
                "expected_best": sr.expected_best(tried.trials, tried.variance) * per_year,
                "probabilistic": sr.probabilistic_sharpe(m),
                "deflated": sr.deflated_sharpe(m, tried.trials, tried.variance),
                "t": t,
                "critical": critical,
            }
        )
    columns = ["lineage", "data_sets", "candles", "trials", "declared", INVALID, IMPLAUSIBLE, PENDING, "effective", "first", "last"]
    columns += ["best", "proven", "sharpe", "expected_best", "probabilistic", "deflated", "t", "critical"]
    return pd.DataFrame(rows, columns=columns).set_index("lineage")


def _moments(best: dict[str, Any] | None) -> sr.Moments:
    """Moments of a stored trial; NaN where an older ledger did not keep them."""
    if best is None:
        return sr.Moments(math.nan, math.nan, math.nan, 0)
    skew, kurtosis = (math.nan if best[name] is None else best[name] for name in ("skew", "kurtosis"))
    return sr.Moments(best["sharpe"], skew, kurtosis, best["n_bars"] or 0, best["autocorrelation"] or 0.0)
