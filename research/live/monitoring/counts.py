"""Running counts of what each layer did; they grow with every bar, so a page over months of bars costs what the newest bars cost."""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from qtcore.rules import Kind, Reason, codes, failures, refusals
from qtcore.types import Action, Source, Verdict
from research.runs.reason_text import reason_text

COUNTED = (
    "ensemble_action", "ensemble_confidence", "n_voters", "verdict", "meta_reason", "arbiter_action", "source", "final_action",
    "final_source", "governor_reason", "raw_action", "arbiter_reason",
)  # fmt: skip
ADVICE = (Reason.BET_SHRUNK, Reason.BET_SKIPPED)  # of a bet that is made all the same, as the meta layer has no seat
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # bounds of the latency's buckets


@dataclass
class LiveCounts:
    """Counts over decided cells; a cell is a bar of a symbol with at least one vote."""

    cells: int = 0
    judged: int = 0  # cells with at least two voters
    escalated: int = 0
    overridden: int = 0
    failed_closed: int = 0  # the learned model had no answer and META_FAIL_OPEN=false holds
    called: int = 0  # the arbiter answered
    accepted: int = 0
    arbiter_holds: int = 0
    arbiter_reasons: Counter[int] = field(default_factory=Counter)  # of escalated cells
    errors: int = 0
    feature_errors: int = 0
    meta_reasons: Counter[int] = field(default_factory=Counter)  # of cells that were judged
    escalation_reasons: Counter[int] = field(default_factory=Counter)
    defer_reasons: Counter[int] = field(default_factory=Counter)
    refusals: Counter[int] = field(default_factory=Counter)
    approved: int = 0
    sources: Counter[int] = field(default_factory=Counter)
    models: dict[str, Counter[int]] = field(default_factory=dict)  # by the names of the five slots
    ensemble: Counter[int] = field(default_factory=Counter)
    wishes: Counter[int] = field(default_factory=Counter)  # what the chain wished for before the governor
    is_priced: bool = False  # opinions have a price
    leans: Counter[int] = field(default_factory=Counter)  # cells by the side to which such an opinion leans, -1, 0 or 1
    confidence_sum: float = 0.0
    confidence_sum2: float = 0.0
    newest: int = -1  # number of the last bar
    last_vote: dict[str, int] = field(default_factory=dict)  # bar in which each model voted last

    @classmethod
    def of(cls, voters: Sequence[str], is_priced: bool = False) -> Self:
        """Count nothing yet. voters: names of the five slots; is_priced: opinions have a price."""
        return cls(models={name: Counter() for name in voters}, is_priced=is_priced)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that `add` takes."""
        return (*(f"{name}_action" for name in self.models), *COUNTED, *(("lean",) if self.is_priced else ()))

    def add(self, planes: Mapping[str, NDArray], bar: NDArray) -> None:
        """Count cells; planes: `columns`, of one shape; bar: number of the bar of each cell, of that shape."""
        self.newest = int(bar.max(initial=self.newest))
        voted = planes["n_voters"] > 0
        at = {name: np.asarray(plane)[voted] for name, plane in planes.items()}
        judged, called = at["n_voters"] >= 2, at["arbiter_action"] >= 0
        self.cells += int(voted.sum())
        escalated = judged & (at["verdict"] == Verdict.ESCALATE)
        self.judged += int(judged.sum())
        self.escalated += int(escalated.sum())
        self.overridden += int((judged & (at["verdict"] == Verdict.OVERRIDE)).sum())
        self.failed_closed += int((judged & (at["verdict"] == Verdict.DEFER) & (at["source"] == Source.META)).sum())
        self.called += int(called.sum())
        self.accepted += int((called & (at["source"] == Source.ARBITER)).sum())
        self.arbiter_holds += int((called & (at["arbiter_action"] == Action.HOLD)).sum())
        self.errors += sum(int(np.isin(at[f"{layer}_reason"], codes(failures(layer))).sum()) for layer in ("meta", "governor"))
        self.feature_errors += int(np.isin(at["meta_reason"], codes(failures("meta", Kind.FEATURE_ERROR))).sum())
        _count(self.meta_reasons, at["meta_reason"][judged])
        _count(self.escalation_reasons, at["meta_reason"][escalated])
        _count(self.defer_reasons, at["meta_reason"][judged & (at["verdict"] == Verdict.DEFER)])
        _count(self.arbiter_reasons, at["arbiter_reason"][escalated])
        _count(self.sources, at["final_source"])
        _count(self.ensemble, at["ensemble_action"])
        _count(self.wishes, at["raw_action"])
        if self.is_priced:
            _count(self.leans, np.sign(np.nan_to_num(at["lean"].astype(float))))
        wished = at["raw_action"] != Action.HOLD
        _count(self.refusals, at["governor_reason"][wished & np.isin(at["governor_reason"], codes(refusals()))])
        self.approved += int((at["governor_reason"] == Reason.APPROVED).sum())
        for model, counter in self.models.items():
            action = np.asarray(planes[f"{model}_action"])
            _count(counter, action[action >= 0])
            if (action >= 0).any():
                self.last_vote[model] = int(bar[action >= 0].max())
        confidence = at["ensemble_confidence"][~np.isnan(at["ensemble_confidence"].astype(float))].astype(float)
        self.confidence_sum += float(confidence.sum())
        self.confidence_sum2 += float((confidence**2).sum())

    def emptied(self) -> "LiveCounts":
        """Return zero counts that remember who voted when."""
        return replace(LiveCounts.of(tuple(self.models), self.is_priced), newest=self.newest, last_vote=dict(self.last_vote))

    def active(self, n_bars: int) -> list[str]:
        """Models that voted in the last n bars."""
        return [model for model in self.models if self.last_vote.get(model, -n_bars - 1) > self.newest - n_bars]

    @property
    def signals(self) -> tuple[str, dict[str, int]]:
        """What a view shows as signals, and its counts: priced bets follow a lean, not the class that is likeliest, mostly HOLD."""
        return ("wishes to trade", _by_action(self.wishes)) if self.is_priced else ("signals of the ensemble", _by_action(self.ensemble))

    @property
    def is_mute(self) -> bool:
        """Whether the meta layer needed a model and never had one."""
        return self.meta_reasons.keys() - {Reason.NONE} == {Reason.MODEL_NOT_LOADED}

    @property
    def confidence_std(self) -> float:
        """Standard deviation of the ensemble's confidences, 0.0 without any."""
        if self.cells == 0:
            return 0.0
        mean = self.confidence_sum / self.cells
        return math.sqrt(max(self.confidence_sum2 / self.cells - mean * mean, 0.0))

    def rates(self) -> dict[str, float | None]:
        """Return every rate of `spec` 13.5 and D-95, None where nothing was observed."""
        return {
            "escalation": _share(self.escalated, self.judged),
            "arbiter_accept": _share(self.accepted, self.called),
            "meta_override": _share(self.overridden, self.judged),
            "error": _share(self.errors, self.cells),
            "feature_error": _share(self.feature_errors, self.cells),
            "refusal": _share(self.refusals.total(), self.refusals.total() + self.approved),
            "approval": _share(self.approved, self.refusals.total() + self.approved),
        } | {f"source_{source.name.lower()}": _share(self.sources[source], self.cells) for source in Source}

    def counts(self) -> dict[str, Any]:
        """Return the counts by name, for JSON."""
        return {
            "cells": self.cells,
            "escalations": self.escalated,
            "overrides": self.overridden,
            "meta_failed_closed": self.failed_closed,
            "meta_reasons": _named(self.meta_reasons),
            "escalation_reasons": _named(self.escalation_reasons),
            "defer_reasons": _named(Counter({code: n for code, n in self.defer_reasons.items() if code not in ADVICE})),
            "advice": _named(Counter({code: n for code, n in self.defer_reasons.items() if code in ADVICE})),
            "arbiter_calls": self.called,
            "arbiter_accepted": self.accepted,
            "approved": self.approved,
            "refusals": _named(self.refusals),
            "sources": {Source(code).name.lower(): n for code, n in sorted(self.sources.items())},
            "ensemble": _by_action(self.ensemble),
            "models": {model: _by_action(counter) for model, counter in self.models.items()},
            "errors": self.errors,
        }


@dataclass
class Durations:
    """How long something took, counted by the buckets of `SECONDS` and one above them."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(SECONDS) + 1))
    total: float = 0.0  # seconds

    def add(self, nanoseconds: Iterable[int]) -> None:
        """Count durations."""
        for ns in nanoseconds:
            self.buckets[bisect_left(SECONDS, ns / 1e9)] += 1
            self.total += ns / 1e9


def _named(counter: Counter[int]) -> dict[str, int]:
    return {reason_text(code): n for code, n in sorted(counter.items())}


def _by_action(counter: Counter[int]) -> dict[str, int]:
    return {Action(code).name: n for code, n in sorted(counter.items())}


def _count(counter: Counter[int], codes: NDArray) -> None:
    values, counts = np.unique(codes, return_counts=True)
    for value, n in zip(values.tolist(), counts.tolist()):
        counter[int(value)] += n


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
