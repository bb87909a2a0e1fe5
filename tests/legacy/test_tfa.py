"""Our GroupNorm is the one of tensorflow-addons, which BiT was made with."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from bit_tf import layers

CONSTANT = "constant"
# (batch, height, width, channels), mean and deviation of the values.
CASES = {
    "block1": ((2, 16, 12, 256), 0.0, 1.0),
    "one_channel_per_group": ((3, 9, 7, 32), 0.5, 2.0),
    "one_pixel": ((4, 1, 1, 64), 0.0, 1.0),
    "block4": ((2, 7, 7, 2048), 0.0, 1.0),
    "large_mean": ((2, 8, 8, 128), 100.0, 1.0),
    "small_values": ((2, 8, 8, 128), 0.0, 1e-3),
    CONSTANT: ((1, 4, 4, 64), 3.0, 0.0),
}
# Half of the numbers are the same to the last bit, and the rest differ in it,
# but where the mean is large or the values are few: there tensorflow-addons
# subtracts products of large numbers, and this is its rounding.
TOLERANCE = {"float64": 1e-13, "float32": 2e-5}


def inputs():
    rng = np.random.default_rng(0)
    found = {}
    for dtype in TOLERANCE:
        for case, (shape, mean, deviation) in CASES.items():
            channels = shape[-1:]
            for name, value in (
                ("x", rng.normal(mean, deviation, shape)),
                ("gamma", rng.uniform(0.5, 1.5, channels)),
                ("beta", rng.normal(0, 0.2, channels)),
                ("weight", rng.normal(size=shape)),
            ):
                found[f"{case}-{dtype}/{name}"] = value.astype(dtype)
    return found


@pytest.fixture(scope="module")
def theirs(run_legacy, tmp_path_factory):
    directory = tmp_path_factory.mktemp("tfa")
    given = inputs()
    np.savez(directory / "inputs.npz", **given)
    run_legacy(
        "tfa_peer.py",
        directory / "inputs.npz",
        directory / "outputs.npz",
        directory=directory,
    )
    with np.load(directory / "outputs.npz") as stored:
        return given, {key: stored[key] for key in stored.files}


def both(theirs, case, dtype):
    """Returns our outputs and theirs by name."""
    prefix = f"{case}-{dtype}/"
    given, found = (
        {k.removeprefix(prefix): v for k, v in arrays.items() if prefix in k}
        for arrays in theirs
    )
    return ours(given, dtype), found


def exact(x, gamma, beta):
    """The formula in NumPy's widest numbers (Wu & He, arXiv 1803.08494)."""
    wide = x.astype(np.longdouble)
    groups = wide.reshape(*x.shape[:3], 32, -1)
    centred = groups - groups.mean(axis=(1, 2, 4), keepdims=True)
    variance = (centred**2).mean(axis=(1, 2, 4), keepdims=True)
    normal = centred / np.sqrt(variance + np.longdouble(1e-5))
    return normal.reshape(x.shape) * gamma + beta


def ours(given, dtype):
    layer = layers.GroupNorm(dtype=dtype)
    x = tf.constant(given["x"])
    layer.build(x.shape)
    layer.gamma.assign(given["gamma"])
    layer.beta.assign(given["beta"])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
        loss = tf.reduce_sum(y * given["weight"])
    gradients = tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])
    names = ("y", "dx", "dgamma", "dbeta")
    return dict(zip(names, (y, *gradients), strict=True))


def test_it_is_the_last_tensorflow_with_addons(theirs):
    _, found = theirs
    assert list(found["versions"]) == ["2.15.1", "0.23.0"]
    assert keras.__version__ >= "3"


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", [case for case in CASES if case != CONSTANT])
def test_forward_and_backward_agree(case, dtype, theirs):
    mine, found = both(theirs, case, dtype)
    for name, value in mine.items():
        wanted = found[name]
        scale = max(np.abs(wanted).max(), np.finfo(dtype).tiny)
        error = np.abs(value.numpy() - wanted).max() / scale
        same = np.mean(value.numpy() == wanted)
        print(
            f"{case} {dtype} {name}: {error:.1e} of the largest, "
            f"{same:.0%} the same to the last bit"
        )
        assert error < TOLERANCE[dtype], name


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", CASES)
def test_ours_is_no_further_from_the_formula(case, dtype, theirs):
    mine, found = both(theirs, case, dtype)
    given = {
        name: theirs[0][f"{case}-{dtype}/{name}"]
        for name in ("x", "gamma", "beta")
    }
    wanted = exact(**given)
    scale = np.abs(wanted).max()
    error = np.abs(mine["y"].numpy() - wanted).max() / scale
    their_error = np.abs(found["y"] - wanted).max() / scale
    print(f"{case} {dtype}: ours {error:.1e}, addons {their_error:.1e}")
    assert error <= max(1.5 * their_error, 4 * np.finfo(dtype).eps)
