"""What would other settings have earned, and what is the search itself worth?

- `space`: axes of values, the settings of a grid or a random search; `rules`: constraints and objectives
- `adaptive`: a search that learns from its trials; `worth`: what the search itself is worth
- `case`: bars and votes with everything that no setting changes; `figures`: METRICS as columns
- `work`: settings are run, a part or a piece of one; `run`: part by part, resumable; `trials`: the result
- `curves`: what every value of a threshold earns, exactly; `walk`: pick on one stretch, score on the next
- `counting`: how a row, or what a fold tried, becomes a trial of the ledger
- `drivers`: who ran the settings, and why not the quick one
- `digest`: what a page needs of a million rows; `page`: the sweep in HTML; `workflow`: what `qt sweep` does

Read here: `sweep(bars, predictions, grid)` returns `SweepResult`; `threshold_curve`, `walk_forward`.
"""

from research.sweep.curves import threshold_curve
from research.sweep.run import sweep
from research.sweep.trials import SweepResult
from research.sweep.walk import walk_forward

__all__ = ["SweepResult", "sweep", "threshold_curve", "walk_forward"]
