"""Candles in, Bars out: read, judge, align, stream, resample, simulate.

`load_bars` reads anything into Bars; `load` returns the report beside them.
"""

from research.data.load import DataWarning, Loaded, LoadReport, add_funding, load, load_bars
from research.data.sample import sample
from research.data.simulate import WORLDS, simulate

__all__ = ["WORLDS", "DataWarning", "LoadReport", "Loaded", "add_funding", "load", "load_bars", "sample", "simulate"]
