"""Who answers a browser, a script and Prometheus? One small server on the loopback interface; what changes state needs a token.

`GET /` the page, `/api/page` its data, `/api/ai/meta/status` (`spec` 13.4), `/metrics` (13.6); `POST /api/ai/meta/reset_stats`,
`/api/stop`, `/api/lift` with `Authorization: Bearer TOKEN`. No other site may embed it, and a request that names another host is refused,
so that a page elsewhere cannot reach it through the browser.
"""

import hmac
import json
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from research.errors import UserError
from research.live.controls import command
from research.live.health import status
from research.live.metrics import CONTENT_TYPE, metrics_text
from research.live.source import JournalSource, RunSource

WEB = Path(__file__).parent / "web"
FILES = {"/": ("index.html", "text/html"), "/app.js": ("app.js", "text/javascript"), "/style.css": ("style.css", "text/css")}
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MAX_BODY = 4096  # bytes of a request


def page(source: JournalSource | RunSource) -> dict[str, Any]:
    """Return everything that the page draws."""
    now, params, counts, book = status(source), source.params(), source.tally().counts(), source.book()
    times, values = source.equity()
    return {
        "status": now,
        "initial_cash": params.broker.initial_cash,
        "max_drawdown": params.governor.max_drawdown,
        "equity": {"time": (times // 1_000_000).tolist(), "value": values.tolist()},
        "models": counts["models"],
        "ensemble": counts["ensemble"],
        "positions": list(book.positions),
        "decisions": source.last(12),
        "events": source.events(15),
    }


class Dashboard(ThreadingHTTPServer):
    """The server of one journal or run. Raises UserError where the port is taken."""

    daemon_threads = True

    def __init__(self, source: JournalSource | RunSource, port: int = 8050, host: str = "127.0.0.1", token: str = "") -> None:
        """Bind. token: what state-changing requests must show; empty: nobody may."""
        self.source, self.token = source, token
        self.lock = threading.Lock()  # a page is made of several queries that belong together
        try:
            super().__init__((host, port), Answer)
        except OSError as error:
            raise UserError(f"--port must be free on {host}, was {port} ({error.strerror}); choose another") from error
        self.hosts = {f"{name}:{self.server_port}" for name in (*LOOPBACK, host)} | {f"[::1]:{self.server_port}"}

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self.server_address[0]!s}:{self.server_port}/"


class Answer(BaseHTTPRequestHandler):
    """One request."""

    server: Dashboard
    server_version, sys_version = "qt", ""

    def do_GET(self) -> None:
        """Answer what only looks."""
        path = self.path.partition("?")[0]
        if not self._is_local():
            return
        if path in FILES:
            name, kind = FILES[path]
            self._send(HTTPStatus.OK, (WEB / name).read_bytes(), f"{kind}; charset=utf-8")
            return
        makers = {"/api/page": page, "/api/ai/meta/status": status}
        try:
            with self.server.lock:
                if path == "/metrics":
                    self._send(HTTPStatus.OK, metrics_text(self.server.source).encode(), CONTENT_TYPE)
                elif path in makers:
                    self._json(HTTPStatus.OK, makers[path](self.server.source))
                else:
                    self._json(HTTPStatus.NOT_FOUND, {"error": "no such page"})
        except UserError as error:
            self._json(HTTPStatus.SERVICE_UNAVAILABLE, {"error": str(error)})

    def do_POST(self) -> None:
        """Answer what changes something."""
        if not self._is_local():
            return
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if not self.server.token or not hmac.compare_digest(given.encode(), self.server.token.encode()):
            self._json(HTTPStatus.UNAUTHORIZED, {"error": "Authorization: Bearer TOKEN is needed; the token is printed at the start"})
            return
        try:
            body = json.loads(self.rfile.read(min(int(self.headers.get("Content-Length") or 0), MAX_BODY)) or b"{}")
            is_now = bool(body.get("now", False))
        except (ValueError, AttributeError):
            self._json(HTTPStatus.BAD_REQUEST, {"error": "the body must be a JSON object"})
            return
        self._change(self.path, is_now)

    def _change(self, path: str, is_now: bool) -> None:
        source = self.server.source
        commands: dict[str, dict[str, Any]] = {"/api/stop": {"do": "stop", "now": is_now}, "/api/lift": {"do": "lift"}}
        if path == "/api/ai/meta/reset_stats":
            with self.server.lock:
                source.reset()
            self._json(HTTPStatus.OK, {"reset": True})
        elif path not in commands:
            self._json(HTTPStatus.NOT_FOUND, {"error": "no such action"})
        elif isinstance(source, JournalSource):
            try:
                command(source.path, commands[path])
            except UserError as error:
                self._json(HTTPStatus.SERVICE_UNAVAILABLE, {"error": str(error)})
                return
            self._json(HTTPStatus.OK, {"effective": "at the next bar"})
        else:
            self._json(HTTPStatus.CONFLICT, {"error": "a finished run cannot be steered"})

    def _is_local(self) -> bool:
        if self.headers.get("Host", "") in self.server.hosts:
            return True
        self._json(HTTPStatus.FORBIDDEN, {"error": "the Host header must name this server"})
        return False

    def _json(self, code: HTTPStatus, value: Any) -> None:
        self._send(code, json.dumps(value, allow_nan=False).encode(), "application/json")

    def _send(self, code: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in SECURITY.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: requests may carry tokens."""
