"""Writes the files that contenders read: one network in everybody's format.

python models.py DIRECTORY [FORM...]

R50x1 with seeded weights whose logits are not all alike; a SavedModel of each
form.
"""

import pathlib
import sys

import numpy as np

from bit_tf import exportable
from bit_tf import resnet_v2
from bit_tf import saved_model
from bit_tf import weights

CLASSES = 1000


def main(directory: str, *forms: str) -> None:
    directory = pathlib.Path(directory)
    model = resnet_v2.build("R50x1", CLASSES, seed=0)
    head = model.get_layer("head").conv.kernel
    head.assign(np.random.default_rng(0).normal(size=head.shape) * 0.1)
    for name in ("weights.npz", "weights.safetensors", "transformers"):
        weights.save(directory / name, model)
    # For networks of the same order whose tensors have other names.
    np.savez(directory / "in_order.npz", *model.get_weights())
    subject = exportable.Exportable(
        model=model,
        class_names=[f"class {i}" for i in range(CLASSES)],
        crop=224,
        weight_decay=0.0,
    )
    for form in forms:
        saved_model.write(directory / form, subject, form=form)


if __name__ == "__main__":
    main(*sys.argv[1:])
