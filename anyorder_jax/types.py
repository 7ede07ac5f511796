"""The nouns that travel between rooms: Trajectory, Unit, Slot, Tokenised, Hidden, Batch.

One alphabet of dimensions, in all names of arrays: B rows, L positions, U units, D width, H heads, K kv-heads, C head
width, E experts, F expert width, V vocabulary, T = B*L tokens, R routed slots, N stacked layers, G granularities.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

GRID_LEVELS = ("unit", "cell", "attribute", "token")
"""The nested spans of a grid; the order is the first axis of `Tokenised.slots_GL`."""

TEXT_LEVELS = ("unit", "line", "word", "token")
"""Those of running text. An argument of a tool call counts as a line."""

TEXT_NAMES = {"call": "unit", "argument": "line"}
"""Other names for spans of running text, for calls of tools: each call is a unit, each of its arguments a line."""

GRANULARITIES = tuple(dict.fromkeys((*GRID_LEVELS, *TEXT_LEVELS, *TEXT_NAMES, "node")))
"""Every name of a span that may be hidden as a whole; a renderer offers four of them, `unit` and `token` always."""


def offered_spans(levels: Sequence[str]) -> tuple[str, ...]:
    """The names of spans that a renderer with these levels offers: they, and of running text the other names too."""
    return (*levels, *(TEXT_NAMES if tuple(levels) == TEXT_LEVELS else ()))


OCCLUDED = "occluded"
"""Key of `Unit.data`: numbers of the cells (`Slot.cell`) that nobody sees. Tokenised, they are mask tokens."""


class Kind(enum.IntEnum):
    """What a unit is. The values are stored in arrays, the lower-case names in files."""

    GOAL = 0
    OBSERVATION = 1
    THOUGHT = 2
    ACTION = 3
    TOOL = 4
    USER = 5
    REWARD = 6
    SYSTEM = 7  # instructions and tool schemas: context, no target unless a recipe says so


ROLES = tuple(kind.name.lower() for kind in Kind)
"""The names of the kinds, by their number, as files, flags and metrics write them."""


DECISION = (Kind.THOUGHT, Kind.ACTION)
EVIDENCE = (Kind.OBSERVATION, Kind.TOOL, Kind.USER)
PURPOSE = (Kind.GOAL,)
"""Groups of kinds, as orders ask them: what the agent writes, what it gets to see, what it is for."""


class Field(enum.IntEnum):
    """What a single token says. FRAME is never hidden; FILLER is hidden with its slot but never a target. END is an
    end token after a unit's first one: a target whose weight is a setting (`loss.end_weight`)."""

    FRAME = 0
    TEXT = 1
    OBJECT = 2
    COLOR = 3
    STATE = 4
    CELL = 5  # object, color and state in one word (the compact profile)
    DIRECTION = 6
    ACTION = 7
    FILLER = 8
    END = 9


@dataclass(frozen=True)
class Unit:
    """One goal, observation, thought, action, tool result, user turn or reward.

    `text` or structured `data` holds the content. `is_expert` is False for an injected wrong action: it is seen,
    never a target. `branches` are alternative actions and what they led to (early experience).
    """

    kind: Kind
    step: int
    text: str | None = None
    data: Mapping[str, Any] | None = None
    is_expert: bool = True
    branches: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Trajectory:
    """goal, observation_0, action_0, observation_1, ... as recorded; serialising it to text is the pipeline's job.

    `outcome`: success (bool), return (float), num_steps (int). `source`: environment, seed, expert, version.
    """

    id: str
    units: tuple[Unit, ...]
    outcome: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)


class Slot(NamedTuple):
    """One word of a unit's text form. `cell` and `attribute` number the nested slots within the unit, from 0."""

    word: str
    field: Field
    cell: int
    attribute: int


class Codec(Protocol):
    """Between a unit's structure and its words: exact and invertible. One per environment, in its file.

    levels: names of the four nested spans that can be hidden as a whole, coarse to fine, `unit` to `token`.
    is_running_text: False: every slot is tokenised by itself, as a word. True: the slots of a unit are its text cut
    into parts (white space included); the text is tokenised whole and the parts become spans of it.
    """

    name: str
    levels: tuple[str, str, str, str]
    is_running_text: bool

    def lexicon(self) -> Mapping[Field, Sequence[str]]:
        """Every word that a fixed slot of each field can hold. Free text is not listed (Field.TEXT: known words)."""
        ...

    def slots(self, unit: Unit) -> list[Slot]:
        """The unit's words in order. Structured units always give the same number of slots."""
        ...

    def unit(self, kind: Kind, step: int, words: Sequence[str]) -> Unit:
        """The inverse of `slots`. Raises ValueError for words that no unit of that kind has."""
        ...


@dataclass(frozen=True)
class Tokenised:
    """A trajectory (or a window of one) as token ids, with the exact span of every slot.

    tokens_L: int32 [L]. field_L: int8 [L], `Field` values. slots_GL: int32 [4, L], for each granularity (unit, cell,
    attribute, token) the dense id of the slot that a token belongs to, -1 for frame tokens; row 0 is the index into
    kind_U, step_U, is_expert_U ([U]: int8 `Kind` values, int32, bool). Units stand in order of time. levels: the names
    of the rows of slots_GL, as the renderer offers them.
    """

    tokens_L: np.ndarray
    field_L: np.ndarray
    slots_GL: np.ndarray
    kind_U: np.ndarray
    step_U: np.ndarray
    is_expert_U: np.ndarray
    levels: tuple[str, ...] = field(default=GRID_LEVELS, kw_only=True)

    def __len__(self) -> int:
        return len(self.tokens_L)


class Hidden(NamedTuple):
    """What one draw hides. is_hidden_L: bool [L], the model sees the mask token there. is_target_L: bool [L], the
    loss counts it (always hidden too). rate: the probability t with which targets were hidden, in (0, 1]."""

    is_hidden_L: np.ndarray
    is_target_L: np.ndarray
    order: str
    granularity: str
    rate: float


class Batch(NamedTuple):
    """Rows of packed examples, all [B, L]. Arrays of one device batch; B is rows over all hosts.

    tokens: int32, what the model sees (mask id at hidden positions, pad id after the last example).
    targets: int32, the clean ids (under block diffusion the mask id for what is hidden without being asked). is_target:
    bool. positions: int32, from 0 in each example.
    segment_ids: int32, 1.. per example, 0 for padding. kind: int8 `Kind` of the token's unit, -1 for frame and pad.
    field: int8 `Field`. rate: float32, the t of the example's draw, 1 elsewhere. example: int32, number of the
    example in the corpus, -1 for padding (for reports; the model never sees it).
    """

    tokens: Any
    targets: Any
    is_target: Any
    positions: Any
    segment_ids: Any
    kind: Any
    field: Any
    rate: Any
    example: Any
