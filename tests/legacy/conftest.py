"""The environment of requirements-legacy.txt, which make legacy builds."""

import os
import pathlib
import subprocess

import pytest

from tests.conftest import ROOT

PYTHON = pathlib.Path(
    os.environ.get(
        "BIT_TF_LEGACY_PYTHON", ROOT / ".venv-legacy" / "bin" / "python"
    )
)


@pytest.fixture(scope="session")
def run_legacy():
    """Runs a script of this folder there; bit_tf cannot be imported."""
    if not PYTHON.exists():
        pytest.skip(f"no {PYTHON}: make legacy builds it")

    def run(script: str, *arguments, directory: pathlib.Path) -> None:
        # Nothing of this environment may reach the other.
        environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("PYTHON", "TF_", "KERAS"))
        }
        subprocess.run(
            [
                str(PYTHON),
                str(pathlib.Path(__file__).with_name(script)),
                *map(str, arguments),
            ],
            check=True,
            env=environment | {"TF_CPP_MIN_LOG_LEVEL": "3"},
            cwd=directory,
        )

    return run
