r"""GroupNorm and standardisation beside BatchNorm and plain kernels.

python experiments/ablation.py --upstream=folder:PATH \
    --downstream=folder:PATH --downstream=folder:PATH \
    >> experiments/results/ablation.jsonl

The paper's tables 4 and 5, small: each of the four networks is trained upstream
with a small and a large batch, the same images in all, and fine-tuned on a few
images per class of other sets. A JSON line each; what is there already is not
done again.
"""

import argparse
import dataclasses
import itertools
import json
import pathlib
import sys
import time
from collections.abc import Callable

import keras
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
DONE = pathlib.Path(__file__).parent / "results" / "ablation.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="R26x0.5")
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--downstream", action="append", default=[])
    parser.add_argument("--crop", type=int, default=32)
    parser.add_argument("--min_crop_area", type=int, default=60)
    parser.add_argument("--epochs", type=float, default=5)
    parser.add_argument("--batch_sizes", default="16,256")
    # Of a batch of 64; it follows the batch, as upstream does.
    parser.add_argument("--base_lr", type=float, default=0.03)
    parser.add_argument("--shots", type=int, default=10)
    parser.add_argument("--subsets", type=int, default=5)
    parser.add_argument("--transfer_steps", type=int, default=100)
    given = parser.parse_args()
    train, evaluation = sources.load(tasks.parse(given.upstream), log=_remark)
    others = {
        pathlib.Path(name).name: sources.load(tasks.parse(name), log=_remark)
        for name in given.downstream
    }
    for batch_size, norm, convolution in itertools.product(
        map(int, given.batch_sizes.split(",")), NORMS, CONVOLUTIONS
    ):
        key = {
            "norm": norm,
            "convolution": convolution,
            "batch_size": batch_size,
            "model": given.model,
            "epochs": given.epochs,
            "crop": given.crop,
            "min_crop_area": given.min_crop_area,
            "base_lr": given.base_lr,
            "shots": given.shots,
            "subsets": given.subsets,
            "transfer_steps": given.transfer_steps,
        }
        if _is_done(key):
            continue
        build = _builder(given.model, norm, convolution)
        began = time.monotonic()
        model, row = _upstream(build, train, evaluation, batch_size, given)
        row["minutes"] = round((time.monotonic() - began) / 60, 1)
        for name, (few, judged) in others.items():
            row[name] = [
                _transfer(build, model, few, judged, seed, given)
                for seed in range(given.subsets)
            ]
        print(json.dumps(key | row), flush=True)


def _builder(name, norm, convolution) -> Callable:
    def build(num_classes: int) -> resnet_v2.ResNetV2:
        return resnet_v2.build(
            name,
            num_classes,
            norm=NORMS[norm],
            convolution=CONVOLUTIONS[convolution],
            seed=0,
        )

    return build


def _upstream(build, train, evaluation, batch_size, given):
    """Returns a network trained on the upstream set, and how good it is."""
    total = round(given.epochs * len(train) / batch_size)
    rules = upstream_lib.recipe(num_examples=len(train), batch_size=batch_size)
    rules = dataclasses.replace(
        rules,
        total_steps=total,
        warmup_steps=total // 20,
        decay_steps=tuple(round(total * at) for at in (1 / 3, 2 / 3, 8 / 9)),
        base_lr=given.base_lr * batch_size / 64,
        crop=given.crop,
        min_crop_area=given.min_crop_area,
    )
    model = build(len(train.class_names))
    row = _trained(model, train, rules, f"upstream, batches of {batch_size}")
    row["upstream_top1"] = _top1(model, evaluation, rules)
    return model, row


def _transfer(build, model, train, evaluation, seed, given) -> float:
    """Returns the top-1 accuracy of a new head and all below, fine-tuned."""
    chosen = subsets.sample(
        train.labels,
        class_names=train.class_names,
        examples_per_class=given.shots,
        seed=seed,
        allow_missing=True,
    )
    total = given.transfer_steps
    rules = recipe_lib.Recipe(
        name="transfer",
        total_steps=total,
        batch_size=32,
        base_lr=0.01,
        warmup_steps=total // 10,
        decay_steps=tuple(round(total * at) for at in (0.3, 0.6, 0.9)),
        resize=round(given.crop * 1.25),
        crop=given.crop,
    )
    tuned = build(len(train.class_names))
    learnt = {v.path: v for v in model.variables if "head" not in v.path}
    for variable in tuned.variables:
        if variable.path in learnt:
            variable.assign(learnt[variable.path])
    _trained(tuned, train.subset(chosen), rules, f"transfer {seed}")
    return _top1(tuned, evaluation, rules)


def _trained(model, train, rules, what: str) -> dict:
    """Trains a network; returns its last loss."""
    optimizer = optimizer_lib.build(rules)
    optimizer.build(model.trainable_variables)
    run = update.compiled(
        model,
        optimizer,
        batch_size=rules.batch_size,
        strategy=distribution.build("one_device"),
    )
    batches = iter(data.for_training(train, rules, seed=0))
    bar = progress_lib.Progress(rules.total_steps, stream=sys.stderr)
    step, losses = 0, []
    while step < rules.total_steps:
        count = min(10, rules.total_steps - step)
        losses.append(run(batches, count).loss / count / rules.batch_size)
        step += count
        bar.update(
            step, f"{what}: step {step}/{rules.total_steps} {losses[-1]:.3f}"
        )
    bar.clear()
    return {"train_loss": round(float(np.mean(losses[-10:])), 4)}


def _top1(model, evaluation: examples_lib.Images, rules) -> float:
    judge = evaluation_lib.evaluator(
        lambda images: model(images, training=False),
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
    return round(judge().summary()["top1"], 4)


def _is_done(key: dict) -> bool:
    lines = DONE.read_text().splitlines() if DONE.exists() else []
    return any(key.items() <= json.loads(line).items() for line in lines)


def _remark(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    keras.utils.set_random_seed(0)
    main()
