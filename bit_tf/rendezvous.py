"""Where the workers of a run meet before they compute together."""

import contextlib
import dataclasses
import faulthandler
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from collections.abc import Iterator

from bit_tf import cluster as cluster_lib

CONNECT_SECONDS = 2.0
POLL_SECONDS = 0.5
GRACE_SECONDS = 10.0
SAY_EVERY_SECONDS = 15.0
# Between the word about who is missing and the end.
_LAST_WORD_SECONDS = 5.0
_GO = "go"
_MAX_LINE = 4096


def meet(
    cluster: cluster_lib.Cluster,
    *,
    run: str,
    seconds: float,
    log: Callable[[str], None] = print,
) -> None:
    """Returns when all workers are there and were given the same run.

    TensorFlow's own joining waits for ever, says nothing and hears no signal.
    The workers go to the chief's port first, over plain TCP, before
    TensorFlow takes it.

    Args:
        cluster: who should come.
        run: a text that is the same for all workers of a run.
        seconds: after which to give up.
        log: told for whom it waits.

    Raises:
        ValueError: somebody did not come, or was given another run; all who
            are there raise it.
        OSError: the chief's port is taken.
    """
    waiting = _Waiting(seconds, log)
    if cluster.is_chief:
        _receive(cluster, run, waiting)
    else:
        _report(cluster, run, waiting)


@contextlib.contextmanager
def joining(
    cluster: cluster_lib.Cluster, *, name: str, seconds: float
) -> Iterator[None]:
    """Ends this process, exit code 1, if the block takes longer than that.

    For the block in which TensorFlow joins the workers. It waits there for
    ever for one that died since they met, and no thread of Python's runs
    meanwhile: another process says who is missing, and a native thread ends
    this one.

    Args:
        cluster: who joins.
        name: of the program, before the line.
        seconds: after which to say it; the end is a few seconds later.
    """
    told = json.dumps([name, seconds, dataclasses.asdict(cluster)])
    with (
        subprocess.Popen(
            [sys.executable, "-m", __name__, told], stdin=subprocess.PIPE
        ),
        open(os.devnull, "w") as nowhere,
    ):
        faulthandler.dump_traceback_later(
            seconds + _LAST_WORD_SECONDS, exit=True, file=nowhere
        )
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


def _watch(told: str) -> None:
    """Says who is missing, unless the standard input ends before."""
    name, seconds, of = json.loads(told)
    if select.select([sys.stdin], [], [], seconds)[0]:
        return
    cluster = cluster_lib.Cluster(tuple(of["workers"]), of["index"])
    others = set(range(len(cluster.workers))) - {cluster.index}
    gone = cluster.named(cluster.silent() or others)
    print(f"{name}: {cluster_lib.farewell(gone)}", file=sys.stderr, flush=True)


class _Waiting:
    """Time that runs out, and a line about it now and then."""

    def __init__(self, seconds: float, log: Callable[[str], None]):
        self.seconds = seconds
        self._end = time.monotonic() + seconds
        self._said = time.monotonic()
        self._log = log

    def left(self) -> float:
        return self._end - time.monotonic()

    def say(self, whom: str) -> None:
        if time.monotonic() - self._said > SAY_EVERY_SECONDS:
            self._said = time.monotonic()
            self._log(f"waiting for {whom}")


def _receive(cluster: cluster_lib.Cluster, run: str, waiting: _Waiting) -> None:
    """What the chief does: waits for all, and says to go on, or why not."""
    port = int(cluster.workers[0].rpartition(":")[2])
    come: dict[int, socket.socket] = {}
    others: list[int] = []
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("", port)))
        server.settimeout(POLL_SECONDS)
        while len(come) < len(cluster.workers) - 1 and waiting.left() > 0:
            missing = set(range(1, len(cluster.workers))) - come.keys()
            waiting.say(cluster.named(missing))
            with contextlib.suppress(OSError, ValueError):
                connection, _ = server.accept()
                stack.enter_context(connection)
                connection.settimeout(POLL_SECONDS)
                index, theirs = _read(connection).split(" ", 1)
                if not 0 < int(index) < len(cluster.workers):
                    # Of another cluster, or no worker at all.
                    connection.close()
                    continue
                come[int(index)] = connection
                if theirs != run:
                    others.append(int(index))
        missing = set(range(1, len(cluster.workers))) - come.keys()
        answer = _GO
        if missing:
            answer = (
                f"{cluster.named(missing)} did not come within "
                f"{waiting.seconds:.0f} s: start all workers with the same "
                "flags, each with its own index, or give --worker_timeout."
            )
        elif others:
            answer = (
                f"{cluster.named(others)} was not given the run of worker 0: "
                "start all workers with the same flags and the same images."
            )
        for connection in come.values():
            with contextlib.suppress(OSError):
                connection.sendall(f"{answer}\n".encode())
                # Who closes first keeps the port busy for a while.
                connection.recv(1)
    if answer != _GO:
        raise ValueError(answer)


def _report(cluster: cluster_lib.Cluster, run: str, waiting: _Waiting) -> None:
    """What the others do: go to the chief and wait for its word."""
    host, _, port = cluster.workers[0].rpartition(":")
    while waiting.left() > 0:
        try:
            with socket.create_connection(
                (host, int(port)), CONNECT_SECONDS
            ) as (connection):
                # The chief's patience ends first, and its word is the better.
                connection.settimeout(max(0.0, waiting.left()) + GRACE_SECONDS)
                connection.sendall(f"{cluster.index} {run}\n".encode())
                answer = _read(connection)
        except (OSError, ValueError):
            # Not there yet, or still the one of an earlier start.
            waiting.say(cluster.named([0]))
            time.sleep(POLL_SECONDS)
            continue
        if answer != _GO:
            raise ValueError(answer)
        return
    raise ValueError(
        f"{cluster.named([0])} did not come within {waiting.seconds:.0f} s: "
        "start all workers with the same flags, each with its own index, or "
        "give --worker_timeout."
    )


def _read(connection: socket.socket) -> str:
    """Returns one line.

    Raises:
        ValueError: what comes is none.
    """
    text = b""
    while not text.endswith(b"\n"):
        more = connection.recv(1024)
        text += more
        if not more or len(text) > _MAX_LINE:
            raise ValueError("no line")
    return text.decode().rstrip("\n")


if __name__ == "__main__":
    _watch(sys.argv[1])
