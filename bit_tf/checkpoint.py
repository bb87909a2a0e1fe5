"""The state a run continues from."""

import dataclasses
import json
import pathlib
import re
import shutil
import zlib
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from bit_tf import distribution
from bit_tf import npz_file
from bit_tf import optimizer as optimizer_lib
from bit_tf import weights
from bit_tf import workdir as workdir_lib

FIRST_LOSS_SCALE = 2.0**15
_STATE = re.compile(r"step-([0-9]{8,})")


@dataclasses.dataclass(frozen=True, kw_only=True)
class State:
    """What a run knows beside its weights, velocities and averages.

    With them it decides all that follows: the data of a step is a function of
    the seed, the step and `skipped`.

    Args:
        step: updates made.
        skipped: batches passed over by rollbacks.
        rollbacks: how often the run went back.
        loss_scale: for float16.
        steady_steps: updates since the scale last changed.
        evaluated: the step that was last evaluated; 0 for none.
    """

    step: int = 0
    skipped: int = 0
    rollbacks: int = 0
    loss_scale: float = FIRST_LOSS_SCALE
    steady_steps: int = 0
    evaluated: int = 0


def save(
    directory: pathlib.Path,
    state: State,
    *,
    model: keras.Model,
    optimizer: optimizer_lib.Momentum,
    keep: int = 2,
    keep_every: int | None = None,
) -> None:
    """Writes the state after some updates and drops old ones.

    The state is complete or absent. It holds no device count: what one
    device saved, two can continue.

    Args:
        directory: the run's checkpoints/.
        state: to write.
        model: whose weights to save.
        optimizer: built for the model's trainable variables.
        keep: how many of the newest states stay.
        keep_every: states of every so many steps stay for good; None for none.

    Raises:
        ValueError: a weight is not finite; older states are untouched.
        OSError: it could not be written; older states are untouched.
    """
    for weight in model.variables:
        if not np.isfinite(keras.ops.convert_to_numpy(weight)).all():
            raise ValueError(
                f"{weight.path} is not finite after step {state.step} and is "
                "not saved: lower --base_lr; older states are whole."
            )

    def write(temporary):
        weights.save(temporary / "weights.npz", model)
        for file, variables in _slots(model, optimizer).items():
            npz_file.write(
                temporary / file,
                variables,
                lambda name, variables=variables: keras.ops.convert_to_numpy(
                    variables[name]
                ),
            )
        (temporary / "state.json").write_text(
            json.dumps(dataclasses.asdict(state))
        )

    workdir_lib.write_directory(directory / f"step-{state.step:08d}", write)
    for old in _states(directory)[keep:]:
        step = _step(old)
        if not (keep_every and step and step % keep_every == 0):
            shutil.rmtree(old, ignore_errors=True)


def restore(
    directory: pathlib.Path,
    *,
    model: keras.Model,
    optimizer: optimizer_lib.Momentum,
    is_chief: bool = True,
    log: Callable[[str], None] = print,
) -> State | None:
    """Continues from the newest state that is whole.

    Args:
        directory: the run's checkpoints/; may be absent.
        model: to be overwritten.
        optimizer: built for the model's trainable variables; overwritten.
        is_chief: whether to remove what is damaged.
        log: told of states that are damaged and passed over.

    Returns:
        None where nothing was found.
    """
    if not directory.is_dir():
        return None
    if is_chief:
        workdir_lib.remove_leftovers(directory)
    for path in _states(directory):
        if not workdir_lib.verify_directory(path):
            log(f"{path.name} is damaged: going back to the one before")
            if is_chief:
                # Or it would count as newer than what is saved next.
                shutil.rmtree(path, ignore_errors=True)
            continue
        state = State(**json.loads((path / "state.json").read_text()))
        weights.load(path / "weights.npz", model)
        for file, variables in _slots(model, optimizer).items():
            with np.load(path / file, allow_pickle=False) as stored:
                for name, variable in variables.items():
                    variable.assign(stored[name])
        optimizer.iterations.assign(state.step)
        return state
    return None


def check_agreement(
    strategy: tf.distribute.Strategy, state: State, model: keras.Model
) -> None:
    """Makes sure that all workers go on from the same state.

    Raises:
        ValueError: they do not, as when they do not see the same files; all
            workers raise it.
    """
    if distribution.num_hosts(strategy) == 1:
        return
    digest = 0
    for variable in model.variables:
        value = np.ascontiguousarray(keras.ops.convert_to_numpy(variable))
        digest = zlib.crc32(value, digest)
    numbers = [
        *(state.step, state.skipped, state.rollbacks, state.evaluated),
        *(digest >> 16, digest & 0xFFFF),
    ]
    if not distribution.agree(strategy, numbers):
        raise ValueError(
            "the workers do not go on from the same state (this one from step "
            f"{state.step}): give all the same --workdir, on a disk that all "
            "see, and start them again."
        )


def _slots(
    model: keras.Model, optimizer: optimizer_lib.Momentum
) -> dict[str, dict[str, keras.Variable]]:
    """Returns the optimizer's variables by file and by weight."""
    paths = [weight.path for weight in model.trainable_variables]
    slots = {"velocities.npz": optimizer.velocities}
    if optimizer.averages:
        slots["averages.npz"] = optimizer.averages
    if optimizer.starts:
        slots["starts.npz"] = optimizer.starts
    return {
        file: dict(zip(paths, variables, strict=True))
        for file, variables in slots.items()
    }


def _states(directory: pathlib.Path) -> list[pathlib.Path]:
    """Returns the state directories, newest first.

    What else stands there, a copy under another name, say, is somebody's own.
    """
    found = [p for p in directory.iterdir() if _STATE.fullmatch(p.name)]
    return sorted(found, key=_step, reverse=True)


def _step(path: pathlib.Path) -> int:
    return int(_STATE.fullmatch(path.name)[1])
