"""Runs the programs as a user's shell would."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]


def command(module: str, *arguments) -> list[str]:
    return [sys.executable, "-m", f"bit_tf.{module}", *map(str, arguments)]


def shell() -> dict[str, str]:
    """Returns the environment without the tests' own settings."""
    return {
        key: value
        for key, value in os.environ.items()
        if key not in ("TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS")
    }


def run(module: str, *arguments, environment=None, cwd=ROOT, **kwargs):
    """Returns the ended process."""
    return subprocess.run(
        command(module, *arguments),
        capture_output=True,
        text=True,
        env=shell() | (environment or {}),
        cwd=cwd,
        **kwargs,
    )


def start(module: str, *arguments, environment=None, **kwargs):
    """Returns the running process; what it prints goes nowhere."""
    return subprocess.Popen(
        command(module, *arguments),
        **{
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.DEVNULL,
            "env": shell() | (environment or {}),
            "cwd": ROOT,
            **kwargs,
        },
    )
