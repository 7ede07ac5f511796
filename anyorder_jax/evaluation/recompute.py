"""Recompute: the intervals and tests of comparisons that are there, from the values by seed that they hold.

    python -m anyorder_jax.evaluation.recompute experiments/*.json [--check]

Each file is a comparison.json (`comparison.compare_all`) or holds several by name. Nothing is run or measured again:
`values` stay as they are; mean, interval, differences, p and Holm's p are written anew, to six digits. --check writes
nothing and fails where a file would change.
"""

from __future__ import annotations

if __name__ == "__main__":
    from anyorder_jax import command

    command.begin("recompute")

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from anyorder_jax import command, paths, terminal
from anyorder_jax.evaluation.comparison import compare_points, pairs
from anyorder_jax.files import write_whole
from anyorder_jax.statistics import over_seeds

DIGITS = 6


def recompute(found: dict[str, Any]) -> dict[str, Any]:
    """The comparison, or the comparisons by name, with everything that follows from `values` computed again.

    Raises:
      ValueError: where there is no comparison.
    """
    if not isinstance(found, dict) or not found:
        raise ValueError(f"expected a comparison (with a 'table') or several by name, got {str(found)[:60]!r}")
    if "table" not in found:
        return {name: recompute(one) for name, one in found.items()}
    found = _entries(found)
    for one in (found, *found.get("equal", {}).values()):
        one["pairs"] = pairs(one["table"], found.get("against", {}))
    if found.get("curves"):
        for rows in found["curves"]["measures"].values():
            compare_points(rows, list(found["table"]))
    return found


def _entries(node: Any) -> Any:
    """A copy, in which every {"values", "mean", ...} is made from its values."""
    if isinstance(node, list):
        return [_entries(one) for one in node]
    if not isinstance(node, dict):
        return node
    if "values" in node and "mean" in node:
        return over_seeds(node["values"]) | {"values": node["values"]}
    return {name: _entries(one) for name, one in node.items()}


def _rounded(node: Any) -> Any:
    """To DIGITS, except what was measured."""
    if isinstance(node, dict):
        return {key: node[key] if key == "values" else _rounded(node[key]) for key in node}
    if isinstance(node, list):
        return [_rounded(one) for one in node]
    return float(f"{node:.{DIGITS}g}") if isinstance(node, float) else node


def rewrite(path: Path, check: bool = False) -> bool:
    """Whether the file changes (or, with `check`, would). Indented files stay indented.

    Raises:
      ValueError: for a file that is no comparison, with its name.
    """
    try:
        old = path.read_text(encoding="utf-8")
        found = recompute(json.loads(old))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    new = json.dumps(_rounded(found), indent=1 if "\n" in old.strip() else None, allow_nan=False) + "\n"
    if new != old and not check:
        write_whole(path, new)
    return new != old


def main() -> None:
    """Reads the command line and does what it asks."""
    terminal.accept_any_letter()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=lambda text: Path(paths.typed(text)))
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 where a file would change")
    options = parser.parse_args()
    with command.door("recompute"):
        try:
            changed = [path for path in options.files if rewrite(path, options.check)]
        except ValueError as error:
            sys.exit(f"recompute: {error}")
    says = "would change" if options.check else "rewritten"
    print("\n".join(f"{path}: {says if path in changed else 'as it was'}" for path in options.files))
    sys.exit(1 if options.check and changed else 0)


if __name__ == "__main__":
    main()
