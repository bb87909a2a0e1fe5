"""Progress on a terminal, and a line now and then where there is none."""

import shutil
import sys
import time
from typing import TextIO

LOG_EVERY_SECONDS = 10.0
REDRAW_EVERY_SECONDS = 0.2


def duration(seconds: float) -> str:
    """Returns e.g. "45 s", "12 min", "3 h 05 min", "4.2 days"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{seconds / 86400:.1f} days"


class Progress:
    """One status line: redrawn on a terminal, repeated elsewhere.

    Args:
        total: units of work in all.
        stream: where to write; standard output if None.
    """

    def __init__(self, total: int, *, stream: TextIO | None = None):
        self._stream = stream or sys.stdout
        self._terminal = self._stream.isatty()
        self.total = total
        self._written = float("-inf") if self._terminal else time.monotonic()
        # The first unit often compiles or opens something: the pace is
        # measured from its end.
        self._first: tuple[int, float] | None = None

    def eta(self, done: int) -> str:
        """Returns the remaining time as text, from the mean pace."""
        if self._first is None or done <= self._first[0]:
            return "?"
        first, since = self._first
        pace = (time.monotonic() - since) / (done - first)
        return duration(pace * (self.total - done))

    def update(self, done: int, text: str) -> None:
        """Shows `text`, if enough time has passed since the last one."""
        now = time.monotonic()
        self._first = self._first or (done, now)
        every = REDRAW_EVERY_SECONDS if self._terminal else LOG_EVERY_SECONDS
        if now - self._written < every:
            return
        self._written = now
        line = f"{text}  ETA {self.eta(done)}"
        if self._terminal:
            columns = shutil.get_terminal_size().columns
            self._stream.write("\r\x1b[K" + line[: columns - 1])
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def clear(self) -> None:
        """Removes the status line, so that other text can be printed."""
        if self._terminal:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
