"""What a result file says of how it was made."""

from __future__ import annotations

import datetime
import platform
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np


def about(name: str) -> dict[str, str]:
    """{"command", "commit", "date", "machine", "versions"} of this process.

    Args:
      name: of the benchmark, for the command.
    """
    given = [argument for argument in sys.argv[1:] if not argument.startswith(("--out=", "--output="))]
    asked = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(asked, capture_output=True, text=True, encoding="utf-8", check=False).stdout.strip()
    return {
        "command": " ".join(["python", f"benchmarks/{name}.py", *given]), "commit": commit or "unknown",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{jax.devices()[0].device_kind} ({platform.processor() or platform.machine()})",
        "versions": f"Python {platform.python_version()}, jax {jax.__version__}, numpy {np.__version__}",
    }  # fmt: skip
