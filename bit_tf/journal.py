"""What a run tells on its way: rows of numbers, and a line on the terminal."""

import dataclasses
import functools
import time
from collections.abc import Callable

from bit_tf import events
from bit_tf import execution as execution_lib
from bit_tf import optimizer as optimizer_lib
from bit_tf import patience
from bit_tf import progress as progress_lib
from bit_tf import recipe as recipe_lib
from bit_tf import update
from bit_tf import workdir as workdir_lib

ROWS = 200
# Of a row, what differs from one run to the next.
CLOCK = ("images_per_second", "input_share")
# Of the time; less is not worth mending.
SLOW_INPUT = 0.1


@dataclasses.dataclass
class _Window:
    """What happened since the last row."""

    steps: int = 0
    loss: float = 0.0
    correct: int = 0
    waited: float = 0.0
    started: float = dataclasses.field(default_factory=time.monotonic)

    def row(self, *, step: int, batch_size: int, rate: float) -> dict:
        images = self.steps * batch_size
        seconds = max(time.monotonic() - self.started, 1e-9)
        return {
            "step": step,
            "train_loss": self.loss / images,
            "train_accuracy": self.correct / images,
            "lr": rate,
            "images_per_second": round(images / seconds, 2),
            "input_share": round(min(1.0, self.waited / seconds), 3),
        }


class Journal:
    """Rows for metrics.jsonl and TensorBoard, and progress for the user.

    Rows that could not be written are kept, and written with the next.

    Args:
        workdir: where rows and events go.
        recipe: of the run.
        execution: how it is computed.
        is_chief: whether this process shows progress and writes.
        log: called with lines for the user.
    """

    def __init__(
        self,
        workdir: workdir_lib.Workdir,
        recipe: recipe_lib.Recipe,
        execution: execution_lib.Execution,
        *,
        is_chief: bool,
        log: Callable[[str], None],
    ):
        self._workdir = workdir
        self._recipe = recipe
        self._execution = execution
        self._is_chief = is_chief
        self._log = log
        # Steps from one row to the next.
        self.every = max(1, recipe.total_steps // ROWS)
        self._schedule = optimizer_lib.schedule(recipe)
        self._progress = progress_lib.Progress(recipe.total_steps)
        self._events = events.Events(workdir.tensorboard) if is_chief else None
        self._patience = patience.Patience(self.say)
        self._unwritten: list[dict] = []
        self._window = _Window()

    def say(self, text: str) -> None:
        """Shows a line that stays."""
        self.clear()
        self._log(text)

    def clear(self) -> None:
        """Removes the line of progress, before something else is shown."""
        self._progress.clear()

    def begin(self, step: int, *, is_evaluated: bool) -> None:
        """Leaves the rows up to a step, from which the run goes on.

        Args:
            step: of the state that it goes on from.
            is_evaluated: whether that state has its evaluation behind it.
        """
        self._window = _Window()
        if self._is_chief:
            self._unwritten.clear()
            self._workdir.truncate_metrics(step, is_evaluated=is_evaluated)

    def updated(self, step: int, count: int, report: update.Report) -> None:
        """Takes in what updates did; shows it, and writes the row that is due.

        Args:
            step: that they led to.
            count: how many they were.
            report: what they did, in sum.

        Raises:
            OSError: rows or events, for the third time in a row.
        """
        self._window.steps += count
        self._window.loss += report.loss
        self._window.correct += report.correct
        self._window.waited += report.waited
        row = self._window.row(
            step=step,
            batch_size=self._recipe.batch_size,
            rate=float(self._schedule(step - 1)),
        )
        if self._recipe.loss == "squared":
            # Of numbers none is right.
            del row["train_accuracy"]
        if self._execution.precision == "mixed_float16":
            row["loss_scale"] = report.loss_scale
        if self._is_chief:
            self._progress.update(step, status(row, self._recipe.total_steps))
        if self._execution.deterministic:
            for name in CLOCK:
                del row[name]
        if step % self.every == 0 or step == self._recipe.total_steps:
            self._append(row)
            self._window = _Window()

    def evaluated(self, step: int, metrics: dict, seconds: float) -> None:
        """Writes and shows an evaluation, whose time is none of training.

        Raises:
            OSError: rows or events, for the third time in a row.
        """
        row = {"step": step, **metrics}
        self._append(row)
        self.say(_evaluation_line(row, seconds))
        self._window.started += seconds

    def _append(self, row: dict) -> None:
        if not self._is_chief:
            return
        self._unwritten.append(row)
        self.keep()
        # A copy, of which a row may be missing.
        self._patience.wrote(
            f"the events of step {row['step']}",
            functools.partial(self._events.write, row),
        )

    def keep(self, *, must: bool = False) -> bool:
        """Writes the rows that are not yet; returns whether all are.

        Raises:
            OSError: they could not be, and must; or for the third time.
        """
        if not self._unwritten:
            return True
        return self._patience.wrote(
            f"the metrics of step {self._unwritten[-1]['step']}",
            self._write,
            must=must,
        )

    def _write(self) -> None:
        self._workdir.append_metrics(*self._unwritten)
        self._unwritten.clear()

    def end(self) -> None:
        """Removes the line of progress, and writes the rows that are left.

        Raises:
            OSError: the rows could not be written.
        """
        self.clear()
        self.keep(must=True)


def status(row: dict, total: int) -> str:
    """Returns a row as the line of progress."""
    accuracy = ""
    if "train_accuracy" in row:
        accuracy = f"accuracy {100 * row['train_accuracy']:.1f} %  "
    waiting = ""
    if row["input_share"] > SLOW_INPUT:
        waiting = f"  {100 * row['input_share']:.0f} % of it waiting for images"
    return (
        f"step {row['step']}/{total}  loss {row['train_loss']:.4f}  "
        f"{accuracy}lr {row['lr']:.2e}  "
        f"{row['images_per_second']:.1f} images/s{waiting}"
    )


def _evaluation_line(row: dict, seconds: float) -> str:
    found = []
    if row.get("map") is not None:
        found.append(f"mAP {100 * row['map']:.2f} %")
    if "top1" in row:
        found.append(
            f"top-1 {100 * row['top1']:.2f} % ({100 * row['top1_low']:.1f} to "
            f"{100 * row['top1_high']:.1f})"
        )
    if "loss" in row:
        found.append(f"loss {row['loss']:.4f}")
    if "mae" in row:
        found.append(
            f"mean absolute error {row['mae']:.4g}, root mean square "
            f"{row['rmse']:.4g}"
        )
    return (
        f"step {row['step']}: {', '.join(found)}, {row['examples']} images in "
        f"{progress_lib.duration(seconds)}"
    )
