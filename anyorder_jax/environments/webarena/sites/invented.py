"""Invented: names and sentences of ours that fill the stores; the same for the same place, whatever else changes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

_OPENINGS = (
    "A short note on",
    "Thoughts about",
    "First steps with",
    "What I learned from",
    "A question about",
    "Photos of",
    "Three ideas for",
    "Looking back at",
    "Nobody warned me about",
    "An honest look at",
)
_THINGS = (
    "the old harbour",
    "my neighbour's garden",
    "slow mornings",
    "a broken kettle",
    "the last train home",
    "paper maps",
    "winter cycling",
    "the corner bakery",
    "second-hand lamps",
    "a very long queue",
    "quiet libraries",
    "the town clock",
    "learning to whistle",
    "sourdough",
    "night buses",
)
_REMARKS = (
    "I had not thought of it that way.",
    "Same here, and I would do it again.",
    "Where was this taken?",
    "That made my day.",
    "Could you say a little more?",
    "It took me three tries.",
    "Well put.",
)
_NAMES = (
    "amber_fox",
    "quietharbor",
    "mira_lind",
    "tobias77",
    "paperkite",
    "northlane",
    "sagewillow",
    "oldbicycle",
    "lanternfish",
    "copperpot",
    "juniper_j",
    "rowanberry",
)


def number(*place: object) -> int:
    """A large number that stands for a place."""
    return int.from_bytes(hashlib.blake2b(repr(place).encode(), digest_size=6).digest(), "big")


def pick(options: Sequence[str], *place: object) -> str:
    return options[number(*place) % len(options)]


def title(*place: object) -> str:
    return f"{pick(_OPENINGS, *place, 'opening')} {pick(_THINGS, *place, 'thing')}"


def remark(*place: object) -> str:
    return pick(_REMARKS, *place)


def name(*place: object) -> str:
    return pick(_NAMES, *place)


def slug(text: str) -> str:
    """As it stands in addresses."""
    return "-".join("".join(letter if letter.isalnum() else " " for letter in text.lower()).split())
