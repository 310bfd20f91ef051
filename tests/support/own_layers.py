"""A file of layers with one of every kind, beside a helper that holds its model; as small as it can be."""

import shutil
from pathlib import Path

HERE = Path(__file__).parent
TEXT = '''
import numpy as np
import qtcore as qt
import research
from research.live.feeds.feeds import ReplayFeed
from sides import Sides

LOOKBACK = 3


def drop(bars):
    out = np.full(bars.close.shape, np.nan)
    out[LOOKBACK:] = bars.close[LOOKBACK:] / bars.close[:-LOOKBACK] - 1.0
    return out


def bold(votes, planes, params):
    """Buy what fell and sell what rose where somebody votes, as sure as a parameter says."""
    voted, fell = (votes.action >= 0).any(axis=0), planes["drop"] < 0.0
    return np.where(voted, np.where(fell, 2, 0), 1).astype(np.int8), np.where(voted, params.arbiter.gate_confidence, 0.0)


def open_mine(name, symbols=None):
    return ReplayFeed(research.load_bars(f"simulated:{name}?n_bars=500&n_symbols=2", symbols=symbols))


models = {"sides_model": Sides}
features = [qt.Feature("drop", drop, LOOKBACK)]
judge = bold
trade = qt.rebind(qt.trade)
feeds = {"mine": open_mine}
'''


def write_layers(folder: Path, text: str = TEXT, name: str = "mine.py") -> Path:
    """Write the file and its helper; return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "own_models.py", folder / "sides.py")
    (folder / name).write_text(text)
    return folder / name
