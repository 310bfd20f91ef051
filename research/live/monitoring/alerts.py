"""Alerts for what cannot wait: a command or a webhook, beside the bars and never before them.

    qt live ... --alert "notify-send qtcore"          a command: the JSON object on stdin, QT_ALERT_KIND and QT_ALERT_TEXT beside it
    qt live ... --alert https://hooks.example/...     a POST of the JSON object

What is told: `stop` (the kill switch acts), `drawdown` (entries are halted), `feed_loss` (an exchange, its websocket or a symbol that gives
nothing for two minutes of its own clock, a bar without a single candle, or no bar for two intervals), `envelope` (a figure left its band),
`due` (train again), `mismatch` (broker and engine differ), `liquidated` (no equity is left), `jump` (a close far from the one before),
`quality` (more bad candles of a symbol than a backtest would accept). A thread takes from a queue of 64; what does not fit is dropped and
counted. A delivery has ten seconds, twice. What fails is an event `alert_failed`; it names the program or the host and never the rest,
which may hold a secret. Redirects are not followed.
"""

import json
import os
import queue
import shlex
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from qtcore.types import NS_PER_MINUTE
from research.errors import ConfigError, visible
from research.live.feeds.feeds import Arrival
from research.live.journal.journal import Entry
from research.live.records import Event, iso
from research.live.session.runner import Runner

WAITING, SECONDS, ATTEMPTS, PAUSE = 64, 10.0, 2, 2.0
LOST = 2 * NS_PER_MINUTE  # who answers again within this was not lost
TOLD = ("envelope", "due", "mismatch", "liquidated", "jump", "quality")  # events that are alerts as they are
SECRETS = ("QT_TOKEN",)  # of our own environment, not handed on


class _Stay(urllib.request.HTTPRedirectHandler):
    """Refuse redirects: what was sent to one host goes to no other."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Return None, which makes the answer an error."""


@dataclass
class Alerts:
    """The duty that tells. target: a URL or a command; silence: seconds without a bar that are a loss of the feed, None for replays."""

    target: str
    silence: float | None = None
    seconds: float = SECONDS
    pause: float = PAUSE
    sent: int = 0
    dropped: int = 0
    _failures: deque[str] = field(default_factory=lambda: deque(maxlen=WAITING))
    _state: dict[str, bool] | None = None
    _seen: float = field(default_factory=time.monotonic)
    _is_silent: bool = False
    _lost: dict[tuple[str, bool], Event | None] = field(default_factory=dict)  # by symbol and whether it is the websocket; None: told

    def __post_init__(self) -> None:
        """Check the target and start the thread. Raises UserError where nobody could be told."""
        parts = urlsplit(self.target)
        self._is_url = parts.scheme in ("http", "https")
        try:
            self._words = [] if self._is_url else shlex.split(self.target)
        except ValueError as error:
            raise ConfigError(f"--alert must be a command or an http(s) address, was one that cannot be read ({error})") from error
        if (self._is_url and not parts.hostname) or (not self._is_url and not (self._words and shutil.which(self._words[0]))):
            raise ConfigError(
                "--alert must be an http(s) address with a host, or a command that is found, was neither; check the first word"
            )
        self.name = str(parts.hostname) if self._is_url else os.path.basename(self._words[0])
        self._queue: queue.Queue[dict[str, str] | None] = queue.Queue(WAITING)
        self._open = urllib.request.build_opener(_Stay).open
        self._thread = threading.Thread(target=self._work, name="alerts", daemon=True)
        self._thread.start()

    def before(self, runner: Runner, bar: int, now: int) -> Iterator[Event]:
        """Remember how things stand at the start: only what changes is told."""
        if self._state is None:
            self._state = _state(runner, None)
        yield from ()

    def after(self, runner: Runner, entry: Entry) -> Iterator[Event]:
        """Tell what changed with this bar, and note what could not be told since the last one."""
        now, known = int(entry.result.close_time[0]), self._state or {}
        self._seen, self._is_silent = time.monotonic(), False
        self._state = _state(runner, entry)
        for kind, is_so in self._state.items():
            if is_so and not known.get(kind, False):
                self.tell(kind, TEXTS[kind], now)
        for event in entry.events:
            if event.kind in TOLD:
                self.tell(event.kind, f"{event.text} {event.symbol}".strip(), event.time)
        while self._failures:
            yield Event(now, "alert_failed", self._failures.popleft())

    def heard(self, arrival: Arrival) -> None:
        """Listen to what the feed says of itself: tell once of a loss that lasts, when it is over at the latest."""
        for event in arrival.events:
            key = event.symbol, "websocket" in event.text
            if event.kind == "lost":
                self._lost.setdefault(key, event)
            elif event.kind == "back":
                self._tell_loss(key, event.time)
                self._lost.pop(key, None)
        for key in list(self._lost):
            self._tell_loss(key, arrival.now)

    def _tell_loss(self, key: tuple[str, bool], now: int) -> None:
        if (event := self._lost.get(key)) is not None and now - event.time > LOST:
            self.tell("feed_loss", f"{event.text} {event.symbol}".strip(), now)
            self._lost[key] = None

    def tell(self, kind: str, text: str, now: int) -> None:
        """Queue an alert; returns at once."""
        try:
            self._queue.put_nowait({"kind": kind, "text": visible(text), "time": iso(now)})
        except queue.Full:
            self.dropped += 1
            self._failures.append(f"{kind}: {WAITING} alerts are waiting for {self.name}, this one was dropped")

    def close(self, seconds: float = 5.0) -> None:
        """Give what is queued a moment, then let go."""
        try:
            self._queue.put(None, timeout=seconds)
        except queue.Full:
            return
        self._thread.join(seconds)

    def _work(self) -> None:
        while True:
            try:
                alert = self._queue.get(timeout=1.0 if self.silence is None else min(1.0, self.silence))
            except queue.Empty:
                if self.silence is not None and not self._is_silent and time.monotonic() - self._seen > self.silence:
                    self._is_silent = True
                    self._deliver({"kind": "feed_loss", "text": f"no bar for {self.silence:.0f} seconds", "time": iso(time.time_ns())})
                continue
            if alert is None:
                return
            self._deliver(alert)

    def _deliver(self, alert: dict[str, str]) -> None:
        why = ""
        for attempt in range(ATTEMPTS):
            time.sleep(self.pause if attempt else 0.0)
            if not (why := self._post(alert) if self._is_url else self._call(alert)):
                self.sent += 1
                return
        self._failures.append(f"{alert['kind']}: {self.name} {why}")

    def _post(self, alert: dict[str, str]) -> str:
        """Send a POST; return why it failed, empty where it did not."""
        request = urllib.request.Request(self.target, json.dumps(alert).encode(), {"Content-Type": "application/json"}, method="POST")
        try:
            with self._open(request, timeout=self.seconds) as answer:
                answer.read(1024)
                return ""
        except urllib.error.HTTPError as error:
            return f"answered {error.code}"
        except Exception as error:  # whatever it is, the thread lives on; only its kind is told, a text may repeat the address
            return f"did not answer ({type(error).__name__})"

    def _call(self, alert: dict[str, str]) -> str:
        """Run the command; return why it failed, empty where it did not."""
        environment = {name: value for name, value in os.environ.items() if name not in SECRETS}
        environment |= {"QT_ALERT_KIND": alert["kind"], "QT_ALERT_TEXT": alert["text"]}
        told, nowhere = json.dumps(alert).encode(), subprocess.DEVNULL
        try:
            done = subprocess.run(
                self._words, input=told, env=environment, timeout=self.seconds, check=False, stdout=nowhere, stderr=nowhere
            )
        except subprocess.TimeoutExpired:
            return f"took longer than {self.seconds:g} seconds"
        except OSError as error:
            return f"could not run ({type(error).__name__})"
        return f"ended with {done.returncode}" if done.returncode else ""


TEXTS = {
    "stop": "the kill switch acts: no entries, exits go on",
    "drawdown": "the drawdown limit is reached: no entries any more",
    "feed_loss": "a bar without a single candle",
}


def _state(runner: Runner, entry: Entry | None) -> dict[str, bool]:
    return {
        "stop": bool(runner.params.governor.emergency_stop),
        "drawdown": bool(entry.account[0]["is_halted"]) if entry is not None else False,
        "feed_loss": entry is not None and bool(np.isnan(entry.result.bars.close).all()),
    }
