"""Names and shapes are those of the released files and of the network."""

import pytest

from bit_tf import architecture
from bit_tf import layout
from bit_tf import resnet_v2

# Without a head; the thousand-class sums are in timm's results tables.
PUBLISHED_PARAMETERS = {
    "R50x1": 23_500_352,
    "R101x1": 42_492_480,
    "R50x3": 211_174_080,
    "R101x3": 381_789_888,
    "R152x2": 232_238_208,
    "R152x4": 928_340_224,
}


@pytest.mark.parametrize(("name", "count"), PUBLISHED_PARAMETERS.items())
def test_parameter_counts_are_the_published_ones(name, count):
    shapes = layout.shapes(*architecture.parse_name(name), None)
    assert layout.parameters(shapes) == count


@pytest.mark.parametrize("classes", [None, 7])
def test_shapes_are_those_of_the_network_in_its_order(classes):
    model = resnet_v2.build("R26x0.5", classes)
    shapes = layout.shapes(26, 0.5, classes)
    assert [(v.path, tuple(v.shape)) for v in model.variables] == list(
        shapes.items()
    )


def test_the_projection_is_the_last_of_its_unit():
    keys = list(layout.shapes(50, 1, None))
    proj = "resnet/block1/unit01/a/proj/standardized_conv2d/kernel"
    at = keys.index(proj)
    assert keys[at - 1] == "resnet/block1/unit01/c/standardized_conv2d/kernel"
    assert keys[at + 1] == "resnet/block1/unit02/a/group_norm/gamma"


@pytest.mark.parametrize(
    ("odd", "usual"),
    [
        (
            "resnet/block1/unit02/b/standardized_conv2d_7/kernel",
            "resnet/block1/unit02/b/standardized_conv2d/kernel",
        ),
        (
            "resnet/root_block/standardized_conv2d_112/kernel",
            "resnet/root_block/standardized_conv2d/kernel",
        ),
        (
            "resnet/block3/unit01/a/proj/standardized_conv2d_3/kernel",
            "resnet/block3/unit01/a/proj/standardized_conv2d/kernel",
        ),
        (
            "resnet/block3/unit01/a/proj/kernel",
            "resnet/block3/unit01/a/proj/standardized_conv2d/kernel",
        ),
        ("resnet/group_norm/beta", "resnet/group_norm/beta"),
        ("resnet/head/conv2d/bias", "resnet/head/conv2d/bias"),
    ],
)
def test_odd_names_are_known(odd, usual):
    assert layout.canonical(odd) == usual


@pytest.mark.parametrize("name", PUBLISHED_PARAMETERS)
def test_the_architecture_is_read_from_the_shapes(name):
    depth, width = architecture.parse_name(name)
    shapes = layout.shapes(depth, width, 12)
    assert layout.infer(shapes) == (depth, width)
    assert layout.num_classes(shapes) == 12
    # One wrong tensor does not change what the others say.
    shapes[layout.ROOT] = (7, 7, 3, 128)
    del shapes["resnet/block4/unit03/c/group_norm/gamma"]
    assert layout.infer(shapes) == (depth, width)


def test_what_is_no_bit_network_is_refused():
    with pytest.raises(ValueError, match="conv1/kernel is one of a BiT"):
        layout.infer({"conv1/kernel": (7, 7, 3, 64)})
    with pytest.raises(ValueError, match="none of its 0 tensors"):
        layout.infer({})


@pytest.mark.parametrize(
    "naming", [layout.timm_name, layout.transformers_name, layout.keras_name]
)
def test_names_elsewhere_are_all_different(naming):
    keys = list(layout.shapes(152, 1, 1))
    assert len({naming(key) for key in keys}) == len(keys)


def test_axes_come_back_from_torch():
    for shape in ((7, 7, 3, 64), (1, 1, 8, 5), (64,)):
        assert layout.shape_from_torch(layout.shape_to_torch(shape)) == shape
    assert layout.shape_from_torch((10, 2048)) == (1, 1, 2048, 10)
