"""BabyAI: minigrid's language levels, their text form (`BabyAICodec`) and the bot that solves them.

An observation is what the agent sees: 7 x 7 cells of (object, color, state), and the direction it faces.
The agent stands at the bottom in the middle, cell (x=3, y=6), looking up; what it carries lies in its own
cell.

        x 0 1 2 3 4 5 6
    y 0   . . . . . . .        image[x][y] = [object, color, state], minigrid's integers and order
    ...                        words: the direction (cell 0), then the cells in reading order,
      6   . . . A . . .        (x=0, y=0) is cell 1, (x=1, y=0) is cell 2, ..., (x=6, y=6) is cell 49

Levels and dynamics: minigrid 3.2.0, `minigrid/envs/babyai`; the bot: `minigrid/utils/baby_ai_bot.py`.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import minigrid
import numpy as np
from minigrid.core.actions import Actions
from minigrid.core.constants import COLOR_TO_IDX, IDX_TO_COLOR, IDX_TO_OBJECT, OBJECT_TO_IDX, STATE_TO_IDX
from minigrid.core.world_object import Ball, Box, Door, Floor, Goal, Key, Lava, Wall
from minigrid.envs.babyai.core.verifier import LOC_NAMES, OBJ_TYPES
from minigrid.minigrid_env import MiniGridEnv
from minigrid.utils.baby_ai_bot import BabyAIBot

from anyorder_jax.environments.base import ExpertError, Step
from anyorder_jax.types import GRID_LEVELS, Codec, Field, Kind, Slot, Unit

ACTIONS = tuple(action.name for action in Actions)
DIRECTIONS = ("east", "south", "west", "north")  # minigrid's 0, 1, 2, 3: core/constants.py, DIR_TO_VEC
VIEW_SIZE = 7
GRID_PROFILES = ("joint", "attributes")
PROFILES = (*GRID_PROFILES, "words")

_NUM_CELLS = VIEW_SIZE * VIEW_SIZE
_NONE = "none"
# No level's plan was seen to hold 20 subgoals; a bot that replans without end passes 200 in milliseconds.
_MAX_SUBGOALS = 200
# Every word of the mission grammar (verifier.py, `surface` of each instruction); "," is a word of its own.
_GRAMMAR = "go to open pick up put next , then after you and a the object in front of behind on your"

_Cell = tuple[int, int, int]


def ids() -> frozenset[str]:
    """Every registered level."""
    return frozenset(i for i in gymnasium.registry if i.startswith("BabyAI-"))


@functools.cache
def attributes_of_cells() -> dict[_Cell, tuple[str, str, str]]:
    """Every cell that minigrid can write -> (object, color, state) words, "none" where one says nothing.

    A wall, goal or lava of its usual color has color "none": naming what never varies would only cost tokens.
    """
    state_words = {index: name for name, index in STATE_TO_IDX.items()}
    usual = {Wall().encode(), Goal().encode(), Lava().encode()}
    things = [kind(color).encode() for kind in (Wall, Floor, Key, Ball, Box, Goal) for color in COLOR_TO_IDX]
    cells: dict[_Cell, tuple[str, str, str]] = {
        (OBJECT_TO_IDX[name], 0, 0): (name, _NONE, _NONE) for name in ("unseen", "empty")
    }
    for cell in (*things, Lava().encode()):
        color = _NONE if cell in usual else IDX_TO_COLOR[cell[1]]
        cells[cell] = (IDX_TO_OBJECT[cell[0]], color, _NONE)
    for color in COLOR_TO_IDX:
        for is_open, is_locked in ((True, False), (False, False), (False, True)):
            cell = Door(color, is_open, is_locked).encode()
            cells[cell] = ("door", color, state_words[cell[2]])
    for index, name in enumerate(DIRECTIONS):  # as FullyObsWrapper draws the agent
        cells[OBJECT_TO_IDX["agent"], 0, index] = ("agent", _NONE, name)
    return cells


def _joint_word(attributes: tuple[str, str, str]) -> str:
    """("door", "red", "open") -> "red_open_door"."""
    name, color, state = attributes
    return "_".join(word for word in (color, state, name) if word != _NONE)


def _split_text(text: str) -> list[str]:
    return re.findall(r"[^\s,]+|,", text)


def _join_text(words: Sequence[str]) -> str:
    return " ".join(words).replace(" ,", ",")


def _shape(image: object) -> str:
    try:
        return f"{np.asarray(image).dtype} of shape {np.asarray(image).shape}"
    except ValueError:
        return "rows of different lengths"


def read_observation(unit: Unit, name: str) -> tuple[int, list[_Cell]]:
    """(direction, 49 cells in reading order) of an observation, checked.

    Args:
      unit: an observation with data.
      name: of the codec, for errors.

    Raises:
      ValueError: saying what is wrong with its data.
    """
    where = f"{name}: the observation of step {unit.step}"
    missing = [key for key in ("image", "direction") if unit.data is None or key not in unit.data]
    if unit.data is None or missing:
        raise ValueError(f"{where}: expected data with a field {missing[0]!r}, got none.")
    image, direction = unit.data["image"], unit.data["direction"]
    if type(direction) is not int or not 0 <= direction < len(DIRECTIONS):
        raise ValueError(f"{where}: direction: expected 0, 1, 2 or 3, got {direction!r}.")
    known = attributes_of_cells().keys()
    try:
        cells = [tuple(image[x][y]) for y in range(VIEW_SIZE) for x in range(VIEW_SIZE)]
        is_grid = len(image) == VIEW_SIZE and all(len(column) == VIEW_SIZE for column in image)
        is_known = is_grid and known >= set(cells)
    except (TypeError, IndexError, KeyError):  # no lists of lists of lists, or too short ones
        is_grid = is_known = False
    if not is_grid:
        raise ValueError(
            f"{where}: image: expected {VIEW_SIZE} x {VIEW_SIZE} x 3 integers ([x][y][object, color, state]), got "
            f"{_shape(image)}."
        )
    if not is_known:
        n = next(n for n, cell in enumerate(cells) if cell not in known)
        y, x = divmod(n, VIEW_SIZE)
        raise ValueError(
            f"{name}: step {unit.step}, cell x={x} y={y}: minigrid has no cell {list(cells[n])} (object, color, state)."
        )
    return direction, cells


class BabyAICodec:
    """Between BabyAI's units and words, exact in both directions (a `Codec`).

    Profile "joint": one word a cell, `red_ball`, `red_open_door`, `wall`: 50 slots an observation. Profile
    "attributes": three words a cell, `door red open`, `wall none none`: 148 slots. Slot numbers run through
    the unit: cell 0 is the direction, cells 1..49 the grid; attributes count the words from 0.
    """

    levels = GRID_LEVELS
    is_running_text = False

    def __init__(self, profile: str):
        if profile not in GRID_PROFILES:
            raise ValueError(f"babyai: profile {profile!r} is unknown; expected one of {', '.join(PROFILES)}.")
        self.name = f"babyai-{profile}"
        if profile == "joint":
            fields: tuple[Field, ...] = (Field.CELL,)
            words: dict[_Cell, tuple[str, ...]] = {
                cell: (_joint_word(attributes),) for cell, attributes in attributes_of_cells().items()
            }
        else:
            fields = (Field.OBJECT, Field.COLOR, Field.STATE)
            words = {**attributes_of_cells()}
        self._fields = fields
        self._cell_of_words = {value: list(cell) for cell, value in words.items()}
        # Slots are made once and shared: a corpus asks for the same few thousand again and again.
        width = len(fields)
        self._slots_of_cell = {
            cell: [
                tuple(Slot(value[j], fields[j], number, 1 + (number - 1) * width + j) for j in range(width))
                for number in range(1, _NUM_CELLS + 1)
            ]
            for cell, value in words.items()
        }
        self._direction_slots = [Slot(word, Field.DIRECTION, 0, 0) for word in DIRECTIONS]

    def lexicon(self) -> Mapping[Field, Sequence[str]]:
        """Every word of each fixed-slot field, sorted; under Field.TEXT the mission grammar's words."""
        text = {*_GRAMMAR.split(), *OBJ_TYPES, *COLOR_TO_IDX, *LOC_NAMES}
        lexicon = {
            Field.TEXT: tuple(sorted(text)),
            Field.ACTION: ACTIONS,
            Field.DIRECTION: DIRECTIONS,
        }
        for j, field in enumerate(self._fields):
            lexicon[field] = tuple(sorted({words[j] for words in self._cell_of_words}))
        return lexicon

    def slots(self, unit: Unit) -> list[Slot]:
        """The unit's words: 50 or 148 for an observation, 1 for an action, each word of a goal a cell.

        Raises:
          ValueError: for a unit that BabyAI does not have, naming what is wrong with it.
        """
        if unit.kind == Kind.OBSERVATION:
            return self._observation_slots(unit)
        if unit.kind == Kind.ACTION:
            if unit.text not in ACTIONS:
                raise ValueError(f"{self.name}: action {unit.text!r} is unknown; expected one of {', '.join(ACTIONS)}.")
            return [Slot(unit.text, Field.ACTION, 0, 0)]
        if unit.kind == Kind.GOAL:
            words = _split_text(unit.text or "")
            if not words or _join_text(words) != unit.text:
                raise ValueError(
                    f"{self.name}: goal {unit.text!r} cannot be restored from its words; expected at least "
                    "one word, one space between words and none before a comma."
                )
            return [Slot(word, Field.TEXT, i, i) for i, word in enumerate(words)]
        raise ValueError(f"{self.name}: BabyAI has goals, observations and actions, but no {unit.kind.name.lower()}.")

    def _observation_slots(self, unit: Unit) -> list[Slot]:
        direction, cells = read_observation(unit, self.name)
        slots = [self._direction_slots[direction]]
        for number, cell in enumerate(cells):
            slots += self._slots_of_cell[cell][number]
        return slots

    def unit(self, kind: Kind, step: int, words: Sequence[str]) -> Unit:
        """The unit that has these words.

        Raises:
          ValueError: when no unit of this kind has them (a model may write such words).
        """
        if kind == Kind.OBSERVATION:
            return Unit(kind, step, data=self._observation_data(step, words))
        if kind == Kind.ACTION:
            if len(words) != 1 or words[0] not in ACTIONS:
                raise ValueError(f"{self.name}: no action has the words {list(words)}.")
            return Unit(kind, step, text=words[0])
        if kind == Kind.GOAL:
            text = _join_text(words)
            if not words or _split_text(text) != list(words):
                raise ValueError(f"{self.name}: no goal has the words {list(words)}.")
            return Unit(kind, step, text=text)
        raise ValueError(f"{self.name}: BabyAI has goals, observations and actions, but no {kind.name.lower()}.")

    def _observation_data(self, step: int, words: Sequence[str]) -> dict[str, object]:
        width = len(self._fields)
        if len(words) != 1 + _NUM_CELLS * width:
            raise ValueError(
                f"{self.name}: step {step}: an observation has {1 + _NUM_CELLS * width} words, got {len(words)}."
            )
        if words[0] not in DIRECTIONS:
            raise ValueError(f"{self.name}: step {step}: {words[0]!r} is no direction ({', '.join(DIRECTIONS)}).")
        image: list[list[list[int]]] = [[[] for _ in range(VIEW_SIZE)] for _ in range(VIEW_SIZE)]
        for number in range(_NUM_CELLS):
            cell_words = tuple(words[1 + number * width : 1 + (number + 1) * width])
            if cell_words not in self._cell_of_words:
                raise ValueError(f"{self.name}: step {step}, cell {number + 1}: no cell has the words {cell_words}.")
            y, x = divmod(number, VIEW_SIZE)
            image[x][y] = list(self._cell_of_words[cell_words])
        return {"image": image, "direction": DIRECTIONS.index(words[0])}


class _Bot(BabyAIBot):
    """BabyAIBot with the same advice, made safe and faster.

    Safe: on some seeds of Unlock-like levels `replan` never returns. Each round of its loop searches the
    grid and leaves subgoals on the stack, so the stack's height tells; a count, unlike a time limit, gives
    the same verdict on every machine. Faster: what the agent sees is read off the observation instead of
    being computed again.
    """

    def __init__(self, level: MiniGridEnv, last_image: Callable[[], np.ndarray]):
        super().__init__(level)
        self._last_image = last_image

    def _breadth_first_search(self, initial_states: Any, accept_fn: Any, ignore_blockers: bool) -> Any:
        if len(self.stack) > _MAX_SUBGOALS:
            raise ExpertError(f"the bot replans without end (more than {_MAX_SUBGOALS} subgoals)")
        return super()._breadth_first_search(initial_states, accept_fn, ignore_blockers)

    def _process_obs(self) -> None:
        level = self.mission
        x_S, y_S = np.nonzero(self._last_image()[:, :, 0] != OBJECT_TO_IDX["unseen"])  # S: cells in sight
        sideways_S, ahead_S = x_S - VIEW_SIZE // 2, VIEW_SIZE - 1 - y_S
        world_S2 = np.outer(ahead_S, level.dir_vec) + np.outer(sideways_S, level.right_vec) + level.agent_pos
        is_inside_S = ((world_S2 >= 0) & (world_S2 < self.vis_mask.shape)).all(axis=1)
        self.vis_mask[tuple(world_S2[is_inside_S].T)] = True


class _BotExpert:
    """BabyAIBot as an `Expert`."""

    def __init__(self, level: MiniGridEnv, last_image: Callable[[], np.ndarray]):
        try:
            self._bot = _Bot(level, last_image)
        except Exception as error:
            raise ExpertError(f"the bot cannot read the mission: {type(error).__name__} {error}") from error

    def next_action(self, previous_action: str | None) -> str:
        taken = None if previous_action is None else Actions[previous_action]
        try:
            advice = self._bot.replan(taken)
        except ExpertError:
            raise
        except Exception as error:  # the bot asserts, and indexes what is not there, where it cannot go on
            raise ExpertError(f"the bot fails: {type(error).__name__} {error}".rstrip()) from error
        if advice == Actions.done:
            raise ExpertError("the bot holds the mission for done, but it is not")
        return ACTIONS[advice]


class BabyAIEnvironment:
    """A BabyAI level as an `Environment`. Success is a positive reward: `terminated` covers failure too."""

    version = f"minigrid {minigrid.__version__}"
    expert_name = "BabyAIBot"
    actions = ACTIONS

    def __init__(self, environment_id: str, profile: str):
        self.id = environment_id
        self.codec = codec(profile)
        # `unwrapped`: gymnasium's wrappers cost time at every step and check nothing that varies here.
        level = gymnasium.make(environment_id, disable_env_checker=True, render_mode="rgb_array")
        self._level: MiniGridEnv = level.unwrapped  # type: ignore[assignment]
        self._num_steps = 0
        self._image = np.zeros((VIEW_SIZE, VIEW_SIZE, 3), np.uint8)

    @property
    def max_steps(self) -> int:
        return int(self._level.max_steps)

    def _observation(self, raw: Mapping[str, Any]) -> Unit:
        self._image = raw["image"]
        data = {"image": self._image.tolist(), "direction": int(raw["direction"])}
        return Unit(Kind.OBSERVATION, self._num_steps, data=data)

    def reset(self, seed: int) -> list[Unit]:
        with contextlib.redirect_stdout(io.StringIO()):  # level generation prints every rejected draft
            raw, _ = self._level.reset(seed=seed)
        self._num_steps = 0
        return [Unit(Kind.GOAL, 0, text=raw["mission"]), self._observation(raw)]

    def step(self, action_word: str) -> Step:
        if action_word not in ACTIONS:
            raise ValueError(f"{self.id}: action {action_word!r} is unknown; expected one of {', '.join(ACTIONS)}.")
        raw, raw_reward, is_terminated, is_truncated, _ = self._level.step(Actions[action_word])
        self._num_steps += 1
        reward = float(raw_reward)
        return Step(self._observation(raw), reward, bool(is_terminated or is_truncated), reward > 0)

    def wrong_actions(self, advice: str) -> tuple[str, ...]:
        """Forward where something stands in the way, else another move.

        To walk into an object for ever is how learners fail, and the bot never bumps, so a bump comes first.
        Pickup, drop and toggle are left out: an opened box is more than the bot can mend.
        """
        ahead = self._level.grid.get(*self._level.front_pos)
        if advice != "forward" and ahead is not None and not ahead.can_overlap():
            return ("forward",)
        return tuple(word for word in ("left", "right", "forward") if word != advice)

    def valid_actions(self) -> tuple[str, ...]:
        """All but `done`, which nothing ends by."""
        return tuple(word for word in ACTIONS if word != "done")

    def copy(self) -> BabyAIEnvironment:
        """An environment of its own in the same state. Walls, which nothing changes, and what gymnasium adds are
        shared: a copy takes a fifth of a millisecond where all of it would take forty."""
        level = self._level
        shared: list[Any] = [thing for thing in level.grid.grid if isinstance(thing, Wall)]
        shared += [level.observation_space, level.action_space, level.spec, level.actions]
        other = copy.copy(self)
        other._level = copy.deepcopy(level, {id(thing): thing for thing in shared})
        return other

    def render(self) -> np.ndarray:
        return self._level.get_frame()

    def expert(self) -> _BotExpert:
        """The bot, for the episode that was just reset. Raises ExpertError if it cannot read its mission."""
        return _BotExpert(self._level, lambda: self._image)

    def close(self) -> None:
        self._level.close()


def environment(environment_id: str, profile: str) -> BabyAIEnvironment:
    return BabyAIEnvironment(environment_id, profile)


@functools.cache  # its table of slots takes 10 ms to make, and every episode of a rollout has an environment
def codec(profile: str) -> Codec:
    """The codec of a profile: of cells (`BabyAICodec`), or the words that a language model reads (`babyai_words`)."""
    if profile == "words":
        from anyorder_jax.environments import babyai_words  # late: it needs this module

        return babyai_words.WordsRenderer()
    return BabyAICodec(profile)


def world_of_text(environment_id: str, profile: str) -> str:
    """The world of text in which episodes that are read with a profile are acted in; "" where they are grids."""
    return environment_id.replace("BabyAI-", "BabyAIText-", 1) if profile == "words" else ""
