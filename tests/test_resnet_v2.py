"""The network is the published one: sizes, names, arithmetic."""

import keras
import numpy as np
import pytest

from bit_tf import architecture
from bit_tf import blocks
from bit_tf import layers
from bit_tf import resnet_v2


# Table 1.1 of the released models: parameters without a head; 1000-class
# totals agree with timm's published counts.
@pytest.mark.parametrize(
    ("name", "classes", "parameters", "arrays"),
    [
        ("R26x1", None, 13_938_496, 79),
        ("R26x1", 1000, 15_987_496, 81),
        ("R50x1", None, 23_500_352, 151),
        ("R50x1", 1000, 25_549_352, 153),
        ("R50x1", 21843, 68_256_659, 153),
        ("R50x3", None, 211_174_080, 151),
        ("R101x1", 1000, 44_541_480, 306),
        ("R152x1", 21843, 102_892_435, 459),
    ],
)
def test_parameter_counts(name, classes, parameters, arrays):
    model = resnet_v2.build(name, classes)
    assert model.count_params() == parameters
    assert len(model.variables) == arrays


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("R101x3", 381_789_888),
        ("R152x2", 232_238_208),
        ("R152x4", 928_340_224),
    ],
)
def test_parameter_counts_of_the_giants_from_shapes(name, parameters):
    # Built without allocating: only the shapes count.
    with keras.StatelessScope():
        model = resnet_v2.build(name, seed=None)
    total = sum(int(np.prod(v.shape)) for v in model.variables)
    assert total == parameters


# Conv-output activations in millions, from the released models' sizes; the
# one of R50x1 at 224 pixels is also timm's published count.
@pytest.mark.parametrize(
    ("name", "side", "millions"),
    [
        ("R50x1", 128, 3.6),
        ("R50x1", 224, 11.1),
        ("R50x1", 480, 51.0),
        ("R50x3", 384, 98.0),
        ("R101x1", 224, 16.2),
        ("R152x2", 384, 133),
        ("R152x4", 480, 414),
    ],
)
def test_activation_counts(name, side, millions):
    found = architecture.activations(name, side) / 1e6
    assert found == pytest.approx(millions, rel=0.02)


# Forward multiply-adds in 10^9, from the released models' sizes.
@pytest.mark.parametrize(
    ("name", "side", "billions"),
    [
        ("R50x1", 128, 1.33),
        ("R50x1", 224, 4.09),
        ("R50x1", 480, 18.8),
        ("R50x3", 224, 36.1),
        ("R101x1", 384, 22.9),
        ("R101x3", 480, 319),
        ("R152x2", 224, 45.8),
        ("R152x4", 224, 183),
        ("R152x4", 480, 839),
    ],
)
def test_multiplication_counts(name, side, billions):
    found = architecture.multiplications(name, side) / 1e9
    assert found == pytest.approx(billions, rel=0.005)


def published_keys(depth_units, width, classes):
    """The layout of the released .npz files, written down independently."""
    w = int(64 * width)
    shapes = {"resnet/root_block/standardized_conv2d/kernel": (7, 7, 3, w)}
    c_in = w
    for block, units in enumerate(depth_units, start=1):
        m = w * 2 ** (block - 1)
        for unit in range(1, units + 1):
            prefix = f"resnet/block{block}/unit{unit:02d}"
            for branch, channels, kernel in (
                ("a", c_in, (1, 1, c_in, m)),
                ("b", m, (3, 3, m, m)),
                ("c", m, (1, 1, m, 4 * m)),
            ):
                key = f"{prefix}/{branch}"
                shapes[f"{key}/group_norm/gamma"] = (channels,)
                shapes[f"{key}/group_norm/beta"] = (channels,)
                shapes[f"{key}/standardized_conv2d/kernel"] = kernel
            if unit == 1:
                key = f"{prefix}/a/proj/standardized_conv2d/kernel"
                shapes[key] = (1, 1, c_in, 4 * m)
            c_in = 4 * m
    shapes["resnet/group_norm/gamma"] = (c_in,)
    shapes["resnet/group_norm/beta"] = (c_in,)
    shapes["resnet/head/conv2d/kernel"] = (1, 1, c_in, classes)
    shapes["resnet/head/conv2d/bias"] = (classes,)
    return shapes


@pytest.mark.parametrize(
    ("name", "units", "width"),
    [("R50x1", (3, 4, 6, 3), 1), ("R26x0.5", (2, 2, 2, 2), 0.5)],
)
def test_variable_paths_are_the_published_keys(name, units, width):
    model = resnet_v2.build(name, 7)
    found = {v.path: tuple(v.shape) for v in model.variables}
    assert found == published_keys(units, width, 7)


def test_root_pool_pads_with_zeros():
    root = blocks.RootBlock(32)
    x = np.random.default_rng(0).normal(size=(1, 16, 16, 3)).astype("float32")
    pooled = root(x)
    conv = root.conv(x).numpy()[0]
    padded = np.pad(conv, ((1, 1), (1, 1), (0, 0)))  # zeros, not -inf
    wanted = padded[0:3, 0:3].max(axis=(0, 1))
    assert (conv[:2, :2].max(axis=(0, 1)) < 0).any()
    np.testing.assert_allclose(pooled[0, 0, 0], wanted, atol=1e-5)


def test_maps_features_and_logits_are_endpoints():
    model = resnet_v2.build("R26x0.5", 7)
    outputs = keras.Model(model.input, model.endpoints)(
        np.zeros((2, 65, 33, 3), "float32")
    )
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        "root_block": (2, 17, 9, 32),
        "block1": (2, 17, 9, 128),
        "block2": (2, 9, 5, 256),
        "block3": (2, 5, 3, 512),
        "block4": (2, 3, 2, 1024),
        "pre_logits": (2, 1024),
        "logits": (2, 7),
    }


def test_a_fresh_head_says_nothing():
    model = resnet_v2.build("R26x0.5", 7)
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    assert not model(x).numpy().any()


def test_without_a_head_the_output_is_the_pooled_features():
    model = resnet_v2.build("R26x0.5")
    assert tuple(model.output.shape) == (None, 1024)
    assert "logits" not in model.endpoints


def test_equal_seeds_give_equal_weights_and_others_do_not():
    first, again, other = (
        resnet_v2.build("R26x0.5", 3, seed=seed) for seed in (1, 1, 2)
    )
    for a, b in zip(first.variables, again.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    kernels = [
        {v.path: v.numpy() for v in m.variables if v.path.endswith("kernel")}
        for m in (first, other)
    ]
    for path, kernel in kernels[0].items():
        if "head" not in path:
            assert (kernel != kernels[1][path]).any()
    # No two kernels of one network are copies of each other either.
    sums = [float(np.abs(k).sum()) for k in kernels[0].values() if k.any()]
    assert len(set(sums)) == len(sums)


def test_saving_and_loading_keeps_weights_paths_and_outputs(tmp_path):
    model = resnet_v2.build("R26x0.5", 3, seed=5)
    model.get_layer("head").conv.bias.assign([1.0, 2.0, 3.0])
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert [v.path for v in again.variables] == [
        v.path for v in model.variables
    ]
    x = np.random.default_rng(0).normal(size=(2, 32, 48, 3)).astype("float32")
    np.testing.assert_array_equal(model(x), again(x))
    assert again.get_config() == model.get_config()


@pytest.mark.parametrize(
    "layer",
    [
        layers.StdConv2D(4, 3, strides=2, dtype="mixed_bfloat16"),
        layers.GroupNorm(groups=8, epsilon=1e-3),
        blocks.RootBlock(32, seed=3),
        blocks.BottleneckUnit(32, strides=2, seed=3),
        blocks.Block(32, num_units=2, strides=2, seed=3),
        blocks.Head(5),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_survive_serialization(layer):
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()


@pytest.mark.parametrize(
    ("policy", "logits"),
    [
        ("mixed_float16", "float32"),
        ("mixed_bfloat16", "float32"),
        ("float64", "float64"),
    ],
)
def test_dtype_policies(policy, logits):
    model = resnet_v2.build("R26x0.5", 3, dtype=policy)
    x = np.random.default_rng(0).uniform(-1, 1, size=(1, 32, 32, 3))
    features = keras.Model(model.input, model.endpoints)(x)
    assert features["logits"].dtype == logits
    assert {v.dtype for v in model.variables} == {logits}
    assert features["block4"].dtype == model.get_layer("block4").compute_dtype
    exact = resnet_v2.build("R26x0.5", 3, dtype="float64")
    exact.set_weights(model.get_weights())
    wanted = keras.Model(exact.input, exact.endpoints)(x)["pre_logits"]
    wanted = wanted.numpy()
    error = np.abs(features["pre_logits"].numpy() - wanted).max()
    error /= np.abs(wanted).max()
    # Half precision keeps 3 (bfloat16) or 4 digits at each of 26 layers.
    assert error < {"float64": 1e-12}.get(policy, 0.1)


@pytest.mark.parametrize(
    "name",
    [
        "R50",
        "R51x1",
        "r50x1",
        "R50x0",
        "R50x0.25",
        "R50x1.3",
        "",
        "R50x-1",
        "R50x999",
    ],
)
def test_unknown_names_are_refused(name):
    with pytest.raises(ValueError, match="allowed"):
        resnet_v2.build(name)


@pytest.mark.parametrize("name", ["R26x0.5", "R26x1.5", "R26x1"])
def test_widths_that_groups_divide_are_allowed(name):
    assert resnet_v2.build(name, 2).num_classes == 2


def test_depth_can_be_frozen_by_layer():
    model = resnet_v2.build("R26x0.5", 2)
    for name in ("root_block", "block1", "block2", "block3"):
        model.get_layer(name).trainable = False
    assert {v.path.split("/")[1] for v in model.trainable_variables} == {
        "block4",
        "group_norm",
        "head",
    }


@pytest.mark.parametrize(
    ("initializer", "variance"),
    # Of a 3x3 kernel of 64 to 64 channels.
    [
        ("glorot_uniform", 2 / (9 * 64 + 9 * 64)),
        ("lecun_normal", 1 / (9 * 64)),
        ("he_normal", 2 / (9 * 64)),
    ],
)
def test_fresh_kernels_have_the_variance_of_their_initializer(
    initializer, variance
):
    model = resnet_v2.build("R26x1", initializer=initializer)
    kernel = next(
        v
        for v in model.variables
        if "block1/unit01/b" in v.path and v.path.endswith("kernel")
    )
    assert np.var(kernel.numpy()) == pytest.approx(variance, rel=0.05)
    again = resnet_v2.ResNetV2.from_config(model.get_config())
    assert again.get_config()["initializer"] == initializer


def test_without_a_seed_kernels_are_zeros():
    model = resnet_v2.build("R26x0.5", 2, seed=None)
    kernels = [v for v in model.variables if v.path.endswith("kernel")]
    assert not any(v.numpy().any() for v in kernels)
