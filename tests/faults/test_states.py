"""States on a disk that fails, or that changes what was written."""

import errno
import itertools
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf

from bit_tf import checkpoint
from bit_tf import distribution
from bit_tf import events
from bit_tf import workdir as workdir_lib
from tests import steps
from tests import test_loop

DISK = ("ENOSPC", "EIO", "EACCES", "EROFS", "EDQUOT")


@pytest.fixture(autouse=True, scope="module")
def small_network():
    with steps.there_is_r14():
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    weights, rows, _, _ = test_loop.run(tmp_path_factory.mktemp("w") / "run")
    return weights, [(row["step"], row.get("train_loss")) for row in rows]


class Disk:
    """Fails at one call of the system in some of the saves.

    Args:
        name: of the error.
        failing: numbers of the saves, from 1.
        call: number of the call in each, from 1.
    """

    def __init__(self, patch, *, name, failing, call):
        self._error = getattr(errno, name)
        self._failing, self._call = failing, call
        self._saves = self._calls = 0
        patch.setattr(checkpoint, "save", self._save(checkpoint.save))
        for function in ("fsync", "replace"):
            patch.setattr(os, function, self._fails(getattr(os, function)))

    def _save(self, real):
        def save(*args, **kwargs):
            self._saves, self._calls = self._saves + 1, 0
            return real(*args, **kwargs)

        return save

    def _fails(self, real):
        def called(*args, **kwargs):
            self._calls += 1
            if self._saves in self._failing and self._calls == self._call:
                raise OSError(self._error, os.strerror(self._error))
            return real(*args, **kwargs)

        return called


@pytest.mark.parametrize(
    "name",
    [
        DISK[0],
        *(pytest.param(n, marks=pytest.mark.campaign) for n in DISK[1:]),
    ],
)
def test_a_disk_that_fails_for_a_moment_is_waited_for(
    campaign, whole, count, rng, tmp_path, monkeypatch, name
):
    """One or two saves in a row fail, at any call of the system in them."""
    demanded = "one warning each, older states whole, training goes on"
    with campaign(f"R4 {name} in a save", demanded) as row:
        for number in range(count(1, 10)):
            first = int(rng.integers(1, 4))
            failing = range(first, first + int(rng.integers(1, 3)))
            call = int(rng.integers(1, 7))
            path, lines = tmp_path / f"{name}{number}", []
            with monkeypatch.context() as patch:
                Disk(patch, name=name, failing=failing, call=call)
                weights, rows, _, _ = test_loop.run(path, lines=lines)
            warned = [line for line in lines if "could not be written" in line]
            states = list(path.glob("checkpoints/step-*"))
            row.check(
                len(warned) == len(failing)
                and all(map(workdir_lib.verify_directory, states))
                and not list(path.glob("checkpoints/.step*"))
                and all(map(np.array_equal, weights, whole[0]))
                and [(r["step"], r.get("train_loss")) for r in rows]
                == whole[1],
                f"{failing}, call {call}: {lines}",
            )


def test_a_disk_that_stays_full_ends_the_run(tmp_path, monkeypatch):
    real = workdir_lib.write_directory

    def full(path, write):
        if int(path.name[-8:]) > 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, write)

    monkeypatch.setattr(workdir_lib, "write_directory", full)
    lines = []
    with pytest.raises(OSError, match="No space left"):
        test_loop.run(
            tmp_path / "run", lines=lines, execution={"checkpoint_every": 1}
        )
    said = [line for line in lines if "could not be written" in line]
    assert len(said) == 2 and "2 of 3 times in a row" in said[1]
    # 5, 6 and 7 failed.
    assert workdir_lib.read_metrics(tmp_path / "run")[-1]["step"] == 7
    names = sorted(p.name for p in (tmp_path / "run/checkpoints").iterdir())
    assert names == ["step-00000003", "step-00000004"]


@pytest.mark.slow
def test_metrics_that_could_not_be_written_are_written_later(
    whole, tmp_path, monkeypatch
):
    appended, rows_before = workdir_lib.Workdir.append_metrics, []

    def append(self, *rows):
        rows_before.append(len(rows))
        if len(rows_before) in (3, 4, 8):
            raise OSError(errno.EIO, "Input/output error")
        appended(self, *rows)

    monkeypatch.setattr(workdir_lib.Workdir, "append_metrics", append)
    lines = []
    _, rows, _, _ = test_loop.run(tmp_path / "run", lines=lines)
    assert [(r["step"], r.get("train_loss")) for r in rows] == whole[1]
    said = [line for line in lines if "metrics of step" in line]
    assert len(said) == 3 and "1 of 3" in said[0] and "2 of 3" in said[1]
    assert "1 of 3" in said[2]


@pytest.mark.slow
def test_events_that_could_not_be_written_are_left_out(
    whole, tmp_path, monkeypatch
):
    real, calls = events.Events._write, []

    def write(self, row):
        calls.append(row["step"])
        if len(calls) in (2, 3):
            raise tf.errors.ResourceExhaustedError(None, None, "disk is full")
        real(self, row)

    monkeypatch.setattr(events.Events, "_write", write)
    lines = []
    _, rows, _, _ = test_loop.run(tmp_path / "run", lines=lines)
    assert [(r["step"], r.get("train_loss")) for r in rows] == whole[1]
    said = [line for line in lines if "events of step" in line]
    assert len(said) == 2 and "TensorBoard: disk is full" in said[0]


@pytest.mark.slow
def test_rows_of_what_was_rolled_back_are_not_written_later(
    tmp_path, monkeypatch
):
    appended, lines = workdir_lib.Workdir.append_metrics, []

    def append(self, *rows):
        is_before = not any("rolling back" in line for line in lines)
        if rows[-1]["step"] == 6 and is_before:
            raise OSError(errno.EIO, "Input/output error")
        appended(self, *rows)

    monkeypatch.setattr(workdir_lib.Workdir, "append_metrics", append)
    rollback = {"nan_policy": "rollback", "checkpoint_every": 5}
    _, rows, _, _ = test_loop.run(
        tmp_path / "run", spoil=[6], execution=rollback, lines=lines
    )
    assert any("rolling back to step 5" in line for line in lines)
    steps_seen = [r["step"] for r in rows if "train_loss" in r]
    assert steps_seen == list(range(1, 11))


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    """A directory with the states of two steps, and who can read them."""
    rules = test_loop.recipe()
    strategy = distribution.build("one_device")
    model, optimizer = steps.build(strategy, rules)
    directory = tmp_path_factory.mktemp("states") / "checkpoints"
    for step in (1, 2):
        checkpoint.save(
            directory,
            checkpoint.State(step=step),
            model=model,
            optimizer=optimizer,
        )
    return directory, model, optimizer


def flip(files, rng):
    file = files[rng.integers(len(files))]
    content = bytearray(file.read_bytes())
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    file.write_bytes(content)


def truncate(files, rng):
    file = files[rng.integers(len(files))]
    os.truncate(file, rng.integers(file.stat().st_size))


def delete(files, rng):
    files[rng.integers(len(files))].unlink()


def swap(files, rng):
    # Two may be equal, as velocities of the same shapes before any update.
    pairs = [
        (one, other)
        for one, other in itertools.combinations(files, 2)
        if one.read_bytes() != other.read_bytes()
    ]
    one, other = pairs[rng.integers(len(pairs))]
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "few", "full"),
    [
        (flip, 40, 1000),
        (truncate, 10, 100),
        (delete, 5, 50),
        (swap, 5, 50),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_spoiled_state_is_found_out(
    campaign, states, count, rng, tmp_path, spoil, few, full
):
    directory, model, optimizer = states
    demanded = "detected, and the state before is taken"
    with campaign(f"R5 {spoil.__name__} in a state", demanded) as row:
        for number in range(count(few, full)):
            path = tmp_path / "checkpoints"
            shutil.copytree(directory, path)
            newest = path / "step-00000002"
            spoil(sorted(newest.iterdir()), rng)
            is_found = not workdir_lib.verify_directory(newest)
            lines, state = [], None
            # Reading the weights takes a hundred times as long.
            if number % 20 == 0 and is_found:
                state = checkpoint.restore(
                    path, model=model, optimizer=optimizer, log=lines.append
                )
                is_found = state.step == 1 and "damaged" in lines[0]
            row.check(is_found, f"number {number}")
            shutil.rmtree(path)
