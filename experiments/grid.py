r"""Trains a small network upstream for each cell of a grid, and transfers it.

python experiments/grid.py --output=experiments/results/grid.jsonl \
    --upstream=folder:PATH --downstream=folder:PATH --downstream=folder:PATH \
    --norms=BatchNorm,GroupNorm --convolutions=plain,standardised \
    --batch_sizes=16,256

Options with an "s" take several values, and every combination is a cell: a
network trained upstream, judged ten times on the way, and fine-tuned on a few
images per class of the other sets, as many times as there are subsets. A JSON
line each, written when the cell is done; what the output has already is not
done again.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import pathlib
import sys
import time
from collections.abc import Callable

import numpy as np

from bit_tf import alternatives
from bit_tf import data
from bit_tf import distribution
from bit_tf import evaluation as evaluation_lib
from bit_tf import examples as examples_lib
from bit_tf import layers
from bit_tf import optimizer as optimizer_lib
from bit_tf import progress as progress_lib
from bit_tf import recipe as recipe_lib
from bit_tf import resnet_v2
from bit_tf import sources
from bit_tf import subsets
from bit_tf import tasks
from bit_tf import update
from bit_tf import upstream as upstream_lib

NORMS = {"BatchNorm": alternatives.BatchNorm, "GroupNorm": layers.GroupNorm}
CONVOLUTIONS = {
    "plain": alternatives.PlainConv2D,
    "standardised": layers.StdConv2D,
}
# Of the grid: name in a row -> option, how its values are read.
AXES = {
    "norm": ("norms", str),
    "convolution": ("convolutions", str),
    "model": ("models", str),
    "batch_size": ("batch_sizes", int),
    "examples_per_class": ("examples_per_class", int),
    "images_seen": ("images_seen", int),
    "base_lr": ("base_lrs", float),
    "weight_decay": ("weight_decays", float),
    "seed": ("seeds", int),
}
# The same for all cells.
FIXED = (
    *("crop", "min_crop_area"),
    *("shots", "subsets", "transfer_steps", "transfer_lr"),
)


def main() -> None:
    given = _options()
    output = pathlib.Path(given.output)
    train, evaluation = sources.load(tasks.parse(given.upstream), log=_remark)
    others = {
        pathlib.Path(name).name: sources.load(tasks.parse(name), log=_remark)
        for name in given.downstream
    }
    axes = [
        [kind(value) for value in getattr(given, option).split(",")]
        for option, kind in AXES.values()
    ]
    for values in itertools.product(*axes):
        cell = dict(zip(AXES, values, strict=True))
        key = cell | {name: getattr(given, name) for name in FIXED}
        if _is_done(key, output):
            continue
        chosen = subsets.sample(
            train.labels,
            class_names=train.class_names,
            examples_per_class=cell["examples_per_class"],
            seed=cell["seed"],
            allow_missing=True,
        )
        # Of the processor: other work beside does not count.
        began = time.process_time()
        model, row = _upstream(train.subset(chosen), evaluation, key)
        row["minutes"] = round((time.process_time() - began) / 60, 1)
        for name, (few, judged) in others.items():
            row[name] = [
                _transfer(model, few, judged, key, seed)
                for seed in range(given.subsets)
            ]
        with output.open("a") as file:
            print(json.dumps(key | row), file=file)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", required=True)
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--downstream", action="append", default=[])
    parser.add_argument("--norms", default="GroupNorm")
    parser.add_argument("--convolutions", default="standardised")
    parser.add_argument("--models", default="R26x0.5")
    parser.add_argument("--batch_sizes", default="64")
    parser.add_argument("--examples_per_class", default="150")
    parser.add_argument("--images_seen", default="150000")
    # Of a batch of 64; they follow the batch, as upstream does.
    parser.add_argument("--base_lrs", default="0.03")
    parser.add_argument("--weight_decays", default="1e-4")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--crop", type=int, default=32)
    parser.add_argument("--min_crop_area", type=int, default=60)
    parser.add_argument("--shots", type=int, default=10)
    parser.add_argument("--subsets", type=int, default=5)
    # As many as the HyperRule's for a small task, of fewer images.
    parser.add_argument("--transfer_steps", type=int, default=500)
    parser.add_argument("--transfer_lr", type=float, default=0.03)
    return parser.parse_args()


def _build(key, num_classes: int) -> resnet_v2.ResNetV2:
    return resnet_v2.build(
        key["model"],
        num_classes,
        norm=NORMS[key["norm"]],
        convolution=CONVOLUTIONS[key["convolution"]],
        seed=key["seed"],
    )


def _upstream(train, evaluation, key):
    """Returns a network trained on the upstream set, and how good it is."""
    batch_size = key["batch_size"]
    total = key["images_seen"] // batch_size
    rules = dataclasses.replace(
        upstream_lib.recipe(num_examples=len(train), batch_size=batch_size),
        total_steps=total,
        warmup_steps=total // 20,
        decay_steps=tuple(round(total * at) for at in (1 / 3, 2 / 3, 8 / 9)),
        base_lr=key["base_lr"] * batch_size / 64,
        weight_decay=key["weight_decay"],
        crop=key["crop"],
        min_crop_area=key["min_crop_area"],
    )
    model = _build(key, len(train.class_names))
    judge = _judge(model, evaluation, rules)
    curve = []
    loss = _fit(
        model,
        train,
        rules,
        seed=key["seed"],
        what=" ".join(str(key[axis]) for axis in AXES),
        every=max(1, total // 10),
        then=lambda step: curve.append((step, judge())),
    )
    top1 = curve[-1][1] if curve[-1][0] == total else judge()
    return model, {"train_loss": loss, "curve": curve, "upstream_top1": top1}


def _transfer(model, train, evaluation, key, seed: int) -> float:
    """Returns the top-1 accuracy of a new head and all below, fine-tuned."""
    chosen = subsets.sample(
        train.labels,
        class_names=train.class_names,
        examples_per_class=key["shots"],
        seed=seed,
        allow_missing=True,
    )
    total = key["transfer_steps"]
    rules = recipe_lib.Recipe(
        name="transfer",
        total_steps=total,
        batch_size=32,
        base_lr=key["transfer_lr"],
        warmup_steps=total // 10,
        decay_steps=tuple(round(total * at) for at in (0.3, 0.6, 0.9)),
        resize=round(key["crop"] * 1.25),
        crop=key["crop"],
    )
    tuned = _build(key, len(train.class_names))
    learnt = {v.path: v for v in model.variables if "head" not in v.path}
    for variable in tuned.variables:
        if variable.path in learnt:
            variable.assign(learnt[variable.path])
    _fit(tuned, train.subset(chosen), rules, seed=seed, what=f"transfer {seed}")
    return _judge(tuned, evaluation, rules)()


def _fit(
    model,
    train: examples_lib.Images,
    rules: recipe_lib.Recipe,
    *,
    seed: int,
    what: str,
    every: int = 0,
    then: Callable[[int], None] = lambda step: None,
) -> float:
    """Trains, calling `then` every so many steps; returns the last loss."""
    optimizer = optimizer_lib.build(rules)
    optimizer.build(model.trainable_variables)
    run = update.compiled(
        model,
        optimizer,
        batch_size=rules.batch_size,
        strategy=distribution.build("one_device"),
    )
    batches = iter(data.for_training(train, rules, seed=seed))
    bar = progress_lib.Progress(rules.total_steps, stream=sys.stderr)
    step, losses = 0, []
    while step < rules.total_steps:
        count = min(10, rules.total_steps - step)
        if every:
            count = min(count, every - step % every)
        losses.append(run(batches, count).loss / count / rules.batch_size)
        step += count
        bar.update(
            step, f"{what}: step {step}/{rules.total_steps} {losses[-1]:.3f}"
        )
        if every and step % every == 0:
            then(step)
    bar.clear()
    return round(float(np.mean(losses[-10:])), 4)


def _judge(model, evaluation, rules) -> Callable[[], float]:
    """Returns what tells a network's top-1 accuracy on a set."""
    evaluate = evaluation_lib.evaluator(
        functools.partial(model, training=False),
        batches=lambda host, hosts: data.for_evaluation(
            evaluation,
            preprocessing=rules.eval_preprocessing,
            crop=rules.crop,
            batch_size=min(64, len(evaluation)),
        ),
        num_examples=len(evaluation),
        class_names=evaluation.class_names,
        strategy=distribution.build("one_device"),
    )
    return lambda: round(evaluate().summary()["top1"], 4)


def _is_done(key: dict, output: pathlib.Path) -> bool:
    lines = output.read_text().splitlines() if output.exists() else []
    return any(key.items() <= json.loads(line).items() for line in lines)


def _remark(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    main()
