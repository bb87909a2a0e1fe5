"""Many short trainings of one network: built once, begun again each time."""

import math
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from bit_tf import data
from bit_tf import distribution
from bit_tf import evaluation as evaluation_lib
from bit_tf import examples as examples_lib
from bit_tf import execution
from bit_tf import imbalance
from bit_tf import loop
from bit_tf import optimizer as optimizer_lib
from bit_tf import outcomes
from bit_tf import pretrained
from bit_tf import recipe as recipe_lib
from bit_tf import resnet_v2
from bit_tf import starting
from bit_tf import update
from bit_tf import weights

# Updates between two looks at the loss.
_STEPS_AT_ONCE = 10
_EVAL_BATCH = 64


class Trials:
    """Trains on small sets, one after the other; nothing is kept of them.

    Args:
        start: where each begins.
        recipe: what each follows.
        evaluation: what each is evaluated on.
    """

    def __init__(
        self,
        start: pretrained.Start,
        recipe: recipe_lib.Recipe,
        evaluation: examples_lib.Images,
    ):
        self._start = start
        self._recipe = recipe
        self._class_names = evaluation.class_names
        self._strategy = distribution.build("one_device")
        with self._strategy.scope():
            self._model = resnet_v2.build(
                start.model_name, len(evaluation.class_names), seed=None
            )
            starting.freeze(self._model, recipe.freeze)
            self._optimizer = optimizer_lib.build(recipe)
            self._optimizer.build(self._model.trainable_variables)
        self._begun: tuple[int, list[np.ndarray]] | None = None
        self._parts = execution.Execution().parts(
            start.model_name,
            crop=recipe.crop,
            replica_batch=recipe.batch_size,
        )
        self._steps: dict[tuple | None, Callable] = {}
        self._evaluate = evaluation_lib.evaluator(
            lambda images: self._model(images, training=False),
            batches=lambda host, hosts: data.for_evaluation(
                evaluation,
                preprocessing=recipe.eval_preprocessing,
                crop=recipe.crop,
                batch_size=min(_EVAL_BATCH, len(evaluation)),
                share=data.Share(host, hosts),
            ),
            num_examples=len(evaluation),
            class_names=evaluation.class_names,
            strategy=self._strategy,
            loss_name=recipe.loss,
            several_labels=evaluation.is_multi_label,
        )

    def run(
        self,
        train: examples_lib.Images,
        *,
        seed: int,
        progress: Callable[[int], None] = lambda step: None,
    ) -> outcomes.Outcome:
        """Trains from the start, and evaluates.

        Args:
            train: what to train on.
            seed: of fresh weights, order and augmentation.
            progress: called with the number of updates done.

        Raises:
            loop.NotFiniteError: the loss is not finite.
        """
        self._begin(seed)
        recipe, step = self._recipe, 0
        steps = self._compiled(train, seed)
        iterator = iter(
            distribution.distribute(
                self._strategy,
                lambda host, hosts: data.for_training(
                    train, recipe, seed=seed, share=data.Share(host, hosts)
                ),
            )
        )
        while step < recipe.total_steps:
            count = min(_STEPS_AT_ONCE, recipe.total_steps - step)
            report = steps(iterator, count)
            step += count
            if report.held or not math.isfinite(report.loss):
                raise loop.NotFiniteError(
                    f"the loss is not finite at step {step}: lower --base_lr "
                    f"(now {recipe.base_lr:g})."
                )
            progress(step)
        with optimizer_lib.averaged(
            self._optimizer, self._model.trainable_variables
        ):
            return self._evaluate()

    def _compiled(self, train: examples_lib.Images, seed: int) -> Callable:
        """Returns the update, traced once unless it depends on the set."""
        recipe = self._recipe
        class_weights = imbalance.weights(
            recipe.class_weights, train.class_counts()
        )
        key = (
            None if class_weights is None else tuple(class_weights),
            seed if recipe.dropout else None,
        )
        if key not in self._steps:
            self._steps = {
                key: update.compiled(
                    self._model,
                    self._optimizer,
                    batch_size=recipe.batch_size,
                    strategy=self._strategy,
                    parts=self._parts,
                    loss_name=recipe.loss,
                    clip_norm=recipe.clip_norm,
                    class_weights=class_weights,
                    dropout=recipe.dropout,
                    seed=seed,
                )
            }
        return self._steps[key]

    def _begin(self, seed: int) -> None:
        """Puts everything back to where a training begins."""
        # Weights from a file are the same for all seeds.
        seed = 0 if self._start.init_from else seed
        if self._begun is None or self._begun[0] != seed:
            fresh = self._model
            if not self._start.init_from:
                fresh = resnet_v2.build(
                    self._start.model_name,
                    self._model.num_classes,
                    seed=seed,
                    initializer=self._recipe.initializer,
                )
            starting.begin(
                fresh,
                self._start.init_from,
                self._recipe,
                class_names=self._class_names,
                log=lambda text: None,
            )
            self._begun = (
                seed,
                [keras.ops.convert_to_numpy(v) for v in fresh.variables],
            )
        for variable, value in zip(
            self._model.variables, self._begun[1], strict=True
        ):
            variable.assign(value)
        for variable in self._optimizer.variables:
            variable.assign(tf.zeros_like(variable.value))
        self._optimizer.start(self._model.trainable_variables)


def features(
    start: pretrained.Start,
    examples: examples_lib.Images,
    *,
    preprocessing: str,
    crop: int,
    batch_size: int = _EVAL_BATCH,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
    """Returns the (N, D) float32 pre-logits of all examples, in order.

    Args:
        start: the network.
        examples: N images.
        preprocessing: see `preprocessing.parse`.
        crop: side of the images it makes, pixels.
        batch_size: images at once.
        seed: of fresh weights.
        progress: called with the number of images done.
    """
    model = resnet_v2.build(
        start.model_name, None, seed=None if start.init_from else seed
    )
    if start.init_from:
        weights.load(start.init_from, model)
    body = tf.function(
        lambda images: model(images, training=False), autograph=False
    )
    batch_size = min(batch_size, len(examples))
    found, done = [], 0
    for images, _, indices in data.for_evaluation(
        examples,
        preprocessing=preprocessing,
        crop=crop,
        batch_size=batch_size,
    ):
        found.append(body(images).numpy()[indices.numpy() >= 0])
        done += len(found[-1])
        progress(done)
    return np.concatenate(found)
