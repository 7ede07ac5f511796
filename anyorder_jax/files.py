"""Files that are whole or not there, and a lock that one process at a time holds. Needs the standard library alone."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

POLL_SECONDS = 0.2
"""Between two looks at a lock that somebody else holds."""


def _refused(path: Path, error: OSError) -> OSError:
    reason = error.strerror or error
    return OSError(error.errno, f"{path}: could not be written ({reason}). Make room or choose another directory.")


def make_directory(path: Path | str) -> None:
    """Makes a directory and its parents; one that is there, also by a link, is fine.

    Raises:
      OSError: when the disk refuses, or a file or a link to nowhere is in the way, with the path.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        (wrong,) = [at for at in (path, *path.parents) if os.path.lexists(at) and not at.is_dir()][:1] or [path]
        there = f"a link to {os.readlink(wrong)}, which is not there" if wrong.is_symlink() else "no directory"
        raise OSError(
            error.errno, f"{path}: could not be made ({wrong} is {there}). Choose another directory."
        ) from error
    except OSError as error:
        raise _refused(path, error) from error


@contextlib.contextmanager
def opened_whole(path: Path | str) -> Iterator[BinaryIO]:
    """A file to fill that appears at `path` when the block ends well: written beside it, brought to disk, renamed.

    A reader sees the old file or the new one, never a part; after an error or an interrupt nothing is left. Several
    processes may write the same path: the last one counts. A link is followed; what is no plain file (a pipe,
    /dev/stdout) is written as it is.

    Raises:
      OSError: when the disk refuses, with the path.
    """
    path, final = Path(path), Path(os.path.realpath(path))
    temporary = final.with_name(f"{final.name}.{os.urandom(4).hex()}.tmp")
    try:
        if path.exists() and not path.is_file():  # of a pipe, `final` is a name that cannot be opened
            with open(path, "wb") as file:
                yield file
            return
        final.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, final)
    except BaseException as error:  # also when the content stops coming: leave no part behind
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _refused(path, error) from error
        raise


def write_whole(path: Path | str, content: bytes | str | Iterable[bytes]) -> None:
    """Writes a file as `opened_whole` does; text is written as UTF-8, names of files with their bytes. Raises OSError
    when the disk refuses."""
    with opened_whole(path) as file:
        if isinstance(content, str | bytes):
            file.write(content.encode(errors="surrogateescape") if isinstance(content, str) else content)
        else:
            file.writelines(content)


@contextlib.contextmanager
def lock(path: Path, is_held: Callable[[str], None], *, is_directory: bool = False) -> Iterator[None]:
    """Lets one process at a time into the block. A killed one leaves no lock behind: the system takes it back.

    On a file system without flock (Lustre and NFS may be mounted so) it goes on without, and says so once: the lock
    guards against a second call, nothing else.

    Args:
      path: a file of no other use, which is there as long as the block runs, and tells who is in it.
      is_held: called whenever another process is found in it, and told which: raises to refuse, returns to wait.
      is_directory: `path` is a directory that is there already, and stays.

    Raises:
      OSError: when the file cannot be made; whatever `is_held` raises.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY if is_directory else os.O_RDWR | os.O_CREAT
    while True:
        try:
            descriptor = os.open(path, flags, 0o666)
        except OSError as error:
            raise _refused(path, error) from error
        is_ours = False
        try:
            is_ours = _is_locked_now(descriptor) and _is_at(path, descriptor)
            if is_ours:
                if not is_directory:
                    _sign(descriptor)
                yield
                return
            holder = "another process" if is_directory else _signature(descriptor)
        finally:
            if is_ours and not is_directory and _is_at(path, descriptor):
                path.unlink()  # before the lock is given back: nobody can have it on a file that is gone
            os.close(descriptor)
        is_held(holder)
        time.sleep(POLL_SECONDS)


@contextlib.contextmanager
def only_writer(name: str, directory: Path) -> Iterator[None]:
    """Lets one process at a time write into a directory of episodes, which is made; others wait and say so. What a
    killed one left half written is removed.

    Args:
      name: of the command, for the line that says who is waited for.
      directory: with a file `.lock` while somebody writes.
    """
    has_told: list[str] = []

    def wait(holder: str) -> None:
        if not has_told:
            print(f"{name}: {holder} writes into {directory}; waiting.", file=sys.stderr, flush=True)
            has_told.append(holder)

    make_directory(directory)
    with lock(directory / ".lock", wait):
        for part in (*directory.glob("*.tmp"), *directory.glob("*/*.tmp")):
            part.unlink()
        yield


def _is_locked_now(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        _say_unlocked(os.fstat(descriptor).st_dev, error.strerror)
    return True


@functools.cache
def _say_unlocked(device: int, reason: str) -> None:
    """Says that a file system has no locks, once for each of them."""
    with contextlib.suppress(OSError):
        print(
            f"This file system has no locks ({reason}): going on without; do not start the same command twice at once.",
            file=sys.stderr,
            flush=True,
        )


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the open file is the one that lies there: whoever held the lock may have removed it meanwhile."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _sign(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # a full disk: then it tells less
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)


def _signature(descriptor: int) -> str:
    return os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"


def is_mount_point(path: Path) -> bool:
    """Whether another file system (or another part of this one) is mounted there: it cannot be renamed or replaced."""
    if os.path.ismount(path):
        return True
    try:
        with open("/proc/self/mountinfo", "rb") as table:  # Linux: also directories bound from the same file system
            places = {line.split()[4].decode("unicode_escape").encode("latin-1") for line in table}
    except (OSError, IndexError):
        return False
    return os.fsencode(os.path.realpath(path)) in places
