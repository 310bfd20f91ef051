"""Parameter sweep: what other settings would have earned, and what the search itself is worth.

- `rules`: constraints and objective; `adaptive`: a search that learns from its trials
- `work`: settings are run, a part or a piece of one; `run`: part by part, resumable; `trials`: the result
- `curves`: what every value of a threshold earns, exactly; `walk`: pick on one stretch, score on the next
- `counting`: how a row, or what a fold tried, becomes a trial of the ledger; `search_significance`: what the search itself is worth
- `drivers`: who ran the settings, and why not the quick one
- `digest`: what a page needs of a million rows; `page`: the sweep in HTML

Axes and settings are in `research.runs.space`, what no setting changes in `research.runs.case`, METRICS as columns in
`research.runs.metrics`; `research.workflow.sweep_job` is what `qt sweep` does.

Read here: `sweep(bars, predictions, grid)` returns `SweepResult`; `threshold_curve`, `walk_forward`.
"""

from research.sweep.curves import threshold_curve
from research.sweep.run import sweep
from research.sweep.trials import SweepResult
from research.sweep.walk import walk_forward

__all__ = ["SweepResult", "sweep", "threshold_curve", "walk_forward"]
