"""All formulations compute the same, to the rounding of the papers' one."""

import itertools
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf

from bit_tf import formulations
from bit_tf import normalisation
from tests import agreement

GROUPS = 8
SHAPE = (2, 6, 5, 32)
EPSILON = 1e-5
# A unit of the last place, of float32 and of what 30 terms come to.
ULP = 1.2e-7


@pytest.fixture(params=["operations", "fused", "eager", "portable", "plain"])
def formulation(request, monkeypatch):
    """One of all ways that a tensor can be normalised."""
    if request.param == "fused":
        monkeypatch.setattr(formulations, "FUSED_ELEMENTS", 1)
    return request.param


def computed(formulation, function, *inputs):
    """Returns the values of a function, and its gradients of a random sum."""

    def compute(*inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = tf.nest.flatten(function(*inputs))
            rng = np.random.default_rng(7)
            loss = tf.add_n(
                [
                    tf.reduce_sum(
                        tf.cast(o, tf.float64) * rng.normal(size=o.shape)
                    )
                    for o in outputs
                ]
            )
        return outputs, tape.gradient(loss, list(inputs))

    name = formulation if formulation in formulations.FORMULATIONS else "cpu"
    if formulation != "eager":
        compute = tf.function(compute, autograph=False)
    with formulations.using(name):
        values, gradients = compute(*map(tf.constant, inputs))
    return [
        [tf.cast(x, tf.float64).numpy() for x in found]
        for found in (values, gradients)
    ]


def inputs(mean=0.0, deviation=1.0):
    """Returns x, gamma and beta, float64."""
    rng = np.random.default_rng(0)
    x = mean + deviation * rng.normal(size=SHAPE)
    return x, *rng.normal(size=(2, SHAPE[-1]))


def norm(x, gamma, beta):
    return formulations.group_norm(
        x, gamma, beta, groups=GROUPS, epsilon=EPSILON
    )


def exactly(x, gamma, beta):
    """`norm` as the paper writes it, differentiated by TensorFlow."""
    x = tf.convert_to_tensor(x)
    grouped = tf.reshape(x, (*SHAPE[:3], GROUPS, -1))
    mean, variance = tf.nn.moments(grouped, (1, 2, 4), keepdims=True)
    normal = (grouped - mean) * tf.math.rsqrt(variance + EPSILON)
    return tf.reshape(normal, SHAPE) * gamma + beta


def in_float32(values):
    return [np.asarray(v, np.float32) for v in values]


@pytest.mark.parametrize("mean", [0.0, 1e2, 1e4])
@pytest.mark.parametrize("deviation", [1.0, 1e-3])
def test_group_norm_and_its_gradients(formulation, mean, deviation):
    given = in_float32(inputs(mean * deviation, deviation))
    found = computed(formulation, norm, *given)
    exact = computed("plain", exactly, *(v.astype(np.float64) for v in given))
    # The mean itself is known to a few units of its last place.
    tolerance = 10 * ULP * (1 + mean)
    for values, wanted in zip(
        itertools.chain(*found), itertools.chain(*exact), strict=True
    ):
        assert agreement.relative_error(values, wanted) < tolerance


def test_in_float64_only_rounding_is_left(formulation):
    found = computed(formulation, norm, *inputs(mean=3.0))
    exact = computed("plain", exactly, *inputs(mean=3.0))
    for values, wanted in zip(
        itertools.chain(*found), itertools.chain(*exact), strict=True
    ):
        assert agreement.relative_error(values, wanted) < 1e-13


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_only_that_of_the_result(formulation, dtype):
    # The squares of these overflow float16.
    x, gamma, beta = inputs(mean=1e4, deviation=1e4)
    x = tf.cast(x, dtype)
    gamma, beta = in_float32((gamma, beta))
    found = computed(formulation, norm, x, gamma, beta)
    exact = computed(
        "plain",
        exactly,
        *(tf.cast(v, tf.float64).numpy() for v in (x, gamma, beta)),
    )
    digits = {"float16": 2**-11, "bfloat16": 2**-8}[dtype]
    for values, wanted in zip(
        itertools.chain(*found), itertools.chain(*exact), strict=True
    ):
        # Gradients of 1e-4 and less are few units of float16's smallest.
        assert agreement.relative_error(values, wanted) < 3 * digits


UNITS = {
    "1x1": [(1, 1)],
    "1x1 and a shortcut": [(1, 1), (1, 1)],
    "strides": [(1, 1), (1, 2)],
    "3x3": [(3, 1)],
    "strided 3x3": [(3, 2)],
    "7x7": [(7, 2)],
}


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_and_its_gradients(formulation, unit):
    rng = np.random.default_rng(1)
    kernels = [
        rng.normal(size=(size, size, SHAPE[-1], 3)) for size, _ in UNITS[unit]
    ]
    strides = [stride for _, stride in UNITS[unit]]

    def compute(x, gamma, beta, *kernels):
        return formulations.norm_relu_convolve(
            x,
            gamma,
            beta,
            kernels,
            strides=strides,
            groups=GROUPS,
            epsilon=EPSILON,
        )

    def plainly(x, gamma, beta, *kernels):
        y = tf.nn.relu(exactly(x, gamma, beta))
        outputs = []
        for kernel, stride in zip(kernels, strides, strict=True):
            pad = (kernel.shape[0] - 1) // 2
            sides = ((0, 0), (pad, pad), (pad, pad), (0, 0))
            outputs.append(
                tf.nn.conv2d(tf.pad(y, sides), kernel, stride, "VALID")
            )
        return outputs

    given = (*inputs(), *kernels)
    found = computed(formulation, compute, *given)
    exact = computed("plain", plainly, *given)
    for values, wanted in zip(
        itertools.chain(*found), itertools.chain(*exact), strict=True
    ):
        assert values.shape == wanted.shape
        assert agreement.relative_error(values, wanted) < 1e-12


@pytest.mark.parametrize("mean", [0.0, 1.0, 1e2])
def test_standardisation_and_its_gradient(formulation, mean):
    kernel = np.random.default_rng(0).normal(mean, 1, size=(3, 3, 16, 7))
    kernel = (0.02 * kernel).astype(np.float32)

    def exact(kernel):
        found, variance = tf.nn.moments(kernel, (0, 1, 2))
        return (kernel - found) * tf.math.rsqrt(variance + 1e-10)

    found = computed(formulation, formulations.standardize, kernel)
    wanted = computed("plain", exact, kernel.astype(np.float64))
    tolerance = 10 * ULP * (1 + mean)
    for a, b in zip(
        itertools.chain(*found), itertools.chain(*wanted), strict=True
    ):
        assert agreement.relative_error(a, b) < tolerance


@pytest.mark.parametrize("name", formulations.FORMULATIONS)
def test_its_gradient_is_that_of_the_kernel_that_was_read(name):
    first, second, weights = np.random.default_rng(0).normal(
        size=(3, 3, 3, 4, 8)
    )

    def gradient(kernel, later):
        variable = tf.Variable(kernel, dtype=tf.float32)
        with tf.GradientTape() as tape, formulations.using(name):
            loss = tf.reduce_sum(formulations.standardize(variable) * weights)
        variable.assign(later)
        return tape.gradient(loss, variable).numpy()

    np.testing.assert_array_equal(
        gradient(first, second), gradient(first, first)
    )


def test_sums_by_a_product_round_no_more_than_reductions():
    # A mean of 100 deviations, and as many pixels as larger blocks have.
    x = np.random.default_rng(0).normal(100, size=(4, 576, 256))
    x = x.astype(np.float32)
    exact = x.sum(axis=1, keepdims=True, dtype=np.float64)

    def error(sums):
        found = tf.function(sums, autograph=False)(tf.constant(x))
        return np.sqrt(np.mean((found.numpy() - exact) ** 2))

    # One product of all pixels is 3 times as far off.
    reduced = error(normalisation.by_reduction)
    assert error(normalisation.by_matrix) <= 1.4 * reduced


def test_shapes_that_are_not_known_are_those_that_come():
    @tf.function(input_signature=[tf.TensorSpec((None, None, None, SHAPE[-1]))])
    def compute(x):
        ones = tf.ones(SHAPE[-1])
        kernel = tf.ones((1, 1, SHAPE[-1], 3))
        return formulations.norm_relu_convolve(
            x, ones, ones, [kernel], strides=[1], groups=GROUPS, epsilon=1e-5
        )[0]

    for size in ((1, 3, 4), (2, 1, 1), (3, 7, 2)):
        assert compute(tf.zeros((*size, SHAPE[-1]))).shape == (*size, 3)


def test_what_is_large_is_not_kept_but_computed_again(monkeypatch):
    """The backward pass asks for x, and not for what it was turned into."""

    def kept():
        @tf.function
        def forward(x):
            ones = tf.ones(SHAPE[-1])
            kernel = tf.ones((3, 3, SHAPE[-1], 3))
            return formulations.norm_relu_convolve(
                x, ones, ones, [kernel], strides=[1], groups=8, epsilon=1e-5
            )[0]

        @tf.function
        def both(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = forward(x)
            return tape.gradient(y, x)

        graph = both.get_concrete_function(tf.zeros(SHAPE)).graph
        (call,) = (
            op
            for op in graph.get_operations()
            if op.type.endswith("PartitionedCall")
            and op.get_attr("f").name.startswith("__forward_")
        )
        large = int(np.prod(SHAPE))
        return sum(o.shape.num_elements() == large for o in call.outputs)

    before = kept()
    monkeypatch.setattr(formulations, "FUSED_ELEMENTS", 1)
    assert kept() == before - 1


@pytest.mark.parametrize("name", formulations.FORMULATIONS)
def test_only_here_there_are_gradients_by_hand_and_batch_norm(name):
    """What others load must not need what only this process knows."""

    @tf.function(autograph=False)
    def compute(x, kernel):
        ones = tf.ones(SHAPE[-1])
        with formulations.using(name):
            kernels = [formulations.standardize(kernel)]
            return formulations.norm_relu_convolve(
                x, ones, ones, kernels, strides=[1], groups=8, epsilon=1e-5
            )[0]

    found = compute.get_concrete_function(
        tf.zeros(SHAPE), tf.ones((3, 3, SHAPE[-1], 3))
    )
    text = str(found.graph.as_graph_def())
    assert ("_gradient_op_type" in text) == (name == "cpu")
    assert ("FusedBatchNormV3" in text) == (name == "cpu")


def test_accelerators_get_the_plain_one():
    assert formulations.chosen() == "cpu"
    with mock.patch.object(
        tf.config,
        "list_logical_devices",
        return_value=[mock.Mock(device_type=kind) for kind in ("CPU", "GPU")],
    ):
        assert formulations.chosen() == "plain"
        with tf.distribute.OneDeviceStrategy("/cpu:0").scope():
            assert formulations.chosen() == "cpu"


def test_there_are_no_others():
    with (
        pytest.raises(ValueError, match="allowed are cpu, portable, plain"),
        formulations.using("fast"),
    ):
        pass
