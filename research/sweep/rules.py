"""Constraints and objective of a search: bounds such as `max_drawdown < 0.15`, and the figure that is to be as large as possible."""

import difflib
import math
import operator
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from research.errors import ConfigError, UserError

COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
PATTERN = re.compile(r"\s*([\w.]+)\s*(<=|>=|<|>)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*", re.ASCII)


@dataclass(frozen=True)
class Rule:
    """One constraint: the figure `column`, compared with `limit`. A NaN never keeps it."""

    column: str
    sign: str
    limit: float


def parse_rules(texts: Iterable[str], columns: Sequence[str]) -> tuple[Rule, ...]:
    """Read constraints on `columns`. Raises UserError on text, figures and rules that cannot hold."""
    rules = []
    for text in texts:
        match = PATTERN.fullmatch(text)
        if match is None or not math.isfinite(float(match[3])):
            shown = repr(text if len(text) <= 80 else f"{text[:80]}...")
            raise ConfigError(f"--where must be a figure, one of < <= > >=, and a finite number, was {shown}; e.g. max_drawdown < 0.15")
        rules.append(Rule(known_column(match[1], columns, "--where"), match[2], float(match[3])))
    for column in {rule.column for rule in rules}:
        low = max(((r.limit, r.sign == ">") for r in rules if r.column == column and r.sign[0] == ">"), default=(-math.inf, False))
        high = min(((r.limit, r.sign != "<") for r in rules if r.column == column and r.sign[0] == "<"), default=(math.inf, True))
        if low[0] > high[0] or (low[0] == high[0] and (low[1] or not high[1])):
            said = " and ".join(f"{r.column} {r.sign} {r.limit:g}" for r in rules if r.column == column)
            raise ConfigError(f"--where must allow something, was {said}, which no trial can keep; drop one")
    return tuple(rules)


def known_column(name: str, columns: Sequence[str], where: str = "columns") -> str:
    """Return the name of a figure. Raises UserError with the nearest one when there is none of that name; where: it was named."""
    if name in columns:
        return name
    near = difflib.get_close_matches(name, columns, n=1)
    hint = f"did you mean {near[0]}?" if near else f"figures are {', '.join(columns)}"
    raise UserError(f"{where} must name a figure of the sweep, was {name!r}; {hint}")


def parse_objective(text: str, columns: Sequence[str]) -> tuple[str, float]:
    """Read an objective, `sharpe` or `-max_drawdown`: the figure, and 1.0 for the largest or -1.0 for the smallest."""
    return known_column(text.removeprefix("-"), columns, "--objective"), -1.0 if text.startswith("-") else 1.0


def kept(table: pd.DataFrame, rules: Iterable[Rule]) -> NDArray[np.bool_]:
    """Say which rows of a table keep every rule, [len(table)]."""
    out = np.ones(len(table), np.bool_)
    for rule in rules:
        out &= COMPARE[rule.sign](table[rule.column].to_numpy(), rule.limit)
    return out


def best_row(table: pd.DataFrame, objective: str, rules: Iterable[Rule]) -> int | None:
    """Return the position of the best row that keeps the rules, the first of equals; None when none does."""
    column, sign = parse_objective(objective, list(table.columns))
    score = np.where(kept(table, rules), sign * table[column].to_numpy(np.float64), np.nan)
    return None if np.isnan(score).all() else int(np.nanargmax(score))
