"""How long a run will take here, and which flags would shorten it."""

import time
from collections.abc import Callable

from bit_tf import progress
from bit_tf import recipe as recipe_lib

# Longer than this, somebody in front of the machine wants to know a way out.
LONG_SECONDS = 30 * 60
WANTED_SECONDS = 20 * 60
# A first step this long says enough, though it has also compiled.
FIRST_STEP_SECONDS = 60.0
SMALL_BATCH = 64
SMALL_CROP = 128


def shortcuts(
    recipe: recipe_lib.Recipe, seconds_per_step: float
) -> list[tuple[str, float]]:
    """Returns (flags, seconds of the whole run with them), if it is long.

    The work of a step grows with the batch and with the area of the crop, so
    the estimates scale with both.

    Args:
        recipe: what runs now.
        seconds_per_step: measured.

    Returns:
        Ways to cut the run, mildest first; empty if it is short enough.
    """
    whole = recipe.total_steps * seconds_per_step
    if whole <= LONG_SECONDS:
        return []
    flags: list[tuple[str, float]] = []
    if recipe.crop > SMALL_CROP:
        ratio = (SMALL_CROP / recipe.crop) ** 2
        flags.append((f"--crop={SMALL_CROP}", ratio))
    if recipe.batch_size > SMALL_BATCH:
        ratio = SMALL_BATCH / recipe.batch_size
        flags.append((f"--batch_size={SMALL_BATCH}", ratio))
    ways = [(flag, whole * ratio) for flag, ratio in flags]
    if len(flags) == 2:
        both = flags[0][1] * flags[1][1]
        ways.append((f"{flags[0][0]} {flags[1][0]}", whole * both))
    shortest = min((seconds for _, seconds in ways), default=whole)
    if shortest > LONG_SECONDS:
        steps = max(1, int(recipe.total_steps * WANTED_SECONDS / shortest))
        every = " ".join(flag for flag, _ in flags)
        ways.append(
            (
                f"{every} --total_steps={steps}".strip(),
                shortest * steps / recipe.total_steps,
            )
        )
    return ways


class Pace:
    """Says once, after the first steps, how long the whole will take.

    Args:
        recipe: what runs.
        log: called with the lines.
    """

    def __init__(
        self, recipe: recipe_lib.Recipe, *, log: Callable[[str], None]
    ):
        self._recipe = recipe
        self._log = log
        self._told = False
        self._since = time.monotonic()
        self._first = True
        self._steps = 0

    def step(self, count: int, *, remaining: int) -> None:
        """Notes that `count` steps have ended and `remaining` are left."""
        if self._told:
            return
        self._steps += count
        seconds = time.monotonic() - self._since
        # The first call compiles for some ten seconds and is left out.
        if self._first and seconds < FIRST_STEP_SECONDS:
            self._first = False
            self._since = time.monotonic()
            self._steps = 0
            return
        if seconds < 2 and self._steps < 20:
            return
        self._told = True
        each = seconds / self._steps
        self._log(
            f"estimate: {remaining} more steps of {each:.2g} s, about "
            f"{progress.duration(remaining * each)} (evaluation not "
            "counted)"
        )
        for flags, whole in shortcuts(self._recipe, each):
            self._log(
                f"  {flags} would cut the run to about "
                f"{progress.duration(whole)}"
            )
