"""What a run leaves is whole or absent, and belongs to one run."""

import errno
import json
import os
import re
import shutil

import pytest

from bit_tf import workdir as workdir_lib


def fill(directory):
    (directory / "a.txt").write_text("alpha")
    (directory / "deep").mkdir()
    (directory / "deep" / "b.txt").write_text("beta")


def entries(path):
    return sorted(entry.name for entry in path.iterdir())


def test_a_directory_appears_whole_and_verifies(tmp_path):
    workdir_lib.write_directory(tmp_path / "state", fill)
    assert entries(tmp_path) == ["state"]
    assert workdir_lib.verify_directory(tmp_path / "state")


def test_a_directory_that_fails_leaves_the_old_one(tmp_path):
    workdir_lib.write_directory(tmp_path / "state", fill)

    def full(directory):
        (directory / "a.txt").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError):
        workdir_lib.write_directory(tmp_path / "state", full)
    assert entries(tmp_path) == ["state"]
    assert (tmp_path / "state" / "a.txt").read_text() == "alpha"
    assert workdir_lib.verify_directory(tmp_path / "state")


def flip(path):
    data = bytearray((path / "a.txt").read_bytes())
    data[2] ^= 1
    (path / "a.txt").write_bytes(data)


def cut(path):
    (path / "deep" / "b.txt").write_text("bet")


def remove(path):
    (path / "a.txt").unlink()


def unsign(path):
    (path / workdir_lib.MANIFEST).unlink()


def garble(path):
    (path / workdir_lib.MANIFEST).write_text("[1, 2")


def retype(path):
    (path / workdir_lib.MANIFEST).write_text("[1, 2]")


@pytest.mark.parametrize("spoil", [flip, cut, remove, unsign, garble, retype])
def test_a_spoiled_directory_does_not_verify(tmp_path, spoil):
    workdir_lib.write_directory(tmp_path / "state", fill)
    spoil(tmp_path / "state")
    assert not workdir_lib.verify_directory(tmp_path / "state")


def test_a_file_that_fails_leaves_the_old_one(tmp_path):
    path = tmp_path / "report.html"
    workdir_lib.write_text(path, "first")
    with pytest.raises(UnicodeEncodeError):
        workdir_lib.write_text(path, "\udcff")
    assert path.read_text() == "first"
    assert entries(tmp_path) == ["report.html"]


def test_leftovers_of_a_killed_process_go(tmp_path):
    (tmp_path / ".step-00000004.123.tmp").mkdir()
    (tmp_path / ".saved_model.123.old").mkdir()
    (tmp_path / "saved_model").mkdir()
    (tmp_path / "saved_model" / "newer").write_text("x")
    (tmp_path / ".report.html.123.tmp").write_text("x")
    # Not ours: the directory may be anybody's.
    (tmp_path / ".vim.old").mkdir()
    (tmp_path / ".notes.1.tmp").write_text("x")
    (tmp_path / "step-00000003").mkdir()
    workdir_lib.remove_leftovers(tmp_path)
    assert entries(tmp_path) == [
        ".notes.1.tmp",
        ".vim.old",
        "saved_model",
        "step-00000003",
    ]
    assert entries(tmp_path / "saved_model") == ["newer"]


def test_a_leftover_that_another_removed_is_gone_all_the_same(tmp_path):
    workdir_lib._remove(tmp_path / "gone")
    (tmp_path / "going").mkdir()
    (tmp_path / "going" / "file").write_text("x")
    remove = shutil.rmtree
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            shutil,
            "rmtree",
            # The other was quicker.
            lambda path, **kwargs: (remove(path), remove(path, **kwargs)),
        )
        workdir_lib._remove(tmp_path / "going")
    assert not entries(tmp_path)


def test_what_a_process_of_the_same_number_left_does_not_get_in(tmp_path):
    old = tmp_path / f".state.{os.getpid()}.tmp"
    old.mkdir()
    (old / "old.txt").write_text("x")
    workdir_lib.write_directory(tmp_path / "state", fill)
    assert entries(tmp_path / "state") == ["MANIFEST.json", "a.txt", "deep"]


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"name": 3}', "\0"])
def test_a_foreign_recipe_is_not_taken_for_a_run(tmp_path, text):
    (tmp_path / "recipe.json").write_text(text)
    with pytest.raises(ValueError, match="not the workdir of a run"):
        workdir_lib.Workdir(tmp_path).claim(RUN, [])


def test_the_home_directory_can_be_written_short():
    path = workdir_lib.Workdir("~/runs").path
    assert "~" not in str(path)


RUN = {
    "total_steps": 5,
    "data": {"dataset": "a", "hash": "1"},
    "sources": {"x": "y"},
}


def test_everything_in_a_workdir_has_its_place(tmp_path):
    found = workdir_lib.Workdir(tmp_path)
    places = {
        name: str(path.relative_to(tmp_path))
        for name, path in vars(found).items()
    }
    assert places == {
        "path": ".",
        "flags": "run.flags",
        "recipe": "recipe.json",
        "metrics": "metrics.jsonl",
        "tensorboard": "tensorboard",
        "checkpoints": "checkpoints",
        "weights": "weights.npz",
        "evaluation": "evaluation.json",
        "saved_model": "saved_model",
        "report": "report.html",
    }


def test_a_directory_takes_the_place_of_an_older_one(tmp_path):
    path = tmp_path / "new" / "deep" / "state"
    for text in ("one", "two"):
        workdir_lib.write_directory(
            path, lambda t, text=text: (t / "file").write_text(text)
        )
        assert (path / "file").read_text() == text
        assert workdir_lib.verify_directory(path)
        assert entries(path.parent) == ["state"]


def test_what_is_written_is_on_the_disk_before_it_has_its_name(
    tmp_path, monkeypatch
):
    done = []
    real = os.replace

    def sync(path):
        done.append(path.name)

    def replace(source, target):
        done.append(f"-> {target.name}")
        real(source, target)

    monkeypatch.setattr(workdir_lib, "_sync", sync)
    monkeypatch.setattr(os, "replace", replace)
    workdir_lib.write_directory(
        tmp_path / "state", lambda t: (t / "file").write_text("x")
    )
    temporary = f".state.{os.getpid()}.tmp"
    assert sorted(done[:2]) == [workdir_lib.MANIFEST, "file"]
    assert done[2:] == [temporary, "-> state", tmp_path.name]


def test_long_differences_are_short_and_only_four_are_told(tmp_path):
    workdir = workdir_lib.Workdir(tmp_path)
    old = {"total_steps": 1, **{f"k{i}": "a" * 38 for i in range(5)}}
    new = {"total_steps": 1, **{f"k{i}": "b" * 39 for i in range(5)}}
    workdir.claim(old, ["--a", "--b"])
    assert workdir.flags.read_text() == "--a\n--b\n"
    assert workdir.recipe.read_text() == json.dumps(old, indent=1) + "\n"
    workdir.weights.write_text("x")
    with pytest.raises(ValueError, match="holds another run") as refused:
        workdir.claim(new, [])
    told = "; ".join(
        # 40 characters are shown, of 41 the first 37.
        f'k{i} was "{"a" * 38}", now "{"b" * 36}...'
        for i in range(4)
    )
    assert str(refused.value) == (
        f"workdir {tmp_path} holds another run ({told}): give another "
        "--workdir, or the flags in its run.flags to continue it."
    )


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ({"a": 1}, {}, "a was 1, now null"),
        ({}, {"a": 1}, "a was null, now 1"),
        ({"a": {"b": 1}}, {"a": 2}, 'a was {"b": 1}, now 2'),
    ],
)
def test_what_is_gone_or_new_is_a_difference(tmp_path, old, new, told):
    workdir = workdir_lib.Workdir(tmp_path)
    workdir.claim({"total_steps": 1, **old}, [])
    workdir.weights.write_text("x")
    with pytest.raises(ValueError, match=re.escape(told)):
        workdir.claim({"total_steps": 1, **new}, [])


def test_rows_are_written_together_or_not_at_all(tmp_path, monkeypatch):
    workdir = workdir_lib.Workdir(tmp_path)
    workdir.append_metrics({"step": 1}, {"step": 2})
    before = workdir.metrics.read_text()
    assert before == '{"step": 1}\n{"step": 2}\n'
    real = open

    class Full:
        """A file of which five bytes more fit on the disk."""

        def __init__(self, file):
            self._file, self._room = file, 5

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._file.close()

        def __getattr__(self, name):
            return getattr(self._file, name)

        def write(self, text):
            if not self._room:
                raise OSError(28, "No space left on device")
            self._room = 0
            return self._file.write(text[:5])

    def opened(path, mode, buffering=-1):
        assert (mode, buffering) == ("a+b", 0)
        return Full(real(path, mode, buffering=buffering))

    monkeypatch.setattr("builtins.open", opened)
    with pytest.raises(OSError, match="No space"):
        workdir.append_metrics({"step": 3})
    monkeypatch.undo()
    assert workdir.metrics.read_text() == before


def test_half_a_row_does_not_spoil_the_next(tmp_path):
    workdir = workdir_lib.Workdir(tmp_path)
    workdir.metrics.write_text('{"step": 1}\n{"st')
    workdir.append_metrics({"step": 3})
    workdir.append_metrics({"step": 4})
    found = workdir_lib.read_metrics(tmp_path)
    assert [row["step"] for row in found] == [1, 3, 4]
    # A line of its own for each, and none that is empty.
    assert len(workdir.metrics.read_text().splitlines()) == 4


def test_a_run_finds_itself_again(tmp_path):
    workdir = workdir_lib.Workdir(tmp_path / "run")
    with workdir.locked():
        workdir.claim(RUN, ["--a=1"])
        elsewhere = {"dataset": "moved", "hash": "1"}
        workdir.claim(
            {**RUN, "sources": {"x": "other words"}, "data": elsewhere},
            ["--a=2"],
        )
    assert json.loads(workdir.recipe.read_text()) == RUN
    assert workdir.flags.read_text() == "--a=1\n"


@pytest.mark.parametrize(
    ("other", "names"),
    [
        ({**RUN, "total_steps": 6}, "total_steps was 5, now 6"),
        ({**RUN, "data": {"hash": "2"}}, 'data.hash was "1", now "2"'),
    ],
)
def test_another_run_is_refused_and_told_apart(tmp_path, other, names):
    workdir = workdir_lib.Workdir(tmp_path)
    workdir.claim(RUN, [])
    (workdir.checkpoints / "step-00000001").mkdir(parents=True)
    with pytest.raises(ValueError, match=names):
        workdir.claim(other, [])
    assert json.loads(workdir.recipe.read_text()) == RUN


def test_a_start_that_left_nothing_does_not_block_the_next(tmp_path):
    workdir = workdir_lib.Workdir(tmp_path)
    workdir.claim(RUN, [])
    workdir.claim({**RUN, "total_steps": 6}, ["--b"])
    assert workdir.read_recipe()["total_steps"] == 6
    assert workdir.flags.read_text() == "--b\n"


def test_foreign_checkpoints_are_not_taken_over(tmp_path):
    (tmp_path / "checkpoints" / "step-00000001").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"no recipe\.json"):
        workdir_lib.Workdir(tmp_path).claim(RUN, [])


def test_two_processes_do_not_share_a_workdir(tmp_path):
    with (
        workdir_lib.Workdir(tmp_path).locked(),
        pytest.raises(ValueError, match="in use by another process"),
        workdir_lib.Workdir(tmp_path).locked(),
    ):
        pass


def test_rows_are_read_without_a_torn_one_and_cut_at_a_step(tmp_path):
    workdir = workdir_lib.Workdir(tmp_path)
    for step in (1, 2, 3):
        workdir.append_metrics({"step": step})
    workdir.append_metrics({"step": 2, "examples": 5})
    with open(workdir.metrics, "a") as file:
        file.write('{"step": 4, "lo')
    steps = [row["step"] for row in workdir_lib.read_metrics(tmp_path)]
    assert steps == [1, 2, 3, 2]
    workdir.truncate_metrics(2, is_evaluated=True)
    text = '{"step": 1}\n{"step": 2}\n'
    assert workdir.metrics.read_text() == (
        text + '{"step": 2, "examples": 5}\n'
    )
    workdir.truncate_metrics(2, is_evaluated=False)
    assert workdir.metrics.read_text() == text


def test_what_was_moved_aside_comes_back_if_nothing_took_its_place(tmp_path):
    for name in (".step-00000003.7.old", ".step-00000003.7.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "which").write_text(name)
    (tmp_path / ".step-00000004.7.old").mkdir()
    (tmp_path / "step-00000004").mkdir()
    workdir_lib.remove_leftovers(tmp_path)
    assert {entry.name for entry in tmp_path.iterdir()} == {
        "step-00000003",
        "step-00000004",
    }
    which = (tmp_path / "step-00000003" / "which").read_text()
    assert which.endswith(".old")
