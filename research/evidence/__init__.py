"""What does a run prove? Accuracy with intervals, rates, money and the verdict (`spec` section 17).

- `regimes`: which of nine kinds of market each cell was in; sixteen slices
- `scoring`: accuracy blocks from sums per bar; `bootstrap`: their intervals, blocks cut in time; `accuracy`: who is scored where
- `calibration`: is a confidence of 0.7 right in 70 of 100 cases; `compare`: is one opinion better than another
- `rates`: how often each layer and each rule acted; `dead`, `thresholds`: which rules and settings never can
- `provenance`: where every prediction came from
- `sharpe`: probabilistic and deflated Sharpe ratio; `verdict`: edge, no edge, not enough data
- `summary`: all of it as one dictionary

Read here: `summarise(run)`, `headline(summary)`, `regime_table(summary)`.
"""

from research.evidence.headline import headline, regime_table
from research.evidence.summary import summarise

__all__ = ["headline", "regime_table", "summarise"]
