"""Pages in a browser: whether they can be opened here, and a process that plays episodes of MiniWoB++.

python tests/web_pages.py ENVIRONMENT TASK...      writes the line of each episode, as in a shard, in this order
"""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from anyorder_jax.data import sources
from anyorder_jax.environments import registry
from anyorder_jax.environments.play import play_text_episode
from anyorder_jax.environments.web import chromium
from java_worlds import run_variables

ROOT = Path(__file__).parents[1]


def missing(package: str = "") -> str:
    """What is not here of the browser, and of a package with pages."""
    found = []
    if package and importlib.util.find_spec(package) is None:
        found.append(f"the package {package!r} (extra `web`)")
    try:
        chromium.find("a test")
    except RuntimeError:
        found.append("Chromium (Debian: chromium)")
    return f"needs {' and '.join(found)}" if found else ""


needs_browser = pytest.mark.skipif(bool(missing()), reason=missing())
needs_miniwob = pytest.mark.skipif(bool(missing("miniwob")), reason=missing("miniwob"))


def lines_of(environment: str, tasks: list[str]) -> dict[str, bytes]:
    """Task -> line, played by a process of its own in this order."""
    command = [sys.executable, __file__, environment, *tasks]
    done = subprocess.run(command, cwd=ROOT, env=run_variables(), capture_output=True, check=True)
    return dict(zip(tasks, done.stdout.splitlines(), strict=True))


if __name__ == "__main__":
    session = registry.make_session(sys.argv[1])
    for task in sys.argv[2:]:
        sys.stdout.buffer.write(sources.encode(play_text_episode(session, task)) + b"\n")
