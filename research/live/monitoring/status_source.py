"""Status source, the view of a live journal or a finished run: the account, and every decision in words."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from qtcore import Params
from qtcore.types import F8, I8, Action, Source, Verdict
from research.live.monitoring.counts import ADVICE, Durations, LiveCounts
from research.live.records import iso
from research.runs.reason_text import Asked, gate_text, opinion_numbers, reason_text

RECENT = 20  # closed trades of the recent win rate (`spec` 10.5)
POINTS = 600  # of the equity curve on a page
KEPT_BARS = 64  # of the past that a page may show again

ALLOWED = "allowed"  # in a journal's version: who serves without being accepted, by cause
ALLOWED_WHY = {
    "unskilled": "served without skill",
    "rejected": "served though rejected (--allow-rejected)",
    "synthetic": "served though trained on synthetic labels (--allow-synthetic)",
}


@dataclass(frozen=True)
class Book:
    """The account as it stands. Money in quote currency; drawdown a fraction of the peak; recent: PnL of the last 20 closed trades."""

    time: int
    balance: float
    equity: float
    peak: float
    exposure: float
    trades_today: int
    total_trades: int
    is_halted: bool
    midnight: float  # equity at the last UTC midnight, the initial cash on the first day
    recent: tuple[float, ...] = ()
    positions: tuple[dict[str, Any], ...] = ()

    @property
    def drawdown(self) -> float:
        """Loss from the peak, a fraction."""
        return max(0.0, 1.0 - self.equity / self.peak) if self.peak > 0.0 else 0.0

    @property
    def win_rate(self) -> float:
        """Share of winners among the recent trades, 0.0 without any."""
        return sum(pnl > 0.0 for pnl in self.recent) / len(self.recent) if self.recent else 0.0


class StatusSource(Protocol):
    """What monitor, dashboard and validation look at."""

    @property
    def name(self) -> str:
        """Name of the journal or run."""
        ...

    @property
    def is_live(self) -> bool:
        """Whether it can grow."""
        ...

    @property
    def interval(self) -> int:
        """Length of a bar, ns."""
        ...

    def verdict(self) -> dict[str, str | None]:
        """Return what a view of a finished run opens with (`research.runs.verdict.stated`), each None for a journal."""
        ...

    def tally(self) -> LiveCounts:
        """Return the counts so far."""
        ...

    def active(self) -> list[str]:
        """Return the models that vote now: in the last bar or the last 5 minutes; of a finished run, those that ever did."""
        ...

    def book(self) -> Book:
        """Return the account at the last bar."""
        ...

    def params(self) -> Params:
        """Return the parameters in force."""
        ...

    def has_meta_model(self) -> bool:
        """Whether a learned model of the meta layer is served."""
        ...

    def seats(self) -> dict[str, tuple[bool, str]]:
        """Say by layer whether it acts at the last bar, and on what evidence; nothing where opinions have no map."""
        ...

    def allowed(self) -> dict[str, list[str]]:
        """Name by cause who serves without being accepted."""
        ...

    def equity(self) -> tuple[I8, F8]:
        """Return close times, ns UTC, and equity of at most some hundred bars that span everything."""
        ...

    def last(self, n: int) -> list[dict[str, Any]]:
        """Return the last n decided cells that are no plain HOLD, newest first, in words."""
        ...

    def orders(self) -> list[dict[str, Any]]:
        """Return what waits for the next open: symbol, kind (`entry`, `exit`), side, notional in quote currency."""
        ...

    def runner(self) -> dict[str, Any] | None:
        """Say whether a runner works on it and when its last bar came in; None for a finished run."""
        ...

    def latency(self) -> tuple[float, float] | None:
        """Return median and 99th percentile from closed bar to journal, seconds, of the last thousand bars; None for a finished run."""
        ...

    def durations(self) -> Durations | None:
        """Return how long all bars took from closed to journal, None for a finished run."""
        ...

    def events(self, n: int) -> list[dict[str, Any]]:
        """Return the last n notes of the feed and the runner, newest first."""
        ...

    def event_counts(self) -> Counter[str]:
        """Return how many notes there are of each kind."""
        ...


def told(
    time: int,
    symbol: str,
    cell: Mapping[str, Any],
    voters: Sequence[str],
    params: Params,
    asked: Asked | None,
    inputs: Sequence[float] | None,
) -> dict[str, Any]:
    """Say one decision in words and numbers, with every layer's reason.

    The edge is net, in basis points; None where an opinion has no price. voters: names of the five slots. params: those that held. asked:
    the account when the governor was asked, inputs: what the arbiter read; None where that is not known.
    """
    numbers, refusal = opinion_numbers(cell), int(cell["governor_reason"])
    account = {} if asked is None else asked.numbers(refusal, params, numbers)
    verdict, reason = Verdict(int(cell["verdict"])), int(cell["meta_reason"])
    votes = {
        model: {"action": Action(int(cell[f"{model}_action"])).name, "confidence": number_or_none(cell[f"{model}_confidence"])}
        for model in voters
        if cell[f"{model}_action"] >= 0
    }
    return {
        "time": iso(time),
        "symbol": symbol,
        "votes": votes,
        "ensemble": {"action": Action(int(cell["ensemble_action"])).name, "confidence": number_or_none(cell["ensemble_confidence"])},
        "meta": {
            "verdict": verdict.name,
            "reason": reason_text(reason, params, numbers),
            "word": "advice" if verdict == Verdict.DEFER and reason in ADVICE else verdict.name,
        },
        "arbiter": None
        if cell["arbiter_action"] < 0
        else {
            "action": Action(int(cell["arbiter_action"])).name,
            "confidence": number_or_none(cell["arbiter_confidence"]),
            "reason": gate_text(cell, params, inputs),
        },
        "raw": {"action": Action(int(cell["raw_action"])).name, "confidence": number_or_none(cell["raw_confidence"])},
        "raw_source": Source(int(cell["source"])).name.lower(),
        "edge": number_or_none(cell.get("edge")),
        "final": {"action": Action(int(cell["final_action"])).name, "source": Source(int(cell["final_source"])).name.lower()},
        "governor": reason_text(refusal, params, numbers | account),
        "size": number_or_none(cell["size"]),
    }


def allowed_texts(found: Mapping[str, list[str]]) -> list[str]:
    """Say by cause who serves without being accepted."""
    return [f"{', '.join(found[cause])}: {why}" for cause, why in ALLOWED_WHY.items() if cause in found]


def number_or_none(x: Any) -> float | None:
    """Return a number, None for NaN and nothing."""
    return None if x is None or x != x else float(x)
