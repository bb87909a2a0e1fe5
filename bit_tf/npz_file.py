"""Writes .npz files, and reads those that a stranger may have made.

`numpy.load` believes what a header says and allocates it. Here all headers are
read and compared with the sizes in the archive, and those with the file,
before a caller sees a shape; nothing is unpickled; and one tensor at a time is
in memory.
"""

import ast
import dataclasses
import os
import pathlib
import struct
import zipfile
import zlib
from collections.abc import Callable
from collections.abc import Iterable

import numpy as np

from bit_tf import tensors

# A header in numpy's format has 118 bytes for arrays such as ours.
_MAX_HEADER_BYTES = 10_000
# Unpacked over packed size. Weights hardly shrink; a head of zeros does.
_MAX_RATIO = 20
_CHUNK_BYTES = 1 << 22
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, struct.error)


@dataclasses.dataclass(frozen=True)
class _Member:
    info: zipfile.ZipInfo
    spec: tensors.Spec
    offset: int
    fortran_order: bool


class NpzFile:
    """An open .npz of floating-point tensors.

    Args:
        path: the file.

    Attributes:
        specs: shape and dtype by name, in the order of the file.

    Raises:
        ValueError: it is no .npz, is cut off, or one of its tensors is not
            what its header says; the text names the tensor.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)
        try:
            self._archive = zipfile.ZipFile(self.path)
        except (*_DAMAGE, NotImplementedError, UnicodeError) as error:
            raise ValueError(_why_no_archive(self.path, error)) from error
        try:
            self._members = self._read_headers()
        except BaseException:
            self.close()
            raise
        self.specs = {name: m.spec for name, m in self._members.items()}

    def __enter__(self) -> "NpzFile":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        self._archive.close()

    def read(self, name: str) -> np.ndarray:
        """Returns one tensor.

        Raises:
            ValueError: its bytes are damaged: the checksum differs.
        """
        member = self._members[name]
        spec = member.spec
        array = np.empty(spec.shape[::-1], spec.dtype, order="C")
        if not member.fortran_order:
            array = array.reshape(spec.shape)
        rest = memoryview(array.reshape(-1)).cast("B")
        try:
            with self._archive.open(member.info) as stream:
                stream.read(member.offset)
                while rest:
                    chunk = stream.read(min(len(rest), _CHUNK_BYTES))
                    if not chunk:
                        raise EOFError(f"{len(rest):,} bytes are not there")
                    rest[: len(chunk)] = chunk
                    rest = rest[len(chunk) :]
                # The end is where the checksum is compared.
                stream.read(1)
        except _DAMAGE as error:
            raise ValueError(
                f"tensor {name} cannot be read: {error}; the file is damaged, "
                "fetch it again."
            ) from error
        return array.T if member.fortran_order else array

    def _read_headers(self) -> dict[str, _Member]:
        size = self.path.stat().st_size
        members: dict[str, _Member] = {}
        total = 0
        for info in self._archive.infolist():
            name = info.filename.removesuffix(".npy")
            if name in members:
                raise ValueError(f"tensor {name} is there twice.")
            if info.flag_bits & 1 or info.compress_type not in (
                zipfile.ZIP_STORED,
                zipfile.ZIP_DEFLATED,
            ):
                raise ValueError(
                    f"tensor {name} is encrypted or packed in a way that numpy "
                    "does not write."
                )
            if info.header_offset + info.compress_size > size:
                raise ValueError(
                    f"tensor {name} is cut off: it should take "
                    f"{info.compress_size:,} bytes, the whole file has "
                    f"{size:,}. Fetch it again."
                )
            member = self._read_header(name, info)
            if info.file_size != member.offset + member.spec.nbytes:
                raise ValueError(
                    f"tensor {name} claims shape {member.spec.shape} of "
                    f"{member.spec.dtype}, {member.spec.nbytes:,} bytes, and "
                    f"{info.file_size - member.offset:,} are declared."
                )
            total += info.file_size
            members[name] = member
            if total > _MAX_RATIO * size:
                raise ValueError(
                    f"tensor {name} brings what the file would unpack to over "
                    f"{_MAX_RATIO} times its {size:,} bytes: no weights shrink "
                    "so far."
                )
        return members

    def _read_header(self, name: str, info: zipfile.ZipInfo) -> _Member:
        try:
            with self._archive.open(info) as stream:
                start = stream.read(_MAX_HEADER_BYTES)
            shape, fortran_order, dtype, offset = _parse_header(start)
        except (
            *_DAMAGE,
            # Of Python's parser, for text that is no dictionary.
            ValueError,
            SyntaxError,
            TypeError,
            MemoryError,
            RecursionError,
            # Of zipfile, for what it does not unpack.
            RuntimeError,
        ) as error:
            raise ValueError(
                f"tensor {name} has no numpy header that can be read: "
                f"{str(error)[:200]}."
            ) from error
        if dtype.kind == "O":
            raise ValueError(
                f"tensor {name} is a pickled object; unpickling could run "
                "anything and is never done."
            )
        if dtype.kind != "f" or dtype.itemsize > 8:
            raise ValueError(
                f"tensor {name} is {dtype}: allowed are float16, float32 and "
                "float64."
            )
        if any(side < 1 for side in shape):
            raise ValueError(f"tensor {name} has shape {shape}: it is empty.")
        spec = tensors.Spec(shape, dtype)
        return _Member(info, spec, offset, fortran_order)


def _parse_header(
    start: bytes,
) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Returns shape, whether Fortran's order, dtype, and where data begins.

    numpy's own reader lets a header be as long as it says.
    """
    if start[:6] != b"\x93NUMPY" or start[6:8] not in (b"\1\0", b"\2\0"):
        raise ValueError("it does not begin like one")
    begin = 10 if start[6] == 1 else 12
    end = begin + int.from_bytes(start[8:begin], "little")
    if end > len(start):
        raise ValueError(f"it would have {end:,} bytes")
    fields = ast.literal_eval(start[begin:end].decode("ascii").strip())
    if not isinstance(fields, dict) or set(fields) != {
        "descr",
        "fortran_order",
        "shape",
    }:
        raise ValueError("it has other fields")
    shape, descr = fields["shape"], fields["descr"]
    if not isinstance(descr, str):
        raise ValueError(f"its dtype is {descr}")
    if not isinstance(shape, tuple) or not all(
        type(side) is int for side in shape
    ):
        raise ValueError(f"its shape is {shape}")
    return shape, bool(fields["fortran_order"]), np.dtype(descr), end


def write(
    path: pathlib.Path,
    names: Iterable[str],
    read: Callable[[str], np.ndarray],
) -> None:
    """Writes an uncompressed .npz, one tensor in memory at a time.

    Args:
        path: file to write, whatever its suffix.
        names: of the tensors.
        read: returns the tensor of a name.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            # Sizes of 4 GiB and more have to be foreseen.
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(
                    stream, np.asarray(read(name)), allow_pickle=False
                )


_LOCAL_HEADER = struct.Struct("<4s5H3L2H")


def _why_no_archive(path: pathlib.Path, error: Exception) -> str:
    """Returns what is wrong with a file that zipfile cannot open.

    A download that was cut off lacks the directory at its end; the tensors
    before it still tell where.
    """
    size = path.stat().st_size
    position, name = 0, None
    with open(path, "rb") as file:
        while position + _LOCAL_HEADER.size <= size:
            file.seek(position)
            fields = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
            if fields[0] != b"PK\x03\x04":
                break
            packed, unpacked, name_bytes, extra_bytes = fields[7:]
            name = file.read(name_bytes).decode("utf-8", "replace")
            extra = file.read(extra_bytes)
            if packed == 0xFFFFFFFF and len(extra) >= 20:
                # Sizes of 4 GiB and more, and those that numpy foresees.
                unpacked, packed = struct.unpack_from("<2Q", extra, 4)
            position += _LOCAL_HEADER.size + name_bytes + extra_bytes + packed
    if name is None:
        return f"it cannot be read as .npz: it is another format ({error})."
    name = name.removesuffix(".npy")
    if position > size:
        return (
            f"it ends within tensor {name}, {position - size:,} bytes too "
            "early: it is incomplete, fetch it again."
        )
    return (
        f"it ends after tensor {name}, before its directory ({error}): it is "
        "incomplete or damaged, fetch it again."
    )
