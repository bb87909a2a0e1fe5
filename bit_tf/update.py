"""One update of the weights: all replicas, all parts of the batch, compiled."""

import contextlib
import ctypes
import dataclasses
import functools
import sys
from collections.abc import Callable
from collections.abc import Sequence

import keras
import tensorflow as tf

from bit_tf import ahead
from bit_tf import formulations
from bit_tf import losses
from bit_tf import mixup
from bit_tf import optimizer as optimizer_lib

# Of the loss scale for float16: doubled after so many updates without
# overflow, halved after each with (Micikevicius et al., arXiv 1710.03740).
MAX_LOSS_SCALE = 2.0**24
LOSS_SCALE_STEPS = 2_000


@dataclasses.dataclass(frozen=True)
class Report:
    """What happened in some updates, over all replicas.

    Args:
        loss: sum over the examples, nats.
        correct: how many examples were right.
        held: updates that were held back, as their loss or gradient was not
            finite; they changed nothing. Those that a lower loss scale mends
            are not counted.
        asked: of how many replicas the host was asked to end, times updates.
        loss_scale: for the next update.
        steady_steps: updates since the scale last changed.
        waited: for batches that were not there yet, seconds.
    """

    loss: float
    correct: int
    held: int
    asked: int
    loss_scale: float
    steady_steps: int
    waited: float


def compiled(
    model: keras.Model,
    optimizer: optimizer_lib.Momentum,
    *,
    batch_size: int,
    strategy: tf.distribute.Strategy,
    parts: int = 1,
    loss_name: str = "softmax",
    clip_norm: float = 0.0,
    loss_scaling: bool = False,
    jit_compile: bool = False,
    class_weights: Sequence[float] | None = None,
    dropout: float = 0.0,
    seed: int = 0,
    has_clock: bool = True,
) -> Callable[..., Report]:
    """Compiles the update: a cross-entropy averaged over the batch.

    Args:
        model: built in the strategy's scope.
        optimizer: built for the model's trainable variables; it sums the
            gradients of the replicas.
        batch_size: examples per update over all replicas.
        strategy: which devices share each batch.
        parts: in how many a replica computes its share of the batch, which
            they divide.
        loss_name: one of `recipe.LOSSES`.
        clip_norm: the gradient of the whole batch is shortened to this norm;
            0 for never.
        loss_scaling: whether the loss is multiplied by a scale before it is
            differentiated, so that float16 does not lose small gradients.
        jit_compile: whether XLA compiles forward and backward pass.
        class_weights: see `losses.per_example`.
        dropout: share of the pre-logits that is dropped.
        seed: of what is dropped, with the number of the update.
        has_clock: whether to tell how long it waited, which TensorFlow refuses
            where operations have to be deterministic.

    Returns:
        A function of (iterator over distributed batches, number of updates,
        loss scale, steps since it changed, whether this host was asked to
        end).
    """
    replica_step = of_replica(
        model,
        optimizer,
        batch_size=batch_size,
        parts=parts,
        loss_name=loss_name,
        clip_norm=clip_norm,
        loss_scaling=loss_scaling,
        jit_compile=jit_compile,
        class_weights=class_weights,
        dropout=dropout,
        seed=seed,
    )

    replicas = strategy.num_replicas_in_sync

    def step(iterator, scale, asked):
        images, labels, waited = _next(strategy, iterator, has_clock)
        # One core would first compute what needs no images, and count that.
        with tf.control_dependencies([waited]):
            rows = strategy.run(
                replica_step, args=(images, labels, scale[0], asked)
            )
        row = strategy.reduce("SUM", rows, axis=None)
        row = tf.concat([row, [waited]], 0)
        if not loss_scaling:
            return row, scale
        is_held = row[2] > 0
        # Held back at the least scale, it is the numbers' own fault.
        row *= tf.stack([1, 1, tf.cast(scale[0] <= 1, row.dtype), 1, 1])
        return row, _rescaled(*scale, is_held)

    # Without AutoGraph, which would read all of this file at every start.
    @functools.partial(tf.function, autograph=False)
    def several_steps(iterator, count, scale, asked):
        def once_more(number, total, scale):
            row, scale = step(iterator, scale, asked)
            return number + 1, total + row, scale

        _, total, scale = tf.while_loop(
            lambda number, total, scale: number < count,
            once_more,
            (0, tf.zeros((5,), tf.float64), scale),
        )
        return total, scale

    one_step = tf.function(step, autograph=False)
    is_built = False

    def steps(
        iterator,
        count: int,
        *,
        loss_scale: float = 1.0,
        steady_steps: int = 0,
        asked: bool = False,
    ) -> Report:
        nonlocal is_built
        scale = (
            tf.constant(loss_scale, tf.float32),
            tf.constant(steady_steps, tf.int32),
        )
        wish = tf.constant(float(asked), tf.float64)
        if parts == 1:
            if not is_built:
                # Not one update: this traces them, and builds their graph.
                several_steps(iterator, tf.constant(0), scale, wish)
                _give_memory_back()
                is_built = True
            total, scale = several_steps(
                iterator, tf.constant(count), scale, wish
            )
        else:
            # A loop of steps around the loop of parts trips over a bug of
            # TensorFlow's graph optimiser, which leaks temporary variables
            # there. Such steps are long; the host may as well call each.
            total = tf.zeros((5,), tf.float64)
            for _ in range(count):
                row, scale = one_step(iterator, scale, wish)
                total += row
        loss, correct, held, asked, waited = (float(x) for x in total)
        return Report(
            loss=loss,
            correct=round(correct),
            held=round(held / replicas),
            asked=round(asked),
            loss_scale=float(scale[0]),
            steady_steps=int(scale[1]),
            waited=waited,
        )

    return steps


def _give_memory_back() -> None:
    """Has the C library return what building graphs has taken and freed.

    Some 50 MB for R50x1, which glibc would keep beside what updates need.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda kept: 0)
        trim(0)


def _next(strategy, iterator, has_clock):
    """Returns the next images and labels, and how long it took, seconds."""
    if not has_clock:
        return *next(iterator), tf.zeros((), tf.float64)
    started = tf.timestamp()
    with tf.control_dependencies([started]):
        images, labels = next(iterator)
    with tf.control_dependencies(strategy.experimental_local_results(labels)):
        return images, labels, tf.timestamp() - started


def _rescaled(scale, steady, is_held):
    """Returns the loss scale after an update, and how long it has held."""
    steady += 1
    is_due = steady >= LOSS_SCALE_STEPS
    raised = tf.where(is_due, tf.minimum(scale * 2, MAX_LOSS_SCALE), scale)
    return (
        tf.where(is_held, tf.maximum(scale / 2, 1.0), raised),
        tf.where(is_held | is_due, 0, steady),
    )


def of_replica(
    model: keras.Model,
    optimizer: optimizer_lib.Momentum,
    *,
    batch_size: int,
    parts: int = 1,
    loss_name: str = "softmax",
    clip_norm: float = 0.0,
    loss_scaling: bool = False,
    jit_compile: bool = False,
    class_weights: Sequence[float] | None = None,
    dropout: float = 0.0,
    seed: int = 0,
) -> Callable:
    """Returns what each replica does in an update; see `compiled`.

    Returns:
        A function of (images, or `mixup.Pairs` of them, labels, loss scale,
        asked), called within `strategy.run`, that returns (4,) float64: sum of
        losses, correct examples, whether the update was held back, and `asked`
        again.
    """

    # XLA fuses by itself what is put to it plainly.
    formulation = (
        functools.partial(formulations.using, "plain")
        if jit_compile
        else contextlib.nullcontext
    )

    def forward_backward(images, labels, kept, loss_scale):
        """Returns the sum of losses, the correct ones, and gradients."""
        with tf.GradientTape() as tape, formulation():
            logits = _logits(model, mixup.blended(images), kept)
            labels = tf.cast(labels, logits.dtype)
            loss = tf.reduce_sum(
                losses.per_example(loss_name, labels, logits, class_weights)
            )
            share = loss / tf.cast(batch_size, loss.dtype)
            if loss_scaling:
                share *= tf.cast(loss_scale, loss.dtype)
        gradients = tape.gradient(
            share, [w.value for w in model.trainable_variables]
        )
        correct = tf.reduce_sum(
            tf.cast(losses.hits(labels, logits), tf.float64)
        )
        return tf.cast(loss, tf.float64), correct, gradients

    def in_parts(compute, images, labels, kept, loss_scale):
        size = labels.shape[0] // parts
        batch = tf.nest.map_structure(
            lambda tensor: tf.reshape(tensor, (parts, size, *tensor.shape[1:])),
            (images, labels, kept),
        )

        def one_more(part, *sums):
            own = tf.nest.map_structure(lambda tensor: tensor[part], batch)
            loss, correct, gradients = compute(*own, loss_scale)
            return part + 1, *(
                a + b
                for a, b in zip(sums, (loss, correct, *gradients), strict=True)
            )

        zero = tf.zeros((), tf.float64)
        nothing = [
            tf.zeros(w.shape, w.dtype) for w in model.trainable_variables
        ]
        _, loss, correct, *gradients = tf.while_loop(
            lambda part, *sums: part < parts,
            one_more,
            (0, zero, zero, *nothing),
            # One after the other, or nothing would be saved.
            parallel_iterations=1,
        )
        return loss, correct, gradients

    def step(images, labels, loss_scale, asked):
        replica = tf.distribute.get_replica_context()
        # Several workers' batches come without one.
        size = batch_size // replica.num_replicas_in_sync
        images, labels = tf.nest.map_structure(
            lambda tensor: tf.ensure_shape(tensor, (size, *tensor.shape[1:])),
            (images, labels),
        )
        kept = _kept(
            model,
            rate=dropout,
            # Of the whole batch, whoever computes it.
            seed=(seed, optimizer.iterations),
            batch_size=batch_size,
            first=tf.cast(replica.replica_id_in_sync_group, tf.int32) * size,
            size=size,
        )
        compute = forward_backward
        if jit_compile:
            # A function of its own per replica: one that is shared would hold
            # the variables of the first.
            compute = tf.function(
                forward_backward, jit_compile=True, autograph=False
            )
        if parts > 1:
            compute = functools.partial(in_parts, compute)
        with _compiling_ahead(jit_compile):
            loss, correct, gradients = compute(images, labels, kept, loss_scale)
        if loss_scaling:
            # A power of two, which divides without rounding.
            gradients = [g / tf.cast(loss_scale, g.dtype) for g in gradients]
        # A sum is finite only if all of it is, and reads each number once.
        sums = tf.stack([tf.reduce_sum(g) for g in gradients])
        finite = tf.math.is_finite(loss) & tf.reduce_all(
            tf.math.is_finite(sums)
        )
        # One replica's trouble is everybody's: all hold back or none does.
        troubled = replica.all_reduce("SUM", tf.cast(~finite, tf.float32))
        if clip_norm:
            gradients = _clip(replica, gradients, clip_norm)
        optimizer.hold = troubled > 0
        optimizer.apply_gradients(
            zip(gradients, model.trainable_variables, strict=True)
        )
        return tf.stack(
            [loss, correct, tf.cast(optimizer.hold, tf.float64), asked]
        )

    return step


def _compiling_ahead(jit_compile: bool):
    """Returns `ahead.while_traced` where that is of use."""
    devices = []
    if tf.distribute.has_strategy():
        devices = tf.distribute.get_strategy().extended.worker_devices
    if jit_compile or len(devices) != 1:
        return contextlib.nullcontext()
    return ahead.while_traced(devices[0])


def _logits(model: keras.Model, images, kept):
    """Returns the logits, with what is dropped of the pre-logits."""
    if not kept.shape[-1]:
        return model(images, training=True)
    body = keras.Model(model.input, model.endpoints["pre_logits"])
    features = body(images, training=True)
    return model.get_layer("head")(features * tf.cast(kept, features.dtype))


def _kept(
    model: keras.Model, *, rate: float, seed, batch_size: int, first, size: int
):
    """Returns (size, features) factors of the pre-logits; (size, 0) for none.

    Zero for what is dropped, 1 / (1 - rate) for the rest.

    Args:
        rate: share that is dropped.
        seed: of the run, and number of the update.
        batch_size: of the whole batch.
        first: index in it of the replica's first example.
        size: how many examples the replica has.
    """
    if not rate:
        return tf.zeros((size, 0))
    features = model.endpoints["pre_logits"].shape[-1]
    drawn = tf.random.stateless_uniform(
        (batch_size, features), tf.stack([tf.cast(s, tf.int64) for s in seed])
    )
    own = tf.slice(drawn, (first, 0), (size, features))
    return tf.cast(own >= rate, tf.float32) / (1 - rate)


def _clip(replica, gradients, norm: float):
    """Shortens the gradient of the whole batch.

    Only the sum over the replicas has a norm worth looking at. The optimizer
    sums again, so each replica is left with an equal share.
    """
    gradients = replica.all_reduce("SUM", gradients)
    # In float64: the squares of a hundred million numbers.
    squares = [tf.reduce_sum(tf.cast(g, tf.float64) ** 2) for g in gradients]
    found = tf.sqrt(tf.add_n(squares))
    factor = tf.minimum(tf.constant(norm, tf.float64) / found, 1.0)
    factor /= tf.cast(replica.num_replicas_in_sync, tf.float64)
    return [g * tf.cast(factor, g.dtype) for g in gradients]
