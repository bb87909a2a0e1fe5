"""Runs transformers on a folder that we wrote: arrays in, arrays out.

python transformers_peer.py DIRECTORY

In a process of its own, as PyTorch and TensorFlow loaded together crash.
"""

import pathlib
import sys

import numpy as np
import torch
import transformers
from PIL import Image


def main(directory: pathlib.Path) -> None:
    folder = directory / "folder"
    with np.load(directory / "inputs.npz") as stored:
        inputs = {key: stored[key] for key in stored.files}
    model = transformers.BitForImageClassification.from_pretrained(folder)
    body = transformers.BitModel.from_pretrained(folder)
    outputs = {"parameters": sum(p.numel() for p in model.parameters())}
    with torch.no_grad():
        for key, images in inputs.items():
            x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
            outputs[f"logits/{key}"] = model.eval()(x).logits.numpy()
            pooled = body.eval()(x).pooler_output
            outputs[f"features/{key}"] = pooled[:, :, 0, 0].numpy()
    outputs["labels"] = [model.config.id2label[i] for i in range(3)]
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    picture = Image.open(directory / "picture.png")
    pixels = processor(picture, return_tensors="pt")["pixel_values"]
    outputs["pixels"] = pixels.numpy().transpose(0, 2, 3, 1)
    model.save_pretrained(directory / "back")
    np.savez(directory / "outputs.npz", **outputs)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
