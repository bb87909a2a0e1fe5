"""Fine-tunes or pre-trains a BiT: data in, weights, SavedModel, report out.

python -m bit_tf.train --dataset=folder:PATH --workdir=DIR
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import pathlib
import shlex

from absl import flags

from bit_tf import architecture
from bit_tf import beside
from bit_tf import cluster as cluster_lib
from bit_tf import data_flags as images
from bit_tf import download
from bit_tf import examples as examples_lib
from bit_tf import execution as execution_lib
from bit_tf import program
from bit_tf import recipe as recipe_lib
from bit_tf import recipe_flags as numbers
from bit_tf import rendezvous
from bit_tf import subsets
from bit_tf import tasks
from bit_tf import train_flags as given
from bit_tf import upstream
from bit_tf import weights_file
from bit_tf import workdir as workdir_lib
from bit_tf import zoo

# Evaluations on the way may cost this share of the training, at most.
EVALUATION_SHARE = 0.1
MAX_EVALUATIONS = 10
# For TensorFlow to join workers that have just met.
JOIN_SECONDS = 50

_ONLY_CHECK_FLAGS = program.define_only_check_flags()
flags.declare_key_flag(_ONLY_CHECK_FLAGS.name)


def main() -> None:
    if not given.WORKDIR.value.strip():
        raise ValueError("--workdir is empty: give a directory.")
    task = images.task()
    _check_model_name()
    cluster = cluster_lib.resolve(
        os.environ,
        worker_hosts=given.WORKER_HOSTS.value,
        worker_index=given.WORKER_INDEX.value,
    )
    execution = _execution()
    apply_exif = images.reading(task).apply_exif
    train, evaluation = _load(task)
    # Wrong numbers are told before weights are fetched.
    _resolve(train, given.SMALL_MODEL, task)
    others = _beside(evaluation)
    workdir = workdir_lib.Workdir(given.WORKDIR.value)
    if _ONLY_CHECK_FLAGS.value:
        model_name = _named_model(workdir)
        recipe = _resolve(train, model_name, task, apply_exif=apply_exif)
        # Of whatever devices: their shares divide the batch.
        execution.parts(
            model_name, crop=recipe.crop, replica_batch=recipe.batch_size
        )
        program.say(recipe_lib.table(recipe))
        program.say("the flags fit the images; nothing was trained")
        return
    model_name, init_from = _start(workdir)
    init_file = _checked(init_from, model_name) if init_from else None
    _check_initializer(init_from)
    recipe = _resolve(train, model_name, task, apply_exif=apply_exif)
    identity = {
        **recipe.to_dict(),
        "model": model_name,
        "init_from": init_from,
        "seed": given.SEED.value,
        "precision": execution.precision,
        "num_classes": len(train.class_names),
        "class_names": list(train.class_names),
        "data": {
            "dataset": task.name,
            "train_examples": len(train),
            "eval_examples": len(evaluation),
            "train_fingerprint": train.fingerprint(),
            "eval_fingerprint": evaluation.fingerprint(),
            "split_seed": images.split_seed(),
            "examples_per_class": given.EXAMPLES_PER_CLASS.value,
            "fewshot_seed": given.FEWSHOT_SEED.value
            if given.EXAMPLES_PER_CLASS.value
            else None,
        },
    }
    # Who computes does not matter to what is repeated.
    flags_given = [
        text
        for text in program.given_flags(
            given.WORKDIR, images.DATASET, images.DATA_DIR, numbers.CROP
        )
        if not text.startswith("--worker_")
    ]
    if given.MODEL.value is None:
        # What is repeated does not depend on what can be fetched then.
        flags_given.append(f"--model={model_name}")
        if init_from and not given.INIT_FROM.value:
            flags_given.append(f"--init_from={init_from}")
    is_chief = cluster is None or cluster.is_chief
    with workdir.locked() if is_chief else contextlib.nullcontext():
        if is_chief:
            workdir.claim(identity, flags_given)
            workdir_lib.remove_leftovers(workdir.path)
            program.say(recipe_lib.table(recipe))
        # TensorFlow takes seconds to import: everything that can be wrong
        # without it has been looked at by now.
        with program.quiet_import():
            from bit_tf import training

        # As late as can be: who dies after it is waited for by TensorFlow.
        _meet(cluster, identity, execution)
        execution = dataclasses.replace(
            execution,
            eval_every=execution.eval_every
            or _usual_eval_every(recipe, len(evaluation)),
        )
        with program.among_workers(cluster):
            training.run(
                workdir=workdir,
                recipe=recipe,
                execution=execution,
                model_name=model_name,
                train=train,
                evaluation=evaluation,
                strategy=_joined(cluster),
                seed=given.SEED.value,
                init_from=init_file,
                is_chief=is_chief,
                export=given.EXPORT.value,
                others=others,
                command=f"{program.python()} -m bit_tf.train "
                f"{shlex.join(flags_given)}",
                log=program.say if is_chief else lambda text: None,
            )
        if is_chief:
            program.say(_where(workdir))


def _beside(evaluation: examples_lib.Images) -> list[beside.Run]:
    """Returns the runs that --beside names."""
    if len(given.BESIDE.value) > beside.MOST:
        raise ValueError(
            f"--beside: allowed are {beside.MOST} runs at most, for whose "
            "curves there are colours."
        )
    return [
        beside.read(name, path, evaluation.fingerprint())
        for name, path in map(program.named, given.BESIDE.value)
    ]


def _execution() -> execution_lib.Execution:
    return execution_lib.Execution(
        precision=given.PRECISION.value,
        accumulate_steps=given.ACCUMULATE_STEPS.value,
        remat=given.REMAT.value,
        steps_per_call=given.STEPS_PER_CALL.value,
        cache_mb=given.CACHE_MB.value,
        deterministic=given.DETERMINISTIC.value,
        jit_compile=given.JIT_COMPILE.value,
        nan_policy=given.NAN_POLICY.value,
        eval_every=given.EVAL_EVERY.value,
        checkpoint_every=given.CHECKPOINT_EVERY.value,
        keep_checkpoints=given.KEEP_CHECKPOINTS.value,
        keep_checkpoint_every=given.KEEP_CHECKPOINT_EVERY.value,
    )


def _joined(cluster: cluster_lib.Cluster | None):
    """Returns the strategy; ends the process if it takes for ever."""
    from bit_tf import distribution

    watched = contextlib.nullcontext()
    if cluster is not None:
        watched = rendezvous.joining(
            cluster, name="bit_tf.train", seconds=JOIN_SECONDS
        )
    with watched:
        return distribution.build(
            given.STRATEGY.value, cluster=cluster, tpu=given.TPU.value
        )


def _meet(
    cluster: cluster_lib.Cluster | None,
    identity: dict,
    execution: execution_lib.Execution,
) -> None:
    """Waits for the other workers, who should have been given this run."""
    if cluster is None:
        return
    program.say(
        f"worker {cluster.index} of {len(cluster.workers)}, at "
        f"{cluster.workers[cluster.index]}"
    )
    # Also what decides when they wait for each other, and for whom.
    agreed = [
        identity,
        dataclasses.asdict(execution),
        cluster.workers,
        given.STRATEGY.value,
    ]
    text = json.dumps(agreed, sort_keys=True).encode()
    rendezvous.meet(
        cluster,
        run=hashlib.sha256(text).hexdigest(),
        seconds=given.WORKER_TIMEOUT.value,
        log=program.say,
    )


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
    if given.EXPORT.value:
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
    if given.MODEL.value is not None:
        if _is_published(given.MODEL.value):
            zoo.find(given.MODEL.value)
        else:
            architecture.parse_name(given.MODEL.value)


def _start(workdir: workdir_lib.Workdir) -> tuple[str, str | None]:
    """Returns the architecture, and the weights to start from or None."""
    name, init_from = given.MODEL.value, given.INIT_FROM.value
    if name is not None and _is_published(name):
        return zoo.find(name).architecture, init_from or name
    if name is not None:
        return name, init_from
    if init_from:
        return _architecture_of(program.weights_file(init_from)), init_from
    if workdir.recipe.exists():
        kept = workdir.read_recipe()
        return kept["model"], kept["init_from"]
    if given.RECIPE.value == "upstream":
        program.say(f"model {given.SMALL_MODEL}; choose another with --model")
        return given.SMALL_MODEL, None
    try:
        program.weights_file(given.DEFAULT_MODEL)
    except download.UnreachableError as error:
        program.say(
            f"warning: {error}\nwarning: the small {zoo.SHIPPED} is trained "
            f"instead of {given.DEFAULT_MODEL}: expect much less of it. "
            f"--model={zoo.SHIPPED} says that you want it"
        )
        return zoo.find(zoo.SHIPPED).architecture, zoo.SHIPPED
    program.say(f"model {given.DEFAULT_MODEL}; choose another with --model")
    return zoo.find(given.DEFAULT_MODEL).architecture, given.DEFAULT_MODEL


def _named_model(workdir: workdir_lib.Workdir) -> str:
    """Returns the architecture that `_start` would, and fetches nothing.

    A file that is here is looked into.
    """
    name, init_from = given.MODEL.value, given.INIT_FROM.value
    if init_from:
        _check_initializer(init_from)
        if pathlib.Path(init_from).expanduser().exists():
            path = program.weights_file(init_from)
            if name is None:
                return _architecture_of(path)
            if not _is_published(name):
                _checked(init_from, name)
        elif name is None and not _is_published(init_from):
            raise ValueError(f"--init_from={init_from}: there is no such file.")
    if name is None and init_from is None and workdir.recipe.exists():
        return workdir.read_recipe()["model"]
    if name is None and given.RECIPE.value == "upstream":
        return given.SMALL_MODEL
    name = name or init_from or given.DEFAULT_MODEL
    return zoo.find(name).architecture if _is_published(name) else name


def _check_initializer(init_from: str | None) -> None:
    if init_from and numbers.INITIALIZER.value is not None:
        raise ValueError(
            f"--initializer={numbers.INITIALIZER.value} is for fresh weights, "
            f"and these start from {init_from}: drop one of the two."
        )


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
) -> tuple[examples_lib.Images, examples_lib.Images]:
    train, evaluation = images.load(task)
    if given.EXAMPLES_PER_CLASS.value:
        if (
            train.is_multi_label
            or task.target.kind == "number"
            or not hasattr(train, "subset")
        ):
            raise ValueError(
                f"--examples_per_class is not for {task.name}: its images have "
                "several labels or a number, or can only be read in order. For "
                "the last, prepare it with --file_format=array_record."
            )
        train = train.subset(
            subsets.sample(
                train.labels,
                class_names=train.class_names,
                examples_per_class=given.EXAMPLES_PER_CLASS.value,
                seed=given.FEWSHOT_SEED.value,
                allow_missing=given.FEWSHOT_ALLOW_MISSING.value,
            )
        )
    else:
        _refuse_without("examples_per_class", "fewshot_seed")
        _refuse_without("examples_per_class", "fewshot_allow_missing")
    height, width = train.typical_size()
    program.say(
        f"data {task.name}: {len(train)} images to train on, "
        f"{len(evaluation)} to evaluate on, {len(train.class_names)} classes, "
        f"median size {height}x{width} pixels"
    )
    return train, evaluation


def _refuse_without(needed: str, name: str) -> None:
    if flags.FLAGS[name].present:
        raise ValueError(
            f"--{name} does nothing without --{needed}: drop it, or give both."
        )


def _resolve(
    train: examples_lib.Images,
    model_name: str,
    task: tasks.Task | None = None,
    *,
    apply_exif: bool = True,
) -> recipe_lib.Recipe:
    """Returns the rule's recipe with what the flags decide otherwise."""
    is_upstream = given.RECIPE.value == "upstream"
    unused = numbers.HYPERRULE if is_upstream else given.UPSTREAM
    if flags.FLAGS[unused.name].present:
        raise ValueError(
            f"--{unused.name} is not for --recipe={given.RECIPE.value}: drop "
            "one of the two."
        )
    if given.RECIPE.value != "upstream":
        return numbers.resolve(
            numbers.hyperrule_of(train, model_name),
            train,
            batch_size=numbers.BATCH_SIZE.value,
            task=task,
            apply_exif=apply_exif,
        )
    if numbers.SCALE_WITH_BATCH.value:
        raise ValueError(
            "--scale_with_batch is for --recipe=hyperrule: the upstream "
            "recipe always follows --batch_size."
        )
    recipe = upstream.recipe(
        num_examples=len(train),
        batch_size=numbers.BATCH_SIZE.value,
        name=given.UPSTREAM.value,
    )
    return numbers.resolve(recipe, train, task=task, apply_exif=apply_exif)


def _usual_eval_every(
    recipe: recipe_lib.Recipe, eval_examples: int
) -> int | None:
    """Returns the steps between evaluations that cost little, or None."""
    # An update is about three times the work of a prediction.
    work = 3 * recipe.total_steps * recipe.batch_size
    affordable = int(EVALUATION_SHARE * work / eval_examples)
    count = min(MAX_EVALUATIONS, affordable)
    return math.ceil(recipe.total_steps / count) if count > 1 else None


program.define_mirror()

if __name__ == "__main__":
    flags.adopt_module_key_flags(images)
    flags.adopt_module_key_flags(numbers)
    flags.adopt_module_key_flags(given)
    flags.mark_flags_as_required(["dataset", "workdir"])
    program.run(main)
