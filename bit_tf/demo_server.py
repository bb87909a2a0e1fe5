"""A classifier behind a page on this machine: image in, classes out.

Any page that a browser shows may send requests to 127.0.0.1. What does not
come from our own page, or comes under another name, is refused.
"""

import contextlib
import errno
import http.server
import json
import re
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator

from bit_tf import demonstration

ADDRESS = "127.0.0.1"
# A whole upload may take as long; from this machine it takes a blink.
READ_SECONDS = 30.0
_DISCARD_SECONDS = 5.0
_WAKE_SECONDS = 0.5
_CHUNK_BYTES = 2**16

# Any port: the page may be seen through a tunnel. A name that was bent to
# this machine (DNS rebinding) is still another name.
_OWN_HOST = re.compile(r"(127\.0\.0\.1|localhost)(:[0-9]{1,5})?", re.IGNORECASE)
_THUMBNAIL = re.compile(r"/thumbnail/([0-9]{1,9})")
_LENGTH = re.compile(r"[0-9]{1,12}")
_POLICY = (
    "default-src 'none'; {}base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_PAGE_POLICY = (
    "script-src 'nonce-{0}'; style-src 'nonce-{0}'; img-src 'self' blob: "
    "data:; connect-src 'self'; "
)


class Server(http.server.ThreadingHTTPServer):
    """Listens on this machine alone; answers when `serve` is called.

    Args:
        port: 0 for any that is free.

    Raises:
        ValueError: the port cannot be had.
    """

    daemon_threads = True
    # A second program on one port would get some of the first one's requests.
    allow_reuse_port = False

    def __init__(self, port: int):
        self.demo: demonstration.Demo | None = None
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            raise ValueError(
                f"port {port} cannot be had ({error.strerror}): give another "
                "--port, or 0 for any that is free."
            ) from error

    @property
    def address(self) -> str:
        return f"http://{ADDRESS}:{self.server_port}/"

    def serve(self, demo: demonstration.Demo) -> None:
        """Answers requests until an exception, such as Ctrl-C, or shutdown."""
        self.demo = demo
        # Not here: Ctrl-C would close what a request has just been given.
        thread = threading.Thread(target=self.serve_forever, daemon=True)
        thread.start()
        try:
            # A signal does not always wake who waits without an end.
            while thread.is_alive():
                thread.join(_WAKE_SECONDS)
        finally:
            self.shutdown()
            demo.end()

    def handle_error(self, request, client_address) -> None:
        # Who has gone, or says nothing, hears nothing.
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    server_version, sys_version = "bit_tf", ""
    timeout = READ_SECONDS
    _policy = _POLICY.format("")

    def do_GET(self) -> None:
        with self._refusing():
            self._check_host()
            path = self.path.partition("?")[0]
            if path == "/":
                nonce = secrets.token_urlsafe()
                self._policy = _POLICY.format(_PAGE_POLICY.format(nonce))
                page = self.server.demo.page(nonce)
                self._send(200, "text/html; charset=utf-8", page)
            elif match := _THUMBNAIL.fullmatch(path):
                image = self.server.demo.thumbnail(int(match[1]))
                self._send(200, "image/jpeg", image)
            else:
                raise demonstration.RefusedError(404, "There is nothing here.")

    def do_POST(self) -> None:
        with self._refusing():
            self._check_host()
            origin = self.headers.get_all("Origin", [])
            if origin and origin != [f"http://{self.headers['Host']}"]:
                raise demonstration.RefusedError(
                    403, "Asked by another site's page."
                )
            if self.path != "/predict":
                raise demonstration.RefusedError(404, "There is nothing here.")
            content = self._body(self._length())
            self._send_json(200, self.server.demo.answer(content))

    def _check_host(self) -> None:
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or not _OWN_HOST.fullmatch(hosts[0]):
            raise demonstration.RefusedError(
                403, f"This is {self.server.address} and no other name."
            )

    def _length(self) -> int:
        """Returns the length of the body, which was not yet read."""
        given = self.headers.get_all("Content-Length", [])
        if not given or "Transfer-Encoding" in self.headers:
            raise demonstration.RefusedError(
                411, "The length of the image is not said."
            )
        if len(set(given)) > 1 or not _LENGTH.fullmatch(given[0]):
            raise demonstration.RefusedError(
                400, "The length of the image is no number."
            )
        most = self.server.demo.max_upload_mb
        length = int(given[0])
        if length > most * 10**6:
            raise demonstration.RefusedError(
                413,
                f"This file has {length / 1e6:.1f} MB, more than {most}: see "
                "--max_upload_mb.",
            )
        return length

    def _body(self, length: int) -> bytes:
        # Not by one read: its timeout begins anew with every byte.
        end = time.monotonic() + READ_SECONDS
        content = bytearray()
        while len(content) < length:
            self.connection.settimeout(max(end - time.monotonic(), 1e-3))
            try:
                more = self.rfile.read1(
                    min(length - len(content), _CHUNK_BYTES)
                )
            except TimeoutError as error:
                raise demonstration.RefusedError(
                    408, f"Not received within {READ_SECONDS:g} s."
                ) from error
            if not more:
                raise demonstration.RefusedError(
                    400, "The image ended too soon."
                )
            content += more
        self.connection.settimeout(READ_SECONDS)
        return bytes(content)

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        """Tells the page what is wrong."""
        try:
            yield
        except demonstration.RefusedError as error:
            self._send_json(error.status, {"error": str(error)})
            self._discard()
        except (ConnectionError, TimeoutError):
            raise
        except Exception:
            # Our mistake, whose traceback the terminal shows.
            self._send_json(
                500, {"error": "The program failed: its terminal says why."}
            )
            raise

    def _discard(self) -> None:
        """Reads on: who is still sending would not see the answer."""
        self.close_connection = True
        end = time.monotonic() + _DISCARD_SECONDS
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(_DISCARD_SECONDS)
            while time.monotonic() < end and self.connection.recv(_CHUNK_BYTES):
                pass

    def _send_json(self, status: int, value: dict) -> None:
        self._send(status, "application/json", json.dumps(value).encode())

    def _send(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def end_headers(self) -> None:
        # Here, for the answers of the base class too.
        for name, value in (
            ("Content-Security-Policy", self._policy),
            ("X-Content-Type-Options", "nosniff"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Referrer-Policy", "no-referrer"),
            # A number stands for another image when the program is restarted.
            ("Cache-Control", "no-store"),
        ):
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *arguments) -> None:
        """Says nothing: the page says it."""
