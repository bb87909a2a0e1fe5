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
from bit_tf import execution as execution_lib
from bit_tf import interruption as interruption_lib
from bit_tf import journal as journal_lib
from bit_tf import optimizer as optimizer_lib
from bit_tf import patience
from bit_tf import recipe as recipe_lib
from bit_tf import update
from bit_tf import workdir as workdir_lib

CHECKPOINT_EVERY_SECONDS = 300.0
# Between two looks of the host an accelerator makes this many steps; on a
# CPU the host's share of a step is negligible.
ACCELERATOR_STEPS_PER_CALL = 10
MAX_ROLLBACKS = 3


class NotFiniteError(ValueError):
    """The loss or the gradient is not finite, and the run ends."""

    # Who starts jobs again need not start this one.
    exit_code = 3


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
        self._checkpoints = workdir.checkpoints
        self._state = state
        self._is_chief = is_chief
        self._journal = journal_lib.Journal(
            workdir, recipe, execution, is_chief=is_chief, log=log
        )
        self._steps = update.compiled(
            model,
            optimizer,
            batch_size=recipe.batch_size,
            strategy=strategy,
            parts=parts,
            loss_name=recipe.loss,
            clip_norm=recipe.clip_norm,
            loss_scaling=execution.precision == "mixed_float16",
            jit_compile=execution.jit_compile,
            class_weights=class_weights,
            dropout=recipe.dropout,
            seed=seed,
            has_clock=not execution.deterministic,
        )
        self._per_call = execution.steps_per_call or (
            ACCELERATOR_STEPS_PER_CALL
            if distribution.has_accelerator(strategy)
            else 1
        )
        self._saved, self._saved_at = state.step, time.monotonic()
        self._patience = patience.Patience(self._journal.say)
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
        pace = estimate.Pace(self._recipe, log=self._journal.say)
        self._begin()
        if self._execution.nan_policy == "rollback" and not self._state.step:
            self._save(must=True)
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
                self._journal.updated(self._state.step, count, report)
                if self._is_evaluation_due() and not ends:
                    self._evaluate_now()
                if self._is_save_due() or asked:
                    self._save(must=ends or self._state.step == total)
                if ends:
                    self._journal.end()
                    raise interruption_lib.StoppedError(
                        self._state.step, interruption.number
                    )
        self._journal.end()

    def _begin(self) -> None:
        """Goes on from the state: data that follow, rows that lead to it."""
        step = self._state.step
        self._iterator = iter(self._batches(step, self._state.skipped))
        self._journal.begin(step, is_evaluated=self._state.evaluated == step)

    def _next_stop(self) -> int:
        """Returns the step at which the host looks again.

        A function of the step alone, so that a run that was interrupted looks
        when the other would have.
        """
        step = self._state.step
        stops = [self._recipe.total_steps]
        for every in (
            self._per_call,
            self._journal.every,
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
        self._journal.clear()
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
        self._journal.say(text)
        return True

    def _roll_back(self, end: int) -> None:
        """Goes back to the newest state and passes over the data since."""
        failed = self._state
        found = checkpoint.restore(
            self._checkpoints,
            model=self._model,
            optimizer=self._optimizer,
            is_chief=self._is_chief,
            log=self._journal.say,
        )
        if found is None:
            raise NotFiniteError("there is no state to roll back to.")
        checkpoint.check_agreement(self._strategy, found, self._model)
        self._state = dataclasses.replace(
            found,
            skipped=failed.skipped + end - found.step,
            rollbacks=failed.rollbacks + 1,
        )
        self._journal.say(
            f"rolling back to step {found.step}, past "
            f"{end - found.step} batches ({self._state.rollbacks} of "
            f"{MAX_ROLLBACKS} times)"
        )
        self._begin()
        # Kept, so that who continues from here knows of it.
        self._save(must=True)

    def _advance(self, report: update.Report, count: int) -> None:
        """Notes what the updates did."""
        self._state = dataclasses.replace(
            self._state,
            step=self._state.step + count,
            loss_scale=report.loss_scale,
            steady_steps=report.steady_steps,
        )

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
            metrics = self._evaluate(step)
        self._state = dataclasses.replace(self._state, evaluated=step)
        self._journal.evaluated(step, metrics, time.monotonic() - started)

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
            self._checkpoints,
            self._state,
            model=self._model,
            optimizer=self._optimizer,
            keep=self._execution.keep_checkpoints,
            keep_every=self._execution.keep_checkpoint_every,
        )
        self._saved_at = time.monotonic()
        step = self._state.step
        if not self._journal.keep(must=must):
            # A state says that the rows up to it are there.
            return
        if not self._is_chief or self._patience.wrote(
            f"the state of step {step}", write, must=must
        ):
            self._saved = step
