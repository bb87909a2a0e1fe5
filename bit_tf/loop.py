"""The training loop: resume, step, log, evaluate, save."""

import dataclasses
import math
import time
from collections.abc import Callable

import keras
import tensorflow as tf

from bit_tf import architecture
from bit_tf import checkpoint
from bit_tf import distribution
from bit_tf import estimate
from bit_tf import events
from bit_tf import losses
from bit_tf import optimizer as optimizer_lib
from bit_tf import progress as progress_lib
from bit_tf import recipe as recipe_lib
from bit_tf import workdir as workdir_lib

LOG_ROWS = 200
CHECKPOINT_EVERY_SECONDS = 300.0
# A step larger than this is computed in parts. Room for the activations, of
# which training keeps about four copies in float32 (conv, norm, scale, ReLU).
MICRO_BATCH_BYTES = 2 * 2**30
BYTES_PER_ACTIVATION = 16
# Between two looks of the host an accelerator makes this many steps; on a
# CPU the host's share of a step is negligible.
ACCELERATOR_STEPS_PER_CALL = 10


def micro_batch_size(model_name: str, *, crop: int, replica_batch: int) -> int:
    """Returns how many images of a replica are computed at once.

    The largest divisor of the replica's batch whose activations fit into
    MICRO_BATCH_BYTES. GroupNorm sees each image alone, so that the parts add
    up to the whole.
    """
    per_image = BYTES_PER_ACTIVATION * architecture.activations(
        model_name, crop
    )
    fitting = max(1, MICRO_BATCH_BYTES // per_image)
    return max(
        size
        for size in range(1, min(fitting, replica_batch) + 1)
        if replica_batch % size == 0
    )


def train_steps(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    *,
    batch_size: int,
    strategy: tf.distribute.Strategy,
    micro_batch: int | None = None,
    loss_name: str = "softmax",
    clip_norm: float = 0.0,
) -> Callable:
    """Compiles the update: a cross-entropy averaged over the batch.

    Args:
        model: built in the strategy's scope.
        optimizer: built for the model's trainable variables; it sums the
            gradients of the replicas.
        batch_size: examples per update over all replicas.
        strategy: which devices share each batch.
        micro_batch: images that a replica computes at once, a divisor of its
            share of the batch; None for all of them.
        loss_name: one of `recipe.LOSSES`.
        clip_norm: the gradient of the whole batch is shortened to this norm;
            0 for never.

    Returns:
        A function of (iterator over distributed batches, number of steps)
        that returns (sum of losses, number of correct examples) over them.
    """
    replica_batch = batch_size // strategy.num_replicas_in_sync
    parts = replica_batch // (micro_batch or replica_batch)

    def forward_backward(images, labels):
        """Returns the sum of losses, the correct ones, and gradients."""
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            labels = tf.cast(labels, logits.dtype)
            loss = tf.reduce_sum(losses.per_example(loss_name, labels, logits))
            share = loss / tf.cast(batch_size, loss.dtype)
        gradients = tape.gradient(
            share, [w.value for w in model.trainable_variables]
        )
        correct = losses.hits(labels, logits)
        return (
            tf.cast(loss, tf.float64),
            tf.reduce_sum(tf.cast(correct, tf.int64)),
            gradients,
        )

    def replica_step(images, labels):
        if parts == 1:
            loss, correct, gradients = forward_backward(images, labels)
        else:
            loss = tf.zeros((), tf.float64)
            correct = tf.zeros((), tf.int64)
            gradients = [
                tf.zeros(w.shape, w.dtype) for w in model.trainable_variables
            ]
            for part in tf.range(parts):
                # One after the other, or nothing would be saved.
                tf.autograph.experimental.set_loop_options(
                    parallel_iterations=1
                )
                own = slice(part * micro_batch, (part + 1) * micro_batch)
                more = forward_backward(images[own], labels[own])
                loss += more[0]
                correct += more[1]
                gradients = [
                    a + b for a, b in zip(gradients, more[2], strict=True)
                ]
        if clip_norm:
            gradients = _clip(gradients, clip_norm)
        optimizer.apply_gradients(
            zip(gradients, model.trainable_variables, strict=True)
        )
        return loss, correct

    def step(iterator):
        outputs = strategy.run(replica_step, args=next(iterator))
        return tuple(
            strategy.reduce("SUM", output, axis=None) for output in outputs
        )

    @tf.function
    def several_steps(iterator, count):
        loss = tf.zeros((), tf.float64)
        correct = tf.zeros((), tf.int64)
        for _ in tf.range(count):
            more = step(iterator)
            loss += more[0]
            correct += more[1]
        return loss, correct

    if parts == 1:
        return several_steps
    # A loop of steps around the loop of parts trips over a bug of
    # TensorFlow's graph optimiser, which leaks temporary variables there. Such
    # steps are long, and the host may as well call each.
    one_step = tf.function(step)

    def steps(iterator, count):
        totals = [one_step(iterator) for _ in range(int(count))]
        return tuple(sum(column) for column in zip(*totals, strict=True))

    return steps


def _clip(gradients, norm: float):
    """Shortens the gradient of the whole batch; inside a replica.

    Only the sum over the replicas has a norm worth looking at. The optimizer
    sums again, so each replica is left with an equal share.
    """
    replica = tf.distribute.get_replica_context()
    gradients = replica.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
    # In float64: the squares of a hundred million numbers.
    squares = [tf.reduce_sum(tf.cast(g, tf.float64) ** 2) for g in gradients]
    found = tf.sqrt(tf.add_n(squares))
    factor = tf.minimum(tf.constant(norm, tf.float64) / found, 1.0)
    factor /= tf.cast(replica.num_replicas_in_sync, tf.float64)
    return [g * tf.cast(factor, g.dtype) for g in gradients]


@dataclasses.dataclass
class _Window:
    """What happened since the last row of the log."""

    steps: int = 0
    loss: float = 0.0
    correct: int = 0
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
        }


def run(
    *,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    recipe: recipe_lib.Recipe,
    batches: Callable[[int], tf.data.Dataset],
    evaluate: Callable[[int], dict],
    strategy: tf.distribute.Strategy,
    workdir: workdir_lib.Workdir,
    first_step: int = 0,
    eval_every: int | None = None,
    checkpoint_every: int | None = None,
    micro_batch: int | None = None,
    log: Callable[[str], None] = print,
) -> None:
    """Trains from `first_step` to the end of the recipe.

    Args:
        model: built in the strategy's scope, weights as of `first_step`.
        optimizer: built; velocities and iterations as of `first_step`.
        recipe: the schedule.
        batches: first step -> global batches from there on.
        evaluate: step -> metrics of the model as it is, as JSON types.
        strategy: which devices share each batch.
        workdir: where rows, events and states go.
        first_step: updates made before.
        eval_every: steps between evaluations; None for only at the end.
        checkpoint_every: steps between states; None for every five minutes.
        micro_batch: images that a replica computes at once; None for all.
        log: called with lines for the user.

    Raises:
        ValueError: the loss is not finite; nothing of that step is saved.
        OSError: a file could not be written; older states are whole.
    """
    total = recipe.total_steps
    steps = train_steps(
        model,
        optimizer,
        batch_size=recipe.batch_size,
        strategy=strategy,
        micro_batch=micro_batch,
        loss_name=recipe.loss,
        clip_norm=recipe.clip_norm,
    )
    schedule = optimizer_lib.schedule(recipe)
    log_every = max(1, total // LOG_ROWS)
    per_call = 1
    if distribution.has_accelerator(strategy):
        per_call = ACCELERATOR_STEPS_PER_CALL
    workdir.truncate_metrics(first_step)
    tensorboard = events.Events(workdir.tensorboard)
    iterator = iter(distribution.distribute(strategy, batches(first_step)))
    step, saved, saved_at = first_step, first_step, time.monotonic()
    progress = progress_lib.Progress(total)
    pace = estimate.Pace(recipe, log=lambda text: (progress.clear(), log(text)))
    window = _Window()

    while step < total:
        stops = [step + per_call, total]
        for every in (log_every, eval_every, checkpoint_every):
            if every:
                stops.append((step // every + 1) * every)
        count = min(stops) - step
        loss, correct = steps(iterator, tf.constant(count, tf.int64))
        step += count
        window.steps += count
        window.loss += float(loss)
        window.correct += int(correct)
        if not math.isfinite(window.loss):
            progress.clear()
            raise ValueError(
                f"the loss is not finite at step {step}: lower --base_lr "
                f"(now {recipe.base_lr:g}); the newest state is of step "
                f"{saved}."
            )
        pace.step(count, remaining=total - step)
        rate = float(schedule(step - 1))
        row = window.row(step=step, batch_size=recipe.batch_size, rate=rate)
        progress.update(step, _status(row, total))
        if step % log_every == 0 or step == total:
            workdir.append_metrics(row)
            tensorboard.write(row)
            window = _Window()
        if step == total or (eval_every and step % eval_every == 0):
            started = time.monotonic()
            row = {"step": step, **evaluate(step)}
            workdir.append_metrics(row)
            tensorboard.write(row)
            progress.clear()
            log(_evaluation_line(row, time.monotonic() - started))
            window.started += time.monotonic() - started
        due = (
            step % checkpoint_every == 0
            if checkpoint_every
            else time.monotonic() - saved_at > CHECKPOINT_EVERY_SECONDS
        )
        if due or step == total:
            checkpoint.save(
                workdir.checkpoints,
                step=step,
                model=model,
                optimizer=optimizer,
            )
            saved, saved_at = step, time.monotonic()
    progress.clear()


def _status(row: dict, total: int) -> str:
    return (
        f"step {row['step']}/{total}  loss {row['train_loss']:.4f}  "
        f"accuracy {100 * row['train_accuracy']:.1f} %  lr {row['lr']:.2e}  "
        f"{row['images_per_second']:.1f} images/s"
    )


def _evaluation_line(row: dict, seconds: float) -> str:
    return (
        f"step {row['step']}: top-1 {100 * row['top1']:.2f} % "
        f"({100 * row['top1_low']:.1f} to {100 * row['top1_high']:.1f}), "
        f"loss {row['loss']:.4f}, {row['examples']} images in "
        f"{progress_lib.duration(seconds)}"
    )
