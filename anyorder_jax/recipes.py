"""Recipes and suites by name: `--config=any_order:smoke`, `--suite=orders`, from a checkout or as they are installed.

A file is taken as it is typed. Else its name is looked up among those of `configs/`, which `pip install` puts into the
package (setup.py), so that `configs/any_order.py`, `any_order.py` and `any_order` mean the same everywhere.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from anyorder_jax import paths


def folder() -> Path:
    """`configs/` as installed with the package, or that of the checkout."""
    package = Path(__file__).parent
    return package / "configs" if (package / "configs").is_dir() else package.parent / "configs"


def recipes() -> dict[str, Path]:
    """Name -> file of every recipe that comes with the package."""
    return _files(folder())


def suites() -> dict[str, Path]:
    """Name -> file of every suite that comes with the package."""
    return _files(folder() / "ablations")


def _files(directory: Path) -> dict[str, Path]:
    return {file.stem: file for file in sorted(directory.glob("*.py")) if not file.stem.startswith("_")}


def split(text: str) -> tuple[str, str]:
    """(file or name, what follows its colon: the variant of a recipe, the size of a suite, or "")."""
    path, _, variant = text.rpartition(":")
    return (path, variant) if path and "/" not in variant else (text, "")


def find_recipe(text: str, suite: str = "") -> str:
    """The file of a recipe as `--config` names it, absolute; what follows a colon stays.

    Args:
      text: a file or a name, with a variant behind a colon or not.
      suite: the file of a suite that names it: a relative path is looked for `beside` that first.

    Raises:
      ValueError: when there is neither such a file nor such a recipe.
    """
    path, variant = split(text)
    return _find("--config", path, recipes(), suite) + (f":{variant}" if variant else "")


def find_suite(path: str) -> str:
    """The file of a suite as `--suite` names it (without the size), absolute.

    Raises:
      ValueError: as `find_recipe`.
    """
    return _find("--suite", path, suites())


def beside(path: str, file: str) -> list[str]:
    """Where a relative path in a suite's file may lie: in the file's folder, and in those above it, nearest first."""
    if not (path and file) or path.startswith(("~", "/")) or paths.is_remote(path):
        return []
    return [paths.absolute(parent / path) for parent in Path(file).parents]


def _find(flag: str, path: str, known: Mapping[str, Path], file: str = "") -> str:
    for candidate in (*beside(path, file), paths.absolute(path)):
        if path and os.path.isfile(candidate):
            return candidate
    name = Path(path).name.removesuffix(".py")
    folders = ("", ".", "configs", "ablations", "configs/ablations")
    if name in known and os.path.dirname(path) in folders:
        return str(known[name])
    near = difflib.get_close_matches(name, known)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise ValueError(f"{flag}: {path} is no file, and none of the names {', '.join(known)}.{hint}")


def in_arguments(argv: Sequence[str]) -> list[str]:
    """A command line whose `--config` names a file, for ml_collections, which opens it.

    Raises:
      ValueError: as `find_recipe`.
    """
    found = list(argv)
    for i, argument in enumerate(found):
        if given := re.match(r"(--?config=)(.+)", argument):
            found[i] = given[1] + _for_ml_collections(given[2])
        elif re.fullmatch(r"--?config", argument) and i + 1 < len(found):
            found[i + 1] = _for_ml_collections(found[i + 1])
    return found


def _for_ml_collections(text: str) -> str:
    """The file, whose path it cuts at the first colon: short, so that a folder above with a colon does no harm."""
    path, variant = split(find_recipe(text))
    return (os.path.relpath(path) if ":" in path else path) + (f":{variant}" if variant else "")
