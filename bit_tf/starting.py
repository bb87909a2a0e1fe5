"""Where a training starts: weights, what is frozen, the new head."""

import contextlib
import pathlib
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence

from bit_tf import labels
from bit_tf import recipe as recipe_lib
from bit_tf import resnet_v2
from bit_tf import weights
from bit_tf import weights_file
from bit_tf import workdir
from bit_tf import zoo


def freeze(model: resnet_v2.ResNetV2, names: Sequence[str]) -> None:
    """Lets parts of the network keep their weights."""
    if "all" in names:
        names = [name for name in recipe_lib.FREEZABLE if name != "all"]
    for name in names:
        model.get_layer(name).trainable = False


def begin(
    model: resnet_v2.ResNetV2,
    init_from: pathlib.Path | None,
    recipe: recipe_lib.Recipe,
    *,
    class_names: Sequence[str],
    log: Callable[[str], None],
) -> None:
    """Sets the weights of step 0, where they are not fresh already.

    A head is kept if it is for as many classes, and not known to be for others.
    """
    remark = None
    if init_from:
        remark = weights.load(
            init_from,
            model,
            same_classes=_may_be_for(init_from, tuple(class_names)),
        )
        log(f"weights from {init_from}; {remark or 'its head is kept'}")
    has_head = init_from is not None and remark is None
    conv = model.get_layer("head").conv
    if recipe.head_bias:
        if has_head:
            raise ValueError(
                f"head_bias={recipe.head_bias:g} is for a new head, and "
                f"{init_from} has one for these classes: drop --head_bias."
            )
        conv.bias.assign([recipe.head_bias] * model.num_classes)
    if has_head:
        _scale_head(
            model,
            shift=-recipe.target_mean / recipe.target_scale,
            scale=1 / recipe.target_scale,
        )


def _may_be_for(path: pathlib.Path, class_names: tuple[str, ...]) -> bool:
    """Returns whether a file's head can be for these classes, in this order.

    Known are the classes of what was published, as names and as WordNet ids,
    and those of a run; of any other file anything can be true.
    """
    with weights_file.opened(path) as stored:
        name, num_classes = stored.architecture, stored.num_classes
    entry = zoo.by_file(path, architecture=name, num_classes=num_classes)
    if entry and entry.labels:
        return class_names in zip(*labels.synsets(entry.labels), strict=True)
    if path.name == "weights.npz":
        with contextlib.suppress(ValueError, KeyError):
            kept = workdir.Workdir(path.parent).read_recipe()
            return list(class_names) == kept["class_names"]
    return True


@contextlib.contextmanager
def in_unit_of_labels(
    model: resnet_v2.ResNetV2, recipe: recipe_lib.Recipe
) -> Iterator[None]:
    """Lets the head give labels, not what was learnt of them."""
    conv = model.get_layer("head").conv
    kept = [weight.numpy() for weight in (conv.kernel, conv.bias)]
    _scale_head(model, shift=recipe.target_mean, scale=recipe.target_scale)
    try:
        yield
    finally:
        conv.kernel.assign(kept[0])
        conv.bias.assign(kept[1])


def _scale_head(
    model: resnet_v2.ResNetV2, *, shift: float, scale: float
) -> None:
    """Lets the head's outputs be scale * output + shift."""
    conv = model.get_layer("head").conv
    conv.kernel.assign(conv.kernel.numpy() * scale)
    conv.bias.assign(conv.bias.numpy() * scale + shift)
