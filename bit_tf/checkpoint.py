"""Weights in and out of the network, and the state a run continues from."""

import json
import os
import pathlib
import shutil
import zipfile
import zlib
from collections.abc import Callable

import keras
import numpy as np

from bit_tf import workdir as workdir_lib

HEAD = ("resnet/head/conv2d/kernel", "resnet/head/conv2d/bias")


def _arrays(variables) -> dict[str, np.ndarray]:
    return {v.path: keras.ops.convert_to_numpy(v) for v in variables}


def save_weights(path: str | os.PathLike, model: keras.Model) -> None:
    """Writes a model's weights in the published layout, whole or not at all.

    An uncompressed .npz: keys are the variable paths, kernels are HWIO and
    not standardised, the head is a 1x1 convolution.
    """
    arrays = _arrays(model.variables)
    workdir_lib.write_file(
        pathlib.Path(path), lambda temporary: _savez(temporary, arrays)
    )


def _savez(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    with open(path, "wb") as file:
        np.savez(file, **arrays)


def load_weights(path: str | os.PathLike, model: keras.Model) -> str | None:
    """Reads weights in the published layout into a model.

    A head for another number of classes is left out: the model keeps its own,
    zeros if it is fresh.

    Args:
        path: .npz file.
        model: from `resnet_v2.build`.

    Returns:
        A remark if the head was left out, else None.

    Raises:
        ValueError: no such file, not an .npz, or a tensor that is missing,
            surplus or of another shape; the text names the first one.
    """
    path = pathlib.Path(path).expanduser()
    if not path.is_file():
        raise ValueError(
            f"weights file {path} does not exist: give an .npz in the "
            "published layout, such as the weights.npz of a run."
        )
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"weights file {path} cannot be read as .npz: it is another "
            "format, or incomplete."
        )
    try:
        stored = np.load(path, allow_pickle=False)
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise ValueError(
            f"weights file {path} cannot be read as .npz ({error})."
        ) from error
    with stored:
        return _assign(path, stored, model)


def _read(path: pathlib.Path, stored, key: str) -> np.ndarray:
    try:
        return stored[key]
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        OSError,
        ValueError,
    ) as error:
        # Damaged, or objects that only pickle could make.
        raise ValueError(
            f"weights file {path}: tensor {key} cannot be read ({error})."
        ) from error


def _assign(path: pathlib.Path, stored, model: keras.Model) -> str | None:
    variables = {v.path: v for v in model.variables}
    names = set(stored.files)
    remark = None
    head = set(HEAD) & names
    if head and set(HEAD) <= variables.keys():
        bias = variables[HEAD[1]]
        classes = (
            _read(path, stored, HEAD[1]).shape[-1] if HEAD[1] in names else None
        )
        if classes != bias.shape[0]:
            remark = (
                f"{path.name} has a head for {classes} classes; the new head "
                f"for {bias.shape[0]} starts at zero"
            )
    if remark or not set(HEAD) <= names:
        variables = {k: v for k, v in variables.items() if k not in HEAD}
        names -= set(HEAD)
    if not set(HEAD) & variables.keys():
        names -= set(HEAD)
    for problem, keys in (
        ("lacks", sorted(variables.keys() - names)),
        ("has the surplus", sorted(names - variables.keys())),
    ):
        if keys:
            raise ValueError(
                f"weights file {path} {problem} tensor {keys[0]} (and "
                f"{len(keys) - 1} more): it is not a {model.name}."
            )
    for key, variable in variables.items():
        value = _read(path, stored, key)
        if value.shape != tuple(variable.shape):
            raise ValueError(
                f"weights file {path}: tensor {key} has shape "
                f"{value.shape}, {model.name} needs {tuple(variable.shape)}."
            )
        variable.assign(value.astype(variable.dtype, copy=False))
    return remark


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
    weights = _arrays(model.variables)
    for name, value in weights.items():
        if not np.isfinite(value).all():
            raise ValueError(
                f"{name} is not finite after step {step} and is not saved: "
                "lower --base_lr; older states are whole."
            )
    velocities = {
        weight.path: keras.ops.convert_to_numpy(velocity)
        for weight, velocity in zip(
            model.trainable_variables, optimizer.velocities, strict=True
        )
    }

    def write(temporary):
        _savez(temporary / "weights.npz", weights)
        _savez(temporary / "velocities.npz", velocities)
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
        load_weights(state / "weights.npz", model)
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
