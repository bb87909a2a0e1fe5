"""Fine-tunes or pre-trains a BiT: data in, weights, SavedModel, report out.

python -m bit_tf.train --dataset=folder:PATH --workdir=DIR
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import shlex

from absl import flags

from bit_tf import beside
from bit_tf import cluster as cluster_lib
from bit_tf import data_flags as images
from bit_tf import examples as examples_lib
from bit_tf import execution as execution_lib
from bit_tf import importing
from bit_tf import model_choice
from bit_tf import program
from bit_tf import recipe as recipe_lib
from bit_tf import recipe_flags as numbers
from bit_tf import rendezvous
from bit_tf import subsets
from bit_tf import tasks
from bit_tf import train_flags as given
from bit_tf import upstream
from bit_tf import workdir as workdir_lib

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
    model_choice.check_name()
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
        model_name = model_choice.architecture_said(workdir)
        recipe = _resolve(train, model_name, task, apply_exif=apply_exif)
        # Of whatever devices: their shares divide the batch.
        execution.parts(
            model_name, crop=recipe.crop, replica_batch=recipe.batch_size
        )
        program.say(recipe_lib.table(recipe))
        program.say("the flags fit the images; nothing was trained")
        return
    model_name, init_from = model_choice.start(workdir)
    init_file = (
        model_choice.checked(init_from, model_name) if init_from else None
    )
    model_choice.check_initializer(init_from)
    recipe = _resolve(train, model_name, task, apply_exif=apply_exif)
    identity = {
        **recipe.to_dict(),
        "model": model_name,
        "init_from": init_from,
        "seed": given.SEED.value,
        "precision": execution.precision,
        **_data_identity(task, train, evaluation),
    }
    flags_given = _flags_to_repeat(model_name, init_from)
    is_chief = cluster is None or cluster.is_chief
    with workdir.locked() if is_chief else contextlib.nullcontext():
        if is_chief:
            workdir.claim(identity, flags_given)
            workdir_lib.remove_leftovers(workdir.path)
            program.say(recipe_lib.table(recipe))
        # TensorFlow takes seconds to import: everything that can be wrong
        # without it has been looked at by now.
        with importing.quickly():
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


def _data_identity(
    task: tasks.Task,
    train: examples_lib.Images,
    evaluation: examples_lib.Images,
) -> dict:
    """Returns what makes a run another one where the images do."""
    few = given.EXAMPLES_PER_CLASS.value
    return {
        "num_classes": len(train.class_names),
        "class_names": list(train.class_names),
        "data": {
            "dataset": task.name,
            "train_examples": len(train),
            "eval_examples": len(evaluation),
            "train_fingerprint": train.fingerprint(),
            "eval_fingerprint": evaluation.fingerprint(),
            "split_seed": images.split_seed(),
            "examples_per_class": few,
            "fewshot_seed": given.FEWSHOT_SEED.value if few else None,
        },
    }


def _flags_to_repeat(model_name: str, init_from: str | None) -> list[str]:
    """Returns the flags that make this run again, whoever computes."""
    found = [
        text
        for text in program.given_flags(
            given.WORKDIR, images.DATASET, images.DATA_DIR, numbers.CROP
        )
        if not text.startswith("--worker_")
    ]
    if given.MODEL.value is None:
        # What is repeated does not depend on what can be fetched then.
        found.append(f"--model={model_name}")
        if init_from and not given.INIT_FROM.value:
            found.append(f"--init_from={init_from}")
    return found


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
