"""A web server that does to downloads what real ones do."""

import contextlib
import http.server
import re
import threading
import time

SLOW_SECONDS = 1.0
SLOW_PIECES = 50


class Server:
    """Serves bytes under any path, with the faults of a list, one a request.

    Faults: "stall" sends half and stays silent; "drop" sends half and closes;
    "short" announces twice the length; "less" announces and sends half as if
    it were all; "503"; "no_range" ignores the wish for a rest; "wrong_range"
    answers for other bytes; "slow" takes SLOW_SECONDS. Afterwards all goes
    well.
    """

    def __init__(
        self, content: bytes, faults=(), *, etag='"one"', headers=None
    ):
        self.content = content
        self.faults = list(faults)
        self.etag = etag
        self.headers = headers or {}
        self.requests: list[str] = []
        self.lock = threading.Lock()
        self.released = threading.Event()

    @contextlib.contextmanager
    def running(self):
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            self.released.set()
            server.shutdown()
            server.server_close()

    def answer(self, request) -> None:
        with self.lock:
            fault = self.faults.pop(0) if self.faults else None
            self.requests.append(request.headers.get("Range", ""))
        if fault == "503":
            request.send_error(503)
            return
        if fault == "404":
            request.send_error(404)
            return
        content, begin = self.content, 0
        wish = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        same = request.headers.get("If-Range") in (None, self.etag)
        if wish and same and fault != "no_range":
            begin = int(wish[1])
            if begin >= len(content):
                request.send_response(416)
                request.send_header("Content-Range", f"bytes */{len(content)}")
                request.send_header("Content-Length", "0")
                request.end_headers()
                return
            if fault == "wrong_range":
                begin = 0
            request.send_response(206)
            request.send_header(
                "Content-Range",
                f"bytes {begin}-{len(content) - 1}/{len(content)}",
            )
        else:
            request.send_response(200)
        rest = content[begin:]
        length = len(rest)
        if fault == "short":
            length *= 2
        elif fault == "less":
            rest = rest[: length // 2]
            length = len(rest)
        request.send_header("Content-Length", str(length))
        if self.etag:
            request.send_header("ETag", self.etag)
        for name, value in self.headers.items():
            request.send_header(name, value)
        request.end_headers()
        with contextlib.suppress(OSError):
            if fault in ("stall", "drop"):
                request.wfile.write(rest[: len(rest) // 2])
                request.wfile.flush()
                if fault == "stall":
                    self.released.wait(30)
            elif fault == "slow":
                piece = len(rest) // SLOW_PIECES + 1
                for at in range(0, len(rest), piece):
                    request.wfile.write(rest[at : at + piece])
                    time.sleep(SLOW_SECONDS / SLOW_PIECES)
            else:
                request.wfile.write(rest)
        request.close_connection = True
