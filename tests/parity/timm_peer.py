"""Runs timm on files: weights.npz and arrays in, arrays out.

python timm_peer.py MODEL DIRECTORY

In a process of its own, as PyTorch and TensorFlow loaded together crash. The
weights go through timm's own reader of the published BiT files.
"""

import pathlib
import sys

import numpy as np
import safetensors.torch
import timm
import torch


def nchw(images):
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def nhwc(tensor):
    return tensor.detach().numpy().transpose(0, 2, 3, 1)


def network_outputs(name, directory):
    weights = directory / "weights.npz"
    with np.load(weights) as stored:
        classes = len(stored["resnet/head/conv2d/bias"])
    outputs = {}
    with np.load(directory / "inputs.npz") as stored:
        inputs = {key: stored[key] for key in stored.files}

    def evaluate(model, reader):
        with torch.no_grad():
            for key, images in inputs.items():
                logits = model.eval()(nchw(images)).numpy()
                outputs[f"{reader}/{key}"] = logits

    model = timm.create_model(
        f"resnetv2_{name}_bit",
        num_classes=classes,
        checkpoint_path=str(directory / "weights.safetensors"),
    )
    evaluate(model, "checkpoint_path")
    safetensors.torch.save_file(
        model.state_dict(), directory / "back.safetensors"
    )
    del model
    model = timm.create_model(f"resnetv2_{name}_bit", num_classes=classes)
    model.load_pretrained(weights)
    evaluate(model, "load_pretrained")
    outputs["parameters"] = sum(p.numel() for p in model.parameters())
    if name in ("50x1", "101x1"):
        outputs |= details(model, inputs)
    return outputs


def details(model, inputs):
    """Returns the maps for the last input, the gradients for the first."""
    outputs = {}
    first, *_, last = inputs.values()
    with torch.no_grad():
        x = model.stem(nchw(last))
        outputs["maps/root_block"] = nhwc(x)
        for number, stage in enumerate(model.stages, start=1):
            x = stage(x)
            outputs[f"maps/block{number}"] = nhwc(x)
    # With the released models' epsilon, where timm has 1e-8, and in float64
    # there is no difference left but rounding.
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.eps = 1e-10
    model.double()
    (model(nchw(first).double()) ** 2).mean().backward()
    for key, parameter in model.named_parameters():
        outputs[f"gradients/{key}"] = parameter.grad.numpy()
    return outputs


def momentum_outputs(directory):
    """Follows torch's SGD through the gradients and rates of a file."""
    with np.load(directory / "momentum.npz") as given:
        start, gradients, rates = (
            given[key] for key in ("start", "gradients", "rates")
        )
    outputs = {}
    for decay in (0.0, 0.01):
        weight = torch.nn.Parameter(torch.from_numpy(start.copy()))
        sgd = torch.optim.SGD(
            [weight], lr=0.1, momentum=0.9, weight_decay=decay
        )
        for gradient, rate in zip(gradients, rates, strict=True):
            sgd.param_groups[0]["lr"] = float(rate)
            weight.grad = torch.from_numpy(gradient.copy())
            sgd.step()
        outputs[f"momentum/{decay}"] = weight.detach().numpy()
    return outputs


if __name__ == "__main__":
    model_name, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    found = (
        momentum_outputs(folder)
        if model_name == "momentum"
        else network_outputs(model_name, folder)
    )
    np.savez(folder / "outputs.npz", **found)
