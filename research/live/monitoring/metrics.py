"""Prometheus metrics: the names of `spec` 13.6, with latency, equity and what alerts need, in the text format 0.0.4.

The names do not depend on what the scraper accepts: only the text format is offered. In OpenMetrics, and in the client library's own text,
every counter ends in `_total`; two of the published names do not, and dashboards ask for them as they were published.
"""

from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING

from qtcore.rules import refusals
from qtcore.types import Action, Source
from research.live.monitoring.counts import SECONDS
from research.live.monitoring.status_source import StatusSource

if TYPE_CHECKING:
    from prometheus_client.core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
AS_PUBLISHED = ("arbiter_invocation_count", "final_decision_source")  # counters without `_total`
# of notes; shown from the start, as refusals are: a counter that appears at 1 hides its first step
KINDS = ("mismatch", "missing", "late", "revised", "slow", "bad", "jump", "quality", "liquidated")


def metrics_text(source: StatusSource) -> str:
    """Return every metric of a journal or run."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(source))
    text = generate_latest(registry).decode()
    for name in AS_PUBLISHED:
        text = text.replace(f"{name}_total", name)
    return text


class _Collected:
    """What the client library asks for metrics."""

    def __init__(self, source: StatusSource) -> None:
        self.source = source

    def collect(self) -> "Iterator[Metric]":
        yield from _counters(self.source)
        yield from _gauges(self.source)
        yield from _latency(self.source)


def _counters(source: StatusSource) -> "Iterator[Metric]":
    from prometheus_client.core import CounterMetricFamily

    def counter(name: str, meaning: str, label: str, values: Mapping[str, int]) -> "Metric":
        family = CounterMetricFamily(name, meaning, labels=[label])
        for value, n in values.items():
            family.add_metric([value], float(n))
        return family

    tally = source.tally()
    yield CounterMetricFamily("arbiter_invocation_count", "Calls of the arbiter.", value=float(tally.called))
    sources = {s.name.lower(): tally.sources[s] for s in Source}
    yield counter("final_decision_source", "Decisions by the layer that made them.", "source", sources)
    refused = {rule.name: tally.refusals[rule.reason] for rule in refusals()}
    yield counter("governor_rejections", "Trades that the governor refused.", "reason", refused)
    yield CounterMetricFamily("governor_approvals", "Trades that the governor approved.", value=float(tally.approved))
    votes = CounterMetricFamily("base_predictions", "Votes of the base models.", labels=["model", "action"])
    for model, actions in tally.models.items():
        for action in Action:
            votes.add_metric([model, action.name], float(actions[action]))
    yield votes
    yield CounterMetricFamily("decision_errors", "Decisions in which a layer failed.", value=float(tally.errors))
    yield counter("journal_events", "Notes of feed and runner.", "kind", dict.fromkeys(KINDS, 0) | source.event_counts())


def _gauges(source: StatusSource) -> "Iterator[Metric]":
    from prometheus_client.core import GaugeMetricFamily

    rates, book = source.tally().rates(), source.book()
    values: dict[str, tuple[str, float | None]] = {
        "meta_v2_escalation_rate": ("Share of judged decisions that the meta layer escalated.", rates["escalation"]),
        "arbiter_override_rate": ("Share of arbiter calls that replaced the ensemble.", rates["arbiter_accept"]),
        "governor_drawdown_ratio": ("Loss from the peak equity, a fraction.", book.drawdown),
        "governor_equity": ("Equity at the last close, quote currency.", book.equity),
        "governor_balance": ("Realised balance, quote currency.", book.balance),
        "governor_exposure": ("Sum of entry notionals, those ordered included, quote currency.", book.exposure),
        "governor_recent_win_ratio": ("Winners among the last 20 closed trades, a fraction.", book.win_rate),
        "governor_trades_today": ("Approvals of the UTC day.", book.trades_today),
        "governor_entries_blocked": (
            "1 under the kill switch or after a drawdown halt.",
            float(source.params().governor.emergency_stop or book.is_halted),
        ),
        "open_positions": ("Positions held.", len(book.positions)),
        "active_models": ("Base models that voted in the last bar.", len(source.active())),
        "last_bar_timestamp_seconds": ("Close of the last decided bar.", book.time / 1e9),
    }
    for name, (meaning, value) in values.items():
        if value is not None:
            yield GaugeMetricFamily(name, meaning, value=float(value))


def _latency(source: StatusSource) -> "Iterator[Metric]":
    from prometheus_client.core import HistogramMetricFamily

    if (durations := source.durations()) is not None:
        bounds = [*map(str, SECONDS), "+Inf"]
        counts = list(zip(bounds, map(float, accumulate(durations.buckets))))
        meaning = "Time from a closed bar to the journal."
        yield HistogramMetricFamily("bar_latency_seconds", meaning, buckets=counts, sum_value=durations.total)
