"""Weights, lists and arrays from strangers: read right, or refused."""

import contextlib
import sys
import time
import tracemalloc

import numpy as np
import pytest

from bit_tf import layout
from bit_tf import listing
from bit_tf import resnet_v2
from bit_tf import weights
from bit_tf import weights_file
from tests import published
from tests import test_npz_file

MAX_SECONDS = 5
MAX_BYTES = 200e6
# What a reader of weights has no business with.
FORBIDDEN = (
    *("exec", "socket.connect", "subprocess.Popen", "os.system"),
    *("os.exec", "os.posix_spawn", "pickle.find_class"),
)
_watching: list[list[str]] = []


def _hook(event, arguments):
    if _watching and event in FORBIDDEN:
        text = repr(arguments)
        # A library may be imported when it is first needed.
        if sys.base_prefix not in text and sys.prefix not in text:
            _watching[-1].append(f"{event} {text:.80}")


sys.addaudithook(_hook)


@contextlib.contextmanager
def watched():
    """Yields a list of what was done that should not be done."""
    _watching.append([])
    tracemalloc.start()
    began = time.monotonic()
    try:
        yield _watching[-1]
    finally:
        done = _watching.pop()
        if tracemalloc.get_traced_memory()[1] > MAX_BYTES:
            done.append("memory")
        if time.monotonic() - began > MAX_SECONDS:
            done.append("time")
        tracemalloc.stop()


def test_every_wrong_tensor_is_refused_by_name(campaign, count, tmp_path):
    demanded = "refused with the tensor's name, nothing allocated"
    path = tmp_path / "weights.npz"
    with campaign("R15 tensors of an .npz spoiled", demanded) as row:
        cases = [
            (mutate, number, key)
            for mutate in test_npz_file.MUTATIONS
            for number, key in enumerate(test_npz_file.MEMBERS)
        ]
        for mutate, number, key in cases[:: count(40, 1)]:
            members = dict(test_npz_file.MEMBERS)
            name = mutate(key, members, number)
            published.write_npz(path, members)
            text = test_npz_file.refusal(path)
            row.check(f"tensor {name} " in text, f"{mutate.__name__} {key}")


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    """Weights of one network in every format."""
    directory = tmp_path_factory.mktemp("valid")
    model = resnet_v2.build("R26x0.5", 5, seed=0)
    suffixes = ("npz", "safetensors", "weights.h5", "keras")
    for suffix in suffixes:
        weights.save(directory / f"some.{suffix}", model)
    return directory, model


def spoiled(content: bytes, rng) -> bytes:
    """Changes some bytes, most of them where a format keeps its structure."""
    content = bytearray(content)
    ends = (4096, len(content))
    for _ in range(int(rng.integers(1, 9))):
        kind = rng.integers(5)
        place = (
            int(rng.integers(ends[0]))
            if rng.random() < 0.45
            else len(content) - 1 - int(rng.integers(min(60_000, len(content))))
        )
        place = min(max(place, 0), len(content) - 1)
        if kind == 0:
            content[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            content[place : place + 8] = rng.bytes(8)
        elif kind == 2:
            # Lengths and counts that are as large as can be.
            content[place : place + 8] = b"\xff" * int(rng.integers(1, 9))
        elif kind == 3:
            content[place:place] = rng.bytes(int(rng.integers(1, 40)))
        else:
            del content[place : place + int(rng.integers(1, 4000))]
    return bytes(content)


@pytest.mark.parametrize(
    "suffix", ["npz", "safetensors", "weights.h5", "keras"]
)
def test_spoiled_weights_are_refused_or_right(
    campaign, valid, count, rng, tmp_path, suffix
):
    directory, model = valid
    demanded = "refused in one line, or read: no code, 200 MB, 5 s at most"
    content = (directory / f"some.{suffix}").read_bytes()
    depth, width = model.depth, model.width
    shapes = layout.shapes(depth, width, 5)
    with campaign(f"R17 .{suffix} spoiled", demanded) as row:
        row.seen["refused"] = 0
        for _ in range(count(12, 150)):
            path = tmp_path / f"spoiled.{suffix}"
            path.write_bytes(spoiled(content, rng))
            with watched() as done:
                try:
                    with weights_file.opened(path) as stored:
                        for key, shape in shapes.items():
                            array = stored.read(key)
                            assert array.shape == tuple(shape)
                            assert array.dtype == np.float32
                except (ValueError, OSError) as error:
                    row.seen["refused"] += 1
                    if "\n" in str(error).strip():
                        done.append(f"several lines: {error}")
            row.check(not done, str(done))


def test_lists_from_strangers_are_read_or_refused(
    campaign, count, rng, tmp_path
):
    demanded = "refused in one line, or read"
    lines = [
        b"path,label,split",
        b"a.png,cat,train",
        b'"b, ""c"".png",dog;cat,test',
        b"d.png,=1+1,val",
        "e.png,\u732b,train".encode(),
    ]
    with campaign("R17 lists of images spoiled", demanded) as row:
        row.seen["refused"] = 0
        for number in range(count(100, 2000)):
            content = bytearray(b"\n".join(lines))
            for _ in range(int(rng.integers(1, 6))):
                place = int(rng.integers(len(content)))
                content[place : place + int(rng.integers(3))] = rng.bytes(
                    int(rng.integers(4))
                )
            suffix = ("csv", "jsonl")[number % 2]
            path = tmp_path / f"list.{suffix}"
            path.write_bytes(content)
            with watched() as done:
                try:
                    listing.read(suffix, str(path))
                except (ValueError, OSError) as error:
                    row.seen["refused"] += 1
                    if "\n" in str(error).strip():
                        done.append(f"several lines: {error}")
            row.check(not done, f"{bytes(content)!r}: {done}")
