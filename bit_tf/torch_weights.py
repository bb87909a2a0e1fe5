"""The weights of timm's and transformers' BiT models, both ways.

Both keep PyTorch's axes, and differ in their names. Nothing here needs PyTorch.
"""

import json
import pathlib
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

import bit_tf
from bit_tf import architecture
from bit_tf import layout
from bit_tf import safetensors_file
from bit_tf import tensors

# Of a transformers folder.
FILE = "model.safetensors"


def read(file: safetensors_file.SafetensorsFile) -> dict[str, tensors.Tensor]:
    """Returns the tensors of either, by their released names."""
    namings = [
        {naming(key).removeprefix(prefix): key for key in layout.every_key()}
        for naming, prefix in (
            (layout.timm_name, ""),
            (layout.transformers_name, ""),
            # A BitModel, without a head, has no prefix.
            (layout.transformers_name, "bit."),
        )
    ]
    naming = max(namings, key=lambda known: len(known.keys() & file.specs))
    return tensors.named(
        file,
        lambda name: naming.get(name, name),
        shape_of=layout.shape_from_torch,
        array_of=layout.from_torch,
    )


def write_timm(
    path: pathlib.Path,
    shapes: Mapping[str, layout.Shape],
    read: Callable[[str], np.ndarray],
) -> None:
    """Writes what timm's `checkpoint_path` takes for resnetv2_*_bit.

    Args:
        path: file to write.
        shapes: of each tensor, by released name.
        read: returns the tensor of a released name.
    """
    _write(path, shapes, read, layout.timm_name, squeeze_head=False)


def _write(
    path: pathlib.Path,
    shapes: Mapping[str, layout.Shape],
    read: Callable[[str], np.ndarray],
    naming: Callable[[str], str],
    *,
    squeeze_head: bool,
) -> None:
    keys = {naming(key): key for key in shapes}
    turned = {
        name: layout.shape_to_torch(shapes[key]) for name, key in keys.items()
    }
    if squeeze_head and layout.HEAD_KERNEL in shapes:
        name = naming(layout.HEAD_KERNEL)
        turned[name] = turned[name][:2]
    safetensors_file.write(
        path,
        turned,
        lambda name: layout.to_torch(read(keys[name])).reshape(turned[name]),
        metadata={"format": "pt", "bit_tf_version": bit_tf.__version__},
    )


def write_transformers(
    folder: pathlib.Path,
    shapes: Mapping[str, layout.Shape],
    read: Callable[[str], np.ndarray],
    *,
    class_names: Sequence[str] | None,
    image_size: int,
) -> None:
    """Writes a folder for `BitForImageClassification.from_pretrained`.

    A network without a head is for `BitModel`.

    Args:
        folder: is there, and empty.
        shapes: of each tensor, by released name.
        read: returns the tensor of a released name.
        class_names: one per output; None for numbers.
        image_size: side its image processor resizes to, pixels.
    """
    num_classes = layout.num_classes(shapes)
    _write(
        folder / FILE,
        shapes,
        read,
        lambda key: layout.transformers_name(key).removeprefix(
            "" if num_classes else "bit."
        ),
        squeeze_head=True,
    )
    # Its final norm and classifier do not know width_factor: the sizes are
    # given multiplied out.
    depth, width = layout.infer(shapes)
    channels = int(architecture.BASE_CHANNELS * width)
    wide = channels * architecture.BOTTLENECK_EXPANSION
    config = {
        "architectures": [
            "BitForImageClassification" if num_classes else "BitModel"
        ],
        "model_type": "bit",
        "layer_type": "preactivation",
        "num_channels": 3,
        "embedding_size": channels,
        "hidden_sizes": [wide * 2**block for block in range(4)],
        "depths": list(architecture.UNITS[depth]),
        "num_groups": architecture.GROUPS,
        "width_factor": 1,
        "hidden_act": "relu",
        "global_padding": None,
        "embedding_dynamic_padding": False,
        "drop_path_rate": 0.0,
        "output_stride": 32,
        "torch_dtype": "float32",
    }
    if num_classes:
        names = class_names or [str(i) for i in range(num_classes)]
        config["id2label"] = {str(i): name for i, name in enumerate(names)}
        config["label2id"] = {name: i for i, name in enumerate(names)}
    processor = {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": image_size, "width": image_size},
        "resample": 2,  # bilinear
        "do_center_crop": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    for name, content in (
        ("config.json", config),
        ("preprocessor_config.json", processor),
    ):
        (folder / name).write_text(json.dumps(content, indent=1) + "\n")
