"""Evidence of a run: accuracy with intervals, rates, money and the finding (`spec` section 17).

- `accuracy`: who is scored on which cells, by the statistics of `research.training.scoring`
- `rates`: how often each layer and each rule acted; `reachability`, `thresholds`: which rules and settings never can
- `attribution`: PnL by layer and rule; `traders`: who made no trade, and why; `provenance`: where every prediction came from
- `waterfall`: the same decisions under other fills and costs; `lacked`: what the data lacked
- `alpha`: what was earned beyond the market, in blocks; `sign_test`: what luck reaches among all that was tried, by flipping their signs
- `sharpe`: probabilistic and deflated Sharpe ratio; `finding`: edge, no edge, not enough data
- `plausibility`, `planted`: figures too good to be honest, and whether a leak would be noticed
- `ledger`, `ledger_reading`, `family`, `trials`, `standing`, `tried`: what was tried on the same market
- `overfitting`: what a search is worth
- `cpcv`, `leakage`, `nullworlds`, `surrogates`, `meta_comparison`: experiments that train again; `envelope`: bands for live
- `summary`: all of it as one dictionary; `headline`: its short tables

Read here: `summarise(run)`, `headline(summary)`, `regime_table(summary)`.
"""

from research.evidence.headline import headline, regime_table
from research.evidence.summary import summarise

__all__ = ["headline", "regime_table", "summarise"]
