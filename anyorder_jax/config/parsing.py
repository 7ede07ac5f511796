"""Parsing: settings that are written as text: mixtures, sources, a number by role."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from anyorder_jax import paths
from anyorder_jax.types import ROLES


def require(condition: bool, where: str, expected: str, value: object) -> None:
    """Raises ValueError, unless the condition holds, naming the key, what was expected and what came.

    Args:
      condition: what must hold.
      where: the key, without `config.`.
      expected: what is allowed, in words.
      value: what came.
    """
    if not condition:
        raise ValueError(f"config.{where}: expected {expected}, got {value!r}.")


def absolute_sources(text: str) -> str:
    """`data.sources` with absolute folders; URLs as they are."""
    if not text:
        return text
    return ",".join(f"{paths.absolute(folder)}:{weight!r}" for folder, weight in parse_sources(text).items())


def parse_mixture(text: str, allowed: tuple[str, ...], where: str) -> dict[str, float]:
    """Reads a weighted mixture: `"any_order"` or `"any_order:0.5,causal:0.5"` -> {name: weight}, weights sum to 1.

    Raises:
      ValueError: for an unknown or doubled name, or a weight that is not positive.
    """
    mixture: dict[str, float] = {}
    for part in text.split(","):
        name, _, weight_text = part.strip().partition(":")
        if name not in allowed:
            near = difflib.get_close_matches(name, allowed)
            hint = f" Did you mean {near}?" if near else ""
            raise ValueError(f"config.{where}: unknown name {name!r} in {text!r}; known: {', '.join(allowed)}.{hint}")
        require(name not in mixture, where, "each name once", text)
        try:
            weight = float(weight_text) if weight_text else 1.0
        except ValueError:
            raise ValueError(f"config.{where}: the weight in {part!r} is not a number.") from None
        require(0 < weight < float("inf"), where, "weights > 0", text)
        mixture[name] = weight
    total = sum(mixture.values())
    return {name: weight / total for name, weight in mixture.items()}


def parse_sources(text: str) -> dict[str, float]:
    """Reads `data.sources`: `"data/babyai:0.3,data/mine:0.7"` -> {folder: weight}, as written.

    What follows a folder's last colon is its weight where it is a number; without one it is 1. A comma is no part of a
    folder's name.

    Raises:
      ValueError: for an empty or doubled folder, or a weight that is not positive.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        folder, colon, number = part.strip().rpartition(":")
        try:
            weight = float(number) if colon else None
        except ValueError:
            weight = None  # a colon of the folder's own: gs://bucket/logs
        if weight is None:
            folder, weight = part.strip(), 1.0
        require(bool(folder) and folder not in weights, "data.sources", "folders with weights, each once", text)
        require(0 < weight < float("inf"), "data.sources", "weights > 0", text)
        weights[folder] = weight
    return weights


def parse_roles(text: str, where: str, default: Mapping[str, float]) -> dict[str, float]:
    """Reads a number by role: `"observation:1,thought:0.3"` -> {role: number} of every role.

    Args:
      text: pairs, with commas between them; "other" stands for the roles that the text does not name; empty: `default`.
      where: the key, for errors.
      default: of each role that the text does not name, where it has no "other".

    Raises:
      ValueError: for an unknown or doubled role, or a number below 0.
    """
    found: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = part.partition(":")
        if name not in (*ROLES, "other"):
            near = difflib.get_close_matches(name, ROLES)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"config.{where}: unknown role {name!r} in {text!r}; known: {', '.join(ROLES)}.{hint}")
        require(name not in found, where, "each role once", text)
        try:
            found[name] = float(number)
        except ValueError:
            raise ValueError(f"config.{where}: expected ROLE:NUMBER, got {part!r}.") from None
        require(0 <= found[name] < float("inf"), where, "numbers >= 0", text)
    others = dict.fromkeys(ROLES, found["other"]) if "other" in found else dict(default)
    return others | {role: number for role, number in found.items() if role != "other"}
