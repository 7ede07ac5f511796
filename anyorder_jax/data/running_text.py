"""Running text: a unit's text, tokenised whole, as columns of slots; its length in tokens without making them.

How its length is hidden is in `units`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from anyorder_jax.data.frames import Around
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.types import Codec, Field, Kind, Slot, Trajectory, Unit

TEXT_BLOCK = 8
"""A unit of free text is filled up with end-of-unit tokens to a multiple of so many tokens, where a layout says no
other number."""


class Layout(NamedTuple):
    """How a trajectory is laid out in tokens, besides the words.

    blocks: for each `Kind` by its number, the tokens to whose multiple its text is filled. max_unit_tokens: text units
    longer than this are shortened by their renderer, with a visible mark (0: never).
    """

    blocks: tuple[int, ...] = (TEXT_BLOCK,) * len(Kind)
    max_unit_tokens: int = 0


DEFAULT_LAYOUT = Layout()


class Columns(NamedTuple):
    """Slots as columns, in order. pieces: the ids of each. owns: how many of them are not filler."""

    fields: Sequence[int]
    cells: Sequence[int]
    attributes: Sequence[int]
    pieces: Sequence[Sequence[int]]
    owns: Sequence[int]


def _written(vocabulary: Vocabulary, codec: Codec, unit: Unit) -> Sequence[Slot]:
    """The slots of running text as the frames write it: a call in the chat template's tags."""
    calls = vocabulary.frames.calls if unit.kind is Kind.ACTION else None
    inner = calls.write(unit.text) if calls and unit.text is not None else None
    if calls is None or inner is None:
        return codec.slots(unit)
    slots = list(codec.slots(dataclasses.replace(unit, text=inner)))
    slots[0] = slots[0]._replace(word=calls.before + slots[0].word)
    slots[-1] = slots[-1]._replace(word=slots[-1].word + calls.after)
    return slots


def running_text(
    vocabulary: Vocabulary, codec: Codec, unit: Unit, layout: Layout, around: Around
) -> tuple[Columns, bool]:
    """A unit's text tokenised whole, every token in the parts that its first character belongs to, and then end tokens
    up to a full block, or what joins it to the next unit; and whether it was shortened.

    Args:
      vocabulary: its tokenizer and frames.
      codec: cuts the text into lines and words.
      unit: of running text.
      layout: blocks, and where a unit is shortened.
      around: what ends it, or joins it to the next.
    """
    slots = _written(vocabulary, codec, unit)
    text = "".join(slot.word for slot in slots)
    ids, places = vocabulary.encode_text(text)
    is_shortened = 0 < layout.max_unit_tokens < len(ids)
    if is_shortened:
        unit = dataclasses.replace(unit, text=shortened(vocabulary, text, places, layout.max_unit_tokens))
        slots = codec.slots(unit)
        text = unit.text or ""
        ids, places = vocabulary.encode_text(text)
    if around.joint:
        return _joined_text(vocabulary, slots, text + around.joint), is_shortened
    ends = np.cumsum([len(slot.word) for slot in slots])
    slot_K = np.searchsorted(ends, places, side="right").tolist()
    block = layout.blocks[unit.kind]
    num_ends = block - len(ids) % block
    lines = [slots[s].cell for s in slot_K]
    words = [slots[s].attribute for s in slot_K]
    after_line, after_word = 1 + max(lines, default=-1), 1 + max(words, default=-1)
    pieces = [[i] for i in ids] + [[around.end]] + [[vocabulary.end_id]] * (num_ends - 1)
    columns = Columns(
        fields=[Field.TEXT] * (len(ids) + 1) + [Field.END] * (num_ends - 1),
        cells=lines + list(range(after_line, after_line + num_ends)),
        attributes=words + list(range(after_word, after_word + num_ends)),
        pieces=pieces,
        owns=[1] * len(pieces),
    )
    return columns, is_shortened


def _joined_text(vocabulary: Vocabulary, slots: Sequence[Slot], text: str) -> Columns:
    """The columns of a unit's text with what joins it to the next one, which is a part of its own."""
    ids, places = vocabulary.encode_text(text)
    ends = np.cumsum([len(slot.word) for slot in slots])
    slot_K = np.searchsorted(ends, places, side="right").tolist()
    lines = [*(slot.cell for slot in slots), 1 + max((slot.cell for slot in slots), default=-1)]
    words = [*(slot.attribute for slot in slots), 1 + max((slot.attribute for slot in slots), default=-1)]
    return Columns(
        fields=[Field.TEXT] * len(ids),
        cells=[lines[s] for s in slot_K],
        attributes=[words[s] for s in slot_K],
        pieces=[[i] for i in ids],
        owns=[1] * len(ids),
    )


def unit_widths(
    trajectories: Sequence[Trajectory], codec: Codec, vocabulary: Vocabulary, layout: Layout
) -> list[tuple[int, bool, str]]:
    """How long the units of running text get, without making their tokens: (tokens with the frame, is it shortened, why
    it cannot be tokenised or "") of every unit of every trajectory, in order. Faster than `tokenise` for many.

    Args:
      trajectories: of running text.
      codec: of their environment.
      vocabulary: made for that codec.
      layout: blocks, and where a unit is shortened.
    """
    given = [unit for trajectory in trajectories for unit in trajectory.units]
    texts, reasons = [], []
    for unit in given:
        try:
            texts.append("".join(slot.word for slot in _written(vocabulary, codec, unit)))
            reasons.append("")
        except ValueError as error:
            texts.append("")
            reasons.append(str(error))
    arounds: list[Around] = []
    for trajectory in trajectories:
        num = len(trajectory.units)
        try:
            arounds += vocabulary.frames.around([u.kind for u in trajectory.units])
        except ValueError as error:
            reasons[len(arounds) : len(arounds) + num] = [str(error)] * num
            arounds += [Around((), vocabulary.end_id)] * num
    found = []
    joined = [text + around.joint for text, around in zip(texts, arounds, strict=True)]
    counts = vocabulary.count_tokens(texts)
    with_joint = vocabulary.count_tokens(joined) if joined != texts else counts
    for unit, reason, around, count, long in zip(given, reasons, arounds, counts, with_joint, strict=True):
        frame = len(around.frame)
        if reason or isinstance(count, ValueError):
            found.append((0, False, reason or str(count)))
            continue
        block = layout.blocks[unit.kind]
        if 0 < layout.max_unit_tokens < count:
            columns, _ = running_text(vocabulary, codec, unit, layout, around)
            found.append((frame + len(columns.pieces), True, ""))
        elif around.joint:
            assert isinstance(long, int), "a newline survives where the text does"
            found.append((frame + long, False, ""))
        else:
            found.append((frame + (count // block + 1) * block, False, ""))
    return found


def shortened(vocabulary: Vocabulary, text: str, places: Sequence[int], num_tokens: int) -> str:
    """The text's beginning and end with a mark between them, at most `num_tokens` tokens in all.

        Results: 1. lamp ... 400 more          ->   Results: 1. lamp\n[... 5210 characters left out ...]\nPage 1 of 9

    Two thirds of the room are the beginning's. Cut where tokens begin, so the rest keeps its ids.

    Args:
      vocabulary: counts tokens.
      text: a unit's text.
      places: of `Vocabulary.encode_text`.
      num_tokens: at least 24, so that the mark fits.
    """
    room = num_tokens
    while True:
        head, tail = text[: places[max(1, 2 * room // 3)]], text[places[-max(1, room // 3)] :]
        short = f"{head}\n[... {len(text) - len(head) - len(tail)} characters left out ...]\n{tail}"
        excess = len(vocabulary.encode_text(short)[0]) - num_tokens
        if excess <= 0 or room <= 2:
            return short
        room -= max(excess, 1)
