"""The training loop: resume, step, log, evaluate, save."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from collections.abc import Sequence

import keras
import tensorflow as tf

from bit_tf import checkpoint
from bit_tf import distribution
from bit_tf import estimate
from bit_tf import events
from bit_tf import execution as execution_lib
from bit_tf import interruption as interruption_lib
from bit_tf import optimizer as optimizer_lib
from bit_tf import patience
from bit_tf import progress as progress_lib
from bit_tf import recipe as recipe_lib
from bit_tf import update
from bit_tf import workdir as workdir_lib

LOG_ROWS = 200
CHECKPOINT_EVERY_SECONDS = 300.0
# Between two looks of the host an accelerator makes this many steps; on a
# CPU the host's share of a step is negligible.
ACCELERATOR_STEPS_PER_CALL = 10
MAX_ROLLBACKS = 3
# Of a row, what differs from one run to the next.
CLOCK = ("images_per_second", "input_share")
# Of the time; less is not worth mending.
SLOW_INPUT = 0.1


class NotFiniteError(ValueError):
    """The loss or the gradient is not finite, and the run ends."""

    # Who starts jobs again need not start this one.
    exit_code = 3


@dataclasses.dataclass
class _Window:
    """What happened since the last row of the log."""

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


class Loop:
    """A run from the state it is in to the end of its recipe.

    Args:
        model: built in the strategy's scope, weights as of `state`.
        optimizer: built; velocities and iterations as of `state`.
        recipe: the schedule.
        execution: how to compute it.
        batches: (first step, batches skipped) -> distributed batches.
        evaluate: step -> metrics of the model as it is, as JSON types.
        strategy: which devices share each batch.
        workdir: where rows, events and states go.
        state: what was done before.
        parts: in how many a replica computes its share of a batch.
        is_chief: whether this process writes what the run leaves.
        log: called with lines for the user.
        class_weights: see `losses.per_example`.
        seed: of the run.
    """

    def __init__(
        self,
        *,
        model: keras.Model,
        optimizer: optimizer_lib.Momentum,
        recipe: recipe_lib.Recipe,
        execution: execution_lib.Execution,
        batches: Callable[[int, int], tf.distribute.DistributedDataset],
        evaluate: Callable[[int], dict],
        strategy: tf.distribute.Strategy,
        workdir: workdir_lib.Workdir,
        state: checkpoint.State,
        parts: int = 1,
        is_chief: bool = True,
        log: Callable[[str], None] = print,
        class_weights: Sequence[float] | None = None,
        seed: int = 0,
    ):
        self._model = model
        self._optimizer = optimizer
        self._recipe = recipe
        self._execution = execution
        self._batches = batches
        self._evaluate = evaluate
        self._strategy = strategy
        self._workdir = workdir
        self._state = state
        self._is_chief = is_chief
        self._log = log
        self._scales = execution.precision == "mixed_float16"
        self._steps = update.compiled(
            model,
            optimizer,
            batch_size=recipe.batch_size,
            strategy=strategy,
            parts=parts,
            loss_name=recipe.loss,
            clip_norm=recipe.clip_norm,
            loss_scaling=self._scales,
            jit_compile=execution.jit_compile,
            class_weights=class_weights,
            dropout=recipe.dropout,
            seed=seed,
            has_clock=not execution.deterministic,
        )
        self._log_every = max(1, recipe.total_steps // LOG_ROWS)
        self._per_call = execution.steps_per_call or (
            ACCELERATOR_STEPS_PER_CALL
            if distribution.has_accelerator(strategy)
            else 1
        )
        self._progress = progress_lib.Progress(recipe.total_steps)
        self._events = events.Events(workdir.tensorboard) if is_chief else None
        self._saved, self._saved_at = state.step, time.monotonic()
        self._unwritten: list[dict] = []
        self._patience = patience.Patience(self._say)
        self._window = _Window()
        self._iterator = None
        self._is_alone = distribution.num_hosts(strategy) == 1

    def run(self) -> None:
        """Trains to the end.

        Raises:
            NotFiniteError: the loss or a gradient is not finite; nothing of
                that step is kept.
            interruption.StoppedError: this process, or that of another worker,
                was asked to end; the state is saved.
            OSError: a file could not be written, for the third time in a row
                or at the end; older states are whole.
        """
        total = self._recipe.total_steps
        pace = estimate.Pace(self._recipe, log=self._say)
        self._truncate_metrics()
        if self._execution.nan_policy == "rollback" and not self._state.step:
            self._save(must=True)
        self._restart_data()
        if self._is_evaluation_due():
            # It was asked to end before it had evaluated.
            self._evaluate_now()
            self._save()
        with interruption_lib.Interruption().watched() as interruption:
            while self._state.step < total:
                count = self._next_stop() - self._state.step
                report = self._steps(
                    self._iterator,
                    count,
                    loss_scale=self._state.loss_scale,
                    steady_steps=self._state.steady_steps,
                    asked=interruption.number is not None,
                )
                if self._is_in_trouble(report, count):
                    self._roll_back(self._state.step + count)
                    continue
                self._advance(report, count)
                pace.step(count, remaining=total - self._state.step)
                # Several workers have to hear of it together, see `update`.
                asked = bool(report.asked) or (
                    self._is_alone and interruption.number is not None
                )
                ends = asked and self._state.step < total
                self._write_rows()
                if self._is_evaluation_due() and not ends:
                    self._evaluate_now()
                if self._is_save_due() or asked:
                    self._save(must=ends or self._state.step == total)
                if ends:
                    self._end()
                    raise interruption_lib.StoppedError(
                        self._state.step, interruption.number
                    )
        self._end()

    def _end(self) -> None:
        self._progress.clear()
        if self._unwritten:
            self._write_metrics()

    def _restart_data(self) -> None:
        self._iterator = iter(
            self._batches(self._state.step, self._state.skipped)
        )

    def _truncate_metrics(self) -> None:
        """Leaves the rows that this state has behind it."""
        step = self._state.step
        if self._is_chief:
            # Of what this state has not seen.
            self._unwritten.clear()
            self._workdir.truncate_metrics(
                step, is_evaluated=self._state.evaluated == step
            )

    def _next_stop(self) -> int:
        """Returns the step at which the host looks again.

        A function of the step alone, so that a run that was interrupted looks
        when the other would have.
        """
        step = self._state.step
        stops = [self._recipe.total_steps]
        for every in (
            self._per_call,
            self._log_every,
            self._execution.eval_every,
            self._execution.checkpoint_every,
            self._execution.keep_checkpoint_every,
        ):
            if every:
                stops.append((step // every + 1) * every)
        return min(stops)

    def _is_in_trouble(self, report: update.Report, count: int) -> bool:
        """Returns whether to roll back; raises where that is not wanted."""
        if math.isfinite(report.loss) and not report.held:
            return False
        what = "gradient" if math.isfinite(report.loss) else "loss"
        end = self._state.step + count
        self._progress.clear()
        text = (
            f"the {what} is not finite at step {end}: lower --base_lr (now "
            f"{self._recipe.base_lr:g}); the newest state is of step "
            f"{self._saved}."
        )
        if self._execution.nan_policy == "stop":
            raise NotFiniteError(text)
        if self._state.rollbacks >= MAX_ROLLBACKS:
            raise NotFiniteError(
                f"{text[:-1]}, after {MAX_ROLLBACKS} rollbacks."
            )
        self._log(text)
        return True

    def _roll_back(self, end: int) -> None:
        """Goes back to the newest state and passes over the data since."""
        failed = self._state
        found = checkpoint.restore(
            self._workdir.checkpoints,
            model=self._model,
            optimizer=self._optimizer,
            is_chief=self._is_chief,
            log=self._log,
        )
        if found is None:
            raise NotFiniteError("there is no state to roll back to.")
        checkpoint.check_agreement(self._strategy, found, self._model)
        self._state = dataclasses.replace(
            found,
            skipped=failed.skipped + end - found.step,
            rollbacks=failed.rollbacks + 1,
        )
        self._log(
            f"rolling back to step {found.step}, past "
            f"{end - found.step} batches ({self._state.rollbacks} of "
            f"{MAX_ROLLBACKS} times)"
        )
        self._truncate_metrics()
        # Kept, so that who continues from here knows of it.
        self._save(must=True)
        self._window = _Window()
        self._restart_data()

    def _advance(self, report: update.Report, count: int) -> None:
        """Notes what the updates did."""
        self._state = dataclasses.replace(
            self._state,
            step=self._state.step + count,
            loss_scale=report.loss_scale,
            steady_steps=report.steady_steps,
        )
        self._window.steps += count
        self._window.loss += report.loss
        self._window.correct += report.correct
        self._window.waited += report.waited

    def _write_rows(self) -> None:
        """Shows and writes what is due at this step."""
        step, total = self._state.step, self._recipe.total_steps
        rate = float(optimizer_lib.schedule(self._recipe)(step - 1))
        row = self._window.row(
            step=step, batch_size=self._recipe.batch_size, rate=rate
        )
        if self._recipe.loss == "squared":
            # Of numbers none is right.
            del row["train_accuracy"]
        if self._scales:
            row["loss_scale"] = self._state.loss_scale
        if self._is_chief:
            self._progress.update(step, _status(row, total))
        if self._execution.deterministic:
            for name in CLOCK:
                del row[name]
        if step % self._log_every == 0 or step == total:
            self._append(row)
            self._window = _Window()

    def _is_evaluation_due(self) -> bool:
        """Returns whether this step is to be evaluated, and was not."""
        step, every = self._state.step, self._execution.eval_every
        is_due = step == self._recipe.total_steps or (
            step and every and step % every == 0
        )
        return bool(is_due) and self._state.evaluated != step

    def _evaluate_now(self) -> None:
        step, started = self._state.step, time.monotonic()
        with optimizer_lib.averaged(
            self._optimizer, self._model.trainable_variables
        ):
            row = {"step": step, **self._evaluate(step)}
        self._state = dataclasses.replace(self._state, evaluated=step)
        self._append(row)
        self._say(_evaluation_line(row, time.monotonic() - started))
        self._window.started += time.monotonic() - started

    def _append(self, row: dict) -> None:
        if not self._is_chief:
            return
        self._unwritten.append(row)
        self._patience.wrote(
            f"the metrics of step {row['step']}", self._write_metrics
        )
        # A copy, of which a row may be missing.
        self._patience.wrote(
            f"the events of step {row['step']}",
            functools.partial(self._events.write, row),
        )

    def _write_metrics(self) -> None:
        self._workdir.append_metrics(*self._unwritten)
        self._unwritten.clear()

    def _say(self, text: str) -> None:
        self._progress.clear()
        self._log(text)

    def _is_save_due(self) -> bool:
        step, execution = self._state.step, self._execution
        for every in (
            execution.checkpoint_every,
            execution.keep_checkpoint_every,
            self._recipe.total_steps,
        ):
            if every and step % every == 0:
                return True
        return (
            execution.checkpoint_every is None
            and time.monotonic() - self._saved_at > CHECKPOINT_EVERY_SECONDS
        )

    def _save(self, *, must: bool = False) -> None:
        """Writes the state.

        Args:
            must: whether a run that goes on without it would be a lie.
        """
        write = functools.partial(
            checkpoint.save,
            self._workdir.checkpoints,
            self._state,
            model=self._model,
            optimizer=self._optimizer,
            keep=self._execution.keep_checkpoints,
            keep_every=self._execution.keep_checkpoint_every,
        )
        self._saved_at = time.monotonic()
        step = self._state.step
        if self._unwritten and not self._patience.wrote(
            f"the metrics of step {step}", self._write_metrics, must=must
        ):
            # A state says that the rows up to it are there.
            return
        if not self._is_chief or self._patience.wrote(
            f"the state of step {step}", write, must=must
        ):
            self._saved = step


def _status(row: dict, total: int) -> str:
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
