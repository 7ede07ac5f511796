"""Lines: those of a shard, plain or Zstandard, and the digest of its bytes, taken while they are read."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

CHUNK_BYTES = 2**18


class _Tap(io.RawIOBase):
    """A stream whose bytes go into a digest as they pass."""

    def __init__(self, stream: Any, digest: Any) -> None:
        self._stream, self._digest = stream, digest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._stream.read(len(buffer))
        self._digest.update(content)
        buffer[: len(content)] = content
        return len(content)


class Lines:
    """Iterates over the lines of an open shard, once."""

    def __init__(self, stream: BinaryIO, beneath: BinaryIO, digest: Any) -> None:
        """`stream` gives lines; `beneath` is what passes the digest."""
        self._stream, self._beneath, self._digest = stream, beneath, digest

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._stream)

    def sha256(self) -> str:
        """The SHA-256 of the whole shard, in hex: what nobody asked for is read to the end."""
        for stream in (self._stream, self._beneath):
            while stream.read(CHUNK_BYTES):
                pass
        return self._digest.hexdigest()


@contextlib.contextmanager
def open_lines(path: Path, is_packed_digest: bool = False) -> Iterator[Lines]:
    """Opens a shard; a name that ends in .zst is unpacked on the way.

    Args:
      path: the file, on a disk or in a bucket.
      is_packed_digest: of a .zst file, whether `sha256` is that of the file itself and not of the lines in it.

    Raises:
      ValueError: inside the block too, when the file is no Zstandard file.
    """
    digest = hashlib.sha256()
    if path.suffix != ".zst":
        with path.open("rb") as file:
            stream = io.BufferedReader(_Tap(file, digest), CHUNK_BYTES)
            yield Lines(stream, stream, digest)
        return
    import zstandard  # only those who compress their shards pay for the import

    try:
        with path.open("rb") as file:
            source: Any = io.BufferedReader(_Tap(file, digest), CHUNK_BYTES) if is_packed_digest else file
            unpacked = zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True)
            raw: Any = unpacked if is_packed_digest else _Tap(unpacked, digest)
            stream = io.BufferedReader(raw, CHUNK_BYTES)
            yield Lines(stream, source if is_packed_digest else stream, digest)
    except zstandard.ZstdError as error:
        raise ValueError(f"{path}: broken Zstandard file ({error}). Compress it again or collect again.") from error
