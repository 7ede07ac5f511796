"""Worlds of text behind Java: whether they can be played here, and a process that plays episodes of one.

python tests/java_worlds.py ENVIRONMENT TASK...      writes the line of each episode, as in a shard, in this order
"""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from anyorder_jax.data import sources
from anyorder_jax.environments import registry
from anyorder_jax.environments.play import play_text_episode

ROOT = Path(__file__).parents[1]


def needed(package: str, extra: str) -> pytest.MarkDecorator:
    """Leaves a test out, and says by name what is missing."""
    missing = []
    if importlib.util.find_spec(package) is None:
        missing.append(f"the package {package!r} (extra `{extra}`)")
    if shutil.which("java") is None:
        missing.append("java (Debian: default-jre-headless)")
    return pytest.mark.skipif(bool(missing), reason=f"needs {' and '.join(missing)}")


def lines_of(environment: str, tasks: list[str]) -> dict[str, bytes]:
    """Task -> line, played by a process of its own in this order."""
    command = [sys.executable, str(ROOT / "tests" / "java_worlds.py"), environment, *tasks]
    done = subprocess.run(command, cwd=ROOT, env=run_variables(), capture_output=True, check=True)
    return dict(zip(tasks, done.stdout.splitlines(), strict=True))


def run_variables() -> dict[str, str]:
    """The environment of a command that is started by a test."""
    from anyorder_jax.environments.pool import worker_variables

    return worker_variables() | {"JAX_PLATFORMS": "cpu"}


if __name__ == "__main__":
    session = registry.make_session(sys.argv[1])
    for task in sys.argv[2:]:
        sys.stdout.buffer.write(sources.encode(play_text_episode(session, task)) + b"\n")
