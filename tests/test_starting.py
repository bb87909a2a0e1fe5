"""What a training starts with: the file's head, or a new one."""

import json

import numpy as np
import pytest

from bit_tf import labels
from bit_tf import layout
from bit_tf import recipe as recipe_lib
from bit_tf import resnet_v2
from bit_tf import starting
from bit_tf import zoo
from tests import published

RECIPE = recipe_lib.Recipe(
    name="small",
    total_steps=2,
    batch_size=2,
    base_lr=0.1,
    warmup_steps=0,
    decay_steps=(),
    crop=32,
)


def begun(path, class_names):
    """Returns whether the file's head was kept, and what was told."""
    model = resnet_v2.build("R26x0.5", len(class_names), seed=None)
    told = []
    starting.begin(
        model, path, RECIPE, class_names=class_names, log=told.append
    )
    (kernel,) = (v for v in model.variables if v.path == layout.HEAD_KERNEL)
    (text,) = told
    return bool(kernel.numpy().any()), text


@pytest.fixture
def run(tmp_path):
    """The directory of a run that told cats from dogs."""
    np.savez(tmp_path / "weights.npz", **published.arrays("R26x0.5", 2))
    kept = json.dumps({"total_steps": 1, "class_names": ["cat", "dog"]})
    (tmp_path / "recipe.json").write_text(kept)
    return tmp_path


def test_a_run_s_head_is_kept_for_its_own_classes(run):
    path = run / "weights.npz"
    kept, text = begun(path, ["cat", "dog"])
    assert kept and "its head is kept" in text
    for others in (["dog", "cat"], ["ham", "egg"]):
        kept, text = begun(path, others)
        assert not kept
        assert "2 other classes; the new head for 2 starts at zero" in text


def test_a_head_of_which_nothing_is_known_is_kept(run):
    (run / "recipe.json").write_text("{}")
    assert begun(run / "weights.npz", ["ham", "egg"])[0]
    path = (run / "weights.npz").rename(run / "mine.npz")
    assert begun(path, ["ham", "egg"])[0]


def test_a_published_head_is_kept_for_its_names_and_wordnet_ids():
    entry = zoo.find(zoo.SHIPPED)
    for order in zip(*labels.synsets(entry.labels), strict=True):
        assert begun(entry.asset, order)[0]
    kept, text = begun(entry.asset, [str(number) for number in range(200)])
    assert not kept and "200 other classes" in text
