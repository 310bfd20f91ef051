"""How does the meta layer learn, and is it worth it? Training, artefacts and use of the learned models of `qtcore.meta`.

- `train_meta(bars, predictions, params)` fits walk-forward on out-of-sample base predictions and returns a `MetaSchedule`, which
  `Engine(meta_model=...)` and `research.backtest(..., meta=...)` take;
- `MetaSchedule.save` and `load` keep it in inert files;
- `meta_scores(run)` says what the model thinks of every cell, asked or not.
"""

from research.meta.schedule import MetaArtefact, MetaSchedule
from research.meta.scores import meta_scores
from research.meta.train import train_meta

__all__ = ["MetaArtefact", "MetaSchedule", "meta_scores", "train_meta"]
