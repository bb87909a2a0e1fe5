"""Class names come in the order of the released heads."""

import pytest

from bit_tf import labels


def test_ilsvrc_is_in_the_order_that_everyone_has():
    synsets = labels.synsets("ilsvrc2012")
    assert len(synsets) == 1000
    assert synsets[0] == ("n01440764", "tench, Tinca tinca")
    # Known from every ImageNet classifier.
    for index, name in (
        (1, "goldfish"),
        (207, "golden retriever"),
        (281, "tabby"),
        (386, "African elephant"),
        (999, "toilet tissue"),
    ):
        assert synsets[index][1].startswith(name)


def test_ilsvrc_is_tfds_order():
    import tensorflow_datasets

    path = tensorflow_datasets.core.tfds_path(
        "datasets/imagenet2012/labels.txt"
    )
    ours = [synset for synset, _ in labels.synsets("ilsvrc2012")]
    assert ours == path.read_text().split()


def test_imagenet21k_is_the_two_larger_release():
    synsets = [synset for synset, _ in labels.synsets("imagenet21k")]
    assert len(synsets) == 21843 == len(set(synsets))
    assert (synsets[0], synsets[-1]) == ("n00004475", "n15102894")
    # The two that the fall 2011 release does not have.
    assert synsets[9205] == "n03931044"
    assert synsets[15027] == "n09859684"
    missing = {s for s, _ in labels.synsets("ilsvrc2012")} - set(synsets)
    assert missing == {"n04399382"}


def test_other_sets_are_refused():
    with pytest.raises(ValueError, match="'imagenet': allowed are ilsvrc2012"):
        labels.synsets("imagenet")


def test_tiny_imagenet_is_in_the_order_of_its_folders():
    found = labels.synsets("tiny_imagenet")
    assert len(found) == 200 and list(found) == sorted(found)
    assert set(found) < set(labels.synsets("ilsvrc2012"))
    assert found[0] == ("n01443537", "goldfish, Carassius auratus")
