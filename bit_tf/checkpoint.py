"""The state a run continues from."""

import json
import pathlib
import shutil
from collections.abc import Callable

import keras
import numpy as np

from bit_tf import npz_file
from bit_tf import weights
from bit_tf import workdir as workdir_lib


def save(
    directory: pathlib.Path,
    *,
    step: int,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    keep: int = workdir_lib.KEEP_CHECKPOINTS,
) -> None:
    """Writes the state after `step` updates and drops old ones.

    The state is complete or absent. It holds no device count: what one
    device saved, two can continue.

    Args:
        directory: the run's checkpoints/.
        step: optimizer updates so far.
        model: whose weights to save.
        optimizer: a built `optimizer.Momentum`.
        keep: how many of the newest states stay.

    Raises:
        ValueError: a weight is not finite; older states are untouched.
        OSError: it could not be written; older states are untouched.
    """
    for weight in model.variables:
        if not np.isfinite(keras.ops.convert_to_numpy(weight)).all():
            raise ValueError(
                f"{weight.path} is not finite after step {step} and is not "
                "saved: lower --base_lr; older states are whole."
            )
    velocities = {
        weight.path: velocity
        for weight, velocity in zip(
            model.trainable_variables, optimizer.velocities, strict=True
        )
    }

    def write(temporary):
        weights.save(temporary / "weights.npz", model)
        npz_file.write(
            temporary / "velocities.npz",
            velocities,
            lambda name: keras.ops.convert_to_numpy(velocities[name]),
        )
        (temporary / "state.json").write_text(json.dumps({"step": step}))

    workdir_lib.write_directory(directory / f"step-{step:08d}", write)
    for old in _states(directory)[keep:]:
        shutil.rmtree(old, ignore_errors=True)


def restore(
    directory: pathlib.Path,
    *,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    log: Callable[[str], None] = print,
) -> int:
    """Continues from the newest state that is whole.

    Args:
        directory: the run's checkpoints/; may be absent.
        model: to be overwritten.
        optimizer: built for the model's trainable variables; overwritten.
        log: told of states that are damaged and passed over.

    Returns:
        The number of updates made so far; 0 where nothing was found.
    """
    if not directory.is_dir():
        return 0
    workdir_lib.remove_leftovers(directory)
    for state in _states(directory):
        if not workdir_lib.verify_directory(state):
            # Removed, or it would count as newer than what is saved next.
            log(f"{state.name} is damaged: going back to the one before")
            shutil.rmtree(state, ignore_errors=True)
            continue
        step = json.loads((state / "state.json").read_text())["step"]
        weights.load(state / "weights.npz", model)
        with np.load(state / "velocities.npz", allow_pickle=False) as stored:
            for weight, velocity in zip(
                model.trainable_variables, optimizer.velocities, strict=True
            ):
                velocity.assign(stored[weight.path])
        optimizer.iterations.assign(step)
        return step
    return 0


def _states(directory: pathlib.Path) -> list[pathlib.Path]:
    """Returns the state directories, newest first."""
    return sorted(directory.glob("step-*"), reverse=True)
