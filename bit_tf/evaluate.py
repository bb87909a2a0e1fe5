"""Evaluates a model on a labelled set: exact numbers, JSON and a page.

python -m bit_tf.evaluate --model=DIR --dataset=folder:PATH --output=DIR
"""

import json
import pathlib
import shlex

from absl import flags

from bit_tf import data_flags as images
from bit_tf import importing
from bit_tf import model_flags as asked
from bit_tf import program
from bit_tf import progress as progress_lib
from bit_tf import tasks
from bit_tf import workdir as workdir_lib

_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "Directory for evaluation.json and report.html. Default: evaluation/ in "
    "the workdir of a run, else none.",
)
_PART = flags.DEFINE_enum(
    "part",
    "evaluation",
    ["evaluation", "training", "all"],
    "Which images: those held out or of --eval_split, those of --train_split, "
    "or both.",
)
_MATCH_CLASSES = flags.DEFINE_enum(
    "match_classes",
    "name",
    ["name", "order"],
    "How the set's classes are those of the model: by their names, or, where "
    "both have as many, by their order.",
)
_CLASS_MAP = flags.DEFINE_string(
    "class_map",
    None,
    "JSON file: class of the set -> class of the model, or a list of them, or "
    "several separated by ';', any of which is right, as ObjectNet's mapping. "
    "Images of classes that are not in it are left out.",
)
_PREPROCESSING = flags.DEFINE_string(
    "preprocessing",
    None,
    "Instead of the model's, such as 'decode|resize_small(512)|"
    "central_crop(480)'.",
)
_ONLY_PRESENT_CLASSES = flags.DEFINE_bool(
    "only_present_classes",
    False,
    "Let the model choose among the classes that occur in the set alone, as "
    "ImageNet-A and -R are evaluated.",
)


def main() -> None:
    if _PREPROCESSING.value and asked.IMAGE_SIZE.value:
        raise ValueError(
            "--preprocessing says the size itself: drop --image_size."
        )
    path = program.model_path(asked.MODEL.value)
    task = images.task(evaluating=True)
    run = _run_on(path, task)
    train, evaluation = images.load(
        task, split_seed_of_run=run["data"]["split_seed"] if run else None
    )
    if (
        run
        and _PART.value == "evaluation"
        and run["data"]["eval_fingerprint"] != evaluation.fingerprint()
    ):
        program.say(
            "note: these are not the images that the run was evaluated on; it "
            "may have been trained on some of them"
        )
    with importing.quickly():
        from bit_tf import classifier as classifier_lib
        from bit_tf import examples as examples_lib
        from bit_tf import judging
        from bit_tf import report

    chosen = evaluation
    if _PART.value == "training":
        chosen = train
    elif _PART.value == "all" and not _is_one_part(task):
        chosen = examples_lib.joined(train, evaluation)
    classifier = classifier_lib.load(path, image_size=asked.IMAGE_SIZE.value)
    if _PREPROCESSING.value:
        classifier = classifier_lib.with_preprocessing(
            classifier, _PREPROCESSING.value
        )
    classifier = classifier_lib.with_exif(
        classifier, apply_exif=images.reading(task).apply_exif
    )
    if _CLASS_MAP.value:
        matched = judging.mapped(
            chosen, classifier, judging.read_class_map(_CLASS_MAP.value)
        )
        program.say(
            f"{len(matched)} of {len(chosen)} images are of classes "
            "that the model has"
        )
    else:
        matched = judging.matched(
            chosen, classifier, by_name=_MATCH_CLASSES.value == "name"
        )
    status = progress_lib.Progress(len(matched))
    final = judging.judge(
        classifier,
        matched,
        batch_size=min(asked.BATCH_SIZE.value, len(matched)),
        only_present=_ONLY_PRESENT_CLASSES.value,
        progress=lambda done: status.update(
            done, f"{done} of {len(matched)} images"
        ),
    )
    status.clear()
    program.say(f"model {classifier.about}")
    program.say(report.sentence(None, final).replace("\N{NO-BREAK SPACE}", " "))
    output = _output(path)
    if output is None:
        program.say("give --output to keep all numbers and the page")
        return
    output.mkdir(parents=True, exist_ok=True)
    workdir_lib.write_text(
        output / "evaluation.json",
        json.dumps(
            {
                "model": str(asked.MODEL.value),
                "dataset": task.name,
                "part": _PART.value,
                **final.details(),
                "left_out": examples_lib.left_out(matched),
            },
            indent=1,
        )
        + "\n",
    )
    given = program.given_flags(
        asked.MODEL, images.DATASET, images.DATA_DIR, _PART
    )
    report.write(
        output / "report.html",
        model=classifier.about,
        evaluation=matched,
        final=final,
        command=f"{program.python()} -m bit_tf.evaluate {shlex.join(given)}",
    )
    program.say(f"numbers       {output / 'evaluation.json'}")
    program.say(f"report        {output / 'report.html'}")


def _run_on(path: pathlib.Path, task: tasks.Task) -> dict | None:
    """Returns the recipe of the run, if it was made of the same data set."""
    workdir = workdir_lib.Workdir(path)
    if not workdir.recipe.is_file():
        return None
    run = workdir.read_recipe()
    return run if run["data"]["dataset"] == task.name else None


def _is_one_part(task: tasks.Task) -> bool:
    """Returns whether both parts are the same images, as of the variants."""
    return bool(task.eval_split) and task.train_split == task.eval_split


def _output(path: pathlib.Path) -> pathlib.Path | None:
    if _OUTPUT.value:
        return pathlib.Path(_OUTPUT.value).expanduser()
    if (path / "recipe.json").is_file():
        return path / "evaluation"
    return None


if __name__ == "__main__":
    flags.adopt_module_key_flags(images)
    flags.adopt_module_key_flags(asked)
    flags.mark_flags_as_required(["model", "dataset"])
    program.run(main)
