"""Runs the programs as a user's shell would."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]


def command(module: str, *arguments) -> list[str]:
    return [sys.executable, "-m", f"bit_tf.{module}", *map(str, arguments)]


def run(module: str, *arguments, environment=None, cwd=ROOT, **kwargs):
    """Returns the ended process; without the tests' own settings."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in ("TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS")
    }
    return subprocess.run(
        command(module, *arguments),
        capture_output=True,
        text=True,
        env=kept | (environment or {}),
        cwd=cwd,
        **kwargs,
    )
