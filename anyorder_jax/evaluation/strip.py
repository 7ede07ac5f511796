"""Strip: one test trajectory as a picture: what happened, what the model saw, what it filled in, its errors
marked with a cross (the agent and many things are red; the mark is told by its shape as well as by its color)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX
from minigrid.core.grid import Grid
from minigrid.core.world_object import WorldObj
from PIL import Image, ImageDraw, ImageFont

from anyorder_jax.asking.questions import Ask, ask
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.data.units import TokenisedTrajectory
from anyorder_jax.evaluation import report
from anyorder_jax.evaluation.measures import GRID, CellWords
from anyorder_jax.evaluation.questions import QUESTIONS, Windows
from anyorder_jax.evaluation.targets import collect_targets
from anyorder_jax.evaluation.world_model import Predictor
from anyorder_jax.types import Field, Kind

TILE = 26
SIDE = 7  # cells across a view
MAX_STEPS = 6  # columns of the picture
VIEW = TILE * SIDE
GAP, LEFT, TOP, LINE = 22, 132, 44, 20
ROW = VIEW + 2 * LINE + GAP
FOOT, LEGEND = 32, 570  # height and width of the line that explains the marks
INK, PALE, ERROR, PAPER, HOLE = "#1f2328", "#6b7280", "#c2006b", "#ffffff", "#c9b8e8"
"""ERROR is none of MiniGrid's colors."""
CROSS = 11  # pixels across the badge of an error
ROW_LABELS = ("what happened", "what the model\nsaw", "what it filled in")

Word = tuple[int, ...]
"""The ids of one word, without filler."""


def choose(examples: Sequence[TokenisedTrajectory], num_steps: int, seed: int) -> Ask:
    """The first window of `any_order@0.5` that shows much: the most steps (MAX_STEPS at most), among these
    the first with a hidden and a visible observation and a hidden action, whatever the model makes of it."""
    question = next(q for q in QUESTIONS if q.order == "any_order" and q.rate == 0.5)
    asks = ask(question, examples, Windows(min(num_steps, MAX_STEPS)), limit=MAX_STEPS, seed=seed)
    return max(asks, key=_shows)  # max keeps the first of equals


def _shows(one: Ask) -> tuple[int, int]:
    kind_U = one.example.kind_U
    is_hidden_U = np.zeros(len(kind_U), bool)
    is_hidden_U[one.example.slots_GL[0, one.hidden.is_hidden_L]] = True
    is_hidden_view = is_hidden_U[kind_U == Kind.OBSERVATION]
    is_both = is_hidden_view.any() and not is_hidden_view.all()
    is_even = is_hidden_view.sum() >= 2 and (~is_hidden_view).sum() >= 2
    features = (is_both, is_even, is_hidden_U[kind_U == Kind.ACTION].any())
    return len(np.unique(one.example.step_U)), sum(map(bool, features))


def draw(one: Ask, model: Predictor, cell_words: CellWords, vocabulary: Vocabulary, path: Path) -> None:
    """Asks the model and writes the picture.

    Args:
      one: what is drawn, of `choose`.
      model: fills the holes.
      cell_words: reads grid words.
      vocabulary: of the tokens.
      path: of the picture.
    """
    chosen_T = model.predict(collect_targets([one])).chosen_T
    buffer = io.BytesIO()
    Strip(one, chosen_T, cell_words, vocabulary).image().save(buffer, format="PNG", optimize=True)
    report.write_whole(path, buffer.getvalue())


def words_of_unit(example_tokens: np.ndarray, ask: Ask, unit: int) -> list[tuple[Field, int, Word]]:
    """(field, cell id, ids) of each word of a unit, read from `example_tokens` (int [L]) at the ask's
    places."""
    slots_GL, field_L = ask.example.slots_GL, ask.example.field_L
    places = np.flatnonzero((slots_GL[0] == unit) & (field_L != Field.FILLER))
    words = []
    for word in dict.fromkeys(slots_GL[2, places].tolist()):
        own = places[slots_GL[2, places] == word]
        ids = tuple(example_tokens[own].tolist())
        words.append((Field(int(field_L[own[0]])), int(slots_GL[1, own[0]]), ids))
    return words


def filled_tokens(ask: Ask, chosen_T: np.ndarray) -> np.ndarray:
    """int [L]: the example with the model's choice at each target. chosen_T: in order of position."""
    tokens_L = ask.example.tokens_L.astype(np.int64)
    tokens_L[ask.hidden.is_target_L] = chosen_T
    return tokens_L


def tile(attributes: tuple[str, ...], is_agent: bool) -> Image.Image:
    """One cell as MiniGrid draws it; the agent looks up. A word that is none is drawn as an empty box."""
    if len(attributes) != 3 or attributes[0] not in OBJECT_TO_IDX:
        image = Image.new("RGB", (TILE, TILE), PAPER)
        ImageDraw.Draw(image).line([(4, 4), (TILE - 5, TILE - 5)], fill=PALE)
        return image
    name, color, state = attributes
    if name == "unseen":
        return Image.new("RGB", (TILE, TILE), "#4a4f57")
    index = COLOR_TO_IDX.get(color, COLOR_TO_IDX["grey"])
    is_drawn = name not in ("empty", "agent")
    state_index = STATE_TO_IDX.get(state, 0)
    thing = WorldObj.decode(OBJECT_TO_IDX[name], index, state_index) if is_drawn else None
    drawn = Grid.render_tile(thing, agent_dir=3 if is_agent else None, tile_size=TILE)
    return Image.fromarray(drawn.astype(np.uint8))


class Strip:
    """Draws one ask.

    Args:
      ask: the window and its hole.
      chosen_T: what the model chose at each target, in order of position.
      cell_words: reads grid words.
      vocabulary: reads the others.
    """

    def __init__(self, ask: Ask, chosen_T: np.ndarray, cell_words: CellWords, vocabulary: Vocabulary) -> None:
        self._ask, self._cell_words, self._vocabulary = ask, cell_words, vocabulary
        self._truth_L, self._filled_L = ask.example.tokens_L, filled_tokens(ask, chosen_T)
        kinds = ask.example.kind_U
        self._goals = np.flatnonzero(kinds == Kind.GOAL).tolist()
        self._steps = sorted({int(s) for s in ask.example.step_U[kinds != Kind.GOAL]})
        width = max(LEFT + len(self._steps) * (VIEW + GAP), LEGEND)
        self._image = Image.new("RGB", (width, TOP + 3 * ROW + FOOT), PAPER)
        self._draw = ImageDraw.Draw(self._image)
        self._small, self._font, self._bold = (ImageFont.load_default(size) for size in (11, 13, 14))

    def image(self) -> Image.Image:
        """The picture: a row each for truth, holes and filling; a column a step."""
        for column, step in enumerate(self._steps):
            left = LEFT + column * (VIEW + GAP)
            self._draw.text((left + VIEW / 2, TOP - 12), f"step {step}", INK, self._bold, anchor="mm")
        for row, label in enumerate(ROW_LABELS):
            top = TOP + row * ROW
            self._draw.multiline_text((8, top + 6), label, INK, self._bold)
            self._goal(row, top + 56)
            for unit in range(len(self._ask.example.kind_U)):
                if unit not in self._goals:
                    column = self._steps.index(int(self._ask.example.step_U[unit]))
                    self._unit(row, unit, LEFT + column * (VIEW + GAP), top)
        self._legend(TOP + 3 * ROW + 4)
        return self._image

    def _legend(self, top: int) -> None:
        """One line below the rows: what the marks mean."""
        left, size = 8, TILE - 6
        agent, floor = tile(("empty",) * 3, is_agent=True), tile(("empty",) * 3, is_agent=False)
        samples = (
            (agent, "the agent"), (_hole(self._font), "hidden from the model"), (floor, "filled in"),
            (_crossed(floor), "filled in wrongly"), (_faded(floor), "was not hidden"),
        )  # fmt: skip
        for sample, said in samples:
            self._image.paste(sample.resize((size, size)), (left, top))
            self._draw.text((left + size + 6, top + size // 2), said, INK, self._small, anchor="lm")
            left += size + 20 + int(self._draw.textlength(said, self._small))

    def _is_hidden(self, unit: int) -> bool:
        is_unit_L = self._ask.example.slots_GL[0] == unit
        return bool(self._ask.hidden.is_hidden_L[is_unit_L].any())

    def _unit(self, row: int, unit: int, left: int, top: int) -> None:
        if self._ask.example.kind_U[unit] == Kind.OBSERVATION:
            self._view(row, unit, left, top)
        else:
            self._sentence(row, [unit], (left, top + VIEW + LINE + 4), "does: ")

    def _goal(self, row: int, top: int) -> None:
        if self._goals:
            self._draw.text((8, top), "goal", PALE, self._font)
            self._sentence(row, self._goals, (8, top + 17), "", wrap=15)

    def _sentence(self, row: int, units: Sequence[int], at: tuple[int, int], prefix: str, wrap: int = 40) -> None:
        """The words of a goal, a direction or an action: hidden, right or wrong."""
        is_hidden = any(self._is_hidden(unit) for unit in units)
        truth, filled = (
            " ".join(self._read(ids) for unit in units for _, _, ids in words_of_unit(tokens, self._ask, unit))
            for tokens in (self._truth_L, self._filled_L)
        )
        self._word(row, is_hidden, truth, filled, at, prefix, wrap)

    def _word(
        self,
        row: int,
        is_hidden: bool,
        truth: str,
        filled: str,
        at: tuple[int, int],
        prefix: str,
        wrap: int = 40,
    ) -> None:
        if row == 1 and is_hidden:
            self._draw.text(at, prefix, PALE, self._font)
            x = at[0] + self._draw.textlength(prefix, self._font)
            self._draw.rounded_rectangle([x, at[1], x + 44, at[1] + 16], 4, fill=HOLE)
            self._draw.text((x + 22, at[1] + 8), "?", INK, self._font, anchor="mm")
            return
        said = filled if row == 2 and is_hidden else truth
        color = PALE if row == 2 and not is_hidden else INK
        x, y = at
        if row == 2 and is_hidden and said != truth:
            color = ERROR
            _cross(self._draw, x, y + 4)
            x += CROSS + 4
        self._draw.multiline_text((x, y), prefix + _wrapped(said or "(nothing)", wrap), color, self._font)

    def _read(self, ids: Word) -> str:
        """A word; nothing for an end token."""
        return "" if ids == (self._vocabulary.end_id,) else self._vocabulary.decode_slot(ids)

    def _score(self, right: int, asked: int, left: int, top: int) -> None:
        self._draw.text((left + VIEW, top + VIEW + 4), f"{right} of {asked} right", INK, self._small, anchor="ra")

    def _view(self, row: int, unit: int, left: int, top: int) -> None:
        """The 7 x 7 cells and the direction of an observation."""
        truth, filled = (words_of_unit(t, self._ask, unit) for t in (self._truth_L, self._filled_L))
        hidden = self._hidden_cells(unit)
        cells = list(dict.fromkeys(cell for field, cell, _ in truth if field in GRID))
        wrong = {cell for cell in cells if self._ids(filled, cell) != self._ids(truth, cell)}
        for number, cell in enumerate(cells):
            y, x = divmod(number, SIDE)
            corner = (left + x * TILE, top + y * TILE)
            attributes = self._attributes(filled if row == 2 else truth, cell)
            is_agent = (x, y) == (SIDE // 2, SIDE - 1)
            self._cell(row, corner, attributes, is_agent, cell in hidden, cell in wrong)
        if row == 2 and (asked := hidden.intersection(cells)):
            self._score(len(asked - wrong), len(asked), left, top)
        said = [
            " ".join(self._read(ids) for field, _, ids in words if field == Field.DIRECTION)
            for words in (truth, filled)
        ]
        is_hidden = any(cell in hidden for field, cell, _ in truth if field == Field.DIRECTION)
        self._word(row, is_hidden, said[0], said[1], (left, top + VIEW + 4), "facing: ")

    def _cell(
        self, row: int, corner: tuple[int, int], attributes: tuple[str, ...],
        is_agent: bool, is_hidden: bool, is_wrong: bool,
    ) -> None:  # fmt: skip
        if row == 1 and is_hidden:
            self._image.paste(_hole(self._font), corner)
            return
        picture = tile(attributes, is_agent)
        if row == 2 and not is_hidden:
            picture = _faded(picture)
        self._image.paste(_crossed(picture) if row == 2 and is_hidden and is_wrong else picture, corner)

    def _hidden_cells(self, unit: int) -> set[int]:
        is_hidden_L = (self._ask.example.slots_GL[0] == unit) & self._ask.hidden.is_hidden_L
        return set(self._ask.example.slots_GL[1, is_hidden_L].tolist())

    def _attributes(self, words: Sequence[tuple[Field, int, Word]], cell: int) -> tuple[str, ...]:
        return tuple(part for field, c, ids in words if c == cell for part in self._cell_words.parts(field, ids))

    def _ids(self, words: Sequence[tuple[Field, int, Word]], cell: int) -> list[Word]:
        return [ids for _, c, ids in words if c == cell]


def _hole(font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> Image.Image:
    image = Image.new("RGB", (TILE, TILE), HOLE)
    draw = ImageDraw.Draw(image)
    draw.rectangle([0, 0, TILE - 1, TILE - 1], outline="#b39fdb")
    draw.text((TILE / 2, TILE / 2), "?", "#5b4291", font, "mm")
    return image


def _faded(picture: Image.Image) -> Image.Image:
    return Image.blend(picture, Image.new("RGB", picture.size, PAPER), 0.55)


def _crossed(picture: Image.Image) -> Image.Image:
    """A cell that is wrong: framed, with a cross in the corner; seen on black, grey and any color."""
    image = picture.copy()
    draw = ImageDraw.Draw(image)
    draw.rectangle([0, 0, TILE - 1, TILE - 1], outline=ERROR, width=2)
    draw.rectangle([2, 2, TILE - 3, TILE - 3], outline=PAPER)
    _cross(draw, TILE - CROSS, 0)
    return image


def _cross(draw: ImageDraw.ImageDraw, left: int, top: int) -> None:
    """A white cross on ERROR, CROSS pixels across."""
    low, high = 2, CROSS - 3
    draw.rectangle([left, top, left + CROSS - 1, top + CROSS - 1], ERROR)
    draw.line([left + low, top + low, left + high, top + high], PAPER, width=2)
    draw.line([left + low, top + high, left + high, top + low], PAPER, width=2)


def _wrapped(sentence: str, width: int) -> str:
    lines = [""]
    for word in sentence.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
