"""Recipe -> learning-rate schedule and SGD with the paper's momentum."""

import contextlib
from collections.abc import Iterator
from collections.abc import Sequence

import keras
import tensorflow as tf

from bit_tf import recipe as recipe_lib


@keras.saving.register_keras_serializable(package="bit_tf")
class StaircaseWithWarmup(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up from 0, then a drop after every boundary.

    At step s the rate is base_lr * s / warmup_steps while s < warmup_steps,
    and afterwards base_lr * decay_factor ** (number of boundaries < s): the
    step that equals a boundary still has the old rate (semantics of the
    official bit_hyperrule.py).
    """

    def __init__(
        self,
        *,
        base_lr: float,
        warmup_steps: int,
        decay_steps: tuple[int, ...],
        decay_factor: float,
    ):
        super().__init__()
        self.base_lr = base_lr
        self.warmup_steps = warmup_steps
        self.decay_steps = tuple(decay_steps)
        self.decay_factor = decay_factor

    def __call__(self, step):
        # float64: a float32 step is not exact beyond 2**24.
        step = tf.cast(step, tf.float64)
        boundaries = tf.constant(self.decay_steps, tf.float64)
        drops = tf.reduce_sum(tf.cast(boundaries < step, tf.float64))
        base = tf.constant(self.base_lr, tf.float64)
        factor = tf.constant(self.decay_factor, tf.float64)
        rate = base * factor**drops
        if self.warmup_steps:
            warmup = tf.constant(self.warmup_steps, tf.float64)
            rate = tf.where(step < warmup, base * step / warmup, rate)
        return rate

    def get_config(self):
        return {
            "base_lr": self.base_lr,
            "warmup_steps": self.warmup_steps,
            "decay_steps": list(self.decay_steps),
            "decay_factor": self.decay_factor,
        }


@keras.saving.register_keras_serializable(package="bit_tf")
class Momentum(keras.optimizers.Optimizer):
    """SGD whose velocity does not contain the learning rate.

    velocity = momentum * velocity + gradient; weight -= rate * velocity, as
    in the authors' TF1, JAX and PyTorch code. Keras' own SGD keeps the rate
    inside the velocity, so that after every drop of the rate the old one
    lives on for some ten steps.

    Args:
        learning_rate: number or schedule.
        momentum: in [0, 1).
        weight_decay: strength; 0 for none.
        weight_decay_kind: "l2" adds weight_decay * weight to the gradient;
            "decoupled" subtracts it from the weight, times rate / base_lr.
        weight_decay_on: "kernels" or "all" variables.
        weight_decay_to: "zero", or "start": decay pulls to the weights at the
            time of `start`.
        base_lr: the rate at which decoupled decay has its full strength.
        ema_decay: of the moving average of the weights, in (0, 1); 0 for no
            average. `start` has to be called when the weights are those of
            step 0.

    Attributes:
        hold: scalar boolean tensor, set inside a replica before
            `apply_gradients`: where it is true, the update changes nothing,
            whatever the gradients are.
    """

    def __init__(
        self,
        learning_rate,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        weight_decay_kind: str = "l2",
        weight_decay_on: str = "kernels",
        weight_decay_to: str = "zero",
        base_lr: float = 1.0,
        ema_decay: float = 0.0,
        name: str = "momentum",
        **kwargs,
    ):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum = momentum
        # Not `weight_decay`, by which Keras' own optimizers decay.
        self.decay = weight_decay
        self.weight_decay_kind = weight_decay_kind
        self.weight_decay_on = weight_decay_on
        self.weight_decay_to = weight_decay_to
        self.base_lr = base_lr
        self.ema_decay = ema_decay
        self.averages: list[keras.Variable] = []
        self.starts: list[keras.Variable] = []
        self.hold: tf.Tensor | None = None
        self._numbers = {}

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.velocities = self.add_optimizer_variables(variables, "velocity")
        if self.ema_decay:
            self.averages = self.add_optimizer_variables(variables, "average")
        if self.decay and self.weight_decay_to == "start":
            self.starts = self.add_optimizer_variables(variables, "start")
        # Noted here, where they are Keras variables and know their paths.
        self._decayed = [
            self.weight_decay_on == "all" or v.path.endswith("kernel")
            for v in variables
        ]

    def start(self, variables: Sequence[keras.Variable]) -> None:
        """Lets averages, and where decay pulls, be the weights as they are."""
        for slots in (self.averages, self.starts):
            for slot, variable in zip(slots, variables, strict=False):
                slot.assign(variable)

    def _get_current_learning_rate(self):
        """Returns the rate, or NaN where the update is to be held back.

        The rate is what reaches `update_step` on every device; a tensor kept
        aside would be that of one replica.
        """
        rate = super()._get_current_learning_rate()
        if self.hold is None:
            return rate
        return tf.where(self.hold, tf.constant(float("nan"), rate.dtype), rate)

    def apply(self, grads, trainable_variables=None):
        self._numbers = {}
        super().apply(grads, trainable_variables)

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        velocity = self.velocities[index].value
        update, rate, momentum, kept = self._alike_for_all(
            learning_rate, variable.dtype
        )
        gradient = tf.cast(gradient, variable.dtype)
        decay = self.decay if self._decayed[index] else 0.0
        if decay and self.weight_decay_kind == "l2":
            gradient = gradient + decay * self._excess(variable, index)
        if update is not None:
            # This selection, unlike `tf.where`, does not copy what it selects.
            gradient = tf.raw_ops.Select(
                condition=update, x=gradient, y=tf.convert_to_tensor(velocity)
            )
        if decay and self.weight_decay_kind == "decoupled":
            # Of the weight before the step, as the gradient is.
            decayed = rate / self.base_lr * decay
            self.assign_sub(variable, decayed * self._excess(variable, index))
        # One pass over the numbers instead of six.
        tf.raw_ops.ResourceApplyMomentum(
            var=variable.handle,
            accum=velocity.handle,
            lr=rate,
            grad=gradient,
            momentum=momentum,
        )
        if self.ema_decay:
            average = self.averages[index]
            self.assign(average, kept * average + (1 - kept) * variable)

    def _alike_for_all(self, learning_rate, dtype):
        """Returns what a device's variables of a dtype share in an update.

        Made once: a graph with some operations for each of a network's
        variables takes longer to build.

        Returns:
            Whether to update, None for always; the rate, the momentum, and the
            share that an average keeps. Where nothing is updated they change
            nothing, to the last bit: the gradient is to be the velocity, which
            becomes 0 * velocity + velocity.
        """
        # Each device has one of its own, where the rate is not a constant.
        key = id(learning_rate), dtype
        if key not in self._numbers:
            rate = tf.cast(learning_rate, dtype)
            momentum, kept, none, all_of_it = (
                tf.constant(value, dtype)
                for value in (self.momentum, self.ema_decay, 0.0, 1.0)
            )
            update = None
            if self.hold is not None:
                update = tf.math.is_finite(rate)
                momentum = tf.where(update, momentum, none)
                rate = tf.where(update, rate, none)
                kept = tf.where(update, kept, all_of_it)
            self._numbers[key] = update, rate, momentum, kept
        return self._numbers[key]

    def _excess(self, variable, index):
        """Returns what decay pulls at."""
        return variable - self.starts[index] if self.starts else variable

    def get_config(self):
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "weight_decay": self.decay,
            "weight_decay_kind": self.weight_decay_kind,
            "weight_decay_on": self.weight_decay_on,
            "weight_decay_to": self.weight_decay_to,
            "base_lr": self.base_lr,
            "ema_decay": self.ema_decay,
        }


def schedule(recipe: recipe_lib.Recipe) -> StaircaseWithWarmup:
    """Returns the learning rate of a recipe as a function of the step."""
    return StaircaseWithWarmup(
        base_lr=recipe.base_lr,
        warmup_steps=recipe.warmup_steps,
        decay_steps=recipe.decay_steps,
        decay_factor=recipe.decay_factor,
    )


def build(recipe: recipe_lib.Recipe) -> Momentum:
    """Returns the optimizer of a recipe."""
    return Momentum(
        schedule(recipe),
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        weight_decay_kind=recipe.weight_decay_kind,
        weight_decay_on=recipe.weight_decay_on,
        weight_decay_to=recipe.weight_decay_to,
        base_lr=recipe.base_lr,
        ema_decay=recipe.ema_decay,
    )


@contextlib.contextmanager
def averaged(
    optimizer: Momentum, variables: Sequence[keras.Variable]
) -> Iterator[None]:
    """Puts the averages in the place of the weights, and the weights back.

    By copies: exchanging by sums and differences would leave rounding behind,
    and a run would depend on when it was evaluated. Without averages nothing
    happens.

    Args:
        optimizer: built for the variables.
        variables: the weights.
    """
    if not optimizer.averages:
        yield
        return
    kept = [keras.ops.convert_to_numpy(v) for v in variables]
    for variable, average in zip(variables, optimizer.averages, strict=True):
        variable.assign(keras.ops.convert_to_numpy(average))
    try:
        yield
    finally:
        for variable, value in zip(variables, kept, strict=True):
            variable.assign(value)
