"""Weights and state come back as they were, or not at all."""

import json

import numpy as np
import pytest

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


@pytest.fixture
def weights_file(tmp_path):
    model, _ = build(seed=7)
    scramble(model.variables, 0)
    checkpoint.save_weights(tmp_path / "weights.npz", model)
    return tmp_path / "weights.npz", model


def test_weights_file_is_plain_numpy_in_the_published_layout(weights_file):
    path, model = weights_file
    with np.load(path, allow_pickle=False) as stored:
        assert set(stored.files) == {v.path for v in model.variables}
        kernel = stored["resnet/head/conv2d/kernel"]
        assert kernel.shape == (1, 1, 1024, 3)
        assert {stored[k].dtype for k in stored.files} == {np.dtype("f4")}


def test_weights_come_back_bit_for_bit(weights_file):
    path, model = weights_file
    other, _ = build()
    assert checkpoint.load_weights(path, other) is None
    for a, b in zip(model.variables, other.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_a_head_for_other_classes_is_replaced_by_zeros(weights_file):
    path, model = weights_file
    other, _ = build(classes=5)
    remark = checkpoint.load_weights(path, other)
    assert "3 classes" in remark and "5 starts at zero" in remark
    for v in other.variables:
        if "head" in v.path:
            assert not v.numpy().any()
        else:
            twin = next(w for w in model.variables if w.path == v.path)
            np.testing.assert_array_equal(v.numpy(), twin.numpy())


def test_a_file_without_a_head_leaves_the_head(weights_file, tmp_path):
    path, _ = weights_file
    with np.load(path) as stored:
        rest = {k: stored[k] for k in stored.files if "head" not in k}
    np.savez(tmp_path / "headless.npz", **rest)
    other, _ = build()
    checkpoint.load_weights(tmp_path / "headless.npz", other)
    headless = resnet_v2.build("R26x0.5")
    checkpoint.load_weights(path, headless)


def change(stored, how):
    key = "resnet/block2/unit01/a/proj/standardized_conv2d/kernel"
    if how == "missing":
        del stored[key]
    elif how == "surplus":
        stored["resnet/block9/kernel"] = np.zeros(3, np.float32)
    elif how == "transposed":
        stored[key] = stored[key].transpose(0, 1, 3, 2)
    return stored


@pytest.mark.parametrize(
    ("how", "names"),
    [
        ("missing", "lacks tensor .*block2/unit01/a/proj"),
        ("surplus", "surplus tensor resnet/block9/kernel"),
        ("transposed", r"has shape \(1, 1, 256, 128\).*\(1, 1, 128, 256\)"),
    ],
)
def test_a_wrong_file_is_refused_by_tensor(weights_file, tmp_path, how, names):
    path, _ = weights_file
    with np.load(path) as stored:
        arrays = change({k: stored[k] for k in stored.files}, how)
    np.savez(tmp_path / "wrong.npz", **arrays)
    with pytest.raises(ValueError, match=names):
        checkpoint.load_weights(tmp_path / "wrong.npz", build()[0])


def test_what_is_no_weights_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        checkpoint.load_weights(tmp_path / "none.npz", build()[0])
    (tmp_path / "text.npz").write_text("no zip")
    with pytest.raises(ValueError, match="cannot be read"):
        checkpoint.load_weights(tmp_path / "text.npz", build()[0])
    np.save(tmp_path / "single.npy", np.zeros(3))
    with pytest.raises(ValueError, match="single.npy"):
        checkpoint.load_weights(tmp_path / "single.npy", build()[0])


def test_pickled_objects_are_never_loaded(weights_file, tmp_path):
    path, _ = weights_file
    with np.load(path) as stored:
        arrays = {k: stored[k] for k in stored.files}
    arrays["resnet/group_norm/beta"] = np.array([{}], dtype=object)
    np.savez(tmp_path / "evil.npz", **arrays)
    with pytest.raises(ValueError, match="resnet/group_norm/beta cannot be"):
        checkpoint.load_weights(tmp_path / "evil.npz", build()[0])


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
