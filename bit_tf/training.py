"""One whole run: network and data in; weights, SavedModel and report out."""

import json
import pathlib
import time
from collections.abc import Callable

import tensorflow as tf

from bit_tf import checkpoint
from bit_tf import data
from bit_tf import distribution
from bit_tf import evaluation as evaluation_lib
from bit_tf import examples as examples_lib
from bit_tf import loop
from bit_tf import optimizer as optimizer_lib
from bit_tf import progress as progress_lib
from bit_tf import recipe as recipe_lib
from bit_tf import report
from bit_tf import resnet_v2
from bit_tf import saved_model
from bit_tf import weights
from bit_tf import workdir as workdir_lib

# Images per device; larger batches are no faster.
MAX_EVAL_BATCH = 64


def run(
    *,
    workdir: workdir_lib.Workdir,
    recipe: recipe_lib.Recipe,
    model_name: str,
    train: examples_lib.Examples,
    evaluation: examples_lib.Examples,
    seed: int = 0,
    init_from: pathlib.Path | None = None,
    strategy_name: str = "auto",
    eval_every: int | None = None,
    checkpoint_every: int | None = None,
    export: bool = True,
    command: str = "",
    log: Callable[[str], None] = print,
) -> evaluation_lib.Evaluation:
    """Trains, or continues to train, and leaves everything in `workdir`.

    Args:
        workdir: held by the caller, see `Workdir.locked`.
        recipe: the schedule and the preprocessing.
        model_name: e.g. "R50x1".
        train: what to train on.
        evaluation: what to evaluate on, same classes.
        seed: of fresh weights, order, augmentation and mixup.
        init_from: file to start from, see `weights`; None for fresh weights.
        strategy_name: see `distribution.build`.
        eval_every: steps between evaluations; None for only at the end.
        checkpoint_every: steps between states; None for every five minutes.
        export: whether to write the SavedModel.
        command: what repeats the run, for the report.
        log: called with lines for the user.

    Returns:
        The evaluation of the final weights.

    Raises:
        ValueError: something given is not usable; the text says what to do.
        OSError: the disk; what was saved before is whole.
    """
    strategy = distribution.build(strategy_name)
    distribution.check_batch_size(strategy, recipe.batch_size)
    num_classes = len(train.class_names)
    with strategy.scope():
        model = resnet_v2.build(
            model_name,
            num_classes,
            seed=None if init_from else seed,
            initializer=recipe.initializer,
        )
        optimizer = optimizer_lib.build(recipe)
        optimizer.build(model.trainable_variables)
    first_step = checkpoint.restore(
        workdir.checkpoints, model=model, optimizer=optimizer, log=log
    )
    replica_batch = recipe.batch_size // strategy.num_replicas_in_sync
    micro_batch = loop.micro_batch_size(
        model_name, crop=recipe.crop, replica_batch=replica_batch
    )
    log(
        f"network {model_name}: {model.count_params():,} parameters, "
        f"{distribution.describe(strategy)}, {replica_batch} images each"
        + (
            f", computed {micro_batch} at a time to fit into memory"
            if micro_batch < replica_batch
            else ""
        )
    )
    if first_step:
        log(f"continuing at step {first_step} of {recipe.total_steps}")
    else:
        _begin(model, init_from, head_bias=recipe.head_bias, log=log)
    evaluate = evaluation_lib.evaluator(
        model,
        batches=data.for_evaluation(
            evaluation,
            recipe,
            # Without gradients a fraction of the memory is enough.
            batch_size=strategy.num_replicas_in_sync
            * min(MAX_EVAL_BATCH, 4 * micro_batch),
        ),
        num_examples=len(evaluation),
        class_names=train.class_names,
        strategy=strategy,
        loss_name=recipe.loss,
    )
    latest: dict[int, evaluation_lib.Evaluation] = {}

    def evaluate_at(step: int) -> dict:
        latest.clear()
        latest[step] = evaluate()
        return latest[step].summary()

    started = time.monotonic()
    try:
        loop.run(
            model=model,
            optimizer=optimizer,
            recipe=recipe,
            batches=lambda first: data.for_training(
                train, recipe, seed=seed, first_step=first
            ),
            evaluate=evaluate_at,
            strategy=strategy,
            workdir=workdir,
            first_step=first_step,
            eval_every=eval_every,
            checkpoint_every=checkpoint_every,
            micro_batch=micro_batch,
            log=log,
        )
        # A run that had ended already comes here without a step.
        if recipe.total_steps not in latest:
            evaluate_at(recipe.total_steps)
    except (tf.errors.InvalidArgumentError, tf.errors.NotFoundError) as error:
        _name_the_image(error, train, evaluation)
        raise
    seconds = time.monotonic() - started
    final = latest[recipe.total_steps]
    _leave(
        workdir=workdir,
        recipe=recipe,
        model=model,
        train=train,
        evaluation=evaluation,
        final=final,
        export=export,
        command=command,
    )
    log(f"training and evaluation took {progress_lib.duration(seconds)}")
    baseline = report.majority_baseline(train, evaluation)
    # A terminal may not know the page's unbreakable space.
    log(report.verdict(final.summary(), baseline).replace("\xa0", " "))
    return final


def _begin(
    model: resnet_v2.ResNetV2,
    init_from: pathlib.Path | None,
    *,
    head_bias: float,
    log: Callable[[str], None],
) -> None:
    """Sets the weights of step 0, where they are not fresh already."""
    remark = weights.load(init_from, model) if init_from else None
    if init_from:
        log(f"weights from {init_from}" + (f"; {remark}" if remark else ""))
    if head_bias:
        if init_from and remark is None:
            raise ValueError(
                f"head_bias={head_bias:g} is for a new head, and {init_from} "
                "has one for these classes: drop --head_bias."
            )
        bias = model.get_layer("head").conv.bias
        bias.assign([head_bias] * model.num_classes)


def _name_the_image(error, train, evaluation) -> None:
    """Raises ValueError naming the files, if it was an image's fault."""
    found = data.find_undecodable(train) + data.find_undecodable(evaluation)
    if found:
        raise ValueError(
            f"images that cannot be read and decoded any more: "
            f"{', '.join(found)}. Mend or remove them; what was saved before "
            "is whole."
        ) from error


def _leave(
    *,
    workdir: workdir_lib.Workdir,
    recipe: recipe_lib.Recipe,
    model: resnet_v2.ResNetV2,
    train: examples_lib.Examples,
    evaluation: examples_lib.Examples,
    final: evaluation_lib.Evaluation,
    export: bool,
    command: str,
) -> None:
    """Writes weights, evaluation, SavedModel and report."""
    weights.save(workdir.weights, model)
    workdir_lib.write_text(
        workdir.evaluation,
        json.dumps(
            {**final.summary(), "per_class": final.per_class()}, indent=1
        )
        + "\n",
    )
    if export:
        saved_model.export_run(workdir, workdir.saved_model)
    report.write(
        workdir,
        recipe=recipe,
        model=f"{model.name}, {model.count_params():,} parameters",
        train=train,
        evaluation=evaluation,
        final=final,
        command=command,
    )
