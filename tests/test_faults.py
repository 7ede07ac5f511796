"""The faults of benchmarks/faults.py in their short form: every promise is tried with the real command."""

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import faults

pytestmark = pytest.mark.xdist_group("faults")  # one world, also when pytest runs on several processes


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return faults.World(tmp_path_factory.mktemp("faults"), is_short=True)


def can_mount(folder):
    try:
        with faults.small_disk(folder / "disk"):
            return True
    except (OSError, subprocess.SubprocessError):
        return False


# test_processes.py kills one of two and goes on with one alone
QUICK = [name for name in faults.FAULTS if name not in ("kill_one_of_two", "fewer_processes")]


@pytest.mark.parametrize("name", QUICK)
def test_the_promise_holds(world, name, tmp_path):
    if name == "full_disk" and not can_mount(tmp_path):
        pytest.skip("mounting a small disk needs root")
    print(faults.FAULTS[name](world))
