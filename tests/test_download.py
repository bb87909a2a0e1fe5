"""A file arrives whole, whatever the server does, or not at all."""

import base64
import hashlib
import multiprocessing
import pathlib
import re
import socket

import numpy as np
import pytest

from bit_tf import download
from tests.server import Server

CONTENT = np.random.default_rng(0).bytes(3_000_000)


def fetch(url, path, **kwargs):
    return download.fetch(
        f"{url}/file.npz",
        path,
        read_seconds=1,
        retry_seconds=0.01,
        log=kwargs.pop("log", lambda text: None),
        **kwargs,
    )


def left_in(path: pathlib.Path) -> set[str]:
    return {p.name for p in path.iterdir()}


WHOLE = {"file.npz", "file.npz.sha256", ".file.npz.lock"}


@pytest.mark.parametrize(
    "faults",
    [
        [],
        ["stall"],
        ["drop"],
        ["short"],
        ["503"],
        ["drop", "drop", "drop", "503", "stall", "drop"],
        ["drop", "no_range"],
        ["drop", "wrong_range"],
        ["short", "short"],
    ],
)
def test_a_file_arrives_whole(faults, tmp_path):
    server = Server(CONTENT, faults)
    with server.running() as url:
        path = fetch(url, tmp_path / "file.npz")
    assert path.read_bytes() == CONTENT
    assert left_in(tmp_path) == WHOLE
    digest = hashlib.sha256(CONTENT).hexdigest()
    recorded = (tmp_path / "file.npz.sha256").read_text()
    assert recorded == f"{digest}  file.npz\n"


def test_what_came_is_not_fetched_again(tmp_path):
    server = Server(CONTENT, ["drop"])
    with server.running() as url:
        fetch(url, tmp_path / "file.npz")
        assert len(server.requests) == 2
        assert server.requests[0] == ""
        assert_about_half(server.requests[1])
        # There already: nobody is asked.
        fetch(url, tmp_path / "file.npz")
        assert len(server.requests) == 2


def assert_about_half(wish: str) -> None:
    """What was sent of the last, unfinished chunk may be asked for again."""
    begin = int(wish.removeprefix("bytes=").removesuffix("-"))
    assert 0 <= len(CONTENT) // 2 - begin < 20_000


def test_a_later_call_continues(tmp_path):
    server = Server(CONTENT, ["drop"] + ["503"] * 10)
    with server.running() as url:
        with pytest.raises(ValueError, match="broke off 5 times") as caught:
            fetch(url, tmp_path / "file.npz")
        assert "bytes that came are kept" in str(caught.value)
        assert not (tmp_path / "file.npz").exists()
        server.faults.clear()
        server.requests.clear()
        fetch(url, tmp_path / "file.npz")
        assert len(server.requests) == 1
        assert_about_half(server.requests[0])
    assert (tmp_path / "file.npz").read_bytes() == CONTENT


def test_halves_of_two_versions_are_never_joined(tmp_path):
    server = Server(CONTENT, ["drop"] + ["503"] * 5)
    with server.running() as url:
        with pytest.raises(ValueError, match="broke off"):
            fetch(url, tmp_path / "file.npz")
        server.content, server.etag = CONTENT[::-1], '"two"'
        fetch(url, tmp_path / "file.npz")
    assert (tmp_path / "file.npz").read_bytes() == CONTENT[::-1]


def test_without_a_version_it_begins_anew(tmp_path):
    server = Server(CONTENT, ["drop"], etag=None)
    with server.running() as url:
        fetch(url, tmp_path / "file.npz")
    assert server.requests == ["", ""]
    assert (tmp_path / "file.npz").read_bytes() == CONTENT


def whole(path):
    if path.stat().st_size != len(CONTENT):
        raise ValueError("it is cut off")


def test_a_server_that_announces_too_little_is_found_out(tmp_path):
    server = Server(CONTENT, ["less"])
    with server.running() as url:
        with pytest.raises(ValueError, match="cut off") as caught:
            fetch(url, tmp_path / "file.npz", check=whole)
        assert url in str(caught.value) and "deleted" in str(caught.value)
        assert left_in(tmp_path) == {".file.npz.lock"}
        fetch(url, tmp_path / "file.npz", check=whole)
    assert left_in(tmp_path) == WHOLE


def test_the_servers_md5_is_compared(tmp_path):
    digest = base64.b64encode(hashlib.md5(CONTENT).digest()).decode()
    headers = {"x-goog-hash": f"crc32c=AAAAAA==, md5={digest}"}
    with Server(CONTENT, headers=headers).running() as url:
        fetch(url, tmp_path / "file.npz")
    with (
        Server(CONTENT[::-1], headers=headers).running() as url,
        pytest.raises(ValueError, match="MD5"),
    ):
        fetch(url, tmp_path / "other.npz")
    assert not (tmp_path / "other.npz").exists()


def test_a_changed_file_is_noticed(tmp_path):
    with Server(CONTENT).running() as url:
        path = fetch(url, tmp_path / "file.npz")
        path.write_bytes(CONTENT[:-1] + b"!")
        with pytest.raises(ValueError, match="SHA-256") as caught:
            fetch(url, path)
        assert str(path) in str(caught.value)


def test_another_file_than_the_first_one_is_refused(tmp_path):
    with Server(CONTENT).running() as url:
        fetch(url, tmp_path / "file.npz").unlink()
    with (
        Server(CONTENT[::-1], etag='"two"').running() as url,
        pytest.raises(ValueError, match="earlier download"),
    ):
        fetch(url, tmp_path / "file.npz")
    assert not (tmp_path / "file.npz").exists()


def test_a_file_put_there_by_hand_is_checked_and_recorded(tmp_path):
    path = tmp_path / "file.npz"
    path.write_bytes(CONTENT[:9])
    with pytest.raises(ValueError, match="cut off"):
        fetch("http://nowhere", path, check=whole)
    path.write_bytes(CONTENT)
    fetch("http://nowhere", path, check=whole)
    assert (tmp_path / "file.npz.sha256").exists()


def test_no_such_file_is_said_at_once(tmp_path):
    server = Server(CONTENT, ["404"])
    with (
        server.running() as url,
        pytest.raises(ValueError, match="does not give .*404"),
    ):
        fetch(url, tmp_path / "file.npz")
    assert len(server.requests) == 1


@pytest.mark.parametrize("where", ["refused", "unknown"])
def test_no_way_to_the_server_is_said_at_once(where, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = {
        "refused": f"http://127.0.0.1:{port}",
        "unknown": "http://no-such-host.invalid",
    }[where]
    with pytest.raises(download.UnreachableError):
        fetch(url, tmp_path / "file.npz")


def test_a_server_that_never_sends_a_byte_ends_the_wait(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(ValueError, match="5 times in a row"):
            download.fetch(
                f"{url}/x",
                tmp_path / "x",
                read_seconds=0.05,
                retry_seconds=0.01,
                log=lambda text: None,
            )


def test_retries_are_told(tmp_path):
    told = []
    with Server(CONTENT, ["drop"]).running() as url:
        fetch(url, tmp_path / "file.npz", log=told.append)
    assert len(told) == 1
    assert re.match(
        r"the connection broke off; 1,4\d\d,\d{3} bytes of file.npz came",
        told[0],
    )


def test_no_room_is_said_before_it_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr(
        download.shutil,
        "disk_usage",
        lambda path: type("Usage", (), {"free": 1000}),
    )
    with (
        Server(CONTENT).running() as url,
        pytest.raises(OSError, match="3,000,000 bytes are needed"),
    ):
        fetch(url, tmp_path / "file.npz")


def one_of_many(url, path, queue):
    told = []
    fetch(url, path, log=told.append)
    queue.put((path.read_bytes() == CONTENT, told))


def test_of_eight_processes_one_fetches(tmp_path):
    server = Server(CONTENT, ["drop", "stall"])
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    with server.running() as url:
        processes = [
            context.Process(
                target=one_of_many, args=(url, tmp_path / "file.npz", queue)
            )
            for _ in range(8)
        ]
        for process in processes:
            process.start()
        results = [queue.get(timeout=120) for _ in processes]
        for process in processes:
            process.join()
    assert all(right for right, _ in results)
    # The faults cost a request each; nobody fetched it a second time.
    assert len(server.requests) == 3
    assert left_in(tmp_path) == WHOLE


@pytest.mark.parametrize(
    ("url", "web"),
    [
        ("gs://bucket/a/b", "https://storage.googleapis.com/bucket/a/b"),
        ("https://host/a", "https://host/a"),
        ("http://host:80/a", "http://host:80/a"),
    ],
)
def test_addresses(url, web):
    assert download.web_url(url) == web


@pytest.mark.parametrize(
    "url", ["ftp://host/a", "/a/b", "https://", "s3://b/k"]
)
def test_other_addresses_are_refused(url):
    with pytest.raises(ValueError, match="allowed are https"):
        download.web_url(url)
