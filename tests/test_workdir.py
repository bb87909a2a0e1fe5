"""What a run leaves is whole or absent, and belongs to one run."""

import errno
import json

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
