"""One whole run: network and data in; weights, SavedModel and report out."""

import json
import pathlib
import time
from collections.abc import Callable
from collections.abc import Sequence

import tensorflow as tf

from bit_tf import beside
from bit_tf import checkpoint
from bit_tf import data
from bit_tf import distribution
from bit_tf import evaluation as evaluation_lib
from bit_tf import examples as examples_lib
from bit_tf import execution as execution_lib
from bit_tf import exportable
from bit_tf import imbalance
from bit_tf import kept_images
from bit_tf import loop
from bit_tf import optimizer as optimizer_lib
from bit_tf import outcomes
from bit_tf import progress as progress_lib
from bit_tf import recipe as recipe_lib
from bit_tf import resnet_v2
from bit_tf import saved_model
from bit_tf import starting
from bit_tf import weights
from bit_tf import workdir as workdir_lib

# Images per device; larger batches are no faster.
MAX_EVAL_BATCH = 64
# What TensorFlow does to a graph before it first runs it, and takes its time
# over, although nothing in a training step is constant, alike or to be fused.
USELESS_REWRITES = (
    "constant_folding",
    "layout_optimizer",
    "loop_optimization",
    "remapping",
    "shape_optimization",
)


def run(
    *,
    workdir: workdir_lib.Workdir,
    recipe: recipe_lib.Recipe,
    execution: execution_lib.Execution,
    model_name: str,
    train: examples_lib.Images,
    evaluation: examples_lib.Images,
    strategy: tf.distribute.Strategy,
    seed: int = 0,
    init_from: pathlib.Path | None = None,
    is_chief: bool = True,
    export: bool = True,
    others: Sequence[beside.Run] = (),
    command: str = "",
    log: Callable[[str], None] = print,
) -> outcomes.Outcome:
    """Trains, or continues to train, and leaves everything in `workdir`.

    Args:
        workdir: held by the caller, see `Workdir.locked`.
        recipe: the schedule and the preprocessing.
        execution: how to compute it.
        model_name: e.g. "R50x1".
        train: what to train on.
        evaluation: what to evaluate on, same classes.
        strategy: which devices compute, see `distribution.build`.
        seed: of fresh weights, order, augmentation and mixup.
        init_from: file to start from, see `weights`; None for fresh weights.
        is_chief: whether this process writes; of several workers one does.
        export: whether to write the SavedModel.
        others: runs to be put beside it in the report.
        command: what repeats the run, for the report.
        log: called with lines for the user.

    Returns:
        The evaluation of the final weights.

    Raises:
        ValueError: something given is not usable; the text says what to do.
        interruption.StoppedError: it was asked to end, and has saved its state.
        OSError: the disk; what was saved before is whole.
    """
    distribution.check_batch_size(strategy, recipe.batch_size)
    tf.config.optimizer.set_experimental_options(
        dict.fromkeys(USELESS_REWRITES, False)
    )
    if execution.deterministic:
        tf.config.experimental.enable_op_determinism()
    replicas = strategy.num_replicas_in_sync
    replica_batch = recipe.batch_size // replicas
    parts = execution.parts(
        model_name, crop=recipe.crop, replica_batch=replica_batch
    )
    with strategy.scope():
        model = resnet_v2.build(
            model_name,
            len(train.class_names),
            seed=None if init_from else seed,
            initializer=recipe.initializer,
            remat=execution.remat,
            dtype=execution.precision,
        )
        starting.freeze(model, recipe.freeze)
        optimizer = optimizer_lib.build(recipe)
        optimizer.build(model.trainable_variables)
    log(
        f"network {model_name}: {model.count_params():,} parameters, "
        f"{distribution.describe(strategy)}, {recipe.batch_size} images a "
        f"step, {replica_batch} on each device"
        + (
            f", computed {replica_batch // parts} at a time to fit into memory"
            if parts > 1
            else ""
        )
    )
    state = checkpoint.restore(
        workdir.checkpoints,
        model=model,
        optimizer=optimizer,
        is_chief=is_chief,
        log=log,
    )
    if state is not None:
        log(f"continuing at step {state.step} of {recipe.total_steps}")
    else:
        state = checkpoint.State()
        starting.begin(
            model,
            init_from,
            recipe,
            class_names=train.class_names,
            log=log,
        )
        optimizer.start(model.trainable_variables)
    checkpoint.check_agreement(strategy, state, model)
    evaluate = evaluation_lib.evaluator(
        lambda images: model(images, training=False),
        batches=lambda host, hosts: data.for_evaluation(
            evaluation,
            preprocessing=recipe.eval_preprocessing,
            crop=recipe.crop,
            # Without gradients a fraction of the memory is enough.
            batch_size=replicas
            * min(MAX_EVAL_BATCH, 4 * replica_batch // parts),
            share=data.Share(host, hosts),
        ),
        num_examples=len(evaluation),
        class_names=train.class_names,
        strategy=strategy,
        loss_name=recipe.loss,
        several_labels=train.is_multi_label,
        target_mean=recipe.target_mean,
        target_scale=recipe.target_scale,
    )
    latest: dict[int, outcomes.Outcome] = {}

    def evaluate_at(step: int) -> dict:
        latest.clear()
        latest[step] = evaluate()
        return latest[step].summary()

    started = time.monotonic()
    try:
        kept = None
        if execution.cache_mb:
            kept = _kept(train, recipe, execution.cache_mb, is_chief, log)
        loop.Loop(
            model=model,
            optimizer=optimizer,
            recipe=recipe,
            execution=execution,
            batches=lambda first, skipped: distribution.distribute(
                strategy,
                lambda host, hosts: data.for_training(
                    train,
                    recipe,
                    seed=seed,
                    first_step=first,
                    skipped=skipped,
                    share=data.Share(host, hosts),
                    kept=kept,
                ),
            ),
            evaluate=evaluate_at,
            strategy=strategy,
            workdir=workdir,
            state=state,
            parts=parts,
            is_chief=is_chief,
            log=log,
            class_weights=imbalance.weights(
                recipe.class_weights, train.class_counts()
            ),
            seed=seed,
        ).run()
        with optimizer_lib.averaged(optimizer, model.trainable_variables):
            # A run that had ended already comes here without a step.
            if recipe.total_steps not in latest:
                evaluate_at(recipe.total_steps)
            if is_chief:
                # Whoever uses them gets numbers in their own unit.
                with starting.in_unit_of_labels(model, recipe):
                    weights.save(workdir.weights, model)
    except (tf.errors.InvalidArgumentError, tf.errors.NotFoundError) as error:
        _name_the_image(error, train, evaluation)
        raise
    seconds = time.monotonic() - started
    final = latest[recipe.total_steps]
    if is_chief:
        _leave(
            workdir=workdir,
            recipe=recipe,
            model=model,
            train=train,
            evaluation=evaluation,
            final=final,
            export=export,
            others=others,
            command=command,
        )
    # It draws, and what draws takes its time to load: not at the start.
    from bit_tf import report

    # Who ends first would be missed by those who still write.
    distribution.barrier(strategy)
    log(f"training and evaluation took {progress_lib.duration(seconds)}")
    # A terminal may not know the page's unbreakable space.
    log(report.sentence(train, final).replace("\xa0", " "))
    for other in others:
        log(
            f"beside it, {other.name}: {100 * other.top1:.1f} % (95 % interval "
            f"{100 * other.low:.1f} % to {100 * other.high:.1f} %)"
        )
    return final


def _name_the_image(error, train, evaluation) -> None:
    """Raises ValueError naming the files, if it was an image's fault."""
    found = data.find_undecodable(train) + data.find_undecodable(evaluation)
    if found:
        raise ValueError(
            f"images that cannot be read and decoded any more: "
            f"{', '.join(found)}. Mend or remove them; what was saved before "
            "is whole."
        ) from error


def _kept(train, recipe, most_mb, is_chief, log):
    """Returns what `kept_images.resized` does, and shows how far it is."""
    bar = progress_lib.Progress(len(train))

    def show(done):
        if is_chief:
            bar.update(done, f"resizing image {done:,} of {len(train):,}")

    def tell(text):
        bar.clear()
        log(text)

    return kept_images.resized(
        train, recipe, most_mb=most_mb, progress=show, log=tell
    )


def _leave(
    *,
    workdir: workdir_lib.Workdir,
    recipe: recipe_lib.Recipe,
    model: resnet_v2.ResNetV2,
    train: examples_lib.Examples,
    evaluation: examples_lib.Examples,
    final: outcomes.Outcome,
    export: bool,
    others: Sequence[beside.Run],
    command: str,
) -> None:
    """Writes evaluation, SavedModel and report."""
    workdir_lib.write_text(
        workdir.evaluation,
        json.dumps(
            {
                **final.details(),
                "left_out": examples_lib.left_out(evaluation),
            },
            indent=1,
        )
        + "\n",
    )
    if export:
        saved_model.write(workdir.saved_model, exportable.of_run(workdir))
    from bit_tf import report

    report.write(
        workdir.report,
        recipe=recipe,
        rows=workdir_lib.read_metrics(workdir.path),
        model=f"{model.name}, {model.count_params():,} parameters",
        train=train,
        evaluation=evaluation,
        final=final,
        runs=[beside.of_run(workdir, final.summary()), *others]
        if others
        else (),
        command=command,
    )
