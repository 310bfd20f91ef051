"""Power: what a history can show at all, asked before any work, of its candles and of what was tried on them so far.

The verdict's own functions judge accounts of normal daily returns on the days that a walk-forward would test, hedged on the real market:
the smallest Sharpe ratio that is an edge in 80 % of them. An account earns beside the market here; one that is skewed, autocorrelated or
idle on most days needs more. Accuracies are counted in the events that the moves of the real labels are worth, overlap and what symbols
share taken off, as if an opinion always said the same side.
"""

from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.check import as_bars
from qtcore.types import F8, Bars
from research.data.sketch import sketch
from research.errors import DataError, several
from research.evidence.alpha import Hedge
from research.evidence.finding import LEAST_HELD
from research.evidence.ledger import Ledger
from research.evidence.sign_test import F4, drawn, independent, limits
from research.evidence.trials import check_trials
from research.training.labels import Label, learned_rows, score_labels
from research.training.scoring.bootstrap import Bootstrap, block_length
from research.training.scoring.opinions import effective

POWER, ACCOUNTS, STEPS = 0.8, 1_000, 9  # STEPS: halvings of the Sharpe ratios [0, MOST] between which the answer lies
MOST, SMALL = 16.0, 1e-6  # SMALL: deviation of a period, so small that returns add up
SHARPES = (0.5, 1.0, 1.5, 2.0)
DIFFERING = 0.1  # of the moves, on which two layers say different sides
Z = 1.6448536269514722 + 0.8416212335729143  # of LEVEL, one-sided, and of POWER


@dataclass(frozen=True)
class Power:
    """What a history can show in 80 % of the cases.

    years, blocks: of the test; trials: so far and the next one, or as many as were `declared` or, `is_assumed`, asked for; critical:
    median t value that the account must exceed; sharpe: a year, NaN where no Sharpe ratio up to 16 is found; found: share in which each of
    SHARPES is; years_needed: of the test, for each of them; moves, n_effective: labels that are no HOLD, and what they are worth; accuracy:
    what directions must be right beyond one half; layer_difference: what one of two layers that differ in a tenth of the moves must be
    right more often, of all moves; both NaN where always being right would not be enough; label: whose.
    """

    years: float
    blocks: int
    is_daily: bool
    trials: int
    declared: int
    is_assumed: bool
    critical: float
    sharpe: float
    found: dict[float, float]
    years_needed: dict[float, float]
    label: str
    moves: int
    n_effective: float
    accuracy: float
    layer_difference: float

    def to_dict(self) -> dict[str, Any]:
        """Return it in the form of JSON, None for NaN."""
        values = asdict(self) | {"found": _named(self.found), "years_needed": _named(self.years_needed)}
        return {name: None if value != value else value for name, value in values.items()}


def power(
    bars: Bars, label: str | Label = "auto", ledger: Ledger | None = None, trials: int | None = None, train_share: float = 0.4
) -> Power:
    """Say what `bars` can show. trials: how many independent ones there will have been, in place of those that the ledger knows.

    train_share: of the bars, before the test. Raises UserError where the test would be too short for any verdict.

    >>> from research.data import simulate
    >>> found = power(simulate("random_walk", n_bars=6_000), trials=1)
    >>> found.blocks, 1.5 < found.critical < 1.8, found.sharpe > 2.0
    (31, True, True)
    """
    bars = as_bars(bars)
    first = learned_rows(bars.n, train_share)
    hedge = Hedge.of(bars, slice(first, bars.n))
    if len(hedge.keys) < LEAST_HELD:
        raise DataError(
            f"the test must have {LEAST_HELD} blocks of time or more, was {len(hedge.keys)} of {several(bars.n, 'bars')}; give more"
        )
    name, highest, n, declared = _tried(bars, ledger, trials)
    noise = np.random.default_rng(0).standard_normal((ACCOUNTS, len(hedge.ends)))
    per_period = 1.0 / sqrt(hedge.per_year)

    def share(sharpe: float) -> tuple[float, float]:
        t, critical = _judged(hedge, noise + sharpe * per_period, name, highest)
        return float(np.mean(t > critical)), float(np.median(critical))

    low, high = 0.0, MOST
    is_found = share(MOST)[0] >= POWER
    for _ in range(STEPS):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if share(middle)[0] >= POWER else (middle, high)
    sharpe = 0.5 * (low + high) if is_found else np.nan
    years = len(hedge.ends) / hedge.per_year
    labels, rule = score_labels(bars, label, train_share=train_share)
    moves, worth = worth_of(labels[first:], rule.horizon)
    return Power(
        years,
        len(hedge.keys),
        hedge.is_daily,
        n,
        declared,
        trials is not None,
        share(0.0)[1],
        sharpe,
        {each: share(each)[0] for each in SHARPES},
        {each: years * (sharpe / each) ** 2 for each in SHARPES},
        rule.id,
        moves,
        worth,
        _at_most(0.5, 0.5 * Z, worth),
        _at_most(DIFFERING, Z * sqrt(DIFFERING), worth),
    )


def worth_of(labels: NDArray[np.int8], horizon: int) -> tuple[int, float]:
    """Count the moves of labels [n, S], and the independent ones that they are worth to an opinion of one side."""
    ups, moves = (labels == 2).sum(axis=1), (labels == 0).sum(axis=1) + (labels == 2).sum(axis=1)
    if not moves.any():
        return 0, 0.0
    bootstrap = Bootstrap(len(labels), block_length([2.0 * ups - moves], horizon))
    drawn_ups, drawn_moves = bootstrap.sums(np.stack([ups, moves], axis=-1)).T
    rates = np.where(drawn_moves > 0.0, drawn_ups / np.maximum(drawn_moves, 1.0), np.nan)
    n, rate = moves.sum(), ups.sum() / moves.sum()
    return int(n), float(effective(n, rate, rates, np.asarray(np.count_nonzero(moves) / bootstrap.block)))


def _tried(bars: Bars, ledger: Ledger | None, trials: int | None) -> tuple[str, F4, int, int]:
    """Return the name of the lineage, the highest drawn t values of all trials but the next one, their number with it, and the declared."""
    data = sketch(bars)
    if trials is not None:
        check_trials("--trials", trials)
        return data.digest, independent(data.digest, trials - 1), trials, 0
    ledger = ledger or Ledger()
    known = ledger.tried(data)
    return ledger.lineage_name(data), ledger.luck(data), max(known.trials + 1, known.declared), known.declared


def _judged(hedge: Hedge, returns: F8, name: str, highest: F4) -> tuple[F8, F4]:
    """Return t value and critical value of accounts [P] with these returns, of a deviation of 1, each alone beside all other trials."""
    found = hedge.outcome(1.0 + SMALL * np.cumsum(returns, axis=1), np.ones(len(returns)))
    return np.nan_to_num(found.t, nan=-np.inf), limits(np.maximum(drawn(name, found.keys, found.units), highest[:, None]))


def _at_most(most: float, error: float, worth: float) -> float:
    """Return the error of so many events, NaN where it is above the `most` that there can be."""
    return found if worth > 0.0 and (found := error / sqrt(worth)) <= most else np.nan


def _named(values: dict[float, float]) -> dict[str, float | None]:
    return {f"{key:g}": None if value != value else value for key, value in values.items()}


CAVEAT = (
    "For normal daily returns that no market explains; more is needed by accounts that are idle on most days, skewed to the left or "
    "autocorrelated. 80 % power at 5 % false edges."
)


def sentence(found: Power) -> str:
    """Say what the history can show."""
    blocks = "of five days" if found.is_daily else "of a twentieth of the test or less"
    smallest = (
        f"a Sharpe ratio below {found.sharpe:.1f} a year" if np.isfinite(found.sharpe) else f"any Sharpe ratio up to {MOST:.0f} a year"
    )
    tried = several(found.trials, "independent trials" if found.is_assumed else "trials")
    tried += ", as many as were declared," if found.trials == found.declared else ""
    length = f"{found.years:.1f} years" if found.years >= 1.0 else f"{365.0 * found.years:.0f} days"
    first = (
        f"The test is {length}, {found.blocks} blocks {blocks}; after {tried} its t value must exceed "
        f"{found.critical:.2f}, so {smallest} stays unseen more often than in 1 of 5 cases."
    )
    if not found.n_effective:
        return f"{first} Label {found.label} has no moves here."
    side, layers = "tell an opinion on their direction from a coin", "tell two layers apart that disagree on one move in ten"
    right, better = 100.0 * (0.5 + found.accuracy), 100.0 * (0.5 + 0.5 * found.layer_difference / DIFFERING)
    shown = [
        f"too few to {what}" if value != value else f"to {what} {who} must be right in {value:.1f} % of {them}"
        for what, who, value, them in ((side, "it", right, "them"), (layers, "the better one", better, "those"))
    ]
    moves = f"The {found.moves:,} moves (BUY or SELL) of label {found.label} are worth {found.n_effective:,.0f} independent ones"
    return f"{first} {moves}: {'; '.join(shown)}."
