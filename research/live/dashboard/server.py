"""HTTP server for a browser, a script and Prometheus: one, small, on the loopback interface; what changes state needs a token.

`GET /` the page, `/api/page` its data, `/api/ai/meta/status` (`spec` 13.4), `/metrics` (13.6); `POST /api/ai/meta/reset_stats`,
`/api/stop`, `/api/lift` with `Authorization: Bearer TOKEN`. No other site may embed it; a request that names another host (a name that was
bound to this address) or comes from another origin is refused, so that a page elsewhere cannot reach it through the browser. A connection
carries one request and has ten seconds for all of it; 256 are answered at a time, 1,024 more wait their turn.
"""

import errno
import hmac
import io
import ipaddress
import json
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from qtcore.choices import MetaMode
from research.errors import ConfigError, UserError, visible
from research.live.monitoring.envelope_view import bands_of
from research.live.monitoring.health import status
from research.live.monitoring.journal_source import JournalSource
from research.live.monitoring.metrics import CONTENT_TYPE, metrics_text
from research.live.monitoring.run_source import RunSource
from research.live.session.controls import command
from research.runs.meta_words import PRICED, VERDICTS

WEB = Path(__file__).parent / "web"
FILES = {"/": ("index.html", "text/html"), "/app.js": ("app.js", "text/javascript"), "/style.css": ("style.css", "text/css")}
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MAX_BODY = 4096  # bytes of a request
SECONDS = 10.0  # for a whole request and its answer
LINGER, DRAIN = 0.5, 2.0  # s that a client may be silent after its answer, and that it may go on sending
CONNECTIONS, WAITING = 256, 1024  # answered at a time; accepted later
MIN_TOKEN = 8  # characters
READ = ("/api/page", "/api/ai/meta/status", "/metrics")
CHANGE = ("/api/ai/meta/reset_stats", "/api/stop", "/api/lift")


def page(source: JournalSource | RunSource) -> dict[str, Any]:
    """Return everything that the page draws."""
    now, params, tally, book = status(source), source.params(), source.tally(), source.book()
    times, values = source.equity()
    return {
        "status": now,
        "interval": source.interval,
        "initial_cash": params.broker.initial_cash,
        "midnight": book.midnight,
        "recent": len(book.recent),
        "escalated": (PRICED if params.meta.mode == MetaMode.BET else VERDICTS)["escalated"],
        "max_drawdown": params.governor.max_drawdown,
        "equity": {"time": (times // 1_000_000).tolist(), "value": values.tolist()},
        "models": tally.counts()["models"],
        "signals": dict(zip(("title", "counts"), tally.signals)),
        "positions": list(book.positions),
        "orders": source.orders(),
        "bands": bands_of(now, source.is_live),
        "decisions": source.last(12),
        "events": source.events(15),
    }


def check_token(token: str) -> str:
    """Return a token that a request can show. Raises UserError on one that would never match, or that is quickly guessed."""
    wrong = next((c for c in token if not "!" <= c <= "~"), None)
    if len(token) >= MIN_TOKEN and wrong is None:
        return token
    was = f"with {visible(repr(wrong))} in it" if wrong is not None else f"of {len(token)}" if token else "empty"
    raise ConfigError(
        f"--token (QT_TOKEN) must be {MIN_TOKEN} or more ASCII letters, digits and signs, no space, was {was}; choose another"
    )


class Dashboard(ThreadingHTTPServer):
    """The server of one journal or run. Raises UserError where the address cannot be had."""

    daemon_threads = True
    request_queue_size = WAITING

    def __init__(self, source: JournalSource | RunSource, port: int = 8050, host: str = "127.0.0.1", token: str = "") -> None:
        """Bind. token: what state-changing requests must show; empty: nobody may."""
        self.source, self.token = source, token
        self.lock = threading.Lock()  # a page is made of several queries that belong together
        self.slots = threading.BoundedSemaphore(CONNECTIONS)
        self._made: dict[str, tuple[float, tuple[bytes, str]]] = {}  # the last answer to each path, and when it was begun
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), Answer)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                raise ConfigError(f"--port must be free on {host}, was {port} ({error.strerror}); choose another") from error
            raise ConfigError(f"--host must be an address of this machine, was {host} ({error.strerror}); try 127.0.0.1") from error
        self.is_everywhere = host in ("0.0.0.0", "::")
        names = {f"[{name}]" if ":" in name else name for name in (*LOOPBACK, host)}
        self.hosts = {f"{name}:{self.server_port}" for name in names}

    @property
    def url(self) -> str:
        """Where it answers."""
        host = str(self.server_address[0])
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}/"

    def is_own(self, host: str) -> bool:
        """Say whether a Host header names this server. A server on every address answers to any number, never to an unknown name."""
        if host.lower() in self.hosts:
            return True
        name, sign, port = host.rpartition(":")
        if not self.is_everywhere or not sign or port != str(self.server_port):
            return False
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return name == socket.gethostname()
        return True

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own, as soon as one may begin; the others wait in the system's queue."""
        self.slots.acquire()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, then let the next one in."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.slots.release()

    def shutdown_request(self, request: Any) -> None:
        """Hang up, but read what a client goes on sending: a reset would take the answer from it."""
        until = time.monotonic() + DRAIN
        with suppress(OSError):
            request.shutdown(socket.SHUT_WR)
            request.settimeout(LINGER)
            while request.recv(65536) and time.monotonic() < until:
                pass
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing about a browser that went away."""
        if not isinstance(sys.exception(), OSError):
            sys.stderr.write(visible(traceback.format_exc(), "\n"))

    def read(self, path: str) -> tuple[bytes, str]:
        """Return what `path` shows now. Whoever waited takes what was begun after he asked: many at once cost as much as two."""
        asked = time.monotonic()
        with self.lock:
            begun, made = self._made.get(path, (-1.0, (b"", "")))
            if begun < asked:
                begun = time.monotonic()
                if path == "/metrics":
                    made = metrics_text(self.source).encode(), CONTENT_TYPE
                else:
                    made = _json((page if path == "/api/page" else status)(self.source))
                self._made[path] = begun, made
            return made


class Patience(io.RawIOBase):
    """What a connection sends, until the time is over: bytes that drip in do not keep it open."""

    def __init__(self, connection: socket.socket) -> None:
        """Start the clock."""
        self.connection, self.until = connection, time.monotonic() + SECONDS

    def readable(self) -> bool:
        """Say yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Receive some bytes. Raises TimeoutError when the time is over."""
        left = self.until - time.monotonic()
        if left <= 0.0:
            raise TimeoutError
        self.connection.settimeout(left)
        return self.connection.recv_into(buffer)


class RefusedError(Exception):
    """A request that gets an error, with its status and a sentence."""

    def __init__(self, code: HTTPStatus, text: str, **headers: str) -> None:
        """Keep what is answered."""
        super().__init__(text)
        self.code, self.headers = code, headers


class Answer(BaseHTTPRequestHandler):
    """One request."""

    server: Dashboard
    server_version, sys_version = "qt", ""

    def setup(self) -> None:
        """Read with patience, but not for ever."""
        super().setup()
        self.rfile = io.BufferedReader(Patience(self.connection))

    def do_GET(self) -> None:
        """Answer what only looks."""
        self._answer(self._look)

    def do_HEAD(self) -> None:
        """Answer like GET, without the content."""
        self._answer(self._look)

    def do_POST(self) -> None:
        """Answer what changes something."""
        self._answer(self._change)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what http.server refuses by itself (methods, malformed or overlong requests) as everything else here."""
        if code == HTTPStatus.NOT_IMPLEMENTED:
            self._refuse(RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, "only GET, HEAD and POST", Allow="GET, HEAD, POST"))
        else:
            self._refuse(RefusedError(HTTPStatus(code), message or HTTPStatus(code).phrase))

    def _answer(self, make: Callable[[str], tuple[bytes, str]]) -> None:
        try:
            if not self.server.is_own(self.headers.get("Host", "")):
                raise RefusedError(HTTPStatus.FORBIDDEN, "the Host header must name this server")
            body, kind = make(self.path.partition("?")[0])
        except RefusedError as refused:
            self._refuse(refused)
        except UserError as error:
            self._refuse(RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, str(error)))
        except TimeoutError:
            self._refuse(RefusedError(HTTPStatus.REQUEST_TIMEOUT, f"a request must be there within {SECONDS:g} seconds"))
        else:
            self._send(HTTPStatus.OK, body, kind, {})

    def _look(self, path: str) -> tuple[bytes, str]:
        if path in FILES:
            name, kind = FILES[path]
            return (WEB / name).read_bytes(), f"{kind}; charset=utf-8"
        if path in CHANGE:
            raise RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, "this changes something: POST it", Allow="POST")
        if path not in READ:
            raise RefusedError(HTTPStatus.NOT_FOUND, "no such page")
        return self.server.read(path)  # sending is outside its lock: who reads slowly keeps nobody waiting

    def _change(self, path: str) -> tuple[bytes, str]:
        if path in FILES or path in READ:
            raise RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, "this can only be read", Allow="GET, HEAD")
        if path not in CHANGE:
            raise RefusedError(HTTPStatus.NOT_FOUND, "no such action")
        origin = self.headers.get("Origin")
        if origin is not None and not (origin.startswith("http://") and self.server.is_own(origin.removeprefix("http://"))):
            raise RefusedError(HTTPStatus.FORBIDDEN, "the Origin header must name this server")
        scheme, _, given = self.headers.get("Authorization", "").partition(" ")
        token = self.server.token
        if scheme.lower() != "bearer" or not token or not hmac.compare_digest(given.strip().encode(), token.encode()):
            text = "Authorization: Bearer TOKEN is needed; `qt dashboard` takes it from QT_TOKEN or prints one at the start"
            raise RefusedError(HTTPStatus.UNAUTHORIZED, text, **{"WWW-Authenticate": "Bearer"})
        is_now = self._body().get("now", False)
        if not isinstance(is_now, bool):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "now must be true or false")
        source = self.server.source
        if path == "/api/ai/meta/reset_stats":
            with self.server.lock:
                source.reset()
            return _json({"reset": True})
        if not isinstance(source, JournalSource):
            raise RefusedError(HTTPStatus.CONFLICT, "a finished run cannot be steered")
        command(source.path, {"do": "stop", "now": is_now} if path == "/api/stop" else {"do": "lift"})
        return _json({"effective": "at the next bar"})

    def _body(self) -> dict[str, Any]:
        """Read the JSON object of a request, empty where it has none."""
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers:
            raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "Content-Length is needed")
        if not (length.isascii() and length.isdigit()):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "Content-Length must be a number")
        if len(digits := length.lstrip("0")) > len(str(MAX_BODY)) or int(digits or "0") > MAX_BODY:
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {MAX_BODY} bytes")
        try:
            body = json.loads(self.rfile.read(int(digits or "0")) or b"{}")
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "the body must be a JSON object")
        return body

    def _refuse(self, refused: RefusedError) -> None:
        self._send(refused.code, *_json({"error": str(refused)}), refused.headers)

    def _send(self, code: HTTPStatus, body: bytes, kind: str, headers: Mapping[str, str]) -> None:
        self.close_connection = True
        self.send_response(code)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **SECURITY, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: requests may carry tokens."""


def _json(value: Any) -> tuple[bytes, str]:
    return json.dumps(value, allow_nan=False).encode(), "application/json"
