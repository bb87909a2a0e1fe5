"""Some updates under any strategy, for comparing what they come to."""

import sys
from unittest import mock

import keras
import numpy as np

from bit_tf import architecture
from bit_tf import data
from bit_tf import distribution
from bit_tf import imbalance
from bit_tf import optimizer as optimizer_lib
from bit_tf import resnet_v2
from bit_tf import starting
from bit_tf import update
from tests.test_data import make_examples
from tests.test_data import make_recipe

EXAMPLES = make_examples(50, side=40)
# Everything that could be split wrongly.
EVERYTHING = {
    "mixup_alpha": 0.4,
    "weight_decay": 1e-3,
    "clip_norm": 0.5,
    "ema_decay": 0.9,
    "weight_decay_to": "start",
    "label_smoothing": 0.1,
    "class_weights": "balanced",
    "dropout": 0.2,
}


def there_is_r14():
    """One unit a block: half the network is traced in half the time."""
    return mock.patch.dict(architecture.UNITS, {14: (1, 1, 1, 1)})


def recipe(**kwargs):
    return make_recipe(
        **{
            "resize": 36,
            "crop": 32,
            "batch_size": 8,
            "total_steps": 20,
            "warmup_steps": 2,
            "decay_steps": (12,),
            "base_lr": 0.02,
            **kwargs,
        }
    )


def build(strategy, rules, *, dtype=None, remat=False):
    with strategy.scope():
        with there_is_r14():
            model = resnet_v2.build(
                "R14x0.5", 3, seed=0, dtype=dtype, remat=remat
            )
        starting.freeze(model, rules.freeze)
        optimizer = optimizer_lib.build(rules)
        optimizer.build(model.trainable_variables)
    optimizer.start(model.trainable_variables)
    return model, optimizer


def batches(strategy, rules, **kwargs):
    """Returns an iterator over the distributed batches."""
    return iter(
        distribution.distribute(
            strategy,
            lambda host, hosts: data.for_training(
                EXAMPLES,
                rules,
                seed=0,
                share=data.Share(host, hosts),
                **kwargs,
            ),
        )
    )


def train(
    strategy, *, rules, count, dtype="float64", remat=False, head=None, **kwargs
):
    """Returns losses, weights, velocities and averages after some updates.

    Args:
        head: standard deviation of the head's kernel; zero if None, which
            stops all gradients but its own.
    """
    model, optimizer = build(strategy, rules, dtype=dtype, remat=remat)
    if head:
        kernel = model.get_layer("head").conv.kernel
        rng = np.random.default_rng(0)
        kernel.assign(rng.normal(size=kernel.shape) * head)
    steps = update.compiled(
        model,
        optimizer,
        batch_size=rules.batch_size,
        strategy=strategy,
        loss_name=rules.loss,
        clip_norm=rules.clip_norm,
        class_weights=imbalance.weights(
            rules.class_weights, EXAMPLES.class_counts()
        ),
        dropout=rules.dropout,
        **kwargs,
    )
    iterator = batches(strategy, rules)
    reports = [steps(iterator, 1) for _ in range(count)]
    found = {
        "losses": np.array([r.loss / rules.batch_size for r in reports]),
        "correct": np.array([r.correct for r in reports]),
    }
    for kind, variables in (
        ("weight", model.trainable_variables),
        ("velocity", optimizer.velocities),
        ("average", optimizer.averages),
    ):
        for v, like in zip(variables, model.trainable_variables, strict=False):
            found[f"{kind}/{like.path}"] = keras.ops.convert_to_numpy(v)
    return found


def largest_difference(one, two, kind):
    """Returns the largest difference in all arrays of a kind."""
    keys = [key for key in one if key.startswith(kind)]
    assert keys and one.keys() == two.keys()
    return max(np.abs(one[key] - two[key]).max() for key in keys)


def main(output: str, index: str, *workers: str) -> None:
    """What each of several workers does: train, and write what came of it."""
    from bit_tf import cluster

    strategy = distribution.build(
        "multi_worker", cluster=cluster.Cluster(workers, int(index))
    )
    found = {}
    for name, kwargs in (
        ("float64", {"count": 20, "parts": 2, "rules": recipe(**EVERYTHING)}),
        (
            "float32",
            {"count": 1, "rules": first_step(), "dtype": None, "head": 0.01},
        ),
    ):
        for key, value in train(strategy, **kwargs).items():
            found[f"{name}:{key}"] = value
    np.savez(output, **found)
    distribution.barrier(strategy)


def first_step():
    """A recipe after whose first update the velocity is the gradient."""
    return recipe(warmup_steps=0)


if __name__ == "__main__":
    main(*sys.argv[1:])
