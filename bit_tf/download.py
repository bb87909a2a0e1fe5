"""Fetches a file once: resumed, whole or absent, verified ever after."""

import base64
import contextlib
import errno
import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import time
from collections.abc import Callable
from collections.abc import Iterator

import requests
import urllib3

from bit_tf import progress as progress_lib
from bit_tf import workdir as workdir_lib

CONNECT_SECONDS = 10
# A server that is silent for so long has stalled.
READ_SECONDS = 30
# In a row and without one new byte.
FRUITLESS_ATTEMPTS = 5
# What has come of a chunk is lost when the connection breaks within it.
_CHUNK_BYTES = 1 << 14


class UnreachableError(ValueError):
    """There is no way to the server: no network, or a wrong address."""


class _InterruptedError(Exception):
    """The connection ended early; asking again may help."""


def web_url(url: str) -> str:
    """Returns the address by which an object is read without an account.

    Args:
        url: https://..., http://... or gs://bucket/object.

    Raises:
        ValueError: another kind of address.
    """
    if url.startswith("gs://"):
        url = "https://storage.googleapis.com/" + url.removeprefix("gs://")
    if not re.match(r"https?://[^/]", url):
        raise ValueError(
            f"address {url!r}: allowed are https://, http:// and gs://."
        )
    return url


def fetch(
    url: str,
    path: pathlib.Path,
    *,
    check: Callable[[pathlib.Path], object] = lambda path: None,
    log: Callable[[str], None] = print,
    read_seconds: float = READ_SECONDS,
    retry_seconds: float = 1,
) -> pathlib.Path:
    """Makes sure that a file is there and is the one that was first fetched.

    What was fetched before an interruption is continued. Of several processes
    that want the file, one fetches it and the others wait. Its SHA-256 is
    recorded beside it and compared on every later call.

    Args:
        url: see `web_url`.
        path: where to put it; what is there is not fetched again.
        check: raises ValueError for a file that cannot be right.
        log: told of waiting and retrying.
        read_seconds: silence after which the connection is made anew.
        retry_seconds: pause before the second attempt, doubled for the next.

    Returns:
        `path`.

    Raises:
        UnreachableError: there is no way to the server.
        ValueError: the server does not have it, breaks off again and again,
            or sends something else; or the file is not the recorded one.
        OSError: the disk; what was fetched stays for the next call.
    """
    if path.exists():
        return _verified(path, check)
    url = web_url(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path, log):
        if path.exists():
            return _verified(path, check)
        # The suffix stays: a check may know the format by it.
        part = path.with_name(f".{path.stem}.part{path.suffix}")
        md5 = _fetch_part(
            url,
            part,
            log=log,
            read_seconds=read_seconds,
            retry_seconds=retry_seconds,
        )
        try:
            if md5 and _digest(part, "md5") != md5:
                raise ValueError("its MD5 is not the one the server names.")
            check(part)
            _record(part, path)
        except ValueError as error:
            _forget(part)
            raise ValueError(
                f"what {url} sent is refused and was deleted: {error}"
            ) from error
        _tag(part).unlink(missing_ok=True)
        os.replace(part, path)
    return path


def _verified(path: pathlib.Path, check) -> pathlib.Path:
    recorded = _recorded(path)
    if recorded is None:
        check(path)
        # In a cache that others share and we cannot write: not recorded.
        with contextlib.suppress(PermissionError):
            _record(path, path)
    elif _digest(path, "sha256") != recorded:
        raise ValueError(
            f"{path} is not the file that was first fetched: its SHA-256 "
            f"differs from the one in {_checksum(path).name}. Delete it to "
            "fetch it again, or delete both to trust the new one."
        )
    return path


def _record(found: pathlib.Path, path: pathlib.Path) -> None:
    """Writes the checksum of `found` beside `path`, or compares it.

    Raises:
        ValueError: another one is recorded, from an earlier download.
    """
    digest, recorded = _digest(found, "sha256"), _recorded(path)
    if recorded not in (None, digest):
        raise ValueError(
            f"its SHA-256 is {digest}, and {_checksum(path)} has another from "
            "an earlier download; delete that file to trust the new one."
        )
    if recorded is None:
        # As sha256sum writes and checks it.
        workdir_lib.write_text(_checksum(path), f"{digest}  {path.name}\n")


def _checksum(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f"{path.name}.sha256")


def _recorded(path: pathlib.Path) -> str | None:
    try:
        return _checksum(path).read_text().split()[0]
    except (FileNotFoundError, IndexError):
        return None


def _digest(path: pathlib.Path, algorithm: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


@contextlib.contextmanager
def _alone(path: pathlib.Path, log) -> Iterator[None]:
    """Holds a file's lock, which ends with the process, however it ends."""
    with open(path.with_name(f".{path.name}.lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log(f"another process fetches {path.name}: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _tag(part: pathlib.Path) -> pathlib.Path:
    """Where the version of what is fetched so far is kept."""
    return part.with_name(f"{part.name}.etag")


def _fetch_part(url, part, *, log, read_seconds, retry_seconds) -> str | None:
    """Fetches what is missing of a file.

    Returns:
        Its MD5 by the server's word, hexadecimal; None if it names none.
    """
    progress = progress_lib.Progress(total=1)
    fruitless, reached = 0, False
    while True:
        before = _size(part)
        try:
            return _ask(url, part, progress, read_seconds=read_seconds)
        except UnreachableError as error:
            if not reached:
                raise
            reason = str(error)
        except _InterruptedError as error:
            reached, reason = True, str(error)
        progress.clear()
        fruitless = fruitless + 1 if _size(part) <= before else 0
        if fruitless >= FRUITLESS_ATTEMPTS:
            raise ValueError(
                f"{url} broke off {fruitless} times in a row ({reason}). The "
                f"{_size(part):,} bytes that came are kept: the same command "
                "continues."
            )
        log(
            f"{reason}; {_size(part):,} bytes of {_name(part)} came, asking "
            "for the rest"
        )
        time.sleep(retry_seconds * 2**fruitless)


def _name(part: pathlib.Path) -> str:
    return part.name.removeprefix(".").replace(".part", "")


def _size(path: pathlib.Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _ask(url, part, progress, *, read_seconds) -> str | None:
    """Makes one request for the rest of a file and writes what comes."""
    have = _size(part)
    tag = _tag(part)
    headers = {"Accept-Encoding": "identity"}
    if have and tag.exists():
        # The rest of the same version, or all of a new one.
        headers |= {"Range": f"bytes={have}-", "If-Range": tag.read_text()}
    try:
        with requests.get(
            url,
            headers=headers,
            stream=True,
            timeout=(CONNECT_SECONDS, read_seconds),
        ) as response:
            begin, total = _placed(url, response, part)
            if begin is None:
                return _md5(response)
            if begin == 0:
                _forget(part)
                version = response.headers.get("ETag", "")
                # A weak tag does not promise the same bytes.
                if version and not version.startswith("W/"):
                    tag.write_text(version)
            _write(response, part, begin, total, progress)
            if total is not None and _size(part) < total:
                raise _InterruptedError("the connection broke off")
            return _md5(response)
    except (requests.exceptions.SSLError, requests.URLRequired) as error:
        raise ValueError(f"{url}: {_innermost(error)}.") from error
    except requests.RequestException as error:
        reason = getattr(error.args[0] if error.args else None, "reason", None)
        if isinstance(
            error, requests.ConnectTimeout | requests.exceptions.ProxyError
        ) or isinstance(reason, urllib3.exceptions.NewConnectionError):
            raise UnreachableError(_innermost(error)) from error
        silent = "timed out" in str(error)
        raise _InterruptedError(
            f"the server was silent for {read_seconds:g} s"
            if silent
            else "the connection broke off"
        ) from error


def _forget(part: pathlib.Path) -> None:
    part.unlink(missing_ok=True)
    _tag(part).unlink(missing_ok=True)


def _placed(url, response, part) -> tuple[int | None, int | None]:
    """Returns where the answer begins and how long the file is.

    Begins with None where nothing is missing; the length may be unknown.
    """
    have = _size(part)
    status = response.status_code
    where = response.headers.get("Content-Range", "")
    if status == 200:
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdigit() else None
    if status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", where)
        if match and int(match[1]) == have:
            return have, int(match[2])
    if status == 416 and where == f"bytes */{have}":
        return None, have
    if status in (206, 416):
        _forget(part)
        raise _InterruptedError("the server answered for other bytes")
    if status == 429 or status >= 500:
        raise _InterruptedError(f"the server says {status} {response.reason}")
    raise ValueError(
        f"the server does not give {url}: {status} {response.reason}."
    )


def _write(response, part, begin: int, total: int | None, progress) -> None:
    if total is not None:
        free = shutil.disk_usage(part.parent).free
        if total - begin > free:
            raise OSError(
                errno.ENOSPC,
                f"{os.strerror(errno.ENOSPC)}, {total - begin:,} bytes are "
                f"needed and {free:,} are free",
                str(part.parent),
            )
    progress.total = total or begin
    done = begin
    with open(part, "ab" if begin else "wb") as file:
        for chunk in response.iter_content(_CHUNK_BYTES):
            file.write(chunk)
            done += len(chunk)
            progress.total = max(progress.total, done)
            of = f" of {total / 1e6:,.0f}" if total else ""
            progress.update(done, f"{_name(part)} {done / 1e6:,.0f}{of} MB")
    progress.clear()


def _md5(response) -> str | None:
    """Returns the MD5 in the header that Google's storage sends."""
    for part in response.headers.get("x-goog-hash", "").split(","):
        kind, _, value = part.strip().partition("=")
        if kind == "md5":
            with contextlib.suppress(ValueError):
                return base64.b64decode(value, validate=True).hex()
    return None


def _innermost(error: BaseException) -> str:
    """Returns what really happened, below the libraries' own wrapping."""
    while error.__context__ is not None:
        error = error.__context__
    return " ".join(str(error).split()) or type(error).__name__
