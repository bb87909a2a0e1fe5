"""Machines as they are: odd paths, locales, rights and settings."""

import pathlib
import subprocess

import pytest

from tests import programs
from tests.conftest import save_image
from tests.faults.test_images import TRAIN


def works(done, path):
    return (
        done.returncode == 0
        and (path / "weights.npz").is_file()
        and (path / "saved_model/saved_model.pb").is_file()
        and "Traceback" not in done.stderr
    )


def one_line(done, *, about):
    lines = done.stderr.strip().splitlines()
    return done.returncode == 1 and len(lines) == 1 and about in lines[0]


def in_shell(prefix, *arguments, **kwargs):
    """Returns the ended program, started by a shell's words."""
    return subprocess.run(
        [*prefix, *programs.command("train", *arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=programs.shell() | kwargs.pop("environment", {}),
        cwd=programs.ROOT,
        **kwargs,
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder whose every name is odd."""
    root = (
        tmp_path_factory.mktemp("odd") / "Bilder für 猫 & Hund 'x' \"y\" 100%"
    )
    for name, value in (("Äpfel, rot", 60), ("=SUM(A1)", 190)):
        for number in range(6):
            save_image(root / "train" / name / f"{number} ü.png", value=value)
            save_image(root / "test" / name / f"-{number}.png", value=value)
    return root


ENVIRONMENTS = {
    "odd paths": {},
    "no locale": {"environment": {"LC_ALL": "C", "LANG": ""}},
    "Turkish, other time zone": {
        "environment": {"LC_ALL": "tr_TR.UTF-8", "TZ": "Pacific/Kiritimati"}
    },
    "umask 077": {"umask": 0o077},
    "read-only home": {"environment": {"HOME": "/proc/1", "KERAS_HOME": ""}},
    "no home": {"environment": {"HOME": "/nonexistent", "KERAS_HOME": ""}},
    "no terminal, no input": {"stdin": subprocess.DEVNULL},
    "optimised": {"environment": {"PYTHONOPTIMIZE": "2"}},
    "no bytecode": {"environment": {"PYTHONDONTWRITEBYTECODE": "1"}},
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
@pytest.mark.campaign
def test_it_works(campaign, images, tmp_path, name):
    path = tmp_path / "Läufe 1"
    with campaign(f"R20 {name}", "works") as row:
        done = in_shell(
            (),
            f"--dataset=folder:{images}",
            f"--workdir={path}",
            *TRAIN,
            **ENVIRONMENTS[name],
        )
        row.check(works(done, path), done.stderr[-2000:])


def test_what_cannot_work_is_one_line(campaign, images, tmp_path):
    where = (f"--dataset=folder:{images}", f"--workdir={tmp_path / 'run'}")
    with campaign("R20 what cannot work", "one line") as row:
        done = in_shell((), *where, environment={"KERAS_BACKEND": "jax"})
        row.check(one_line(done, about="KERAS_BACKEND=jax"), done.stderr)
        parent = pathlib.Path("/proc/bit_tf_nowhere/run")
        done = in_shell((), where[0], f"--workdir={parent}", *TRAIN)
        row.check(one_line(done, about="/proc/bit_tf_nowhere"), done.stderr)
