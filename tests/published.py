"""Files as the authors published them, written with NumPy and h5py alone."""

import io
import zipfile

import h5py
import numpy as np

from bit_tf import architecture
from bit_tf import layout


def arrays(name: str, num_classes: int | None, *, seed: int = 0) -> dict:
    """Returns random weights by published name, in published order.

    Of sizes at which every tensor matters: the mean of a standardised kernel
    is not zero, and no scale is one. The head's mean is: a logit that is mostly
    the same for all images would hide differences.
    """
    rng = np.random.default_rng(seed)
    found = {}
    shapes = layout.shapes(*architecture.parse_name(name), num_classes)
    for key, shape in shapes.items():
        if key.endswith("gamma"):
            value = rng.uniform(0.5, 1.5, shape)
        elif key.endswith("kernel"):
            fan_in = np.prod(shape[:-1])
            mean = 0.0 if key == layout.HEAD_KERNEL else 0.01
            value = rng.normal(mean, 1 / np.sqrt(fan_in), shape)
        else:
            value = rng.normal(0, 0.2, shape)
        found[key] = value.astype(np.float32)
    return found


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def header(shape, descr="<f4", order=False) -> bytes:
    """Returns the start of an .npy that claims a shape, without its bytes."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": descr, "fortran_order": order, "shape": shape}
    )
    return stream.getvalue()


def write_npz(path, members: dict[str, bytes], *, packed=False) -> None:
    """Writes encoded arrays as np.savez does."""
    method = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)


def write_h5(path, weights: dict[str, np.ndarray]) -> None:
    """Writes what `save_weights` of tf.keras wrote for the authors' network.

    One group per layer of the top level, its tensors in creation order under
    names that nobody may rely on; the head's kernel is dense.
    """
    layers: dict[str, list[str]] = {}
    for key in weights:
        layer = key.split("/")[1]
        layers.setdefault(layer, []).append(key)
    with h5py.File(path, "w") as file:
        names = [*layers, "re_lu", "global_average_pooling2d"]
        file.attrs["layer_names"] = [name.encode() for name in names]
        file.attrs["backend"] = b"tensorflow"
        for layer in names:
            group = file.create_group(layer)
            listed = []
            for number, key in enumerate(layers.get(layer, ())):
                name = f"some_resnet/{layer}/weight_{number}:0"
                value = weights[key]
                if key == layout.HEAD_KERNEL:
                    value = value[0, 0]
                group.create_dataset(name, data=value)
                listed.append(name.encode())
            group.attrs["weight_names"] = listed
