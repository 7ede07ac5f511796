"""Moving the bytes of tensors from file to file.

Seconds for 2 GB on ext4 (Linux 6.18), both files in the page cache, best of six and more in turn: `cp` 0.59; written
from the mapped source in one thread, 1 MiB at a time to multiples of it, 0.58 (0.7 without telling the kernel what
comes, 1.2 where the offsets differ by no multiple of 64); `copy_file_range` to multiples of 32 KiB 0.80.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
import threading
from pathlib import Path

CHUNK_BYTES = 8 * 2**20
# Written at a time, to multiples of it: the more a write covers, the larger are the page cache's pieces and the less
# threads wait for the lock that the kernel puts on the file.
_WRITE_BYTES = 4 * 2**20
_COPY_BYTES = 2**20  # the same for what is copied from file to file
_MADV_POPULATE_READ = 22 if sys.platform == "linux" else None  # Linux 5.14; the `mmap` module has no name for it


class Files:
    """Open files by path, so that 60 000 ranges of 40 files open 40 times. For any thread; a context manager."""

    def __init__(self) -> None:
        self._descriptors: dict[Path, int] = {}
        self._maps: dict[Path, mmap.mmap] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        for mapped in self._maps.values():
            mapped.close()
        self._descriptors.clear()
        self._maps.clear()

    def reader(self, path: Path) -> int:
        """A descriptor to read `path` from."""
        with self._lock:
            if path not in self._descriptors:
                self._descriptors[path] = os.open(path, os.O_RDONLY)
            return self._descriptors[path]

    def mapped(self, path: Path) -> mmap.mmap:
        """The bytes of `path`, to be read."""
        descriptor = self.reader(path)
        with self._lock:
            if path not in self._maps:
                self._maps[path] = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
            return self._maps[path]


def write_all(descriptor: int, data: memoryview | bytes, offset: int) -> None:
    """Writes all of `data` at `offset`, up to the next multiple of `_WRITE_BYTES` at a time; a short write is
    continued."""
    view = memoryview(data).cast("B")
    while view:
        written = os.pwrite(descriptor, view[: _WRITE_BYTES - offset % _WRITE_BYTES], offset)
        view, offset = view[written:], offset + written


def read_all(descriptor: int, view: memoryview, offset: int) -> None:
    """Fills `view` from `offset`; a file that ends before is an error."""
    while view:
        count = os.preadv(descriptor, [view], offset)
        if count == 0:
            raise _ended(offset, len(view))
        view, offset = view[count:], offset + count


def copy_range(source: mmap.mmap, source_offset: int, target: int, target_offset: int, num_bytes: int) -> None:
    """Copies a byte range of a mapped file to another file. Nothing passes through memory of ours.

    Args:
      source, source_offset: a mapped file, and the first byte.
      target, target_offset: an open file's descriptor, and the first byte.
      num_bytes: that are copied.

    Raises:
      ValueError: when the source ends before. OSError: what the disk says.
    """
    end = source_offset + num_bytes
    if end > source.size():  # what the file has now, not when it was mapped
        raise _ended(source.size(), end - source.size())
    page_start = source_offset - source_offset % mmap.PAGESIZE
    _advise(source, _MADV_POPULATE_READ, page_start, end - page_start)
    with memoryview(source) as view:
        while source_offset < end:
            count = min(_COPY_BYTES - target_offset % _COPY_BYTES, end - source_offset)
            with view[source_offset : source_offset + count] as part:
                written = os.pwrite(target, part, target_offset)
            source_offset, target_offset = source_offset + written, target_offset + written
    _advise(source, mmap.MADV_DONTNEED, page_start, end - page_start)


def _advise(source: mmap.mmap, advice: int | None, start: int, num_bytes: int) -> None:
    """Tells the kernel what comes (thousands of page faults less) or is done with (it counts as ours until then)."""
    if advice is not None:
        with contextlib.suppress(OSError):  # an older kernel: it only takes longer
            source.madvise(advice, start, num_bytes)


def _ended(offset: int, num_left: int) -> ValueError:
    return ValueError(f"the file ended at byte {offset}, {num_left} bytes before the tensor: it was truncated.")
