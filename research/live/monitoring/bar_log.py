"""Bar log: one line per event, time stamp first (`spec` 13.1, D-77), or the same as JSON objects."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

from qtcore.choices import DecideRule, MetaMode
from qtcore.params import Params
from qtcore.rules import Reason
from qtcore.types import Action, Source, Verdict
from research.errors import ConfigError, visible
from research.live.journal.journal import Entry
from research.live.records import iso
from research.live.storage.place import Made, private
from research.runs.money import BASIS_POINTS
from research.runs.price_text import answered
from research.runs.reason_text import asked_about, cell_of, gate_text, opinion_numbers, reason_text

AGENTS = {"xgb": "XGB-Agent", "lgbm": "LGBM-Agent", "nhits": "NHiTS-Agent", "patchtst": "PatchTST-Agent", "tft": "TFT-Agent"}
SHORT = {"xgb": "XGB", "lgbm": "LGBM", "nhits": "NH", "patchtst": "PT", "tft": "TFT"}
ARROW = "\N{RIGHTWARDS ARROW}"
MAX_BYTES, KEPT = 10_000_000, 5


@dataclass(frozen=True)
class Line:
    """One event of a bar. component: in brackets; symbol: empty for all."""

    time: int
    component: str
    symbol: str
    text: str

    def __str__(self) -> str:
        return (
            f"{iso(self.time)} | [{self.component}] {self.symbol}{' ' if self.symbol and not self.text.startswith(':') else ''}{self.text}"
        )

    def to_json(self) -> str:
        """Return the line as one JSON object."""
        return json.dumps({"time": iso(self.time), "component": self.component, "symbol": self.symbol, "text": self.text})


def lines_of(entry: Entry, params: Params) -> Iterator[Line]:
    """Yield the lines of a committed bar in the order of the chain."""
    result = entry.result
    now = int(result.close_time[0])
    for event in entry.events:
        yield Line(event.time, "FEED" if event.kind != "params" else "CONTROL", event.symbol, f"{event.kind}: {event.text}")
    for s, symbol in enumerate(result.symbols):
        if result.decisions.n_voters[0, s]:
            yield from _opinion(entry, params, s, symbol, now)
    for s, symbol in enumerate(result.symbols):
        yield from _permission(entry, params, s, symbol, now)


def _opinion(entry: Entry, params: Params, s: int, symbol: str, now: int) -> Iterator[Line]:
    d, votes = entry.result.decisions, entry.result.votes
    said = []
    for m, model in enumerate(votes.names):
        if votes.action[m, 0, s] >= 0:
            action, confidence = Action(int(votes.action[m, 0, s])).name, votes.confidence[m, 0, s]
            said.append(f"{SHORT.get(model, model)}:{action}/{confidence:.2f}")
            yield Line(now, AGENTS.get(model, model), symbol, f"{ARROW} {action} (conf={confidence:.3f})")
    base, confidence = Action(int(d.ensemble_action[0, s])).name, d.ensemble_confidence[0, s]
    if base != "HOLD" or confidence > 0.50:
        yield Line(now, "ENSEMBLE", symbol, f": {base} {confidence:.2f} | {' '.join(said)}")
    if params.decide.rule == DecideRule.EDGE:
        yield from _priced(entry, params, s, symbol, now)
        return
    verdict, reason = d.verdict[0, s], reason_text(d.meta_reason[0, s], params, opinion_numbers(cell_of(d, 0, s)))
    raw, raw_confidence = Action(int(d.raw_action[0, s])).name, d.raw_confidence[0, s]
    before, after = f"{base}@{confidence:.3f}", f"{raw}@{raw_confidence:.3f}"
    mode = params.meta.mode
    if mode == MetaMode.POLICY and verdict == Verdict.DEFER:
        yield Line(now, "Meta-V2-Policy", symbol, f"DEFER: using base ensemble {before} | Reason: {reason}")
    if verdict == Verdict.ESCALATE:
        yield Line(now, "Meta-V2-Policy", symbol, f"ESCALATE: {reason} {ARROW} Calling Arbiter")
        yield from _arbiter(entry, params, s, symbol, now, before, after)
    if mode == MetaMode.OVERRIDE and verdict in (Verdict.OVERRIDE, Verdict.DEFER):
        short, new = f"{base}@{confidence:.2f}", f"{raw}@{raw_confidence:.2f}"
        is_closed = verdict == Verdict.DEFER and d.source[0, s] == Source.META
        kept = f"FALLBACK (failed closed: {new} in place of base={short})" if is_closed else f"FALLBACK (keeping base={short})"
        text = f"OVERRIDE (base={short} {ARROW} meta={new})" if verdict == Verdict.OVERRIDE else kept
        yield Line(now, "META-V2", symbol, f": {text} | Reason: {reason}")
    if mode == MetaMode.V5 and verdict == Verdict.OVERRIDE:
        yield Line(now, "META", symbol, f"override: {base}{ARROW}{raw} (conf={raw_confidence:.3f})")


def _priced(entry: Entry, params: Params, s: int, symbol: str, now: int) -> Iterator[Line]:
    """Say what an opinion is worth after its costs, and what meta layer and arbiter answered; nothing of a cell that leans to no side."""
    d = entry.result.decisions
    cell = cell_of(d, 0, s)
    if cell["edge"] == cell["edge"]:
        raw, least = Action(int(d.raw_action[0, s])).name, BASIS_POINTS * params.decide.min_edge
        worth = f"gross={cell['gross_edge']:.1f}bp | net={cell['edge']:+.1f}bp (above {least:.1f}bp trades)"
        win = d.raw_confidence[0, s]
        yield Line(now, "EDGE", symbol, f": {raw} | {worth} | win={'-' if win != win else f'{win:.3f}'}")
    if d.meta_reason[0, s] != Reason.NONE:
        yield Line(now, "META", symbol, f": {reason_text(d.meta_reason[0, s], params, opinion_numbers(cell))}")
    if d.arbiter_action[0, s] >= 0:
        said = answered(int(d.arbiter_action[0, s]), float(d.arbiter_confidence[0, s]))
        reason = gate_text(cell, params, entry.result.planes.arbiter[:, 0, s].tolist())
        yield Line(now, "Arbiter", symbol, f": {said} | Reason: {reason}")


def _arbiter(entry: Entry, params: Params, s: int, symbol: str, now: int, before: str, after: str) -> Iterator[Line]:
    d = entry.result.decisions
    reason = gate_text(cell_of(d, 0, s), params, entry.result.planes.arbiter[:, 0, s].tolist())
    if d.arbiter_action[0, s] < 0:
        yield Line(now, "Arbiter", symbol, f"NOT AVAILABLE: keeping base ensemble {before} | Reason: {reason}")
        return
    yield Line(now, "Arbiter", symbol, "INVOKED (escalated from Meta-V2)")
    if d.source[0, s] == Source.ARBITER:
        yield Line(now, "Arbiter", symbol, f"OVERRIDE: {before} {ARROW} {after} | Reason: {reason}")
    else:
        answer = f"{Action(int(d.arbiter_action[0, s])).name}@{d.arbiter_confidence[0, s]:.3f}"
        yield Line(now, "Arbiter", symbol, f"DEFER: keeping base ensemble {before} | Arbiter: {answer} | Reason: {reason}")


def _permission(entry: Entry, params: Params, s: int, symbol: str, now: int) -> Iterator[Line]:
    result = entry.result
    raw, code = int(result.decisions.raw_action[0, s]), int(result.governor_reason[0, s])
    if raw == Action.HOLD or code in (Reason.HOLD_SIGNAL, Reason.EXIT_SIGNAL):
        return
    action = Action(raw).name
    if code == Reason.APPROVED:
        size = abs(float(result.size[0, s]))
        risk, share = params.governor.stop_loss * size, size / float(result.equity[0])
        yield Line(now, "GOVERNER", symbol, f"APPROVED: {action} | Size=${size:.2f} ({share:.1%}) | Risk=${risk:.2f}")
    else:
        yield Line(now, "GOVERNER", symbol, f"REJECTED: {action} {ARROW} HOLD | Reason: {_refusal(entry, params, s, code)}")


def _refusal(entry: Entry, params: Params, s: int, code: int) -> str:
    """Say why the governor refused, with the numbers of cell and account."""
    result, numbers = entry.result, opinion_numbers(cell_of(entry.result.decisions, 0, s))
    asked = asked_about(result, s, params, entry.account[0], entry.positions[s], entry.closed)
    if asked is not None:
        numbers |= asked.numbers(code, params, numbers)
    return reason_text(code, params, numbers)


class _Handler(RotatingFileHandler):
    """A log that cannot be written (a full disk) must not stop trading: it is said once, not with every line."""

    has_failed = False

    def _open(self) -> TextIOWrapper:
        """Open the file, a new one for its user alone."""
        return TextIOWrapper(open(self.baseFilename, f"{self.mode}b", opener=private), encoding=self.encoding)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        """Say it."""
        if not self.has_failed:
            sys.stderr.write(visible(f"log {self.baseFilename} cannot be written ({sys.exception()}); trading goes on") + "\n")
        self.has_failed = True


class LogFile:
    """A rotating log of bars. Raises UserError where the file cannot be written."""

    def __init__(self, path: Path, *, is_json: bool = False, made: Made | None = None) -> None:
        """Open the file; five older ones of 10 MB are kept. made: notes what is new."""
        self._is_json = is_json
        try:
            (Made() if made is None else made).file(path)
            self._handler = _Handler(path, maxBytes=MAX_BYTES, backupCount=KEPT, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"--log must be a writable file, was {path} ({error.strerror}); choose another") from error

    def write(self, entry: Entry, params: Params) -> None:
        """Write the lines of a bar."""
        for line in lines_of(entry, params):
            text = line.to_json() if self._is_json else str(line)
            self._handler.emit(logging.LogRecord("qt", logging.INFO, "", 0, visible(text), None, None))

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):  # what could not be written was told
            self._handler.close()
