"""ImageNet-21k as a TensorFlow Datasets set, from its official archive.

TensorFlow Datasets has none. Of the fall 2011 release the archive is one tar
with a tar of JPEGs per synset. Images that are no JPEG are left out.
"""

import io
import pathlib
import tarfile
from collections.abc import Callable
from collections.abc import Iterator

from PIL import Image

from bit_tf import labels
from bit_tf import tfds_sets

NAME = "imagenet21k"


def build(
    archive: pathlib.Path,
    *,
    data_dir: str | None,
    file_format: str = "array_record",
    log: Callable[[str], None] = print,
):
    """Prepares the set, unless that was done before.

    Args:
        archive: fall11_whole.tar, or one with a part of its synsets.
        data_dir: where TensorFlow Datasets keeps its sets; its own if None.
        file_format: "array_record" or "tfrecord".
        log: told what was left out.

    Returns:
        The builder of a set with one split, "full", whose examples have an
        image and its labels, among the 21,843 classes of BiT-M in their order.

    Raises:
        ValueError: the archive is not one of synsets.
    """
    tfds = tfds_sets.import_tfds()
    synsets = [synset for synset, _ in labels.synsets(NAME)]
    left_out: list[str] = []

    with tfds.core.registered.skip_registration():

        class Imagenet21k(tfds.core.GeneratorBasedBuilder):
            """ImageNet-21k, fall 2011, with the classes of BiT-M."""

            VERSION = tfds.core.Version("1.0.0")
            pkg_dir_path = pathlib.Path(__file__).parent

            def _info(self):
                return tfds.core.DatasetInfo(
                    builder=self,
                    description=self.__doc__,
                    homepage="https://image-net.org",
                    features=tfds.features.FeaturesDict(
                        {
                            "image": tfds.features.Image(
                                encoding_format="jpeg"
                            ),
                            "labels": tfds.features.Sequence(
                                tfds.features.ClassLabel(names=synsets)
                            ),
                            "file_name": tfds.features.Text(),
                        }
                    ),
                    supervised_keys=("image", "labels"),
                )

            def _split_generators(self, dl_manager):
                del dl_manager
                return {"full": self._generate_examples()}

            def _generate_examples(self):
                for synset, name, content in images(archive):
                    if synset not in known or not _is_jpeg(content):
                        left_out.append(name)
                        continue
                    yield (
                        name,
                        {
                            "image": io.BytesIO(content),
                            "labels": [synset],
                            "file_name": name,
                        },
                    )

    known = set(synsets)
    builder = Imagenet21k(data_dir=data_dir, file_format=file_format)
    builder.download_and_prepare()
    if left_out:
        log(
            f"{len(left_out)} files were left out, which are no JPEG or of no "
            f"class of BiT-M, {left_out[0]} first"
        )
    return builder


def images(archive: pathlib.Path) -> Iterator[tuple[str, str, bytes]]:
    """Yields synset, file name and content of every image of the archive.

    It is read once, from beginning to end.

    Raises:
        ValueError: it is not a tar of synsets' tars.
    """
    try:
        with tarfile.open(archive, "r|") as outer:
            for member in outer:
                if not member.isfile():
                    continue
                synset, dot, _ = pathlib.PurePath(member.name).name.partition(
                    ".tar"
                )
                if not dot:
                    raise ValueError(f"{member.name} in it is no tar")
                stream = outer.extractfile(member)
                with tarfile.open(fileobj=stream, mode="r|") as inner:
                    for image in inner:
                        if image.isfile():
                            content = inner.extractfile(image).read()
                            yield synset, image.name, content
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise ValueError(
            f"archive {archive} cannot be read ({error}): give ImageNet's "
            "fall11_whole.tar, a tar with a tar of JPEGs per synset."
        ) from error


def _is_jpeg(content: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.format != "JPEG":
                return False
            # Read to its end, or a training would meet what is cut off.
            image.draft("RGB", (1, 1))
            image.load()
            return True
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False
