"""Units to token ids with the exact span of every slot, and back; windows of a few steps.

How a unit's length is hidden (`Layout.blocks`): the slots of a grid are as wide as their widest word and tell nothing;
text is filled with end tokens to a multiple of its role's block, and tells how many blocks. The first end token is
asked like a word (it says where the unit ends); what follows it is `Field.END` and may weigh less.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from anyorder_jax.data.frames import Around
from anyorder_jax.data.running_text import DEFAULT_LAYOUT, TEXT_BLOCK, Columns, Layout, running_text
from anyorder_jax.data.running_text import unit_widths as unit_widths
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.types import OCCLUDED, Codec, Field, Kind, Slot, Tokenised, Trajectory, Unit


@dataclass(frozen=True)
class TokenisedTrajectory(Tokenised):
    """A whole trajectory, and where each of its S steps begins: a window is then a slice.

    Entry s belongs to step s, entry S is the end; what stands before entry 0 is the goal. token_S1: int
    [S+1], positions. unit_S1: int [S+1], units. slot_GS1: int32 [4, S+1], slot ids as in slots_GL. num_shortened: units
    that were too long.
    """

    token_S1: np.ndarray
    unit_S1: np.ndarray
    slot_GS1: np.ndarray
    num_shortened: int = field(default=0, kw_only=True)

    @property
    def num_steps(self) -> int:
        """S: the last step (an observation that no action follows) included."""
        return len(self.token_S1) - 1


def _free_text(vocabulary: Vocabulary, slots: Sequence[Slot]) -> Columns:
    """Words as wide as they are, then end tokens, each a slot of its own, up to a full TEXT_BLOCK."""
    pieces = [vocabulary.encode_slot(slot.word) for slot in slots]
    num_ends = TEXT_BLOCK - sum(map(len, pieces)) % TEXT_BLOCK
    after = 1 + max((slot.cell for slot in slots), default=-1)
    pieces += [[vocabulary.end_id]] * num_ends
    return Columns(
        fields=[Field.TEXT] * len(pieces),
        cells=[slot.cell for slot in slots] + list(range(after, after + num_ends)),
        attributes=[slot.attribute for slot in slots] + [0] * num_ends,
        pieces=pieces,
        owns=list(map(len, pieces)),
    )


def _columns(vocabulary: Vocabulary, codec: Codec, unit: Unit, layout: Layout, around: Around) -> tuple[Columns, bool]:
    """A unit's columns, and whether it was shortened."""
    if codec.is_running_text:
        return running_text(vocabulary, codec, unit, layout, around)
    slots = codec.slots(unit)
    if all(slot.field is Field.TEXT for slot in slots):
        return _free_text(vocabulary, slots), False
    words, fields, cells, attributes = zip(*slots, strict=True)
    pieces, owns = zip(*map(vocabulary.encode_fixed_slot, fields, words), strict=True)
    return Columns(fields, cells, attributes, pieces, owns), False


def _occlude(columns: Columns, cells: Sequence[int], mask_id: int) -> Columns:
    """Mask tokens in all slots of these cells."""
    hidden = frozenset(cells)
    pairs = zip(columns.cells, columns.pieces, strict=True)
    return columns._replace(pieces=[[mask_id] * len(ids) if cell in hidden else ids for cell, ids in pairs])


def tokenise(
    trajectory: Trajectory,
    codec: Codec,
    vocabulary: Vocabulary,
    layout: Layout = DEFAULT_LAYOUT,
    before: Sequence[Kind] = (),
    after: Sequence[Kind] = (),
) -> TokenisedTrajectory:
    """Token ids of a whole trajectory.

        [goal] go to the ball E E E E   [observation] east c1 .. c49 [action] forward   [observation] ...
        frame  TEXT ......... TEXT      frame         DIRECTION CELL frame   ACTION     frame

    Markers belong to no slot (-1). A goal (any unit of free text) ends in one to TEXT_BLOCK end tokens (E),
    which are predicted like words: a hidden goal shows its length only up to the block. Slots of fixed width
    end in FILLER, which has the token slot of the word's last token. Cells in `unit.data[OCCLUDED]` are mask tokens:
    what nobody sees must not be asked, so draws that ask are for examples without them, or `is_expert` is False.

    Args:
      trajectory: its units in order of time.
      codec: of its environment.
      vocabulary: made for that codec.
      layout: blocks of running text, and where it is shortened.
      before, after: kinds of all units that stand before and after these where they are a part of a trajectory: chat
        frames depend on them.

    Raises:
      ValueError: for units out of order, kinds that the frames have no place for, or words that the codec's lexicon
        does not list.
    """
    steps = [unit.step for unit in trajectory.units]
    if not steps or steps != sorted(steps) or steps[0] < 0:
        raise ValueError(f"units: expected units in order of time, from step 0, got steps {steps}.")
    numbers: list[int] = []
    fields: list[int] = []
    cells: list[int] = []
    attributes: list[int] = []
    pieces: list[Sequence[int]] = []
    owns: list[int] = []
    num_shortened = 0
    kinds = [unit.kind for unit in trajectory.units]
    around = vocabulary.frames.around([*before, *kinds, *after])[len(before) :]
    for u, unit in enumerate(trajectory.units):
        frame = around[u].frame
        columns, is_shortened = _columns(vocabulary, codec, unit, layout, around[u])
        num_shortened += is_shortened
        if unit.data is not None and OCCLUDED in unit.data:
            columns = _occlude(columns, unit.data[OCCLUDED], vocabulary.mask_id)
        numbers += [u] * (1 + len(columns.fields))
        fields += [Field.FRAME, *columns.fields]
        cells += [-1, *columns.cells]
        attributes += [-1, *columns.attributes]
        pieces += [frame, *columns.pieces]
        owns += [len(frame), *columns.owns]
    ids = list(itertools.chain.from_iterable(pieces))
    unit_K, field_K, cell_K, attribute_K, own_K, width_K = (
        np.fromiter(column, np.int32) for column in (numbers, fields, cells, attributes, owns, map(len, pieces))
    )
    place_L = np.arange(len(ids)) - np.repeat(np.cumsum(width_K) - width_K, width_K)
    is_filler_L = place_L >= np.repeat(own_K, width_K)
    field_L = np.where(is_filler_L, Field.FILLER, np.repeat(field_K, width_K)).astype(np.int8)

    def number(begins_L: np.ndarray) -> np.ndarray:
        """Dense ids 0.. that go up where a slot begins, -1 on frames."""
        return np.where(field_L == Field.FRAME, -1, np.cumsum(begins_L & (field_L != Field.FRAME)) - 1)

    is_other_unit_K = np.diff(unit_K, prepend=-1) != 0
    is_other_cell_K = is_other_unit_K | (np.diff(cell_K, prepend=-1) != 0)
    is_other_attribute_K = is_other_cell_K | (np.diff(attribute_K, prepend=-1) != 0)
    begins_L = place_L == 0
    slots_GL = np.stack([
        np.where(field_L == Field.FRAME, -1, np.repeat(unit_K, width_K)),
        number(begins_L & np.repeat(is_other_cell_K, width_K)),
        number(begins_L & np.repeat(is_other_attribute_K, width_K)),
        number(~is_filler_L),
    ]).astype(np.int32)  # fmt: skip
    return _with_offsets(
        Tokenised(
            tokens_L=np.array(ids, np.int32),
            field_L=field_L,
            slots_GL=slots_GL,
            kind_U=np.array([unit.kind for unit in trajectory.units], np.int8),
            step_U=np.array(steps, np.int32),
            is_expert_U=np.array([unit.is_expert for unit in trajectory.units], bool),
            levels=codec.levels,
        ),
        num_shortened,
    )


def _with_offsets(example: Tokenised, num_shortened: int = 0) -> TokenisedTrajectory:
    is_purpose_U = np.isin(example.kind_U, (Kind.SYSTEM, Kind.GOAL))
    num_goals = int(np.argmax(np.append(~is_purpose_U, True)))
    num_steps = int(example.step_U[-1]) + 1 if num_goals < len(example.kind_U) else 0
    unit_S1 = num_goals + np.searchsorted(example.step_U[num_goals:], np.arange(num_steps + 1))
    # a unit begins with its marker, right after the last token of the unit before it
    unit_at_L = example.slots_GL[0]
    position_K = np.flatnonzero(unit_at_L >= 0)
    last_U = position_K[np.searchsorted(unit_at_L[position_K], np.arange(len(example.kind_U)), side="right") - 1]
    token_S1 = np.append(0, last_U + 1)[unit_S1]
    highest_GL1 = np.maximum.accumulate(np.pad(example.slots_GL, ((0, 0), (1, 0)), constant_values=-1), axis=1)
    fields = {f.name: getattr(example, f.name) for f in dataclasses.fields(Tokenised)}
    slot_GS1 = highest_GL1[:, token_S1] + 1
    return TokenisedTrajectory(
        **fields, token_S1=token_S1, unit_S1=unit_S1, slot_GS1=slot_GS1, num_shortened=num_shortened
    )


def window(example: Tokenised, end_step: int, num_steps: int) -> Tokenised:
    """The goal and the last `num_steps` steps up to `end_step`: what an agent that acts now can look back on.

        window(goal o0 a0 o1 a1 o2 a2 o3, end_step=2, num_steps=2) = goal o1 a1 o2 a2
        window(goal o0 a0 o1 a1 o2 a2 o3, end_step=3, num_steps=2) = goal o2 a2 o3

    Args:
      example: a trajectory; fast (slices) for what `tokenise` returns.
      end_step: the last step, from 0.
      num_steps: steps of the window, >= 1; fewer at the beginning of the trajectory.

    Returns:
      A Tokenised whose slot ids are dense again; step_U keeps the steps of the trajectory.

    Raises:
      ValueError: if the trajectory has no step `end_step`, or num_steps < 1.
    """
    whole = example if isinstance(example, TokenisedTrajectory) else _with_offsets(example)
    if not (0 <= end_step < whole.num_steps and num_steps >= 1):
        raise ValueError(
            f"units.window: expected 0 <= end_step < {whole.num_steps} and num_steps >= 1, got {end_step}, {num_steps}."
        )
    first, end = max(0, end_step - num_steps + 1), end_step + 1
    goal, begin, stop = whole.token_S1[0], whole.token_S1[first], whole.token_S1[end]
    goals, unit_begin, unit_stop = whole.unit_S1[0], whole.unit_S1[first], whole.unit_S1[end]

    def cut(array_U: np.ndarray) -> np.ndarray:
        return np.concatenate((array_U[:goals], array_U[unit_begin:unit_stop]))

    slots_GL = np.concatenate((whole.slots_GL[:, :goal], whole.slots_GL[:, begin:stop]), axis=1)
    slots_GL[:, goal:] -= (whole.slot_GS1[:, first] - whole.slot_GS1[:, 0])[:, None]
    np.maximum(slots_GL, -1, out=slots_GL)  # frames were -1 and went further down
    return Tokenised(
        tokens_L=np.concatenate((whole.tokens_L[:goal], whole.tokens_L[begin:stop])),
        field_L=np.concatenate((whole.field_L[:goal], whole.field_L[begin:stop])),
        slots_GL=slots_GL,
        kind_U=cut(whole.kind_U),
        step_U=cut(whole.step_U),
        is_expert_U=cut(whole.is_expert_U),
        levels=whole.levels,
    )


def text_of(ids: Sequence[int], vocabulary: Vocabulary, joint: str = "") -> str:
    """The text of a unit of running text: its tokens up to the first end token, without the
    joint that leads to the next unit; a call as records write it."""
    text = vocabulary.decode_text(list(itertools.takewhile(lambda i: i not in vocabulary.frames.end_ids, ids)))
    calls = vocabulary.frames.calls
    text = text.removesuffix(joint)
    return calls.read(text) if calls else text


def _texts(example: Tokenised, vocabulary: Vocabulary) -> list[str]:
    """The text of each unit."""
    unit_L = example.slots_GL[0]
    around = vocabulary.frames.around([Kind(kind) for kind in example.kind_U])
    return [
        text_of(example.tokens_L[unit_L == u].tolist(), vocabulary, around[u].joint) for u in range(len(example.kind_U))
    ]


def detokenise(example: Tokenised, codec: Codec, vocabulary: Vocabulary) -> list[Unit]:
    """The units that an example was made of: the inverse of `tokenise`, also for predicted tokens.

    Raises:
      ValueError: if the tokens of a unit are words that no such unit has.
    """
    if codec.is_running_text:
        return [
            dataclasses.replace(codec.unit(Kind(kind), int(step), [text]), is_expert=bool(is_expert))
            for kind, step, is_expert, text in zip(
                example.kind_U, example.step_U, example.is_expert_U, _texts(example, vocabulary), strict=True
            )
        ]
    is_own_L = (example.field_L != Field.FRAME) & (example.field_L != Field.FILLER)
    words_U: list[list[str]] = [[] for _ in example.kind_U]
    own_K = np.flatnonzero(is_own_L)
    attribute_K = example.slots_GL[2, own_K]
    for span in np.split(own_K, np.flatnonzero(np.diff(attribute_K)) + 1):
        ids = example.tokens_L[span].tolist()
        if ids != [vocabulary.end_id]:
            words_U[example.slots_GL[0, span[0]]].append(vocabulary.decode_slot(ids))
    units = [
        codec.unit(Kind(kind), int(step), words)
        for kind, step, words in zip(example.kind_U, example.step_U, words_U, strict=True)
    ]
    return [
        unit if is_expert else dataclasses.replace(unit, is_expert=False)
        for unit, is_expert in zip(units, example.is_expert_U, strict=True)
    ]
