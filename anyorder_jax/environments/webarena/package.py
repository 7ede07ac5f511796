"""Package: where `webarena-verified` (https://github.com/ServiceNow/webarena-verified) is installed, and its parts.

It pins pydantic and thirteen others exactly, so it lives in an environment of its own (`setup` makes one), which the
variable ANYORDER_JAX_WEBARENA names. It is run there and never imported here; of its files the tasks are read.
"""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "ANYORDER_JAX_WEBARENA"
REQUIREMENT = "webarena-verified==1.2.3"
_TASKS = Path("webarena_verified", "assets", "dataset", "webarena-verified.json")


def directory() -> Path:
    """The environment that it is installed in.

    Raises:
      RuntimeError: the variable names none, or one without the package; says what to do.
    """
    named = os.environ.get(VARIABLE, "")
    if not named or _installed(Path(named).expanduser()) is None:
        what = f"{named} has no webarena_verified" if named else "it is not set"
        raise RuntimeError(
            f"webarena: {VARIABLE} should name an environment with webarena-verified: {what}. `python -m "
            "anyorder_jax.environments.webarena.setup --output_dir=DIRECTORY` makes one (docs/web.md)."
        )
    return Path(named).expanduser()


def _installed(directory: Path) -> Path | None:
    """The folder of its environment that packages lie in; None where it is not there."""
    found = sorted(directory.glob("lib/python3*/site-packages"))
    return next((folder for folder in found if (folder / _TASKS).is_file()), None)


def tasks_file(directory: Path) -> Path:
    """The file of its tasks."""
    folder = _installed(directory)
    assert folder is not None, directory
    return folder / _TASKS


def version(directory: Path) -> str:
    """E.g. "webarena-verified 1.2.3"."""
    folder = _installed(directory)
    assert folder is not None, directory
    found = next(folder.glob("webarena_verified-*.dist-info"), None)
    number = found.name.removeprefix("webarena_verified-").removesuffix(".dist-info") if found else "of unknown version"
    return f"webarena-verified {number}"


def python(directory: Path) -> Path:
    """The interpreter that runs it.

    Raises:
      RuntimeError: there is none.
    """
    found = directory / "bin" / "python"
    if not found.exists():
        raise RuntimeError(
            f"webarena: {found} is not there, so the official scorer cannot be run. Make the environment again: "
            f"`python -m anyorder_jax.environments.webarena.setup --output_dir={directory}`."
        )
    return found
