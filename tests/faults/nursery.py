"""Processes of the programs, in a tenth of the time that Python takes to start.

A process that has imported TensorFlow, and done nothing with it, forks whenever
another is wanted: what is born runs `python -m MODULE ...` as a shell would
start it. Run as a module it is that process; `Nursery` speaks with it.
"""

import importlib
import io
import json
import os
import pathlib
import runpy
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[2]
# What a program of training needs, but for the flags, which are defined anew.
FOR_TRAINING = ("bit_tf.training", "bit_tf.sources")
FOR_CHECKS = ("bit_tf.recipe_flags", "bit_tf.data_flags", "bit_tf.train_flags")


class Life:
    """A program that was started.

    Args:
        nursery: who knows its end.
        pid: its process.
        out: file of what it prints, errors included.
    """

    def __init__(self, nursery: "Nursery", pid: int, out: pathlib.Path):
        self._nursery = nursery
        self._code = None
        # The most memory it had, once it has ended.
        self.peak_mb = None
        self.pid = pid
        self.out = out

    def poll(self) -> int | None:
        """Returns the exit code, -9 for SIGKILL; None while it runs."""
        if self._code is None:
            ended = self._nursery.ask({"poll": self.pid})
            if ended is not None:
                self._code, self.peak_mb = ended
        return self._code

    def wait(self, seconds: float = 120) -> int:
        end = time.monotonic() + seconds
        while self.poll() is None:
            assert time.monotonic() < end, f"it hangs: {self.printed()}"
            time.sleep(0.01)
        return self._code

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def printed(self) -> str:
        return self.out.read_text(errors="replace")


class Nursery:
    """Starts programs; a context manager.

    Args:
        imported: modules that all of them need.
        directory: for what they print.
    """

    def __init__(self, directory: pathlib.Path, imported=()):
        self._directory = directory
        self._count = 0
        environment = {
            key: value
            for key, value in os.environ.items()
            if key not in ("TF_CPP_MIN_LOG_LEVEL",)
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.nursery", *imported],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=ROOT,
            text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def ask(self, request: dict):
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(
        self, module: str, *argv, sabotage=None, environment=None
    ) -> Life:
        """Starts `python -m bit_tf.MODULE`.

        Args:
            module: e.g. "train".
            argv: its flags.
            sabotage: (name of a function in `sabotage`, its arguments), called
                before.
            environment: to be added.
        """
        self._count += 1
        out = self._directory / f"{self._count}.txt"
        pid = self.ask(
            {
                "module": f"bit_tf.{module}",
                "argv": [str(a) for a in argv],
                "out": str(out),
                "sabotage": sabotage,
                "environment": environment or {},
            }
        )
        return Life(self, pid, out)

    def run(self, module: str, *argv, seconds=120, **kwargs) -> Life:
        life = self.start(module, *argv, **kwargs)
        life.wait(seconds)
        return life


def _poll(pid: int) -> tuple[int, float] | None:
    found, status, usage = os.wait4(pid, os.WNOHANG)
    if not found:
        return None
    return os.waitstatus_to_exitcode(status), usage.ru_maxrss / 1e3


def _live(request: dict, pipes) -> None:
    """Becomes the program."""
    for pipe in pipes:
        os.close(pipe)
    out = os.open(request["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False))
    sys.stderr = io.TextIOWrapper(
        os.fdopen(2, "wb", closefd=False), line_buffering=True
    )
    os.environ.update(request["environment"])
    if request["sabotage"]:
        name, *arguments = request["sabotage"]
        getattr(importlib.import_module("tests.faults.sabotage"), name)(
            *arguments
        )
    sys.argv = [request["module"].rpartition(".")[2], *request["argv"]]
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


def main(imported) -> None:
    # The programs' own; the pipes stay ours.
    asked, answers = os.dup(0), os.dup(1)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    for name in imported:
        importlib.import_module(name)
    with open(asked, closefd=False) as requests:
        for line in requests:
            request = json.loads(line)
            if "poll" in request:
                answer = _poll(request["poll"])
            elif answer := os.fork():
                pass
            else:
                break
            os.write(answers, (json.dumps(answer) + "\n").encode())
        else:
            return
    _live(request, (answers,))


if __name__ == "__main__":
    main(sys.argv[1:])
