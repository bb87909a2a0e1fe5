"""What a machine makes of training, inference, an exported model and input."""

import pathlib
import resource
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from bit_tf import architecture
from bit_tf import data
from bit_tf import distribution
from bit_tf import examples as examples_lib
from bit_tf import exportable
from bit_tf import mapping
from bit_tf import optimizer as optimizer_lib
from bit_tf import recipe as recipe_lib
from bit_tf import resnet_v2
from bit_tf import saved_model
from bit_tf import update

CLASSES = 1000
# Side of the square matrices whose product shows what the cores can do.
MATRIX = 2048
# A call shorter than this is repeated, so that a clock can time it.
SECONDS = 0.2


def train(
    *,
    model: str,
    crop: int,
    batch_size: int,
    calls: int,
    remat: bool = False,
    precision: str = "float32",
    recipe: recipe_lib.Recipe | None = None,
    examples: examples_lib.Images | None = None,
) -> dict:
    """Times the update that training makes.

    Args:
        model: e.g. "R50x1".
        crop: image side, pixels.
        batch_size: images per update.
        calls: how many are timed.
        remat: see `execution.Execution`.
        precision: the same.
        recipe: how to prepare real images; None for one batch of noise that
            is there already.
        examples: real images.

    Returns:
        A row, see `_row`, with "first_call_seconds".
    """
    network = resnet_v2.build(
        model,
        len(examples.class_names) if examples else CLASSES,
        remat=remat,
        dtype=precision,
    )
    optimizer = optimizer_lib.Momentum(1e-3)
    optimizer.build(network.trainable_variables)
    steps = update.compiled(
        network,
        optimizer,
        batch_size=batch_size,
        strategy=distribution.build("one_device"),
    )
    if examples is None:
        batch = (_noise(batch_size, crop), np.eye(batch_size, CLASSES))
        batches = mapping.untuned(
            tf.data.Dataset.from_tensors(batch).cache().repeat()
        )
    else:
        batches = data.for_training(examples, recipe, seed=0)
    iterator = iter(batches)
    return _row(
        lambda: steps(iterator, 1),
        calls,
        images=batch_size,
        # Forward, and backward for the images and for the kernels.
        multiplications=3 * architecture.multiplications(model, crop),
    )


def inference(
    *,
    model: str,
    crop: int,
    batch_size: int,
    calls: int,
    precision: str = "float32",
) -> dict:
    """Times the network on a batch of noise; see `train`."""
    network = resnet_v2.build(model, CLASSES, dtype=precision)
    images = tf.constant(_noise(batch_size, crop))
    predict = tf.function(
        lambda images: network(images, training=False), autograph=False
    )
    return _row(
        lambda: predict(images).numpy(),
        calls,
        images=batch_size,
        multiplications=architecture.multiplications(model, crop),
    )


def write(path: pathlib.Path, *, model: str, crop: int) -> None:
    """Exports what `export` times."""
    saved_model.write(
        path,
        exportable.Exportable(
            model=resnet_v2.build(model, CLASSES),
            class_names=[str(i) for i in range(CLASSES)],
            crop=crop,
        ),
        form="inference",
    )


def export(
    path: pathlib.Path, *, model: str, crop: int, batch_size: int, calls: int
) -> dict:
    """Times what `write` has written, as whoever serves it; see `train`."""
    call = tf.saved_model.load(str(path)).signatures["image_tensor"]
    images = tf.constant(_noise(batch_size, crop) / 2 + 0.5)
    return _row(
        lambda: call(images=images)["logits"].numpy(),
        calls,
        images=batch_size,
        multiplications=architecture.multiplications(model, crop),
    )


def read(
    *,
    recipe: recipe_lib.Recipe,
    examples: examples_lib.Images,
    calls: int,
) -> dict:
    """Times the batches of training, and nothing else; see `train`."""
    iterator = iter(data.for_training(examples, recipe, seed=0))
    return _row(lambda: next(iterator), calls, images=recipe.batch_size)


def gemm_flops() -> float:
    """Returns the best rate at which matrices are multiplied here, FLOP/s."""
    rng = np.random.default_rng(0)
    one = rng.normal(size=(MATRIX, MATRIX)).astype(np.float32)
    tensor = tf.constant(one)
    ways = (lambda: one @ one, lambda: tf.matmul(tensor, tensor).numpy())
    best = min(_seconds(way) for _ in range(6) for way in ways)
    return 2 * MATRIX**3 / best


def _row(
    call: Callable,
    calls: int,
    *,
    images: int,
    multiplications: int = 0,
) -> dict:
    """Times a call.

    Args:
        call: one piece of work.
        calls: how often to time it.
        images: of a call.
        multiplications: multiply-adds per image; 0 for none to speak of.

    Returns:
        "first_call_seconds", with all that TensorFlow prepares; "ms" per
        call, median, with "ms_min" and "ms_max"; "images_per_second";
        "peak_memory_mb" of the process; "gemm_gflops" and the share of it
        that the convolutions came to, "gemm_share".
    """
    first = _seconds(call)
    ended = time.time()
    repeats = max(1, round(SECONDS / max(_seconds(call), 1e-9)))

    def repeated():
        for _ in range(repeats):
            call()

    seconds = [_seconds(repeated) / repeats for _ in range(calls)]
    median = statistics.median(seconds)
    row = {
        "first_call_seconds": first,
        "first_call_ended": ended,
        "ms": 1e3 * median,
        "ms_min": 1e3 * min(seconds),
        "ms_max": 1e3 * max(seconds),
        "images_per_second": images / median,
        "peak_memory_mb": _peak_memory(),
    }
    if multiplications:
        flops = gemm_flops()
        row["gemm_gflops"] = flops / 1e9
        row["gemm_share"] = 2 * multiplications * images / median / flops
    return row


def _peak_memory() -> float:
    """Returns the most that this process has held, MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Bytes on macOS, kilobytes elsewhere.
    return peak / (1 if sys.platform == "darwin" else 2**-10) / 2**20


def _seconds(call: Callable) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _noise(batch_size: int, crop: int) -> np.ndarray:
    shape = (batch_size, crop, crop, 3)
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
