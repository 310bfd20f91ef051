"""Meta learning: training, artefacts and use of the learned models of `qtcore.meta`.

- `train_meta(bars, predictions, params)` fits walk-forward on out-of-sample base predictions and returns a `MetaSchedule`, which
  `Engine(meta_model=...)` and `research.backtest(..., meta=...)` take;
- `train_from_log(predictions.jsonl, outcomes.csv)` fits the same from what was logged;
- `MetaPredictor(schedule).predict(votes, symbol)` is the interface of one answer at a time;
- `MetaSchedule.save` and `load` keep it in inert files;
- `meta_scores(run.result, run.params)` says what the model thinks of every cell, asked or not.
"""

from research.training.meta.logs import read_log, train_from_log
from research.training.meta.predictor import V1_THRESHOLD, MetaPredictor
from research.training.meta.schedule import MetaArtefact, MetaSchedule
from research.training.meta.scores import meta_scores
from research.training.meta.train import train_meta

__all__ = [
    "V1_THRESHOLD",
    "MetaArtefact",
    "MetaPredictor",
    "MetaSchedule",
    "meta_scores",
    "read_log",
    "train_from_log",
    "train_meta",
]
