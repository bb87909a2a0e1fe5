"""SIGTERM and Ctrl-C end a run after its step, with its state saved."""

import contextlib
import signal
import sys
from collections.abc import Iterator

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StoppedError(Exception):
    """The run was asked to end, and its state is saved.

    Args:
        step: updates made.
        number: of the signal; None if another worker was asked.
    """

    def __init__(self, step: int, number: int | None):
        super().__init__(f"stopped after step {step}, which is saved")
        self.step = step
        self.number = number


class Interruption:
    """Whether this process was asked to end.

    Attributes:
        number: of the signal that asked; None as long as none did.
    """

    def __init__(self):
        self.number: int | None = None

    @contextlib.contextmanager
    def watched(self) -> Iterator["Interruption"]:
        """Notes the first signal instead of dying of it; a second one kills.

        Only the main thread can; elsewhere nothing changes.
        """

        def note(number, frame):
            del frame
            self.number = number
            signal.signal(number, signal.SIG_DFL)
            print(
                "\nending after this step; once more to end now",
                file=sys.stderr,
                flush=True,
            )

        before = {}
        try:
            for number in SIGNALS:
                before[number] = signal.signal(number, note)
        except ValueError:
            pass
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
