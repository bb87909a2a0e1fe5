"""What goes wrong in a process that is started by `nursery`."""

import builtins
import io
import os
import time

# Of the protocol by which states and files appear.
_CALLS = ("mkdir", "fsync", "replace", "unlink", "rmdir")


def slow_disk(seconds: float) -> None:
    """Makes each file take its time to be on the disk."""
    real = os.fsync

    def fsync(descriptor):
        time.sleep(seconds)
        return real(descriptor)

    os.fsync = fsync


def dies_at(point: int, save: int, report: str) -> None:
    """Ends the process at a step of a save, as a power cut would.

    Args:
        point: number of the call, from 1; 0 for never.
        save: number of the save, from 1.
        report: file for the number of steps that this save had.
    """
    from bit_tf import checkpoint

    real = checkpoint.save
    saves = 0

    def counting(*args, **kwargs):
        nonlocal saves
        saves += 1
        if saves != save:
            return real(*args, **kwargs)
        calls = 0
        kept = [(os, name, getattr(os, name)) for name in _CALLS]
        kept += [(where, "open", open) for where in (builtins, io)]

        def wrap(function):
            def called(*args, **kwargs):
                nonlocal calls
                calls += 1
                if calls == point:
                    os._exit(1)
                return function(*args, **kwargs)

            return called

        for where, name, function in kept:
            setattr(where, name, wrap(function))
        try:
            return real(*args, **kwargs)
        finally:
            for where, name, function in kept:
                setattr(where, name, function)
            with open(report, "w") as file:
                file.write(str(calls))

    checkpoint.save = counting
