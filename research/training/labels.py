"""Labels: rules that say what would have been right at each bar, by what lies ahead of it (`research.training.targets`).

A label of fixed horizon reads the return `r = close[t + h] / close[t] - 1` over exactly h rows of the grid: without a valid bar at both
ends it is invalid, never HOLD (`spec` 2, D-23, D-82). One label per run trains and scores every layer.

| id     | rows | BUY / SELL                                                | edge counts |
| ------ | ---- | --------------------------------------------------------- | ----------- |
| L1     | 5    | r beyond 1.5 %                                            | no          |
| L2, L3 | 4    | r beyond 0.5 %                                            | L3          |
| L4     | 4    | r beyond a symbol's 67th / 33rd percentile, L4_75: 75/25  | yes         |
| L5     | 1    | r beyond 0.4 %                                            | no          |
| L10    | 5    | a long / a short from close to close pays after its costs | no          |
| L6     | -    | the outcome of recorded trades: `outcome_labels`          | -           |
| FR     | 4    | r beyond 0.43 standard deviations; trees are fitted to r  | no          |
| TB     | 4    | a barrier one standard deviation above / below comes first| yes         |
| XS     | 4    | r among the upper / lower third of the symbols            | no          |

`L3@8` looks 8 rows ahead, `L3@4+24` is of models that learn two horizons (`horizons_of`). `L3:vol` has its thresholds in standard
deviations of a return over its rows, one for each percent.
Percentiles are fitted on training rows (D-25), so L4 needs the thresholds that `fit_thresholds` returns.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.params import Params
from qtcore.rules import Broker
from qtcore.types import F8, I8, Action, Bars
from research.errors import ConfigError, ModelError
from research.training.targets import (
    BARRIER,
    RANK,
    RETURN,
    UNITS,
    VOLATILITY,
    first_barrier,
    forward_return,
    rank_in_row,
    trailing_volatility,
)

MIN_CLASS_SHARE = 0.05  # of the training rows, for L1 to be taken by "auto" (D-23)
MIN_OWN_RETURNS = 100  # below this many training returns a symbol takes the percentiles of all symbols together


@dataclass(frozen=True)
class Label:
    """A rule that turns a forward return into SELL, HOLD or BUY.

    horizon: rows ahead. sell, buy: thresholds in the `unit` of what lies ahead (`research.training.targets`), or shares in (0, 1) where
    `is_percentile`. is_inclusive: what lies exactly on a threshold counts as a move. is_score: models that can are fitted to the number
    itself. Raises ModelError on an unknown unit, and on thresholds that the unit does not allow.
    """

    id: str
    horizon: int
    sell: float
    buy: float
    is_inclusive: bool = False
    is_percentile: bool = False
    unit: str = RETURN
    is_score: bool = False

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ModelError(f"unit of a label must be one of {', '.join(UNITS)}, was {self.unit!r}")
        if self.is_score and (self.is_percentile or self.unit == BARRIER or not self.sell < self.buy):
            was = f"{self.unit}, sell={self.sell}, buy={self.buy}" + (", of percentiles" if self.is_percentile else "")
            raise ModelError(f"a label of a score must have thresholds sell < buy of a return, a volatility or a rank, was {was}")
        if self.unit == BARRIER and (self.is_percentile or not self.sell < 0.0 < self.buy):
            raise ModelError(
                f"a label of barriers must have sell below 0 and buy above, in standard deviations, was sell={self.sell}, buy={self.buy}"
                + (", of percentiles" if self.is_percentile else "")
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for JSON."""
        return dict(self.__dict__)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Label":
        """Read `to_dict`; the file that held it was checked for `LABEL_SHAPE`."""
        return cls(**{name: stored[name] for name in cls.__dataclass_fields__ if name in stored})


LABEL_SHAPE = {
    "id": str,
    "horizon": int,
    "sell": float,
    "buy": float,
    "is_inclusive?": bool,
    "is_percentile?": bool,
    "unit?": str,
    "is_score?": bool,
}
LABELS = {
    label.id: label
    for label in (
        Label("L1", 5, -0.015, 0.015),
        Label("L2", 4, -0.005, 0.005),
        Label("L3", 4, -0.005, 0.005, is_inclusive=True),
        Label("L4", 4, 0.33, 0.67, is_inclusive=True, is_percentile=True),
        Label("L4_75", 4, 0.25, 0.75, is_inclusive=True, is_percentile=True),
        Label("L5", 1, -0.004, 0.004),
        Label("FR", 4, -0.43, 0.43, unit=VOLATILITY, is_score=True),  # thirds of a normal
        Label("TB", 4, -1.0, 1.0, is_inclusive=True, unit=BARRIER),
        Label("XS", 4, -1 / 6, 1 / 6, unit=RANK),
    )
}


def cost_label(broker: Broker, horizon: int = 5) -> Label:
    """Return L10: BUY where a long from close to close earns more than fees and slippage of both sides, SELL likewise for a short.

    With fee f and slippage s a long pays when `r > (1+s)(1+f) / ((1-s)(1-f)) - 1`, a short when `r < (1-s)(1-f) / ((1+s)(1+f)) - 1`.
    A trade is profitable (D-26's binary target) where its action equals this label.
    """
    paid = (1.0 + broker.slippage_rate) * (1.0 + broker.fee_rate)
    received = (1.0 - broker.slippage_rate) * (1.0 - broker.fee_rate)
    return Label("L10", horizon, received / paid - 1.0, paid / received - 1.0)


def horizons_of(name: str | Label) -> tuple[str | Label, ...]:
    """Return the labels of a training of several horizons, `L3@4+24` or `L3@4+24:vol`, one for each; another label alone.

    Raises ModelError unless the horizons rise.

    >>> horizons_of("L3@4+24:vol"), horizons_of("L3")
    (('L3@4:vol', 'L3@24:vol'), ('L3',))
    """
    if isinstance(name, Label) or "+" not in name:
        return (name,)
    plain, colon, unit = name.partition(":")
    base, _, told = plain.partition("@")
    bars = [int(each) if each.isdecimal() else 0 for each in told.split("+")]
    if base == "auto":
        raise ConfigError(f"label (--label, run.label) of several horizons must name its rule, as in L3@4+24, was {name!r}")
    if not base or any(b <= a for a, b in pairwise([0, *bars])):
        rule = "label (--label, run.label) of several horizons must have them rise, in bars, as in L3@4+24 or L3@4+24:vol"
        raise ModelError(f"{rule}, was {name!r}")
    return tuple(f"{base}@{each}{colon}{unit}" for each in bars)


def one_horizon(name: str | Label) -> None:
    """Raise ModelError on a label of several horizons, where a figure of one is asked for."""
    if len(horizons_of(name)) > 1:
        raise ModelError(f"label must be of one horizon here, was {name!r}; name one, such as {horizons_of(name)[0]}")


def of_several(label: Label, later: Sequence[int]) -> Label:
    """Return the label of the first of several horizons, whose id names all; later: the others, in bars.

    >>> of_several(get_label("L3:vol"), (24,)).id
    'L3@4+24:vol'
    """
    name, colon, unit = label.id.partition(":")
    return replace(label, id=f"{name.partition('@')[0]}@{'+'.join(map(str, (label.horizon, *later)))}{colon}{unit}") if later else label


def get_label(name: str | Label, broker: Broker | None = None) -> Label:
    """Find a label by its id, `L3@8` with another horizon, `L3:vol` or `L3@8:vol` in units of volatility.

    broker: whose costs L10 takes. Raises UserError on an unknown id.
    """
    if isinstance(name, Label):
        return name
    if "+" in name:
        rule = "label must be of one horizon where no models are trained for each"
        raise ModelError(f"{rule}, was {name!r}; give it to `qt train`, or to `qt backtest` without --predictions")
    plain, colon, unit = name.partition(":")
    if colon:
        return in_volatility(get_label(plain, broker), unit)
    plain, at, horizon = name.partition("@")
    if at:
        return with_horizon(get_label(plain, broker), int(horizon) if horizon.isdecimal() else 0)
    if name == "L10":
        return cost_label(broker or Broker())
    if name == "L6":
        raise ModelError("label must be known before trading, was 'L6'; make it from recorded trades with labels.outcome_labels")
    if name not in LABELS:
        known = f"auto, {', '.join(LABELS)} or L10"
        forms = "L3@8 looks 8 rows ahead, L3:vol in units of volatility, L3@8:vol both"
        raise ConfigError(f"label (--label, run.label) must be {known}, was {name!r}; {forms}")
    return LABELS[name]


def in_volatility(label: Label, unit: str = "vol") -> Label:
    """Return a label of returns whose thresholds are in standard deviations, one for each percent; percentiles stay what they are."""
    if unit != "vol":
        raise ConfigError(f"label (--label, run.label) must end in :vol where it has a unit, was {label.id}:{unit}")
    if label.unit != RETURN or label.id.startswith("L10"):
        what = "pays costs, which are no matter of volatility" if label.unit == RETURN else "has a unit of its own"
        raise ConfigError(f"label (--label, run.label) with :vol must be one of fixed returns or percentiles, was {label.id}, which {what}")
    scale = 1.0 if label.is_percentile else 100.0
    return replace(label, id=f"{label.id}:vol", sell=label.sell * scale, buy=label.buy * scale, unit=VOLATILITY)


def look_ahead(bars: Bars, label: Label, volatility: F8 | None = None) -> tuple[F8, I8]:
    """Return what lies ahead of every cell in the label's unit (`research.training.targets`), and the row that decides it, [n, S] each.

    The first is NaN where it is not known. volatility: `trailing_volatility` of the bars, where it is at hand. Raises ModelError where
    too few symbols are there to rank.
    """
    check_symbols(label, len(bars.symbols))
    scale, end = np.ones(bars.close.shape), np.broadcast_to(label_end(bars.n, label)[:, None], bars.close.shape)
    if label.unit in (VOLATILITY, BARRIER):
        moves = trailing_volatility(bars) if volatility is None else volatility
        scale = np.where(moves > 0.0, moves, np.nan) * math.sqrt(label.horizon)
    if label.unit == BARRIER:
        side, end = first_barrier(bars, label.horizon, *(bars.close * (1.0 + level * scale) for level in (label.sell, label.buy)))
        return np.where(side > 0.0, label.buy, np.where(side < 0.0, label.sell, side)), end
    returns = forward_return(bars.close, label.horizon)
    return (rank_in_row(returns) if label.unit == RANK else returns / scale), end


def check_symbols(label: Label, n_symbols: int) -> None:
    """Raise ModelError where a label ranks symbols and these are too few."""
    from qtcore.features.registry import LEAST  # a label is known before there are kernels

    if label.unit == RANK and n_symbols < LEAST:
        remedy = f"give {LEAST} symbols or more, or choose another label"
        raise ModelError(f"label {label.id} ranks a row's symbols, so there must be {LEAST} or more, was {n_symbols}; {remedy}")


def fit_thresholds(returns: F8, label: Label, rows: Any) -> tuple[F8, F8]:
    """Fit SELL and BUY thresholds per symbol on training rows; fixed labels give their constants.

    returns [n, S]: what `look_ahead` gives; rows: indices, mask or slice of the training rows. Returns two float64 [S]. A symbol with fewer
    than 100 training returns takes the percentiles of all symbols together, NaN (no label) when there are none.
    """
    n_symbols = returns.shape[1]
    if not label.is_percentile:
        return np.full(n_symbols, label.sell), np.full(n_symbols, label.buy)
    shares, seen = [label.sell, label.buy], returns[rows]
    everyone = _percentiles(seen, shares)
    fitted = [_percentiles(column, shares) if np.count_nonzero(column == column) >= MIN_OWN_RETURNS else everyone for column in seen.T]
    low, high = np.array(fitted).T
    return np.ascontiguousarray(low), np.ascontiguousarray(high)


def _percentiles(returns: F8, shares: Sequence[float]) -> F8:
    known = returns[returns == returns]
    return np.quantile(known, shares) if len(known) else np.full(2, np.nan)


def classify(returns: F8, label: Label, low: F8, high: F8) -> NDArray[np.int8]:
    """Turn returns [n, S] into classes by thresholds [S]: int8 [n, S], -1 where return or thresholds are NaN.

    Where both sides claim a return (equal percentiles, a price that hardly moves) it is HOLD.
    """
    with np.errstate(invalid="ignore"):
        buy = returns >= high if label.is_inclusive else returns > high
        sell = returns <= low if label.is_inclusive else returns < low
    out = np.full(returns.shape, Action.HOLD, np.int8)
    out[buy & ~sell] = Action.BUY
    out[sell & ~buy] = Action.SELL
    out[np.isnan(returns) | np.isnan(low) | np.isnan(high)] = Action.ABSENT
    return out


def limits(label: Label, fitted: Mapping[str, Mapping[str, float | None]], symbols: Sequence[str]) -> tuple[F8, F8]:
    """Give the thresholds (sell, buy) of symbols, float64 [S]: those that were fitted, else the rule's own; NaN where it is of percentiles.

    fitted: returns by `sell` and `buy`, then symbol.
    """
    own = {"sell": None, "buy": None} if label.is_percentile else {"sell": label.sell, "buy": label.buy}
    low, high = (np.array([fitted[side].get(name, own[side]) for name in symbols], np.float64) for side in ("sell", "buy"))
    return low, high


def make_labels(bars: Bars, label: str | Label, thresholds: tuple[F8, F8] | None = None) -> tuple[NDArray[np.int8], I8]:
    """Label every cell: (int8 [n, S] SELL 0 HOLD 1 BUY 2, -1 invalid; row in which each row's labels end, int64 [n]).

    thresholds: what `fit_thresholds` gave; needed by percentile labels. A label end beyond the last row means "not yet known".

    >>> from research.data import simulate
    >>> labels, end = make_labels(simulate("random_walk", n_bars=50), "L3")
    >>> labels.shape, int(end[0]), set(labels[-4:].ravel().tolist())
    ((50, 5), 4, {-1})
    """
    rule = get_label(label)
    if rule.is_percentile and thresholds is None:
        raise ValueError(f"label {rule.id} must come with thresholds fitted on training rows, was without; call fit_thresholds first")
    ahead, _ = look_ahead(bars, rule)
    low, high = thresholds or fit_thresholds(ahead, rule, slice(0, 0))
    return classify(ahead, rule, low, high), label_end(bars.n, rule)


def label_end(n: int, label: Label) -> I8:
    """Row whose close decides the label of each row, int64 [n]."""
    return np.arange(n, dtype=np.int64) + label.horizon


def resolve_label(bars: Bars, label: str | Label, train_rows: Any, broker: Broker | None = None) -> Label:
    """Settle "auto" on the training rows (D-23): L1 where each class has at least 5 % of them, else L4.

    train_rows: rows whose labels end before the first test row, so that the choice knows nothing of the scored period.
    """
    if label != "auto":
        return get_label(label, broker)
    first = LABELS["L1"]
    classes = make_labels(bars, first)[0][train_rows]
    counts = np.bincount(classes[classes >= 0].ravel(), minlength=3)
    return first if counts.sum() and counts.min() >= MIN_CLASS_SHARE * counts.sum() else LABELS["L4"]


def learned_rows(n: int, train_share: float = 0.4) -> int:
    """Return how many of n rows stand for the training part where nothing of ours was trained: `auto` and percentiles learn from them."""
    return int(n * train_share)


def score_labels(
    bars: Bars, label: str | Label = "auto", broker: Broker | None = None, train_share: float = 0.4
) -> tuple[NDArray[np.int8], Label]:
    """Label bars that nothing of ours was trained on (imported predictions): the first `train_share` of rows stands for the training part.

    Returns (int8 [n, S], resolved label).
    """
    rows = np.arange(learned_rows(bars.n, train_share))
    rule = resolve_label(bars, label, rows[rows + LABELS["L1"].horizon < len(rows)], broker)
    ahead, _ = look_ahead(bars, rule)
    return classify(ahead, rule, *fit_thresholds(ahead, rule, rows[rows + rule.horizon < len(rows)])), rule


def outcome_labels(
    shape: tuple[int, int], row: I8, column: I8, action: NDArray[np.int8], is_win: NDArray[np.bool_], end: I8
) -> tuple[NDArray[np.int8], I8]:
    """Make L6 of recorded trades: the traded action where a trade won, HOLD where it did not, invalid where none was made.

    The original labels what was not traded with the recorded action of the ensemble, which is no outcome but a function of what a model is
    shown: it would learn to repeat the ensemble and score 100 %.

    shape: n bars, S symbols. row, column, action, is_win, end [k]: decision row, symbol, action, outcome and closing row of each trade; the
    last one of a cell counts. Returns (int8 [n, S], -1 invalid; latest closing row of each row's labels int64 [n]).
    """
    out = np.full(shape, Action.ABSENT, np.int8)
    last = np.arange(len(out), dtype=np.int64)
    for i in range(len(row)):
        out[row[i], column[i]] = action[i] if is_win[i] else Action.HOLD
        last[row[i]] = max(last[row[i]], end[i])
    return out, last


def uniqueness(labels: NDArray[np.int8], end: I8) -> F8:
    """Average uniqueness of overlapping labels (Lopez de Prado 2018, 4.2): mean over a label's bars of 1 / labels alive on that bar.

    labels [n, S], -1 invalid; end [n] or [n, S]: last row of each label, at t or after it; that of no label is not read. A label made at t
    lives on rows t+1..end[t]. Returns float64 [n, S], NaN where there is no label. Its sum is the effective number of labels, before
    correlation between symbols.
    """
    n, n_symbols = labels.shape
    has, made, column = labels >= 0, np.arange(n)[:, None], np.arange(n_symbols)
    last = np.where(has, end if end.ndim == 2 else end[:, None], made)
    alive = np.zeros((max(n, int(last.max(initial=0)) + 1) + 1, n_symbols))
    alive[1 : n + 1] = has
    np.subtract.at(alive, (last + 1, column), has)
    alive = np.cumsum(alive, axis=0)
    share = np.cumsum(np.divide(1.0, alive, out=np.zeros_like(alive), where=alive > 0.0), axis=0)
    mean = (share[last, column] - share[:n]) / np.maximum(last - made, 1)
    return np.where(has, mean, np.nan)


def held_for(params: Params, label: Label, later: Sequence[int] = ()) -> Params:
    """Return `params` whose holding time is the label's horizon where it was left to the label.

    later: further horizons of the models, in bars. Then a trade lasts as long as the horizon that speaks, and another time is refused.
    """
    if later and params.broker.max_holding_bars not in (0, label.horizon):
        rule = f"broker.max_holding_bars must be left out with models of several horizons ({label.id}), whose trades last as long as these"
        raise ModelError(f"{rule}, was {params.broker.max_holding_bars}")
    if params.broker.max_holding_bars > 0:
        return params
    return params.with_values({"broker.max_holding_bars": label.horizon})


def with_horizon(label: Label, horizon: int) -> Label:
    """Return the label with another horizon; its id says so (`L3@8`)."""
    if horizon < 1:
        raise ModelError(f"label horizon must be at least 1 row, was {horizon}")
    name, colon, unit = label.id.partition(":")
    own = f"{name.partition('@')[0]}@{horizon}{colon}{unit}"
    return label if horizon == label.horizon else replace(label, id=own, horizon=horizon)
