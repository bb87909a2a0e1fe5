"""Failures that may pass are waited for, three times in a row."""

import errno

import pytest

from bit_tf import patience


def fails(text="No space left on device"):
    def write():
        raise OSError(errno.ENOSPC, text)

    return write


def test_a_failure_is_told_and_the_third_in_a_row_raised():
    lines = []
    found = patience.Patience(lines.append)
    assert not found.wrote("the state of step 2", fails())
    assert not found.wrote("the state of step 4", fails())
    with pytest.raises(OSError, match="No space left"):
        found.wrote("the state of step 6", fails())
    assert lines == [
        "the state of step 2 could not be written (No space left on device): "
        "going on without; 1 of 3 times in a row, then it ends",
        "the state of step 4 could not be written (No space left on device): "
        "going on without; 2 of 3 times in a row, then it ends",
    ]


def test_what_succeeds_is_called_and_forgives():
    lines, written = [], []
    found = patience.Patience(lines.append)
    for number in range(3):
        assert not found.wrote(f"the state of {number}", fails())
        assert not found.wrote(f"the state of {number}", fails())
        assert found.wrote(
            f"the state of {number}", lambda n=number: written.append(n)
        )
    assert written == [0, 1, 2] and len(lines) == 6


def test_what_never_failed_is_written():
    lines = []
    assert patience.Patience(lines.append).wrote("the state", list)
    assert lines == []


def test_kinds_are_counted_apart():
    lines = []
    found = patience.Patience(lines.append)
    for number in range(2):
        assert not found.wrote(f"the state of {number}", fails())
        assert not found.wrote(f"the metrics of {number}", fails())
    assert [line.count("2 of 3") for line in lines] == [0, 0, 1, 1]


def test_what_must_be_written_is_raised_at_once():
    lines = []
    found = patience.Patience(lines.append)
    with pytest.raises(OSError, match="No space"):
        found.wrote("the state of step 2", fails(), must=True)
    assert lines == []
    # It counts.
    assert not found.wrote("the state of step 3", fails())
    assert "2 of 3" in lines[0]


def test_an_error_without_a_number_is_told_too():
    lines = []

    def write():
        raise OSError("the share is away")

    assert not patience.Patience(lines.append).wrote("the state", write)
    assert "the state could not be written (the share is away)" in lines[0]
