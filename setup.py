"""Package metadata of bit_tf."""

import pathlib
import re

from setuptools import find_packages
from setuptools import setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(
    r'__version__ = "(.+)"', (ROOT / "bit_tf" / "__init__.py").read_text()
)[1]
REQUIREMENTS = [
    line
    for line in (ROOT / "requirements.txt").read_text().splitlines()
    if line and not line.startswith("#")
]

setup(
    name="bit_tf",
    version=VERSION,
    description=(
        "Big Transfer (BiT) for Keras 3 and TensorFlow: pre-train once, "
        "fine-tune anything with one rule"
    ),
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["bit_tf", "bit_tf.*"]),
    package_data={"bit_tf": ["assets/*"]},
    python_requires=">=3.11,<3.14",
    install_requires=REQUIREMENTS,
    extras_require={
        "dev": [
            "pytest>=8",
            "pytest-xdist>=3.7",
            "hypothesis>=6.100",
            "ruff==0.17.6",
            "scikit-learn>=1.5",
            "pyarrow>=16",
            "nbclient>=0.10",
            "nbformat>=5.10",
            "ipykernel>=6",
            "tf2onnx>=1.17",
            "onnxruntime>=1.20",
            "ai-edge-litert>=2.1",
        ],
        "audit": ["pip-audit>=2.7"],
        "mutants": ["cosmic-ray>=8.4", "mutmut>=3.8"],
        "gpu": ["tensorflow[and-cuda]>=2.20,<2.22"],
        "onnx": ["tf2onnx>=1.17", "onnxruntime>=1.20"],
        "parquet": ["pyarrow>=16"],
        "tensorboard": ["tensorboard>=2.20"],
        # The newest there is; see docs/upstream.md for how to install it.
        "tpu": ["tensorflow==2.20.*", "tensorflow-tpu==2.20.0"],
        # tensorflow-hub needs pkg_resources, which setuptools 82 dropped.
        "parity": [
            "pytest>=8",
            "torch>=2.6",
            "torchvision",
            "timm>=1.0.20",
            "transformers>=4.50",
            "keras-hub>=0.20",
            "tensorflow-hub==0.16.1",
            "setuptools<82",
            "tensorflow-serving-api>=2.20,<2.22",
        ],
    },
    classifiers=[
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
