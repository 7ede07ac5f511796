"""Moving the bytes of tensors from file to file: inside the kernel where it can, in small chunks where it cannot."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

CHUNK_BYTES = 8 * 2**20
# A larger write makes the kernel look for larger pieces of memory, which a virtual machine may first have to get from
# its host: 0.2 to 2.1 core-seconds per GB where pieces of 256 KiB, as `cp` writes them, take 0.24.
_WRITE_BYTES = 256 * 2**10
_KERNEL_BYTES = 64 * 2**20  # a call: long enough to cost nothing, short enough for a progress bar
# other file systems, old kernels, sandboxes: all of them only mean "not this way"
_NOT_THIS_WAY = {errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.EBADF}

Progress = Callable[[int], object]


class Files:
    """Open descriptors by path, so that 60 000 ranges of 40 files open 40 times. A context manager."""

    def __init__(self) -> None:
        self._descriptors: dict[Path, int] = {}

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()

    def reader(self, path: Path) -> int:
        """A descriptor to read `path` from."""
        if path not in self._descriptors:
            self._descriptors[path] = os.open(path, os.O_RDONLY)
        return self._descriptors[path]


def write_all(descriptor: int, data: memoryview | bytes, offset: int) -> None:
    """Writes all of `data` at `offset`, `_WRITE_BYTES` at a time; a short write is continued."""
    view = memoryview(data).cast("B")
    while view:
        written = os.pwrite(descriptor, view[:_WRITE_BYTES], offset)
        view, offset = view[written:], offset + written


def read_all(descriptor: int, view: memoryview, offset: int) -> None:
    """Fills `view` from `offset`; a file that ends before is an error."""
    while view:
        count = os.preadv(descriptor, [view], offset)
        if count == 0:
            raise ValueError(f"the file ended at byte {offset}, {len(view)} bytes before the tensor: it was truncated.")
        view, offset = view[count:], offset + count


def copy_through_memory(
    source: int, source_offset: int, target: int, target_offset: int, num_bytes: int, progress: Progress
) -> None:
    """Copies a byte range through a buffer of 8 MiB."""
    buffer = memoryview(bytearray(min(CHUNK_BYTES, num_bytes)))
    done = 0
    while done < num_bytes:
        part = buffer[: min(CHUNK_BYTES, num_bytes - done)]
        read_all(source, part, source_offset + done)
        write_all(target, part, target_offset + done)
        done += len(part)
        progress(len(part))


def copy_range(
    source: int, source_offset: int, target: int, target_offset: int, num_bytes: int, progress: Progress
) -> None:
    """Copies a byte range between files with `copy_file_range`, so that no byte enters this process.

    File systems that refuse it (two different ones, some network mounts) get `copy_through_memory`.
    """
    done = 0
    while done < num_bytes and hasattr(os, "copy_file_range"):
        count = min(_KERNEL_BYTES, num_bytes - done)
        try:
            copied = os.copy_file_range(source, target, count, source_offset + done, target_offset + done)
        except OSError as error:
            if error.errno not in _NOT_THIS_WAY:
                raise
            break
        if copied == 0:  # the end of the file, or a file system that does not mean it: reading will tell
            break
        done += copied
        progress(copied)
    if done < num_bytes:
        copy_through_memory(source, source_offset + done, target, target_offset + done, num_bytes - done, progress)
