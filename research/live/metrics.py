"""What does Prometheus scrape? The names of `spec` 13.6, with latency and equity, in the text format 0.0.4."""

from collections.abc import Iterable, Mapping

from qtcore.types import Action, Source
from research.live.source import Watched
from research.reasons import reason_text

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Sample = tuple[Mapping[str, str], float]


def metrics_text(source: Watched) -> str:
    """Return every metric of a journal or run."""
    tally, book, rates = source.tally(), source.book(), source.tally().rates()
    latency = source.latency()
    lines: list[str] = []

    def add(name: str, kind: str, meaning: str, samples: Iterable[Sample]) -> None:
        lines.extend((f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"))
        lines.extend(f"{name}{_labels(labels)} {value!r}" for labels, value in samples)

    def gauge(name: str, meaning: str, value: float | None) -> None:
        if value is not None:
            add(name, "gauge", meaning, [({}, float(value))])

    gauge("meta_v2_escalation_rate", "Share of judged decisions that the meta layer escalated.", rates["escalation"])
    add("arbiter_invocation_count", "counter", "Calls of the arbiter.", [({}, float(tally.called))])
    gauge("arbiter_override_rate", "Share of arbiter calls that replaced the ensemble.", rates["arbiter_accept"])
    by_source = [({"source": s.name.lower()}, float(tally.sources[s])) for s in Source]
    add("final_decision_source", "counter", "Decisions by the layer that made them.", by_source)
    refused = [({"reason": reason_text(code)}, float(n)) for code, n in sorted(tally.refusals.items())]
    add("governor_rejections_total", "counter", "Trades that the governor refused.", refused)
    gauge("governor_drawdown_ratio", "Loss from the peak equity, a fraction.", book.drawdown)
    votes = [({"model": m, "action": Action(c).name}, float(n)) for m, counter in tally.models.items() for c, n in sorted(counter.items())]
    add("base_predictions_total", "counter", "Votes of the base models.", votes)
    gauge("governor_equity", "Equity at the last close, quote currency.", book.equity)
    gauge("governor_balance", "Realised balance, quote currency.", book.balance)
    gauge("governor_exposure", "Sum of entry notionals, quote currency.", book.exposure)
    gauge("open_positions", "Positions held.", len(book.positions))
    gauge("last_bar_timestamp_seconds", "Close of the last decided bar.", book.time / 1e9)
    if latency is not None:
        samples = [({"quantile": q}, seconds) for q, seconds in zip(("0.5", "0.99"), latency)]
        add("bar_latency_seconds", "gauge", "Time from a closed bar to the journal, last thousand bars.", samples)
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    escaped = (f'{name}="{value}"' for name, value in labels.items())  # values are our own enum names
    return "{" + ",".join(escaped) + "}" if labels else ""
