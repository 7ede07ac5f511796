"""A directory that appears whole or not at all: written beside its final place, renamed at the end."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from anyorder_jax import files

_MARKER = ".conversion-in-progress"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def refuse_occupied(output: Path) -> None:
    """Raises ValueError when `output` already holds something (an empty directory, or a link to one, is fine), or when
    no directory can be put in its place: it is a mount point, or a link to nowhere."""
    if output.is_symlink() and not output.exists():
        raise ValueError(f"{output}: is a link to {os.readlink(output)}, which is not there. Name a new directory.")
    if not output.exists():
        return
    if not output.is_dir() or any(output.iterdir()):
        raise ValueError(f"{output}: already holds something; nothing is overwritten. Name a new directory.")
    if files.is_mount_point(output):
        raise ValueError(f"{output}: is a mount point, which no finished directory can replace. Name one inside it.")


def refuse_full(output: Path, num_bytes: int) -> None:
    """Raises ValueError when the disk of `output` has not room for so many bytes."""
    parent = output.absolute().parent
    while not parent.exists():
        parent = parent.parent
    free = shutil.disk_usage(parent).free
    if num_bytes > free:
        raise ValueError(
            f"{output}: {num_bytes:,} bytes are needed and {free:,} are free. Make room, or name another disk."
        )


@contextlib.contextmanager
def _claimed(partial: Path) -> Iterator[None]:
    """Makes the partial directory ours (locked); what a killed call has left there is removed."""

    def refuse(_: str = "") -> None:
        raise ValueError(f"{partial}: another conversion is writing there. Wait for it, or name another directory.")

    files.make_directory(partial)
    with files.lock(partial, refuse, is_directory=True):
        left = [path for path in partial.iterdir() if path.name != _MARKER]
        if left and not (partial / _MARKER).exists():
            raise ValueError(f"{partial}: holds {left[0].name}, which no conversion has left. Move it away.")
        (partial / _MARKER).touch()
        _empty(partial)
        yield


def _empty(partial: Path) -> None:
    """Removes all but the marker, which stays until the end: what a failed removal leaves can be told as ours."""
    for path in partial.iterdir():
        if path.name != _MARKER:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _remove(partial: Path) -> None:
    for _ in range(10):  # a library's thread may still be writing its last file
        with contextlib.suppress(OSError):
            _empty(partial)
            break
        time.sleep(0.2)
    with contextlib.suppress(OSError):  # the error that brought us here matters more; the next call cleans up
        _empty(partial)
        (partial / _MARKER).unlink(missing_ok=True)
        partial.rmdir()


@contextlib.contextmanager
def staged(output: Path) -> Iterator[Path]:
    """Yields `<output>.partial` to write into, and renames it to `output` when the block ends well.

    An error or an interrupt removes it. After a kill it stays behind, and the next call with the same output
    removes it and starts clean. Two calls with the same output: the second is refused.

    A link is followed: the directory that it names is written.

    Raises:
      ValueError: when the output holds something or cannot be replaced, or another call is writing it.
      OSError: when the disk is full.
    """
    refuse_occupied(output)
    final = Path(os.path.realpath(output))  # a rename would replace the link, and "." has no name
    partial = final.with_name(final.name + ".partial")
    with _claimed(partial):
        try:
            yield partial
            (partial / _MARKER).unlink()
            os.rename(partial, final)  # replaces an empty directory; fails if somebody has filled it meanwhile
        except BaseException as error:
            _remove(partial)
            if isinstance(error, OSError) and error.errno in _FULL:
                raise OSError(
                    f"{output}: the disk is full ({error.strerror}). Nothing is left behind; make room or change disks."
                ) from None
            raise
