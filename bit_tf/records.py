"""Images in the files of a prepared data set, read as they are asked for.

TensorFlow Datasets writes examples as protocol buffers, in one of two kinds of
file. ArrayRecord files can be read anywhere: the order is then a permutation
of all examples, computed and not stored. TFRecord files can only be read from
the beginning: see `Stream` for what that costs.
"""

import abc
import dataclasses
import functools
import hashlib
import io
import itertools
from collections.abc import Iterator
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from PIL import Image

# Examples whose headers are looked at for the size of a set's images.
SAMPLE = 256
# How many are read with one call of Python.
READ_BATCH = 64
SHUFFLE_BUFFER = 50_000
# TFRecord files that are read in turn.
OPEN_FILES = 16


@dataclasses.dataclass(frozen=True)
class Piece:
    """`take` examples of a file after the first `skip`."""

    filename: str
    skip: int
    take: int


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RecordSet(abc.ABC):
    """N labelled images in a data set's own files; nothing is in memory.

    Args:
        name: of the data set, with version.
        split: as given.
        pieces: where the examples are, in order.
        image_key: the feature that holds the encoded image.
        label_key: the feature that holds its label or labels.
        class_names: one per class.
        is_multi_label: whether an image may have several labels.
    """

    name: str
    split: str
    pieces: Sequence[Piece]
    image_key: str
    label_key: str
    class_names: tuple[str, ...]
    is_multi_label: bool = False

    def __len__(self) -> int:
        return sum(piece.take for piece in self.pieces)

    def fingerprint(self) -> str:
        """Returns a hash of what is known without reading, to know it again."""
        digest = hashlib.sha256()
        for word in (self.name, self.split, *self.class_names):
            digest.update(word.encode() + b"\0")
        for piece in self.pieces:
            file = piece.filename.rsplit("/", 1)[-1]
            digest.update(f"{file}:{piece.skip}:{piece.take}\n".encode())
        return digest.hexdigest()[:16]

    def class_counts(self) -> None:
        """Returns None: the labels have not been read."""
        return None

    def parse(self, serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns (encoded image, label or labels) of a protocol buffer."""
        label = (
            tf.io.FixedLenSequenceFeature((), tf.int64, allow_missing=True)
            if self.is_multi_label
            else tf.io.FixedLenFeature((), tf.int64)
        )
        found = tf.io.parse_single_example(
            serialized,
            {
                self.image_key: tf.io.FixedLenFeature((), tf.string),
                self.label_key: label,
            },
        )
        return found[self.image_key], found[self.label_key]

    def unpack(self, serialized: bytes) -> tuple[bytes, list[int]]:
        """Does what `parse` does, outside of TensorFlow.

        Whose first computation ends the time in which workers can join.
        """
        found = tf.train.Example.FromString(serialized).features.feature
        return (
            found[self.image_key].bytes_list.value[0],
            list(found[self.label_key].int64_list.value),
        )

    def unpack_features(
        self, serialized: bytes, names: Sequence[str]
    ) -> tuple[bytes, dict[str, np.ndarray]]:
        """Returns the encoded image, and flat arrays of other features."""
        found = tf.train.Example.FromString(serialized).features.feature
        arrays = {}
        for name in names:
            kind = found[name].WhichOneof("kind") or "float_list"
            arrays[name] = np.array(getattr(found[name], kind).value)
        return found[self.image_key].bytes_list.value[0], arrays

    @abc.abstractmethod
    def rows(self) -> Iterator[bytes]:
        """Yields every protocol buffer, in order."""

    @abc.abstractmethod
    def sample(self) -> list[bytes]:
        """Returns some protocol buffers, to learn of the rest."""

    @functools.cached_property
    def _typical_size(self) -> tuple[int, int]:
        sizes = []
        for serialized in self.sample():
            image, _ = self.unpack(serialized)
            with Image.open(io.BytesIO(image)) as header:
                sizes.append((header.height, header.width))
        sizes.sort(key=lambda size: size[0] * size[1])
        return sizes[len(sizes) // 2]

    def typical_size(self) -> tuple[int, int]:
        """Returns (height, width) with the median area of a sample."""
        return self._typical_size


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Records(RecordSet):
    """A set in ArrayRecord files, any example of which can be read.

    Args:
        chosen: (N,) which examples of the files are meant, in that order;
            None for all.
    """

    chosen: np.ndarray | None = None

    def __len__(self) -> int:
        return super().__len__() if self.chosen is None else len(self.chosen)

    @functools.cached_property
    def _source(self):
        # Takes a second to import, and only these files need it.
        from array_record.python import array_record_data_source

        return array_record_data_source.ArrayRecordDataSource(
            [f"{p.filename}[{p.skip}:{p.skip + p.take}]" for p in self.pieces]
        )

    def read(self, indices: Sequence[int]) -> list[bytes]:
        """Returns the protocol buffers of some examples."""
        if self.chosen is not None:
            indices = self.chosen[np.asarray(indices)]
        return self._source.__getitems__([int(index) for index in indices])

    def read_in_graph(self, indices: tf.Tensor) -> tf.Tensor:
        """Returns (n,) protocol buffers of (n,) indices, within tf.data."""

        def read(values):
            return np.array(self.read(values), object)

        found = tf.numpy_function(read, [indices], tf.string, stateful=False)
        return tf.ensure_shape(found, indices.shape)

    def sample(self) -> list[bytes]:
        count = min(SAMPLE, len(self))
        return self.read(np.linspace(0, len(self) - 1, count).astype(int))

    def rows(self) -> Iterator[bytes]:
        for begin in range(0, len(self), READ_BATCH):
            yield from self.read(
                range(begin, min(begin + READ_BATCH, len(self)))
            )

    def subset(self, indices: np.ndarray) -> "Records":
        """Returns the examples at `indices`, in that order."""
        chosen = self.chosen
        return dataclasses.replace(
            self,
            chosen=indices if chosen is None else chosen[indices],
        )

    def fingerprint(self) -> str:
        if self.chosen is None:
            return super().fingerprint()
        text = super().fingerprint().encode() + self.chosen.tobytes()
        return hashlib.sha256(text).hexdigest()[:16]

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """(N,) labels. Reads every example of the set, once."""
        found = [self.unpack(serialized)[1][0] for serialized in self.rows()]
        return np.array(found, np.int32)

    @property
    def names(self) -> "_Lazy":
        """N texts that identify the images."""
        return _Lazy(len(self), lambda index: f"{self.split}/{index}")

    @property
    def contents(self) -> "_Lazy":
        """N encoded images."""
        return _Lazy(
            len(self),
            lambda index: self.unpack(self.read([index])[0])[0],
        )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Stream(RecordSet):
    """A set in TFRecord files, which are read from the beginning.

    The order of an epoch is that of its shuffled files, OPEN_FILES of them in
    turn, through a buffer of SHUFFLE_BUFFER examples: examples that lie close
    together in the files stay closer than chance. It is a function of seed and
    epoch all the same, so that a run that is continued sees what it would
    have seen; but it first reads, without decoding, what the epoch had read.
    """

    def sample(self) -> list[bytes]:
        return list(itertools.islice(self.rows(), SAMPLE))

    def rows(self) -> Iterator[bytes]:
        """Yields every protocol buffer, in the order of the files."""
        for piece in self.pieces:
            file = tf.compat.v1.io.tf_record_iterator(piece.filename)
            yield from itertools.islice(
                file, piece.skip, piece.skip + piece.take
            )

    def serialized(self, order: tf.Tensor, first: int) -> tf.data.Dataset:
        """Returns the protocol buffers from some position on, for ever.

        Args:
            order: (2,) seed.
            first: position in the endless sequence of epochs.
        """
        names = tf.constant([piece.filename for piece in self.pieces])
        skips = tf.constant([piece.skip for piece in self.pieces], tf.int64)
        takes = tf.constant([piece.take for piece in self.pieces], tf.int64)
        last = tf.constant(len(self.pieces) - 1, tf.int64)

        def of_file(index):
            return (
                tf.data.TFRecordDataset(names[index])
                .skip(skips[index])
                .take(takes[index])
            )

        def of_epoch(epoch):
            own = tf.random.experimental.stateless_fold_in(order, epoch)
            files = tf.data.Dataset.range(last + 1).map(
                lambda i: tf.random.experimental.index_shuffle(i, own, last)
            )
            rows = files.interleave(of_file, cycle_length=OPEN_FILES)
            rows = rows.shuffle(
                min(SHUFFLE_BUFFER, len(self)),
                seed=tf.random.stateless_uniform(
                    (), own, maxval=tf.int64.max, dtype=tf.int64
                ),
                reshuffle_each_iteration=False,
            )
            begin = tf.where(
                epoch == first // len(self),
                tf.constant(first % len(self), tf.int64),
                tf.constant(0, tf.int64),
            )
            return rows.skip(begin)

        epochs = tf.data.Dataset.range(first // len(self), 2**62)
        return epochs.flat_map(of_epoch)


class _Lazy(Sequence):
    """A sequence whose items are made when they are asked for."""

    def __init__(self, length: int, make):
        self._length = length
        self._make = make

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int):
        if not 0 <= index < self._length:
            raise IndexError(index)
        return self._make(int(index))
