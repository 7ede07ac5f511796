"""Files are whole or not there; a lock lets one in, outlives nobody, and is done without where there is none."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from anyorder_jax import files
from conversion.arrays import write_arrays
from conversion.staging import refuse_occupied, staged
from small_run import ROOT


def test_a_file_is_replaced_whole_or_stays_as_it_was(tmp_path):
    path = tmp_path / "folder" / "report.json"
    files.write_whole(path, "± first\n")
    assert path.read_text(encoding="utf-8") == "± first\n"

    def stopped():
        yield b"second"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_whole(path, stopped())
    assert path.read_text(encoding="utf-8") == "± first\n"
    files.write_whole(path, iter([b"sec", b"ond"]))
    assert path.read_bytes() == b"second"
    assert os.listdir(path.parent) == ["report.json"]


def test_two_writers_of_one_path_leave_one_of_both(tmp_path):
    """Each has a temporary file of its own."""
    path = tmp_path / "comparison.json"
    with files.opened_whole(path) as one:
        one.write(b"one")
        with files.opened_whole(path) as other:
            other.write(b"other")
        assert path.read_bytes() == b"other"
    assert path.read_bytes() == b"one" and os.listdir(tmp_path) == ["comparison.json"]


def test_a_link_is_written_through_and_a_device_is_not_replaced(tmp_path):
    (tmp_path / "disk").mkdir()
    link = tmp_path / "found.npz"
    link.symlink_to(tmp_path / "disk" / "found.npz")
    write_arrays(link, {"a": np.arange(3)})
    assert link.is_symlink() and np.load(tmp_path / "disk" / "found.npz")["a"].tolist() == [0, 1, 2]
    os.mkfifo(tmp_path / "pipe")
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()))
    read: list[bytes] = []
    reader.start()
    files.write_whole(tmp_path / "pipe", "through")
    reader.join(10)
    assert read == [b"through"] and not (tmp_path / "pipe").is_file()


def test_what_is_in_a_directorys_way_is_named(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OSError, match=r"file/run: could not be made \(.*/file is no directory\)"):
        files.make_directory(tmp_path / "file" / "run")
    with pytest.raises(OSError, match=r"link/run: could not be made \(.*/link is a link to .*nowhere, which is not"):
        files.make_directory(tmp_path / "link" / "run")
    (tmp_path / "nowhere").mkdir()
    files.make_directory(tmp_path / "link" / "run")
    assert (tmp_path / "nowhere" / "run").is_dir()


def refuse(holder):
    raise ValueError(holder)


HOLD = """
import sys, time
from pathlib import Path
from anyorder_jax import files
with files.lock(Path(sys.argv[1]), print):
    print("inside", flush=True)
    time.sleep(60)
"""


def test_a_lock_names_who_has_it_and_dies_with_him(tmp_path):
    path = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, path], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "inside\n"
    with pytest.raises(ValueError, match=rf"process {holder.pid} on \S+"), files.lock(path, refuse):
        raise AssertionError("two are inside")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert path.exists()  # a file, not a lock
    with files.lock(path, refuse):
        pass
    assert os.listdir(tmp_path) == []


def test_who_waits_comes_in_when_the_first_leaves(tmp_path):
    """Also though the first removes the file that the second has opened."""
    path, order = tmp_path / "lock", []
    waits, entered = threading.Event(), threading.Event()

    def second():
        with files.lock(path, lambda holder: waits.set()):
            order.append("second")
            entered.set()

    with files.lock(path, refuse):
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(10)
        order.append("first")
    assert entered.wait(10)
    thread.join()
    assert order == ["first", "second"] and os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK], ids=errno.errorcode.get)
def test_without_flock_it_goes_on_and_says_so_once(number, tmp_path, monkeypatch, capsys):
    def no_flock(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_flock)
    files._say_unlocked.cache_clear()
    for name in ("a", "b"):
        with files.lock(tmp_path / name, refuse):
            pass
    (tmp_path / "directory").mkdir()
    with files.lock(tmp_path / "directory", refuse, is_directory=True):
        pass
    assert os.listdir(tmp_path) == ["directory"]
    assert capsys.readouterr().err.count("This file system has no locks") == 1


def test_a_converted_directory_goes_where_a_link_points(tmp_path):
    (tmp_path / "disk" / "real").mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "real")
    with staged(tmp_path / "out") as partial:
        assert partial.parent == tmp_path / "disk"  # one rename, on one file system
        (partial / "config.json").touch()
    assert (tmp_path / "out").is_symlink() and os.listdir(tmp_path / "disk" / "real") == ["config.json"]
    with pytest.raises(ValueError, match="already holds something"):
        refuse_occupied(tmp_path / "out")
    (tmp_path / "lost").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"lost: is a link to .*nowhere, which is not there"):
        refuse_occupied(tmp_path / "lost")


def test_a_mount_point_is_refused_before_the_first_byte(tmp_path):
    assert files.is_mount_point(Path("/proc")) and not files.is_mount_point(tmp_path)
    here = tmp_path / "mounted here"
    here.mkdir()
    code = "from conversion.staging import Path, refuse_occupied; refuse_occupied(Path('mounted here'))"
    script = f"mount --bind '{here}' '{here}' && exec '{sys.executable}' -c \"{code}\""
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip("mounting needs root")
    assert "mounted here: is a mount point" in done.stderr and done.returncode == 1
