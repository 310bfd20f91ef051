"""Market data: candles in, Bars out. Read, judge, align, stream, resample, simulate.

`load_bars` reads anything into Bars; `load` returns the report beside them; `stream_bars` yields the same bars in blocks. `save_bars`
writes them so that they come back to the bit. Nothing here fills a hole.
"""

from research.data.facts import bars_per_year, fingerprint
from research.data.frames import save_bars, to_pandas, to_polars
from research.data.funding import add_funding
from research.data.grid import closes_of
from research.data.load import DataWarning, Loaded, LoadReport, load, load_bars
from research.data.sample import sample
from research.data.simulate import WORLDS, made_again, simulate
from research.data.stream import stream_bars

__all__ = [
    "WORLDS",
    "DataWarning",
    "LoadReport",
    "Loaded",
    "add_funding",
    "bars_per_year",
    "closes_of",
    "fingerprint",
    "load",
    "load_bars",
    "made_again",
    "sample",
    "save_bars",
    "simulate",
    "stream_bars",
    "to_pandas",
    "to_polars",
]
