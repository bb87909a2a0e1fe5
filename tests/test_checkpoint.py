"""The state of a run comes back as it was, or not at all."""

import json

import numpy as np

from bit_tf import checkpoint
from bit_tf import optimizer as optimizer_lib
from bit_tf import resnet_v2
from bit_tf import workdir as workdir_lib
from tests.test_optimizer import RECIPE


def build(classes=3, seed=0):
    model = resnet_v2.build("R26x0.5", classes, seed=seed)
    optimizer = optimizer_lib.build(RECIPE)
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
        checkpoint.save(tmp_path, step=step, model=model, optimizer=optimizer)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "step-00000002",
        "step-00000003",
    ]
    spoiled = tmp_path / "step-00000003" / "velocities.npz"
    spoiled.write_bytes(spoiled.read_bytes()[:-1])
    other, fresh = build(seed=1)
    told = []
    step = checkpoint.restore(
        tmp_path, model=other, optimizer=fresh, log=told.append
    )
    assert step == 2
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


def test_nothing_to_restore_is_step_zero(tmp_path):
    model, optimizer = build()
    for path in (tmp_path / "none", tmp_path):
        assert checkpoint.restore(path, model=model, optimizer=optimizer) == 0


def test_a_half_written_state_is_ignored_and_removed(tmp_path):
    model, optimizer = build()
    checkpoint.save(tmp_path, step=4, model=model, optimizer=optimizer)
    half = tmp_path / ".step-00000009.1.tmp"
    half.mkdir()
    (half / "weights.npz").write_bytes(b"half")
    assert checkpoint.restore(tmp_path, model=model, optimizer=optimizer) == 4
    assert not half.exists()


def test_the_state_is_described_in_plain_json(tmp_path):
    model, optimizer = build()
    checkpoint.save(tmp_path, step=4, model=model, optimizer=optimizer)
    state = tmp_path / "step-00000004"
    assert json.loads((state / "state.json").read_text()) == {"step": 4}
    assert workdir_lib.verify_directory(state)
