"""What the page of `bit_tf.demo` shows, without the web."""

import importlib.resources
import io
import math
import pathlib
import threading
import time

from PIL import Image

import bit_tf
from bit_tf import classifier as classifier_lib
from bit_tf import image_file
from bit_tf import neighbours
from bit_tf import pages
from bit_tf import prediction

TOP_K = 5
_END_SECONDS = 10.0
# Twice the size that is shown, for fine screens.
_THUMBNAIL_PIXELS = 2 * pages.THUMBNAIL_PIXELS
# Rounding leaves 1 - 1e-6; another model or image size is below.
_SAME_COSINE = 0.999


class RefusedError(Exception):
    """A request that is not answered.

    Args:
        status: of HTTP.
        text: for the person before the page.
    """

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status = status


class Demo:
    """What the page shows, without the web.

    Args:
        classifier: the model.
        reading: how images are read; `on_bad` is "skip".
        max_upload_mb: millions of bytes that an image may have.
        stored: the images among which the nearest are looked for; None where
            there are none.
    """

    def __init__(
        self,
        classifier: classifier_lib.Classifier,
        *,
        reading: image_file.Reading,
        max_upload_mb: int,
        stored: neighbours.Stored | None = None,
    ):
        self.classifier = classifier
        self.max_upload_mb = max_upload_mb
        self._reading = reading
        self._stored = stored
        # An image is up to a few hundred MB when it is decoded.
        self._one_at_a_time = threading.Lock()
        source = importlib.resources.files("bit_tf") / "assets"
        self._page = pages.template((source / "demo.html.j2").read_text())

    def prepare(self) -> list[str]:
        """Predicts once, which compiles the network; returns what is odd."""
        blank = io.BytesIO()
        Image.new("RGB", (8, 8)).save(blank, format="PNG")
        self._predict(blank.getvalue())
        if self._stored is None:
            return []
        files = self._stored.files
        here = [i for i, f in enumerate(files) if pathlib.Path(f).is_file()]
        if len(here) < len(files):
            return [
                f"{len(files) - len(here):,} of {len(files):,} images are not "
                f"where the features say, {files[0]!r} is first: paths count "
                "from the current directory"
            ]
        found = self._predict(files[here[0]])
        if found.error:
            return [f"{files[here[0]]} cannot be used ({found.error})"]
        cosine = (
            neighbours.directions_of(found.features)
            @ self._stored.directions[here[0]]
        )
        if cosine < _SAME_COSINE:
            return [
                f"the features of {files[here[0]]} are not those that the "
                f"model gives (cosine {cosine:.3f}): another model, or another "
                "--image_size?"
            ]
        return []

    def page(self, nonce: str) -> bytes:
        """Returns the page.

        Args:
            nonce: by which the browser knows our own script and style.
        """
        model = self.classifier
        page = self._page.render(
            about=model.about,
            crop=model.crop,
            head=model.head,
            class_names=model.class_names,
            max_upload_mb=self.max_upload_mb,
            images=0 if self._stored is None else len(self._stored.files),
            nonce=nonce,
            version=bit_tf.__version__,
        )
        return page.encode()

    def answer(self, content: bytes) -> dict:
        """Returns what the model says of an encoded image, for JSON.

        Raises:
            RefusedError: it cannot be used.
        """
        if not content:
            raise RefusedError(422, "This file is empty.")
        with self._one_at_a_time:
            started = time.perf_counter()
            found = self._predict(content)
            seconds = time.perf_counter() - started
        if found.error:
            raise RefusedError(
                422, f"This image cannot be used: {found.error}."
            )
        if not all(map(math.isfinite, found.probabilities)):
            # Else it would be no JSON.
            raise RefusedError(
                422, "What the model says is not a number: it has diverged."
            )
        return {
            "classes": [
                {"name": name, "value": value}
                for name, value in zip(
                    found.classes, found.probabilities, strict=True
                )
            ],
            "seconds": seconds,
            "neighbours": [
                {
                    "index": index,
                    "file": self._stored.files[index],
                    "cosine": cosine,
                }
                for index, cosine in self._nearest(found)
            ],
        }

    def thumbnail(self, index: int) -> bytes:
        """Returns a small JPEG of a stored image.

        Raises:
            RefusedError: there is none.
        """
        files = self._stored.files if self._stored else ()
        if index >= len(files):
            raise RefusedError(404, "There is no such image.")
        size = (_THUMBNAIL_PIXELS, _THUMBNAIL_PIXELS)
        with self._one_at_a_time:
            wrong = image_file.inspect(
                files[index], self._reading, decode=False
            )
            if isinstance(wrong, str):
                raise RefusedError(404, wrong)
            try:
                image = image_file.view(files[index], at_least=max(size))
            except Exception as error:
                # Decoders raise whatever comes to them on damaged files.
                raise RefusedError(404, str(error)) from error
        image.thumbnail(size)
        buffer = io.BytesIO()
        image.save(buffer, format="JPEG", quality=85)
        return buffer.getvalue()

    def end(self) -> None:
        """Lets a prediction that runs end, and begins no other.

        Threads that read images cannot be had once Python is ending.
        """
        self._one_at_a_time.acquire(timeout=_END_SECONDS)

    def _predict(self, source: image_file.Source) -> prediction.Prediction:
        (found,) = prediction.predict(
            self.classifier,
            [source],
            top_k=TOP_K,
            batch_size=1,
            features=self._stored is not None,
            reading=self._reading,
        )
        return found

    def _nearest(self, found) -> list[tuple[int, float]]:
        return self._stored.nearest(found.features) if self._stored else []
