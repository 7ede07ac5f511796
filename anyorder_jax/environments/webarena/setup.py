"""Setup: makes the environment that webarena-verified lives in, apart from this one, for its pins are exact.

python -m anyorder_jax.environments.webarena.setup --output_dir=~/webarena
export ANYORDER_JAX_WEBARENA=~/webarena
"""

from __future__ import annotations

import argparse
import subprocess
import venv
from pathlib import Path

from anyorder_jax import paths, terminal
from anyorder_jax.environments.webarena import package


def make(directory: Path) -> None:
    """Makes the environment and installs the package, by pip.

    Raises:
      OSError: when the disk refuses.
      RuntimeError: pip ends with an error; says which.
    """
    venv.create(directory, with_pip=True, symlinks=True)
    command = [str(directory / "bin" / "python"), "-m", "pip", "install", "--quiet", package.REQUIREMENT]
    done = subprocess.run(command, stderr=subprocess.PIPE, encoding="utf-8", errors="replace")
    if done.returncode:
        raise RuntimeError(f"`{' '.join(command)}` ended with {done.returncode}: {done.stderr[-800:]}")


def main() -> None:
    """Makes what the command line asks for."""
    terminal.accept_any_letter()
    parser = argparse.ArgumentParser(
        description=f"Installs {package.REQUIREMENT} into an environment of its own.", allow_abbrev=False
    )
    parser.add_argument("--output_dir", type=paths.typed, required=True, help="becomes the environment")
    flags = parser.parse_args()
    try:
        make(Path(flags.output_dir))
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"error: {error}") from error
    print(f"Next: export {package.VARIABLE}={paths.shown(flags.output_dir)}")


if __name__ == "__main__":
    main()
