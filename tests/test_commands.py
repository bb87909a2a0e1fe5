"""Every command that the documents show is typed, on small images and nets.

What a line stands for, PATH or a published network, is put in its place, and
flags that make it small come after its own.
"""

import itertools
import json
import pathlib
import re
import shlex
import shutil

import numpy as np
import pytest

from bit_tf import pretrained
from bit_tf import zoo
from tests import published
from tests.conftest import ROOT
from tests.conftest import save_image
from tests.faults import nursery
from tests.test_docs import DOCUMENTS

SMALL = (
    *("--crop=32", "--batch_size=4", "--total_steps=2"),
    "--warmup_steps=0",
)
# Start of a command -> what makes it small. The longest that fits counts.
FLAGS = {
    "train": SMALL,
    # Or it would be BiT-M-R50x1, which is there.
    "train --dataset=folder:PATH": (*SMALL, "--model=R26x0.5"),
    "train --flagfile=experiments/upstream/": (
        *(*SMALL, "--dataset=folder:PATH", "--model=R26x0.5"),
        *("--train_split=", "--eval_split=", "--precision=float32"),
    ),
    "fewshot": (*SMALL, "--shots=1", "--seeds=1"),
    "benchmark": (
        *("--model=R26x0.5", "--crop=32", "--batch_size=2", "--calls=2"),
        "--work=train",
    ),
}
# Never typed here: who does it, or what keeps us from it.
ELSEWHERE = {
    "--worker_hosts": "tests/test_workers.py",
    "fall11_whole.tar": "tests/test_imagenet21k.py",
    "bit_tf.demo": "tests/test_demo.py",
    "bit_tf.vtab --model": "tests/test_vtab.py",
    "SRC DST": "it stands for the lines above it",
}
# Their images are fetched.
FETCHED = re.compile(r"--dataset=(paper:|vtab:|cifar10)")
NETWORKS = (
    *("BiT-M-R50x1", "BiT-M-R50x1-ILSVRC2012", "distill/R50x1_224"),
    "vtab/BiT-M-R50x1-run0-dtd",
)


def typed():
    """Yields (document, command) of the indented and fenced lines."""
    found = set()
    for path in DOCUMENTS:
        for block in re.findall(
            r"```(?:sh|bash|console)?\n(.+?)```", path.read_text(), re.DOTALL
        ):
            for line in block.replace("\\\n", " ").splitlines():
                command = " ".join(line.split("#")[0].split())
                if (
                    command.startswith("python -m bit_tf.")
                    and command not in found
                ):
                    found.add(command)
                    yield path.name, command


COMMANDS = [
    pytest.param(
        command,
        id=f"{document}:{command.removeprefix('python -m bit_tf.')}",
        marks=[
            pytest.mark.skip(reason=f"{words}: {who}")
            for words, who in ELSEWHERE.items()
            if words in command
        ]
        + [pytest.mark.network] * bool(FETCHED.search(command)),
    )
    for document, command in typed()
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Returns a directory with what the commands take for granted."""
    root = tmp_path_factory.mktemp("place")
    for split in ("train", "test"):
        for name, value in (("cat", 60), ("dog", 190)):
            for number in range(16):
                save_image(
                    root / "PATH" / split / name / f"{number}.png", value=value
                )
    shutil.copytree(root / "PATH" / "test", root / "PATH" / "images")
    shutil.copytree(root / "PATH" / "test" / "cat", root / "photos")
    (root / "MAP.json").write_text(
        json.dumps({"cat": "tabby, tabby cat", "dog": "golden retriever"})
    )
    cache = pretrained.cache_directory({"KERAS_HOME": str(root / "keras")})
    for name in NETWORKS:
        entry = zoo.find(name)
        path = cache / f"{name}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            path, **published.arrays(entry.architecture, entry.num_classes)
        )
    return root


@pytest.fixture(scope="module")
def shell(place):
    """Returns a function that types a command there."""
    number = itertools.count()
    with nursery.Nursery(place, nursery.FOR_TRAINING) as born:

        def run(command: str):
            program, *words = shlex.split(
                command.removeprefix("python -m bit_tf.").split(" > ")[0]
            )
            (*_, extra) = [
                FLAGS[start]
                for start in sorted(["", *FLAGS], key=len)
                if f"{program} {' '.join(words)}".startswith(start)
                and start in FLAGS
            ] or [()]
            words = [_placed(word, place) for word in (*words, *extra)]
            if program == "train" and (place / "runs/mine").exists():
                # A run that has ended is not trained anew.
                words.append(f"--workdir={place}/runs/{next(number)}")
            return born.run(
                program,
                *words,
                environment={
                    "KERAS_HOME": str(place / "keras"),
                    "TFDS_DATA_DIR": str(place / "tfds"),
                },
                seconds=240,
            )

        assert (
            run(
                "python -m bit_tf.train --dataset=folder:PATH "
                "--model=R26x0.5 --workdir=runs/mine"
            ).poll()
            == 0
        )
        for name in ("all", "tenth"):
            shutil.copytree(place / "runs/mine", place / "runs" / name)
        yield run


def _placed(word: str, place: pathlib.Path) -> str:
    """Returns a word of a command with what it stands for there."""
    word = re.sub(r"experiments/", f"{ROOT}/experiments/", word)
    return re.sub(
        r"(?<![\w/])(PATH|runs|photos|DATA|MAP\.json|dtd\.safetensors|"
        r"BiT-M-R50x1\.safetensors)(?![\w.])",
        lambda match: str(place / match[0]),
        word,
    )


def test_documents_show_commands():
    assert len(COMMANDS) > 30


@pytest.mark.thorough
@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_documents_work(shell, command):
    done = shell(command)
    assert done.poll() == 0, done.printed()
