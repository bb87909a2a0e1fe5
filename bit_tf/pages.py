"""What pages share: templates that escape, pictures that are in them."""

import base64
import io

import jinja2
from matplotlib import figure
from PIL import Image
from PIL import ImageOps

THUMBNAIL_PIXELS = 112


def percent(value: float | None) -> str:
    """Returns e.g. "12.3 %"; "-" for None."""
    # The space does not break: the sign stays with its number.
    return "-" if value is None else f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def template(source: str) -> jinja2.Template:
    """Returns a template from its text."""
    environment = jinja2.Environment(
        # Class and file names are somebody else's text.
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    return environment.from_string(source)


def png(plot: figure.Figure) -> str:
    """Returns a figure as base64 text."""
    buffer = io.BytesIO()
    plot.savefig(buffer, format="png", dpi=144, bbox_inches="tight")
    return base64.b64encode(buffer.getvalue()).decode()


def thumbnail(content: str | bytes) -> str:
    """Returns a small JPEG of a path or an encoded image, as base64 text."""
    file = io.BytesIO(content) if isinstance(content, bytes) else content
    with Image.open(file) as image:
        image.draft("RGB", (2 * THUMBNAIL_PIXELS, 2 * THUMBNAIL_PIXELS))
        small = ImageOps.exif_transpose(image).convert("RGB")
    small.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=85)
    return base64.b64encode(buffer.getvalue()).decode()
