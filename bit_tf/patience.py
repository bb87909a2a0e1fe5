"""Writes that may fail for a moment, as on a disk that is full or away."""

from collections.abc import Callable

MAX_FAILURES = 3


class Patience:
    """Goes on without what could not be written, but not for ever.

    Args:
        log: called with a line for each failure.
    """

    def __init__(self, log: Callable[[str], None]):
        self._log = log
        self._failures: dict[str, int] = {}

    def wrote(
        self, what: str, write: Callable[[], None], *, must: bool = False
    ) -> bool:
        """Returns whether `write` succeeded.

        Args:
            what: is written, e.g. "the state of step 20"; what comes before
                " of " counts as the same thing.
            write: to call.
            must: whether nothing can go on without it.

        Raises:
            OSError: that of `write`, if it must; or of the third in a row.
        """
        kind, *_ = what.partition(" of ")
        try:
            write()
        except OSError as error:
            failures = self._failures.get(kind, 0) + 1
            self._failures[kind] = failures
            if must or failures == MAX_FAILURES:
                raise
            self._log(
                f"{what} could not be written ({error.strerror or error}): "
                f"going on without; {failures} of {MAX_FAILURES} times in a "
                "row, then it ends"
            )
            return False
        self._failures.pop(kind, None)
        return True
