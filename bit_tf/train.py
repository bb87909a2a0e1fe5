"""Fine-tunes or pre-trains a BiT: data in, weights, SavedModel, report out.

python -m bit_tf.train --dataset=folder:PATH --workdir=DIR
"""

import math
import pathlib
import shlex

from absl import flags

from bit_tf import architecture
from bit_tf import download
from bit_tf import examples as examples_lib
from bit_tf import fewshot
from bit_tf import hyperrule
from bit_tf import program
from bit_tf import progress as progress_lib
from bit_tf import recipe as recipe_lib
from bit_tf import sources
from bit_tf import tasks
from bit_tf import upstream
from bit_tf import weights_file
from bit_tf import workdir as workdir_lib
from bit_tf import zoo

DEFAULT_MODEL = "BiT-M-R50x1"
# Where the published weights cannot be had, and for pre-training.
SMALL_MODEL = "R26x0.5"
# Evaluations on the way may cost this share of the training, at most.
EVALUATION_SHARE = 0.1
MAX_EVALUATIONS = 10
MAX_INTEGER = 2**31 - 1

_DATASET = flags.DEFINE_string(
    "dataset",
    None,
    "folder:PATH (train/ and test/ with a sub-folder per class, or just the "
    "sub-folders), builtin:patches, or a TensorFlow Datasets name such as "
    "cifar10 or oxford_flowers102:2.*",
)
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Directory for everything the run leaves. One that was interrupted is "
    "continued.",
)
_RECIPE = flags.DEFINE_enum(
    "recipe",
    "hyperrule",
    ["hyperrule", "upstream"],
    "hyperrule: the BiT-HyperRule, for fine-tuning. upstream: the paper's "
    "pre-training, see --upstream.",
)
_UPSTREAM = flags.DEFINE_enum(
    "upstream",
    "BiT-S",
    list(upstream.UPSTREAMS),
    "With --recipe=upstream: whose epochs and loss.",
)
_HYPERRULE = flags.DEFINE_enum(
    "hyperrule",
    "paper",
    list(hyperrule.READINGS),
    "Which reading of the HyperRule: the paper's, or that of the authors' "
    "code.",
)
_MODEL = flags.DEFINE_string(
    "model",
    None,
    "Published weights, such as BiT-M-R50x1, which are fetched; or a network "
    "with fresh weights, R{26,50,101,152}x{width}, such as R26x0.5. Default: "
    f"{DEFAULT_MODEL}; where that cannot be fetched, and for "
    f"--recipe=upstream, {SMALL_MODEL}.",
)
_INIT_FROM = flags.DEFINE_string(
    "init_from",
    None,
    "Weights to start from, instead of those that --model names: a published "
    "name, or a file of any format that bit_tf.convert reads; a head for other "
    "classes is replaced.",
)
program.define_mirror()
_RESIZE = flags.DEFINE_integer(
    "resize",
    None,
    "Pixels. Default: the recipe decides.",
    lower_bound=1,
    upper_bound=MAX_INTEGER,
)
_CROP = flags.DEFINE_integer(
    "crop",
    None,
    "Pixels. Default: the recipe decides.",
    lower_bound=1,
    upper_bound=MAX_INTEGER,
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size",
    None,
    "Examples per step, over all devices. Default: the recipe decides.",
    lower_bound=1,
    upper_bound=MAX_INTEGER,
)
_SCALE_WITH_BATCH = flags.DEFINE_bool(
    "scale_with_batch",
    False,
    "Scale learning rate and steps with --batch_size, so that as many "
    "examples are seen as the recipe says.",
)
_BASE_LR = flags.DEFINE_float(
    "base_lr", None, "Learning rate. Default: the recipe decides."
)
_TOTAL_STEPS = flags.DEFINE_integer(
    "total_steps",
    None,
    "Updates; warm-up and decay are stretched with them. Default: the recipe "
    "decides.",
    lower_bound=1,
    upper_bound=MAX_INTEGER,
)
_WARMUP_STEPS = flags.DEFINE_integer(
    "warmup_steps",
    None,
    "Updates with a growing rate. Default: the recipe decides.",
    lower_bound=0,
    upper_bound=MAX_INTEGER,
)
_MIXUP_ALPHA = flags.DEFINE_float(
    "mixup_alpha", None, "0 for no mixup. Default: the recipe decides."
)
_LOSS = flags.DEFINE_enum(
    "loss",
    None,
    list(recipe_lib.LOSSES),
    "softmax for one label per image, sigmoid for several. Default: the recipe "
    "decides.",
)
_WEIGHT_DECAY = flags.DEFINE_float(
    "weight_decay", None, "0 for none. Default: the recipe decides."
)
_WEIGHT_DECAY_KIND = flags.DEFINE_enum(
    "weight_decay_kind",
    None,
    list(recipe_lib.WEIGHT_DECAYS),
    "l2: added to the gradient. decoupled: subtracted from the weight, along "
    "the schedule. Default: the recipe decides.",
)
_WEIGHT_DECAY_ON = flags.DEFINE_enum(
    "weight_decay_on",
    None,
    list(recipe_lib.DECAYED),
    "Which weights decay. Default: the recipe decides.",
)
_CLIP_NORM = flags.DEFINE_float(
    "clip_norm",
    None,
    "Shorten the gradient of the batch to this norm; 0 for never. Default: the "
    "recipe decides.",
)
_HEAD_BIAS = flags.DEFINE_float(
    "head_bias",
    None,
    "Where the bias of a new head starts; big_vision pre-trains with -10 for "
    "--loss=sigmoid. Default: 0.",
)
_INITIALIZER = flags.DEFINE_enum(
    "initializer",
    None,
    list(recipe_lib.INITIALIZERS),
    "Of fresh kernels. Default: the recipe decides.",
)
_EXAMPLES_PER_CLASS = flags.DEFINE_integer(
    "examples_per_class",
    None,
    "Train on this many examples of each class. Default: all.",
    lower_bound=1,
    upper_bound=MAX_INTEGER,
)
_FEWSHOT_SEED = flags.DEFINE_integer(
    "fewshot_seed",
    0,
    "Which of the few-shot subsets.",
    lower_bound=0,
    upper_bound=MAX_INTEGER,
)
_FEWSHOT_ALLOW_MISSING = flags.DEFINE_bool(
    "fewshot_allow_missing",
    False,
    "Take what there is of a class with fewer than --examples_per_class.",
)
_TRAIN_SPLIT = flags.DEFINE_string(
    "train_split",
    None,
    "TFDS split to train on, such as 'train[:98%]', or sub-folder. Default: "
    "train.",
)
_EVAL_SPLIT = flags.DEFINE_string(
    "eval_split",
    None,
    "TFDS split to evaluate on, or sub-folder. Default: test, else validation.",
)
_SPLIT_SEED = flags.DEFINE_integer(
    "split_seed",
    0,
    "Which fifth of a folder without test images is held out.",
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Where TensorFlow Datasets keeps its sets."
)
_SEED = flags.DEFINE_integer(
    "seed",
    0,
    "Of fresh weights, order and augmentation.",
    lower_bound=0,
    upper_bound=MAX_INTEGER,
)
_STRATEGY = flags.DEFINE_enum(
    "strategy",
    "auto",
    ["auto", "one_device", "mirrored"],
    "Which devices train. auto: all GPUs of this machine, else the CPU.",
)
_EVAL_EVERY = flags.DEFINE_integer(
    "eval_every",
    None,
    "Steps between evaluations. Default: up to ten in all, as long as they "
    "cost less than a tenth of the training.",
    lower_bound=1,
    upper_bound=MAX_INTEGER,
)
_CHECKPOINT_EVERY = flags.DEFINE_integer(
    "checkpoint_every",
    None,
    "Steps between saved states. Default: every five minutes.",
    lower_bound=1,
    upper_bound=MAX_INTEGER,
)
_EXPORT = flags.DEFINE_bool("export", True, "Write the SavedModel.")


def main() -> None:
    if not _WORKDIR.value.strip():
        raise ValueError("--workdir is empty: give a directory.")
    task = tasks.parse(
        _DATASET.value,
        train_split=_TRAIN_SPLIT.value,
        eval_split=_EVAL_SPLIT.value,
    )
    _check_model_name()
    train, evaluation = _load(task)
    # Wrong numbers are told before weights are fetched.
    _resolve(train, SMALL_MODEL)
    workdir = workdir_lib.Workdir(_WORKDIR.value)
    model_name, init_from = _start(workdir)
    init_file = _checked(init_from, model_name) if init_from else None
    recipe = _resolve(train, model_name)
    identity = {
        **recipe.to_dict(),
        "model": model_name,
        "init_from": init_from,
        "seed": _SEED.value,
        "num_classes": len(train.class_names),
        "class_names": list(train.class_names),
        "data": {
            "dataset": task.name,
            "train_examples": len(train),
            "eval_examples": len(evaluation),
            "train_fingerprint": train.fingerprint(),
            "eval_fingerprint": evaluation.fingerprint(),
            "examples_per_class": _EXAMPLES_PER_CLASS.value,
            "fewshot_seed": _FEWSHOT_SEED.value
            if _EXAMPLES_PER_CLASS.value
            else None,
        },
    }
    given = program.given_flags(_WORKDIR)
    if _MODEL.value is None:
        # What is repeated does not depend on what can be fetched then.
        given.append(f"--model={model_name}")
        if init_from and not _INIT_FROM.value:
            given.append(f"--init_from={init_from}")
    with workdir.locked():
        workdir.claim(identity, given)
        workdir_lib.remove_leftovers(workdir.path)
        program.say(recipe_lib.table(recipe))
        # TensorFlow takes seconds to import: everything that can be wrong
        # without it has been looked at by now.
        with program.quiet_import():
            from bit_tf import training

        training.run(
            workdir=workdir,
            recipe=recipe,
            model_name=model_name,
            train=train,
            evaluation=evaluation,
            init_from=init_file,
            seed=_SEED.value,
            strategy_name=_STRATEGY.value,
            eval_every=_EVAL_EVERY.value
            or _usual_eval_every(recipe, len(evaluation)),
            checkpoint_every=_CHECKPOINT_EVERY.value,
            export=_EXPORT.value,
            command=f"{program.python()} -m bit_tf.train {shlex.join(given)}",
            log=program.say,
        )
        program.say(_where(workdir))


def _where(workdir: workdir_lib.Workdir) -> str:
    """Returns where each thing is, and what can be done next."""
    lines = [
        f"report        {workdir.report}",
        f"weights       {workdir.weights}",
        f"metrics       {workdir.metrics}",
        f"TensorBoard   {workdir.tensorboard}",
        f"checkpoints   {workdir.checkpoints}",
        f"again         the flags in {workdir.flags}",
    ]
    if _EXPORT.value:
        lines.insert(1, f"SavedModel    {workdir.saved_model}")
    else:
        lines.append(
            f"SavedModel    {program.python()} -m bit_tf.export "
            f"--workdir={workdir.path}"
        )
    lines.append(
        f"own images    {program.python()} -m bit_tf.train "
        "--dataset=folder:PATH --workdir=DIR"
    )
    return "\n".join(lines)


def _is_published(name: str) -> bool:
    return name.startswith("BiT-") or name in zoo.ENTRIES


def _check_model_name() -> None:
    """Raises ValueError for a --model that there is not."""
    if _MODEL.value is not None:
        if _is_published(_MODEL.value):
            zoo.find(_MODEL.value)
        else:
            architecture.parse_name(_MODEL.value)


def _start(workdir: workdir_lib.Workdir) -> tuple[str, str | None]:
    """Returns the architecture, and the weights to start from or None."""
    name, init_from = _MODEL.value, _INIT_FROM.value
    if name is not None and _is_published(name):
        return zoo.find(name).architecture, init_from or name
    if name is not None:
        return name, init_from
    if init_from:
        return _architecture_of(program.weights_file(init_from)), init_from
    if workdir.recipe.exists():
        kept = workdir.read_recipe()
        return kept["model"], kept["init_from"]
    if _RECIPE.value == "upstream":
        program.say(f"model {SMALL_MODEL}; choose another with --model")
        return SMALL_MODEL, None
    try:
        program.weights_file(DEFAULT_MODEL)
    except download.UnreachableError as error:
        program.say(
            f"warning: {error}\nwarning: {SMALL_MODEL} with fresh weights is "
            f"trained instead of {DEFAULT_MODEL}: expect much less of it. "
            f"--model={SMALL_MODEL} says that you want it"
        )
        return SMALL_MODEL, None
    program.say(f"model {DEFAULT_MODEL}; choose another with --model")
    return zoo.find(DEFAULT_MODEL).architecture, DEFAULT_MODEL


def _architecture_of(path: pathlib.Path) -> str:
    with weights_file.opened(path) as stored:
        return stored.architecture


def _checked(init_from: str, model_name: str) -> pathlib.Path:
    """Returns the file to start from, whose tensors fit the network."""
    path = program.weights_file(init_from)
    with weights_file.opened(path, expected=model_name):
        return path


def _load(
    task: tasks.Task,
) -> tuple[examples_lib.Examples, examples_lib.Examples]:
    status = progress_lib.Progress(total=1)

    def show(done: int, total: int) -> None:
        status.total = total
        status.update(done, f"checked {done} of {total} images")

    train, evaluation = sources.load(
        task,
        data_dir=_DATA_DIR.value,
        split_seed=_SPLIT_SEED.value,
        log=program.say,
        progress=show,
    )
    status.clear()
    if _EXAMPLES_PER_CLASS.value:
        train = train.subset(
            fewshot.sample(
                train.labels,
                class_names=train.class_names,
                examples_per_class=_EXAMPLES_PER_CLASS.value,
                seed=_FEWSHOT_SEED.value,
                allow_missing=_FEWSHOT_ALLOW_MISSING.value,
            )
        )
    height, width = train.typical_size()
    program.say(
        f"data {task.name}: {len(train)} images to train on, "
        f"{len(evaluation)} to evaluate on, {len(train.class_names)} classes, "
        f"median size {height}x{width} pixels"
    )
    return train, evaluation


def _resolve(
    train: examples_lib.Examples, model_name: str
) -> recipe_lib.Recipe:
    """Returns the rule's recipe with what the flags decide otherwise."""
    if _RECIPE.value == "upstream":
        if _SCALE_WITH_BATCH.value:
            raise ValueError(
                "--scale_with_batch is for --recipe=hyperrule: the upstream "
                "recipe always follows --batch_size."
            )
        recipe = upstream.recipe(
            num_examples=len(train),
            batch_size=_BATCH_SIZE.value,
            name=_UPSTREAM.value,
        )
        batch_size = None
    else:
        height, width = train.typical_size()
        recipe = hyperrule.recipe(
            num_examples=len(train),
            image_height=height,
            image_width=width,
            model=model_name,
            reading=_HYPERRULE.value,
        )
        batch_size = _BATCH_SIZE.value
    return recipe_lib.override(
        recipe,
        batch_size=batch_size,
        scale_with_batch=_SCALE_WITH_BATCH.value,
        base_lr=_BASE_LR.value,
        total_steps=_TOTAL_STEPS.value,
        warmup_steps=_WARMUP_STEPS.value,
        mixup_alpha=_MIXUP_ALPHA.value,
        loss=_LOSS.value,
        weight_decay=_WEIGHT_DECAY.value,
        weight_decay_kind=_WEIGHT_DECAY_KIND.value,
        weight_decay_on=_WEIGHT_DECAY_ON.value,
        clip_norm=_CLIP_NORM.value,
        head_bias=_HEAD_BIAS.value,
        initializer=_INITIALIZER.value,
        resize=_RESIZE.value,
        crop=_CROP.value,
    )


def _usual_eval_every(
    recipe: recipe_lib.Recipe, eval_examples: int
) -> int | None:
    """Returns the steps between evaluations that cost little, or None."""
    # An update is about three times the work of a prediction.
    work = 3 * recipe.total_steps * recipe.batch_size
    affordable = int(EVALUATION_SHARE * work / eval_examples)
    count = min(MAX_EVALUATIONS, affordable)
    return math.ceil(recipe.total_steps / count) if count > 1 else None


if __name__ == "__main__":
    flags.mark_flags_as_required(["dataset", "workdir"])
    program.run(main)
