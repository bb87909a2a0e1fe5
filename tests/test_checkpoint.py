"""The state of a run comes back as it was, or not at all."""

import dataclasses
import json
import math
import pathlib
import shutil
import zlib

import keras
import numpy as np
import pytest

from bit_tf import checkpoint
from bit_tf import distribution
from bit_tf import optimizer as optimizer_lib
from bit_tf import resnet_v2
from bit_tf import workdir as workdir_lib
from tests.test_optimizer import RECIPE


def build(classes=3, seed=0, rules=RECIPE):
    model = resnet_v2.build("R26x0.5", classes, seed=seed)
    optimizer = optimizer_lib.build(rules)
    optimizer.build(model.trainable_variables)
    return model, optimizer


def scramble(variables, seed):
    rng = np.random.default_rng(seed)
    for v in variables:
        v.assign(rng.normal(size=v.shape))


def test_the_newest_whole_state_is_restored(tmp_path):
    model, optimizer = build()
    for step in (1, 2, 3):
        scramble(model.variables, step)
        scramble(optimizer.velocities, 10 + step)
        checkpoint.save(
            tmp_path,
            checkpoint.State(step=step),
            model=model,
            optimizer=optimizer,
        )
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "step-00000002",
        "step-00000003",
    ]
    spoiled = tmp_path / "step-00000003" / "velocities.npz"
    spoiled.write_bytes(spoiled.read_bytes()[:-1])
    other, fresh = build(seed=1)
    told = []
    state = checkpoint.restore(
        tmp_path, model=other, optimizer=fresh, log=told.append
    )
    assert state == checkpoint.State(step=2)
    assert int(fresh.iterations.numpy()) == 2
    assert "step-00000003 is damaged" in told[0]
    # What is saved next, at an earlier step, is not taken for old.
    assert not spoiled.parent.exists()
    scramble(model.variables, 2)
    scramble(optimizer.velocities, 12)
    for a, b in zip(
        model.variables + optimizer.velocities,
        other.variables + fresh.velocities,
        strict=True,
    ):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_nothing_to_restore_is_said(tmp_path):
    model, optimizer = build()
    for path in (tmp_path / "none", tmp_path):
        found = checkpoint.restore(path, model=model, optimizer=optimizer)
        assert found is None


def test_newest_states_and_those_of_every_so_many_steps_are_kept(tmp_path):
    model, optimizer = build()
    for step in (0, 3, 6, 9, 12, 15, 18):
        checkpoint.save(
            tmp_path,
            checkpoint.State(step=step),
            model=model,
            optimizer=optimizer,
            keep=2,
            keep_every=6,
        )
    kept = sorted(p.name for p in tmp_path.iterdir())
    assert kept == [f"step-{step:08d}" for step in (6, 12, 15, 18)]


def test_what_is_not_numbers_is_not_run(tmp_path):
    model, optimizer = build()
    checkpoint.save(
        tmp_path, checkpoint.State(step=1), model=model, optimizer=optimizer
    )
    path = tmp_path / "step-00000001"

    class Trap:
        def __reduce__(self):
            return pathlib.Path.touch, (tmp_path / "was here",)

    def spoil(temporary):
        for file in path.iterdir():
            if file.name != workdir_lib.MANIFEST:
                shutil.copy(file, temporary)
        with np.load(path / "velocities.npz") as stored:
            spoiled = dict(stored)
        name = next(iter(spoiled))
        spoiled[name] = np.array([Trap()])
        np.savez(temporary / "velocities.npz", **spoiled)

    # Whoever can do this can make its checksums, too.
    workdir_lib.write_directory(tmp_path / "step-00000002", spoil)
    with pytest.raises(ValueError, match="allow_pickle"):
        checkpoint.restore(tmp_path, model=model, optimizer=optimizer)
    assert not (tmp_path / "was here").exists()


def test_copies_under_other_names_are_somebody_s_own(tmp_path):
    model, optimizer = build()
    for name in ("step-best", "step-00000001-copy", "step-99999999.zip"):
        (tmp_path / name).mkdir()
    for step in (1, 2, 3):
        checkpoint.save(
            tmp_path,
            checkpoint.State(step=step),
            model=model,
            optimizer=optimizer,
            keep=1,
        )
    told = []
    state = checkpoint.restore(
        tmp_path, model=model, optimizer=optimizer, log=told.append
    )
    assert state.step == 3 and not told
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step-00000001-copy",
        "step-00000003",
        "step-99999999.zip",
        "step-best",
    ]


def test_only_the_chief_removes_what_is_damaged(tmp_path):
    model, optimizer = build()
    checkpoint.save(
        tmp_path, checkpoint.State(step=4), model=model, optimizer=optimizer
    )
    (tmp_path / "step-00000004" / "state.json").write_text("{}")
    for is_chief in (False, True):
        assert (tmp_path / "step-00000004").exists()
        found = checkpoint.restore(
            tmp_path,
            model=model,
            optimizer=optimizer,
            is_chief=is_chief,
            log=lambda text: None,
        )
        assert found is None
    assert not (tmp_path / "step-00000004").exists()


def test_averages_are_part_of_the_state(tmp_path):
    rules = dataclasses.replace(RECIPE, ema_decay=0.9)
    model, optimizer = build(rules=rules)
    optimizer.start(model.trainable_variables)
    scramble(optimizer.averages, 5)
    state = checkpoint.State(
        step=7, skipped=3, rollbacks=1, loss_scale=512.0, steady_steps=11
    )
    checkpoint.save(tmp_path, state, model=model, optimizer=optimizer)
    other, fresh = build(seed=1, rules=rules)
    found = checkpoint.restore(tmp_path, model=other, optimizer=fresh)
    assert found == state
    for a, b in zip(optimizer.averages, fresh.averages, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_a_half_written_state_is_ignored_and_removed(tmp_path):
    model, optimizer = build()
    state = checkpoint.State(step=4)
    checkpoint.save(tmp_path, state, model=model, optimizer=optimizer)
    half = tmp_path / ".step-00000009.1.tmp"
    half.mkdir()
    (half / "weights.npz").write_bytes(b"half")
    found = checkpoint.restore(tmp_path, model=model, optimizer=optimizer)
    assert found.step == 4
    assert not half.exists()


def test_the_state_is_described_in_plain_json(tmp_path):
    model, optimizer = build()
    state = checkpoint.State(step=4)
    checkpoint.save(tmp_path, state, model=model, optimizer=optimizer)
    written = tmp_path / "step-00000004"
    found = json.loads((written / "state.json").read_text())
    assert found["step"] == 4 and found["skipped"] == 0
    assert workdir_lib.verify_directory(written)


def test_workers_agree_on_state_and_weights(monkeypatch):
    model, _ = build()
    asked = []

    def agree(strategy, numbers):
        asked.append(tuple(numbers))
        return len(asked) == 1

    monkeypatch.setattr(distribution, "agree", agree)
    state = checkpoint.State(step=7, skipped=2, rollbacks=1, evaluated=5)
    monkeypatch.setattr(distribution, "num_hosts", lambda strategy: 1)
    checkpoint.check_agreement(None, state, model)
    assert not asked
    for hosts in (2, 3):
        monkeypatch.setattr(distribution, "num_hosts", lambda _, n=hosts: n)
        if hosts == 2:
            checkpoint.check_agreement(None, state, model)
        else:
            with pytest.raises(ValueError, match="from step 7"):
                checkpoint.check_agreement(None, state, model)
    assert asked[0] == asked[1] and asked[0][:4] == (7, 2, 1, 5)
    # Halves that 32 bits are made of, which every type of number holds.
    assert all(0 <= half < 2**16 for half in asked[0][4:])
    assert asked[0][4] << 16 | asked[0][5] == zlib.crc32(
        b"".join(variable.numpy().tobytes() for variable in model.variables)
    )
    last = model.variables[-1]
    last.assign(last + 1e-6)
    with pytest.raises(ValueError, match="the same --workdir"):
        checkpoint.check_agreement(None, state, model)
    assert asked[2][:4] == asked[0][:4] and asked[2][4:] != asked[0][4:]


def test_a_fresh_state_has_nothing_behind_it():
    # The scale that Keras begins with; a power of two divides without rounding.
    scale = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD()
    ).initial_scale
    assert math.log2(scale).is_integer()
    assert dataclasses.asdict(checkpoint.State()) == {
        "step": 0,
        "skipped": 0,
        "rollbacks": 0,
        "loss_scale": scale,
        "steady_steps": 0,
        "evaluated": 0,
    }


def test_an_old_state_that_is_gone_already_does_not_end_a_run(
    tmp_path, monkeypatch
):
    model, optimizer = build()
    found = checkpoint._states
    monkeypatch.setattr(
        checkpoint,
        "_states",
        lambda directory: [*found(directory), directory / "step-00000000"],
    )
    checkpoint.save(
        tmp_path,
        checkpoint.State(step=1),
        model=model,
        optimizer=optimizer,
        keep=1,
    )
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    model, optimizer = build()
    first = checkpoint.State(step=1)
    checkpoint.save(tmp_path, first, model=model, optimizer=optimizer)
    kernel = model.variables[0]
    value = kernel.numpy()
    value[0, 0, 0, 0] = np.inf
    kernel.assign(value)
    with pytest.raises(ValueError, match="not finite after step 2"):
        checkpoint.save(
            tmp_path,
            checkpoint.State(step=2),
            model=model,
            optimizer=optimizer,
        )
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
