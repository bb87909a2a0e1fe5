"""A classifier behind a page on this machine: image in, classes out.

Any page that a browser shows may send requests to 127.0.0.1. What does not
come from our own page, or comes under another name, is refused.
"""

import contextlib
import errno
import http.server
import importlib.resources
import io
import json
import math
import pathlib
import re
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator

from PIL import Image

import bit_tf
from bit_tf import classifier as classifier_lib
from bit_tf import image_file
from bit_tf import neighbours
from bit_tf import pages
from bit_tf import prediction

TOP_K = 5
ADDRESS = "127.0.0.1"
# A whole upload may take as long; from this machine it takes a blink.
READ_SECONDS = 30.0
_DISCARD_SECONDS = 5.0
_END_SECONDS = 10.0
_WAKE_SECONDS = 0.5
_CHUNK_BYTES = 2**16
# Twice the size that is shown, for fine screens.
_THUMBNAIL_PIXELS = 2 * pages.THUMBNAIL_PIXELS
# Rounding leaves 1 - 1e-6; another model or image size is below.
_SAME_COSINE = 0.999

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


class RefusedError(Exception):
    """A request that is not answered.

    Args:
        status: of HTTP.
        text: for the person before the page.
    """

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status = status


class Demo:
    """What the page shows, without the web.

    Args:
        classifier: the model.
        reading: how images are read; `on_bad` is "skip".
        max_upload_mb: millions of bytes that an image may have.
        stored: the images among which the nearest are looked for; None where
            there are none.
    """

    def __init__(
        self,
        classifier: classifier_lib.Classifier,
        *,
        reading: image_file.Reading,
        max_upload_mb: int,
        stored: neighbours.Stored | None = None,
    ):
        self.classifier = classifier
        self.max_upload_mb = max_upload_mb
        self._reading = reading
        self._stored = stored
        # An image is up to a few hundred MB when it is decoded.
        self._one_at_a_time = threading.Lock()
        source = importlib.resources.files("bit_tf") / "assets"
        self._page = pages.template((source / "demo.html.j2").read_text())

    def prepare(self) -> list[str]:
        """Predicts once, which compiles the network; returns what is odd."""
        blank = io.BytesIO()
        Image.new("RGB", (8, 8)).save(blank, format="PNG")
        self._predict(blank.getvalue())
        if self._stored is None:
            return []
        files = self._stored.files
        here = [i for i, f in enumerate(files) if pathlib.Path(f).is_file()]
        if len(here) < len(files):
            return [
                f"{len(files) - len(here):,} of {len(files):,} images are not "
                f"where the features say, {files[0]!r} is first: paths count "
                "from the current directory"
            ]
        found = self._predict(files[here[0]])
        if found.error:
            return [f"{files[here[0]]} cannot be used ({found.error})"]
        cosine = (
            neighbours.directions_of(found.features)
            @ self._stored.directions[here[0]]
        )
        if cosine < _SAME_COSINE:
            return [
                f"the features of {files[here[0]]} are not those that the "
                f"model gives (cosine {cosine:.3f}): another model, or another "
                "--image_size?"
            ]
        return []

    def page(self, nonce: str) -> bytes:
        """Returns the page.

        Args:
            nonce: by which the browser knows our own script and style.
        """
        model = self.classifier
        page = self._page.render(
            about=model.about,
            crop=model.crop,
            head=model.head,
            class_names=model.class_names,
            max_upload_mb=self.max_upload_mb,
            images=0 if self._stored is None else len(self._stored.files),
            nonce=nonce,
            version=bit_tf.__version__,
        )
        return page.encode()

    def answer(self, content: bytes) -> dict:
        """Returns what the model says of an encoded image, for JSON.

        Raises:
            RefusedError: it cannot be used.
        """
        if not content:
            raise RefusedError(422, "This file is empty.")
        with self._one_at_a_time:
            started = time.perf_counter()
            found = self._predict(content)
            seconds = time.perf_counter() - started
        if found.error:
            raise RefusedError(
                422, f"This image cannot be used: {found.error}."
            )
        if not all(map(math.isfinite, found.probabilities)):
            # Else it would be no JSON.
            raise RefusedError(
                422, "What the model says is not a number: it has diverged."
            )
        return {
            "classes": [
                {"name": name, "value": value}
                for name, value in zip(
                    found.classes, found.probabilities, strict=True
                )
            ],
            "seconds": seconds,
            "neighbours": [
                {
                    "index": index,
                    "file": self._stored.files[index],
                    "cosine": cosine,
                }
                for index, cosine in self._nearest(found)
            ],
        }

    def thumbnail(self, index: int) -> bytes:
        """Returns a small JPEG of a stored image.

        Raises:
            RefusedError: there is none.
        """
        files = self._stored.files if self._stored else ()
        if index >= len(files):
            raise RefusedError(404, "There is no such image.")
        size = (_THUMBNAIL_PIXELS, _THUMBNAIL_PIXELS)
        with self._one_at_a_time:
            wrong = image_file.inspect(
                files[index], self._reading, decode=False
            )
            if isinstance(wrong, str):
                raise RefusedError(404, wrong)
            try:
                image = image_file.view(files[index], at_least=max(size))
            except Exception as error:
                # Decoders raise whatever comes to them on damaged files.
                raise RefusedError(404, str(error)) from error
        image.thumbnail(size)
        buffer = io.BytesIO()
        image.save(buffer, format="JPEG", quality=85)
        return buffer.getvalue()

    def end(self) -> None:
        """Lets a prediction that runs end, and begins no other.

        Threads that read images cannot be had once Python is ending.
        """
        self._one_at_a_time.acquire(timeout=_END_SECONDS)

    def _predict(self, source: image_file.Source) -> prediction.Prediction:
        (found,) = prediction.predict(
            self.classifier,
            [source],
            top_k=TOP_K,
            batch_size=1,
            features=self._stored is not None,
            reading=self._reading,
        )
        return found

    def _nearest(self, found) -> list[tuple[int, float]]:
        return self._stored.nearest(found.features) if self._stored else []


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
        self.demo: Demo | None = None
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

    def serve(self, demo: Demo) -> None:
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
                raise RefusedError(404, "There is nothing here.")

    def do_POST(self) -> None:
        with self._refusing():
            self._check_host()
            origin = self.headers.get_all("Origin", [])
            if origin and origin != [f"http://{self.headers['Host']}"]:
                raise RefusedError(403, "Asked by another site's page.")
            if self.path != "/predict":
                raise RefusedError(404, "There is nothing here.")
            content = self._body(self._length())
            self._send_json(200, self.server.demo.answer(content))

    def _check_host(self) -> None:
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or not _OWN_HOST.fullmatch(hosts[0]):
            raise RefusedError(
                403, f"This is {self.server.address} and no other name."
            )

    def _length(self) -> int:
        """Returns the length of the body, which was not yet read."""
        given = self.headers.get_all("Content-Length", [])
        if not given or "Transfer-Encoding" in self.headers:
            raise RefusedError(411, "The length of the image is not said.")
        if len(set(given)) > 1 or not _LENGTH.fullmatch(given[0]):
            raise RefusedError(400, "The length of the image is no number.")
        most = self.server.demo.max_upload_mb
        length = int(given[0])
        if length > most * 10**6:
            raise RefusedError(
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
                raise RefusedError(
                    408, f"Not received within {READ_SECONDS:g} s."
                ) from error
            if not more:
                raise RefusedError(400, "The image ended too soon.")
            content += more
        self.connection.settimeout(READ_SECONDS)
        return bytes(content)

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        """Tells the page what is wrong."""
        try:
            yield
        except RefusedError as error:
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
