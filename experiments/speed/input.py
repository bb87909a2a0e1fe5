r"""Times the batches of training beside the official order of the same work.

python experiments/speed/input.py --images=FOLDER \
    > experiments/results/speed/input.jsonl

In turn A B C A B C, on encoded images in memory: photos of 500 x 375 pixels for
512 -> 480, and images of 32 x 32 for 160 -> 128. "official" resizes in float32,
cuts, mirrors and scales, as the authors' TensorFlow code does (but mirrors half
of the images, not all); "torchvision" works in processes of its own, where it
is installed; "decode", "decode|resize(512)" and so on do no more than that, one
operation of bit_tf's after the other.
"""

import argparse
import importlib.util
import io
import json
import pathlib
import pickle
import random
import statistics
import subprocess
import sys
import time

import compare
import numpy as np
import tensorflow as tf
from PIL import Image

from bit_tf import data
from bit_tf import examples as examples_lib
from bit_tf import kept_images
from bit_tf import listed_files
from bit_tf import mapping
from bit_tf import preprocessing
from bit_tf import recipe as recipe_lib

IMAGES = 300
ROUNDS = 5
# Name -> size of the images, sides before and after the crop, batch.
KINDS = {
    "photos": ((500, 375), 512, 480, 32),
    "small": ((32, 32), 160, 128, 128),
}
# What is prepared ahead is not timed.
AHEAD = 4
SECONDS = 3


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", required=True)
    given = parser.parse_args()
    files = list(listed_files.expand([given.images]))
    random.Random(0).shuffle(files)
    files = [f for f in files if f.lower().endswith((".jpg", ".jpeg"))]
    for kind, (size, resize, crop, batch_size) in KINDS.items():
        contents = [_encoded(file, size) for file in files[:IMAGES]]
        recipe = recipe_lib.Recipe(
            name="",
            total_steps=10**6,
            batch_size=batch_size,
            base_lr=1.0,
            warmup_steps=0,
            decay_steps=(),
            resize=resize,
            crop=crop,
        )
        contenders = {
            name: _timer(dataset, batch_size)
            for name, dataset in _contenders(contents, recipe).items()
        }
        if importlib.util.find_spec("torchvision"):
            contenders["torchvision"] = _torchvision(contents, recipe)
        _compare(kind, contenders)


def _encoded(file: str, size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    image = Image.open(file).convert("RGB").resize(size, Image.LANCZOS)
    image.save(buffer, format="JPEG", quality=95)
    return buffer.getvalue()


def _contenders(contents: list[bytes], recipe: recipe_lib.Recipe) -> dict:
    count = len(contents)
    examples = examples_lib.Examples(
        names=[str(i) for i in range(count)],
        contents=contents,
        labels=np.zeros(count, np.int64),
        sizes=np.zeros((count, 2), np.int64),
        class_names=("one",),
    )
    encoded = tf.constant(contents)
    kept = kept_images.resized(examples, recipe, most_mb=10**4)

    def official(index):
        image = tf.io.decode_jpeg(encoded[index % count], channels=3)
        image = tf.image.resize(image, (recipe.resize, recipe.resize))
        image = tf.image.random_crop(image, (recipe.crop, recipe.crop, 3))
        image = tf.image.random_flip_left_right(image)
        return (image - 127.5) / 127.5

    def mapped(function):
        return (
            tf.data.Dataset.range(10**9)
            .map(function, num_parallel_calls=tf.data.AUTOTUNE)
            .batch(recipe.batch_size, drop_remainder=True)
            .prefetch(2)
        )

    def beginning(operations):
        apply = preprocessing.parse("|".join(operations))

        def first_row(index):
            # All is computed; to copy it into a batch is not what is timed.
            return apply(encoded[index % count], tf.stack([index, index]))[0]

        numbers = tf.data.Dataset.range(10**9).batch(recipe.batch_size)
        rows = mapping.batches(
            numbers.map(lambda those: (those,)),
            first_row,
            size=recipe.batch_size,
            side=recipe.crop,
        )
        return mapping.untuned(rows.prefetch(1))

    operations = recipe.train_preprocessing.split("|")
    with_mixup = recipe_lib.Recipe(**{**vars(recipe), "mixup_alpha": 0.1})
    return {
        "official": mapped(official),
        "bit_tf": data.for_training(examples, recipe, seed=0),
        "bit_tf, kept": data.for_training(examples, recipe, seed=0, kept=kept),
        "official, mixup": mapped(official).map(
            lambda images: 0.5 * images + 0.5 * images[::-1]
        ),
        "bit_tf, mixup": data.for_training(examples, with_mixup, seed=0),
        # Without looking for EXIF data.
        "decode(0)": beginning(["decode(0)"]),
    } | {
        "|".join(operations[:end]): beginning(operations[:end])
        # The range is the network's, in the update.
        for end in range(1, len(operations))
    }


def _timer(dataset: tf.data.Dataset, batch_size: int):
    """Returns a function that says how many seconds an image takes."""

    def seconds():
        # It ends with the function, and not while the next is timed.
        iterator = iter(dataset)
        for _ in range(AHEAD):
            next(iterator)
        done, began = 0, time.perf_counter()
        while (spent := time.perf_counter() - began) < SECONDS:
            next(iterator)
            done += batch_size
        return spent / done

    return seconds


def _torchvision(contents: list[bytes], recipe: recipe_lib.Recipe):
    """Returns the same of torchvision, which waits between the rounds."""
    work = {
        "contents": contents,
        "resize": recipe.resize,
        "crop": recipe.crop,
        "batch_size": recipe.batch_size,
        "ahead": AHEAD,
        "seconds": SECONDS,
    }
    process = subprocess.Popen(
        [sys.executable, pathlib.Path(__file__).with_name("torch_input.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    pickle.dump(work, process.stdin)

    def seconds():
        process.stdin.write(b"\n")
        process.stdin.flush()
        return float(process.stdout.readline())

    return seconds


def _compare(kind: str, contenders: dict) -> None:
    seconds = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, timed in contenders.items():
            seconds[name].append(timed())
    for name, found in seconds.items():
        ratios = [
            a / b for a, b in zip(found, seconds["official"], strict=True)
        ]
        row = {
            "images": kind,
            "pipeline": name,
            "images_per_second": round(1 / statistics.median(found)),
            "ratio": round(statistics.median(ratios), 3),
            "ratio_min": round(min(ratios), 3),
            "ratio_max": round(max(ratios), 3),
            "rounds": ROUNDS,
            "processor": compare.processor(),
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
