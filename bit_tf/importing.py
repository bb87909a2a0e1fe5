"""How programs import TensorFlow: without noise, and a second sooner."""

import contextlib
import gc
import os
import sys
import tempfile
from collections.abc import Iterator

# Keras imports them where they are installed, for drawings and wrappers that
# no program asks for; scikit-learn alone takes as long as Keras itself.
UNUSED = ("matplotlib.pyplot", "sklearn")


@contextlib.contextmanager
def quickly() -> Iterator[None]:
    """What a program imports that may import TensorFlow belongs within it."""
    with quietly(), _without_collection(), _without(*UNUSED):
        yield


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Hides what TensorFlow's libraries print, above all while they are loaded.

    They write to the descriptor itself, before any log level is read. Who
    sets TF_CPP_MIN_LOG_LEVEL sees everything; so does who gets an error.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        yield
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        try:
            yield
        except BaseException:
            hidden.seek(0)
            os.write(kept, hidden.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@contextlib.contextmanager
def _without_collection():
    """Looks for no garbage among a million objects of which none is any.

    Nor is what was imported looked at by later collections.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


@contextlib.contextmanager
def _without(*modules):
    """Says of modules that are not loaded yet that they are not installed."""
    hidden = [name for name in modules if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        for name in hidden:
            if sys.modules.get(name) is None:
                sys.modules.pop(name, None)
