"""The table of published weights is the whole of it, and consistent."""

import pathlib

import pytest

from bit_tf import architecture
from bit_tf import layout
from bit_tf import zoo


def test_every_published_file_is_listed_once():
    names = [
        name for name, entry in zoo.ENTRIES.items() if not entry.is_shipped
    ]
    assert len(names) == len(set(names)) == 318
    assert sum(name.startswith("vtab/") for name in names) == 285
    assert sum(name.endswith("-ILSVRC2012") for name in names) == 12
    assert sum(name.startswith("distill/") for name in names) == 8


def test_addresses_are_the_published_ones():
    base = "https://storage.googleapis.com/bit_models/"
    for name, suffix, url in (
        ("BiT-M-R50x1", ".npz", "BiT-M-R50x1.npz"),
        ("BiT-S-R152x4", ".h5", "BiT-S-R152x4.h5"),
        ("distill/R152x2_T_384", ".npz", "distill/R152x2_T_384.npz"),
        (
            "vtab/BiT-M-R101x3-run2-clevr-count",
            ".npz",
            "vtab/BiT-M-R101x3-run2-clevr-count.npz",
        ),
    ):
        assert zoo.find(name).url(suffix) == base + url
    mirrored = zoo.find("BiT-M-R50x1").url(base="http://here/bit/")
    assert mirrored == "http://here/bit/BiT-M-R50x1.npz"


def test_heads_are_those_of_the_losses():
    for name, entry in zoo.ENTRIES.items():
        upstream_m = entry.num_classes == 21843
        assert entry.head == ("sigmoid" if upstream_m else "softmax"), name
        assert (entry.labels == "imagenet21k") == upstream_m, name
        assert (entry.labels == "ilsvrc2012") == (entry.num_classes == 1000)


def test_one_file_lies_in_the_package_and_nowhere_else():
    (shipped,) = [e for e in zoo.ENTRIES.values() if e.is_shipped]
    assert shipped is zoo.find(zoo.SHIPPED)
    assert shipped.asset.stat().st_size <= 8e6
    for suffix in (".h5", ".safetensors"):
        with pytest.raises(ValueError, match="allowed is .npz"):
            shipped.check_format(suffix)


def test_shapes_give_the_known_size_of_a_file():
    # BiT-jax2tf's log of R152x2_T_384.npz, less the headers of the archive.
    entry = zoo.find("distill/R152x2_T_384")
    assert entry.size == 945_485_848 - 145_016
    assert entry.shapes[layout.HEAD_KERNEL] == (1, 1, 4096, 1000)


def test_every_entry_can_be_built():
    for entry in zoo.ENTRIES.values():
        architecture.parse_name(entry.architecture)
        assert entry.num_classes > 1 and entry.resolution in range(48, 481)


def test_h5_exists_for_five_upstream_architectures():
    with_h5 = [n for n, e in zoo.ENTRIES.items() if ".h5" in e.formats]
    assert len(with_h5) == 10 and not any("R152x2" in n for n in with_h5)
    with pytest.raises(ValueError, match=r"not published as \.h5"):
        zoo.find("BiT-M-R152x2").url(".h5")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("BiT-L-R50x1", "never published"),
        ("BiT-M-R26x1", "BiT-M-R50x1"),
        ("vtab/BiT-M-R50x1-run3-dtd", "vtab/BiT-M-R50x1-run0"),
    ],
)
def test_unknown_names_are_refused_with_the_known(name, wanted):
    with pytest.raises(ValueError, match=wanted) as caught:
        zoo.find(name)
    assert name in str(caught.value)


def test_a_file_is_known_by_name_and_content():
    path = pathlib.Path("somewhere", "BiT-M-R50x1.safetensors")
    find = zoo.by_file
    known = find(path, architecture="R50x1", num_classes=21843)
    assert known is zoo.find("BiT-M-R50x1")
    assert find(path, architecture="R50x1", num_classes=10) is None
    assert find(path, architecture="R50x3", num_classes=21843) is None
    # A name with a dot of its own, with and without a suffix.
    for name in (
        zoo.SHIPPED,
        f"{zoo.SHIPPED}.npz",
        f"{zoo.SHIPPED}.weights.h5",
    ):
        own = find(pathlib.Path(name), architecture="R26x0.5", num_classes=200)
        assert own is zoo.find(zoo.SHIPPED), name
    other = pathlib.Path(f"{zoo.SHIPPED}b.npz")
    assert find(other, architecture="R26x0.5", num_classes=200) is None
