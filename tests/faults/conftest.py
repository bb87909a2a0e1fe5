"""How many faults, and the table of what came of them.

What is marked `campaign` is for `make faults` alone, by its time.

BIT_TF_FAULTS=full makes as many as SECURITY.md and the tables promise, instead
of a few; BIT_TF_FAULTS_TABLE=FILE gets a JSON line per row; BIT_TF_TEST_SEED
draws others.
"""

import contextlib
import json
import os
import time

import numpy as np
import pytest

from tests.faults import nursery as nursery_lib

IS_FULL = os.environ.get("BIT_TF_FAULTS") == "full"
SEED = int(os.environ.get("BIT_TF_TEST_SEED", "0"))


class Row:
    """What is counted of one kind of fault."""

    def __init__(self):
        self.faults = 0
        self.failed: list[str] = []
        self.seen: dict[str, float] = {}

    def check(self, held: bool, what: str = "") -> None:
        """Counts a fault, and whether what is demanded held."""
        self.faults += 1
        if not held:
            self.failed.append(what)


@pytest.fixture
def rng():
    return np.random.default_rng(SEED)


@pytest.fixture
def count():
    """Returns how many faults to make: (a few, all of them) -> number."""
    return lambda few, full: full if IS_FULL else few


@pytest.fixture
def campaign():
    """Returns a context manager that writes a row of the table."""

    @contextlib.contextmanager
    def row(name: str, demanded: str):
        found, began = Row(), time.monotonic()
        try:
            yield found
        finally:
            line = {
                "row": name,
                "demanded": demanded,
                "faults": found.faults,
                "held": found.faults - len(found.failed),
                **found.seen,
                "seed": SEED,
                "seconds": round(time.monotonic() - began),
            }
            print(json.dumps(line))
            if table := os.environ.get("BIT_TF_FAULTS_TABLE"):
                with open(table, "a") as file:
                    file.write(json.dumps(line) + "\n")
        assert found.faults and not found.failed, found.failed[:5]

    return row


@pytest.fixture(scope="package")
def trainings(tmp_path_factory):
    """Starts programs that train."""
    directory = tmp_path_factory.mktemp("trainings")
    with nursery_lib.Nursery(directory, nursery_lib.FOR_TRAINING) as found:
        yield found


@pytest.fixture(scope="package")
def checks(tmp_path_factory):
    """Starts programs that end before they import TensorFlow."""
    directory = tmp_path_factory.mktemp("checks")
    with nursery_lib.Nursery(directory, nursery_lib.FOR_CHECKS) as found:
        yield found
