"""Near duplicates: the same picture in another size, quality or cut.

Two steps. A perceptual hash of 64 bits, of the picture and of its mirror
image, finds candidates among all pairs. Thumbnails of the candidates are then
laid over each other, at several cuts, and have to agree.
"""

import concurrent.futures
import dataclasses
import hashlib
import itertools
import pathlib
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence

import numpy as np
from PIL import Image

from bit_tf import image_file

# Bits of 64 by which candidates may differ. Two pictures that have nothing in
# common differ by 32 +- 4.
MAX_BITS = 20
# Correlation of two thumbnails, and mean difference of their pixels, [0, 1].
MIN_CORRELATION = 0.95
MIN_COARSE_CORRELATION = 0.7
MAX_DIFFERENCE = 0.07
# Below this standard deviation, of 1, there is nothing to correlate.
MIN_CONTRAST = 0.02
_HASH_SIDE, _HASH_FREQUENCIES = 32, 8
_SIDE, _OVERLAID, _COARSE = 48, 16, 8
# Of a cut: what is left of each side, and where it may lie.
_SCALES, _PLACES = (0.975, 0.95, 0.925, 0.9), (0.0, 0.25, 0.5, 0.75, 1.0)
_ROWS_AT_ONCE, _PAIRS_AT_ONCE = 2048, 256


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Signatures:
    """What N pictures are compared by.

    Args:
        names: N paths.
        digests: N hashes of the files, equal for equal files.
        hashes: (N, 2) uint64 perceptual hashes, of picture and mirror image.
        thumbnails: (N, side, side, 3) uint8.
        bad: (name, reason) of files that could not be used.
    """

    names: Sequence[str]
    digests: Sequence[str]
    hashes: np.ndarray
    thumbnails: np.ndarray
    bad: Sequence[tuple[str, str]] = ()

    def __len__(self) -> int:
        return len(self.names)


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two pictures that are one.

    Args:
        first: index in the first set.
        second: index in the second.
        similarity: correlation of the thumbnails, 1 for equal files.
        how: "equal files", "same picture", or "mirror image".
    """

    first: int
    second: int
    similarity: float
    how: str


def sign(
    files: Sequence[str],
    *,
    reading: image_file.Reading | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Signatures:
    """Reads pictures and computes what they are compared by.

    Args:
        files: their paths.
        reading: how they are read.
        progress: called with the number of files done.
    """
    reading = reading or image_file.Reading(on_bad="skip")
    names, digests, hashes, thumbnails, bad = [], [], [], [], []
    with image_file.many(), concurrent.futures.ThreadPoolExecutor() as pool:
        for done, (file, found) in enumerate(
            zip(
                files, pool.map(lambda f: _sign(f, reading), files), strict=True
            )
        ):
            progress(done + 1)
            if isinstance(found, str):
                bad.append((file, found))
                continue
            names.append(file)
            digests.append(found[0])
            hashes.append(found[1])
            thumbnails.append(found[2])
    return Signatures(
        names=names,
        digests=digests,
        hashes=np.array(hashes, np.uint64).reshape(-1, 2),
        thumbnails=np.array(thumbnails, np.uint8).reshape(-1, _SIDE, _SIDE, 3),
        bad=bad,
    )


def _sign(file: str, reading: image_file.Reading):
    info = image_file.inspect(file, reading, decode=False)
    if isinstance(info, str):
        return info
    try:
        content = pathlib.Path(file).read_bytes()
        image = image_file.view(content, at_least=4 * _SIDE)
    except Exception as error:
        # Pillow raises whatever comes to its decoders on damaged files.
        return " ".join(str(error).split())[:80] or type(error).__name__
    gray = image.convert("L").resize((_HASH_SIDE,) * 2, Image.Resampling.BOX)
    pixels = np.asarray(gray, np.float64)
    hashes = [_perceptual_hash(p) for p in (pixels, pixels[:, ::-1])]
    small = image.resize((_SIDE, _SIDE), Image.Resampling.BOX)
    return hashlib.sha256(content).hexdigest(), hashes, np.asarray(small)


def _cosines() -> np.ndarray:
    """Returns the lowest rows of the discrete cosine transform."""
    places = (2 * np.arange(_HASH_SIDE) + 1) / (2 * _HASH_SIDE)
    return np.cos(np.pi * np.outer(np.arange(_HASH_FREQUENCIES), places))


_TRANSFORM = _cosines()


def _perceptual_hash(pixels: np.ndarray) -> int:
    """Returns 64 bits: which low frequencies are above their median."""
    frequencies = _TRANSFORM @ pixels @ _TRANSFORM.T
    # The mean brightness, which says nothing, takes no part in the median.
    flat = frequencies.ravel()
    bits = flat > np.median(flat[1:])
    return int(np.packbits(bits).view(">u8")[0])


def find(first: Signatures, second: Signatures | None = None) -> list[Pair]:
    """Returns the pairs between two sets, or within one, in order.

    Args:
        first: one set.
        second: the other; None for pairs within the first.
    """
    within = second is None
    second = first if within else second
    found = {}
    for i, j in _equal_files(first, second, within):
        found[i, j] = Pair(i, j, 1.0, "equal files")
    candidates = np.array(
        [
            pair
            for block in _candidates(first, second, within)
            for pair in map(tuple, _alike(first, second, block).tolist())
            if pair not in found
        ]
    ).reshape(-1, 2)
    for begin in range(0, len(candidates), _PAIRS_AT_ONCE):
        some = candidates[begin : begin + _PAIRS_AT_ONCE]
        scores, mirrored = _overlay(
            first.thumbnails[some[:, 0]], second.thumbnails[some[:, 1]]
        )
        for (i, j), score, is_mirror in zip(
            some.tolist(), scores, mirrored, strict=True
        ):
            if score >= MIN_CORRELATION:
                how = "mirror image" if is_mirror else "same picture"
                found[i, j] = Pair(i, j, float(score), how)
    return [found[key] for key in sorted(found)]


def _equal_files(first, second, within: bool):
    places: dict[str, list[int]] = {}
    for j, digest in enumerate(second.digests):
        places.setdefault(digest, []).append(j)
    for i, digest in enumerate(first.digests):
        for j in places.get(digest, ()):
            if not within or i < j:
                yield i, j


def _candidates(first, second, within: bool) -> Iterator[np.ndarray]:
    """Yields (P, 2) pairs whose hashes are close, in either direction.

    A block of all pairs after the other: a thousandth of them is chance.
    """
    for begin in range(0, len(first), _ROWS_AT_ONCE):
        rows = first.hashes[begin : begin + _ROWS_AT_ONCE, 0]
        for other in range(0, len(second), _ROWS_AT_ONCE):
            if within and other + _ROWS_AT_ONCE <= begin:
                continue
            columns = second.hashes[other : other + _ROWS_AT_ONCE]
            is_close = np.zeros((len(rows), len(columns)), bool)
            for mirror in (0, 1):
                bits = np.bitwise_count(rows[:, None] ^ columns[:, mirror])
                is_close |= bits <= MAX_BITS
            pairs = np.argwhere(is_close) + np.array([begin, other])
            yield pairs[pairs[:, 0] < pairs[:, 1]] if within else pairs


def _alike(first, second, pairs: np.ndarray) -> np.ndarray:
    """Returns the pairs whose coarse colours agree; the rest is chance."""
    kept = np.zeros(len(pairs), bool)
    for begin in range(0, len(pairs), _ROWS_AT_ONCE):
        rows = slice(begin, begin + _ROWS_AT_ONCE)
        a, b = (
            _coarse(one.thumbnails[pairs[rows, k]])
            for k, one in enumerate((first, second))
        )
        for other in (b, b[:, :, ::-1]):
            kept[rows] |= _agreement(a, other, 2) >= MIN_COARSE_CORRELATION
    return pairs[kept]


def _coarse(thumbnails: np.ndarray) -> np.ndarray:
    side = _SIDE // _COARSE
    return (
        (thumbnails.astype(np.float32) / 255)
        .reshape(len(thumbnails), _COARSE, side, _COARSE, side, 3)
        .mean(axis=(2, 4))
    )


def _windows() -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns for each cut what resizes rows and columns to the overlay."""

    def resizing(begin: float, extent: float) -> np.ndarray:
        """Returns (overlaid, side) weights: how much of a pixel is in each."""
        edges = (begin + np.arange(_OVERLAID + 1) * extent / _OVERLAID) * _SIDE
        pixels = np.arange(_SIDE)
        low = np.maximum(edges[:-1, None], pixels)
        high = np.minimum(edges[1:, None], pixels + 1)
        weights = np.maximum(high - low, 0)
        weights /= weights.sum(axis=1, keepdims=True)
        return weights.astype(np.float32)

    whole = resizing(0.0, 1.0)
    found = [(whole, whole)]
    for scale in _SCALES:
        sides = [resizing(p * (1 - scale), scale) for p in _PLACES]
        found += itertools.product(sides, sides)
    return found


_WINDOWS = _windows()


def _overlay(
    first: np.ndarray, second: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the best agreement of pairs of thumbnails, and if mirrored.

    Args:
        first: (P, side, side, 3) uint8.
        second: the same.

    Returns:
        (P,) correlations, 0 where colours differ too much to be one picture,
        and (P,) booleans.
    """
    first = first.astype(np.float32) / 255
    second = second.astype(np.float32) / 255
    best = np.zeros(len(first))
    mirrored = np.zeros(len(first), bool)
    whole = _WINDOWS[0]
    for is_mirror in (False, True):
        other = second[:, :, ::-1] if is_mirror else second
        # Either may be a cut of the other.
        fixed_first, fixed_other = _cut(first, whole), _cut(other, whole)
        for window in _WINDOWS:
            for a, b in (
                (_cut(first, window), fixed_other),
                (fixed_first, _cut(other, window)),
            ):
                score = _agreement(a, b)
                better = score > best
                best[better] = score[better]
                mirrored[better] = is_mirror
    return best, mirrored


def _cut(images: np.ndarray, window) -> np.ndarray:
    rows, columns = window
    return np.matmul(
        columns, np.tensordot(images, rows, axes=(1, 1)).transpose(0, 3, 1, 2)
    )


def _agreement(
    a: np.ndarray, b: np.ndarray, tolerance: float = 1.0
) -> np.ndarray:
    """Returns (P,) correlations, 0 where the pixels are too far apart."""
    size = len(a)
    a, b = (x.reshape(size, -1, 3) for x in (a, b))
    far = np.abs(a - b).mean(axis=(1, 2)) > tolerance * MAX_DIFFERENCE
    a, b = (x - x.mean(axis=1, keepdims=True) for x in (a, b))
    a, b = (x.reshape(size, -1) for x in (a, b))
    contrast = [np.sqrt((x**2).mean(axis=1)) for x in (a, b)]
    score = (a * b).mean(axis=1) / np.maximum(contrast[0] * contrast[1], 1e-9)
    flat = np.minimum(*contrast) < MIN_CONTRAST
    return np.where(far | flat, 0.0, score)
