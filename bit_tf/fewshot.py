"""Accuracy against examples per class: table, JSON lines and figure.

python -m bit_tf.fewshot --dataset=folder:PATH --models=BiT-M-R50x1 \\
    --shots=1,5,10,25,100 --seeds=5 --output=DIR
"""

import functools
import json
import pathlib
import time

import numpy as np
from absl import flags

from bit_tf import data_flags as images
from bit_tf import examples as examples_lib
from bit_tf import importing
from bit_tf import metrics
from bit_tf import probes
from bit_tf import program
from bit_tf import progress as progress_lib
from bit_tf import recipe_flags as numbers
from bit_tf import subsets
from bit_tf import tasks

METHODS = ("finetune", "linear", "knn")

_MODELS = flags.DEFINE_list(
    "models",
    None,
    "What to start from, one or several: published weights such as "
    "BiT-M-R50x1, a weights file, the workdir of a run, or a network with "
    "fresh weights such as R26x0.5. NAME=MODEL gives one a name.",
)
_SHOTS = flags.DEFINE_list(
    "shots",
    "1,5,10,25,100",
    'Training examples per class, and "all" for as many as there are.',
)
_ALLOW_MISSING = flags.DEFINE_bool(
    "fewshot_allow_missing",
    False,
    "Take what there is of a class with fewer examples.",
)
_SEEDS = flags.DEFINE_integer(
    "seeds",
    5,
    "How many subsets of each size, of seeds 0, 1, ...; the paper has 5.",
    lower_bound=1,
    upper_bound=10_000,
)
_METHODS = flags.DEFINE_list(
    "methods",
    "finetune",
    "finetune: the HyperRule. linear: ridge regression on the features before "
    "the head. knn: their nearest neighbours. The last two take seconds.",
)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "Directory for results.jsonl and fewshot.png. What is in there already is "
    "not computed again.",
)
program.define_mirror()


def main() -> None:
    shots = _counts(_SHOTS.value)
    for method in _METHODS.value:
        if method not in METHODS:
            raise ValueError(
                f"--methods: {method!r} is none of {', '.join(METHODS)}."
            )
    models = dict(map(program.named, _MODELS.value))
    task = images.task()
    train, evaluation = images.load(task)
    if (
        train.is_multi_label
        or task.target.kind == "number"
        or not hasattr(train, "subset")
    ):
        raise ValueError(
            f"few-shot curves are not for {task.name}: its images have several "
            "labels or a number, or can only be read in order."
        )
    starts = {
        name: program.starting_point(text) for name, text in models.items()
    }
    # Too few images of a class are told before anything is computed.
    for count in shots:
        _subset(train, count, 0)
    with importing.quickly():
        from bit_tf import curves
        from bit_tf import ledger as ledger_lib
        from bit_tf import trials

    output = pathlib.Path(_OUTPUT.value).expanduser()
    ledger = ledger_lib.Ledger(
        output / "results.jsonl",
        about={
            "dataset": task.name,
            "train": train.fingerprint(),
            "evaluation": evaluation.fingerprint(),
            "apply_exif": images.reading(task).apply_exif,
            "flags": [
                *program.given_flags(numbers.CROP),
                *(["--fewshot_allow_missing"] * _ALLOW_MISSING.value),
            ],
        },
        keys=("model", "start", "method", "shots", "seed"),
    )
    total = len(starts) * len(_METHODS.value) * len(shots) * _SEEDS.value
    status = progress_lib.Progress(total)
    work = _Work(trials, task, train, evaluation)
    done = 0
    for name, start in starts.items():
        for method in _METHODS.value:
            for seed in range(_SEEDS.value):
                for count in shots:
                    key = {
                        "model": name,
                        "start": models[name],
                        "method": method,
                        "shots": count,
                        "seed": seed,
                    }
                    if not ledger.find(**key):
                        row = work.row(
                            start, method=method, shots=count, seed=seed
                        )
                        ledger.add({**key, **row})
                        status.clear()
                        program.say(
                            f"{name}  {method}  {count} per class  seed {seed}"
                            f": top-1 {100 * row['top1']:.1f} %"
                        )
                    done += 1
                    status.update(done, f"{done} of {total} results")
        work.forget()
    status.clear()
    by = ("model", "method", "shots")
    wanted = [
        row
        for row in ledger.rows
        if models.get(row["model"]) == row["start"]
        and row["method"] in _METHODS.value
        and row["shots"] in shots
        and row["seed"] < _SEEDS.value
    ]
    groups = curves.summarize(
        sorted(
            wanted,
            key=lambda row: (
                list(starts).index(row["model"]),
                METHODS.index(row["method"]),
                shots.index(row["shots"]),
            ),
        ),
        by,
    )
    program.say(curves.table(groups, by))
    curves.draw(
        output / "fewshot.png",
        groups,
        title=f"{task.name}, {len(evaluation):,} test images, "
        f"{_SEEDS.value} subsets",
    )
    program.say(f"results       {output / 'results.jsonl'}")
    program.say(f"figure        {output / 'fewshot.png'}")


def _counts(texts: list[str]) -> list[int | str]:
    """Returns examples per class, increasing, and subsets.ALL as the last."""
    words = {text.strip() for text in texts}
    try:
        found = sorted({int(word) for word in words - {subsets.ALL}})
    except ValueError:
        found = [0]
    if not words or (found and found[0] < 1):
        raise ValueError(
            f"--shots={','.join(texts)}: allowed are whole numbers from 1, and "
            f"{subsets.ALL}."
        )
    return [*found, *([subsets.ALL] if subsets.ALL in words else [])]


def _subset(
    train: examples_lib.Examples, count: int | str, seed: int
) -> examples_lib.Examples:
    return train.subset(_indices(train, count, seed))


def _indices(train, count: int | str, seed: int) -> np.ndarray:
    if count == subsets.ALL:
        return np.arange(len(train))
    return subsets.sample(
        train.labels,
        class_names=train.class_names,
        examples_per_class=count,
        seed=seed,
        allow_missing=_ALLOW_MISSING.value,
    )


class _Work:
    """Computes results; keeps what further ones of a model need too."""

    def __init__(self, trials, task: tasks.Task, train, evaluation):
        # Not imported before what can be wrong without TensorFlow was told.
        self._library = trials
        self._task, self._train, self._evaluation = task, train, evaluation
        self._trials: dict[str, object] = {}
        # Of a network with fresh weights there is one per seed.
        self._features = functools.lru_cache(maxsize=1)(self._compute_features)

    def forget(self) -> None:
        self._trials.clear()
        self._features.cache_clear()

    def row(self, start, *, method: str, shots: int, seed: int):
        began = time.monotonic()
        subset = _subset(self._train, shots, seed)
        judge = self._finetune if method == "finetune" else self._probe
        found = judge(start, subset, shots, seed, method)
        return {
            **found,
            "train_examples": len(subset),
            "seconds": round(time.monotonic() - began, 2),
        }

    def _recipe(self, start, subset):
        return numbers.resolve(
            numbers.hyperrule_of(subset, start.model_name),
            subset,
            batch_size=numbers.BATCH_SIZE.value,
            task=self._task,
            apply_exif=images.reading(self._task).apply_exif,
        )

    def _finetune(self, start, subset, shots, seed, method):
        del method
        recipe = self._recipe(start, subset)
        facts = recipe.to_dict()
        facts.pop("sources")
        key = json.dumps(facts)
        if key not in self._trials:
            self._trials[key] = self._library.Trials(
                start,
                recipe,
                self._evaluation,
            )
        status = progress_lib.Progress(recipe.total_steps)
        final = self._trials[key].run(
            subset,
            seed=seed,
            progress=lambda step: status.update(
                step, f"{shots} per class, seed {seed}: step {step}"
            ),
        )
        status.clear()
        return final.summary()

    def _compute_features(self, start, seed, preprocessing, crop):
        status = progress_lib.Progress(len(self._train) + len(self._evaluation))
        found = []
        for part in (self._train, self._evaluation):
            before = sum(map(len, found))
            found.append(
                self._library.features(
                    start,
                    part,
                    preprocessing=preprocessing,
                    crop=crop,
                    seed=seed,
                    progress=lambda done, before=before: status.update(
                        before + done, f"features of {before + done} images"
                    ),
                )
            )
        status.clear()
        return found

    def _probe(self, start, subset, shots, seed, method):
        recipe = self._recipe(start, subset)
        known, queries = self._features(
            start,
            seed if start.init_from is None else 0,
            recipe.eval_preprocessing,
            recipe.crop,
        )
        chosen = _indices(self._train, shots, seed)
        classify = {"linear": probes.linear, "knn": probes.neighbours}[method]
        scores = classify(
            known[chosen],
            self._train.labels[chosen],
            queries,
            num_classes=len(self._train.class_names),
        )
        correct = int((scores.argmax(axis=1) == self._evaluation.labels).sum())
        total = len(self._evaluation)
        low, high = metrics.wilson_interval(correct, total)
        return {
            "top1": correct / total,
            "top1_low": low,
            "top1_high": high,
            "examples": total,
        }


if __name__ == "__main__":
    flags.adopt_module_key_flags(images)
    flags.adopt_module_key_flags(numbers)
    flags.mark_flags_as_required(["models", "dataset", "output"])
    program.run(main)
