"""BabyAI in words: its episodes as prompted language models read them (BALROG's BabyAI-Text), its levels to act in.

    cells of the grid                      words (`data.profile=words`)
    . . . . . . .                          You carry a purple key
    # # # # # # #                          a wall 5 steps forward
    . b . . . . .                          a wall 3 steps right
    . . . . . . #                          a blue ball 2 steps left and 4 steps forward
    . . . D . . #                          a locked red door 2 steps forward
    . . . . . . #
    . . . A . . .                          (A: the agent, who looks up)

First what is carried; then the walls straight ahead, to the left and to the right, where nothing stands before them;
then every thing in sight, column by column from the left, each from far to near. The compass direction, empty cells
and other walls are not told, so a grid cannot be had back from its words. Actions: "turn left", "go forward", ...

`BabyAIText-GoToObj-v0` is `BabyAI-GoToObj-v0` as a world of text: the same seeds (as tasks), steps and expert.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from anyorder_jax.environments import babyai
from anyorder_jax.environments.babyai import ACTIONS, VIEW_SIZE
from anyorder_jax.environments.base import ExpertError, Text, TextStep
from anyorder_jax.rendering.text import TextRenderer
from anyorder_jax.types import OCCLUDED, Kind, Slot, Unit

PREFIX = "BabyAIText-"
WORDS = {
    "left": "turn left", "right": "turn right", "forward": "go forward", "pickup": "pick up", "drop": "drop",
    "toggle": "toggle", "done": "done",
}  # fmt: skip
"""What an action of the grid is called."""

_NAMES = {words: name for name, words in WORDS.items()} | {name: name for name in WORDS}
_NOTHING = "nothing in sight"
_INVISIBLE = ("unseen", "empty", "agent")
_AGENT_X, _AGENT_Y = VIEW_SIZE // 2, VIEW_SIZE - 1

_Attributes = tuple[str, str, str]


def level_of(environment_id: str) -> str:
    """ "BabyAIText-GoToObj-v0" -> "BabyAI-GoToObj-v0"."""
    return "BabyAI-" + environment_id.removeprefix(PREFIX)


def in_words(environment_id: str) -> str:
    """The inverse of `level_of`."""
    return PREFIX + environment_id.removeprefix("BabyAI-")


def ids() -> frozenset[str]:
    """The environment ids of every level, in words."""
    return frozenset(map(in_words, babyai.ids()))


def session(environment_id: str) -> BabyAIWords:
    return BabyAIWords(environment_id)


class WordsRenderer(TextRenderer):
    """Between BabyAI's units and running text. Units whose text is words already (of a live session) stay as they are;
    `unit` gives such units."""

    name = "babyai-words"

    def slots(self, unit: Unit) -> list[Slot]:
        """The words of a unit; see the module.

        Raises:
          ValueError: for an observation that minigrid does not have, naming what is wrong with it.
        """
        return super().slots(Unit(unit.kind, unit.step, text=text_of(unit)))


def text_of(unit: Unit) -> str:
    """What is written of a unit. Errors as `WordsRenderer.slots`."""
    if unit.text is not None:
        return WORDS.get(unit.text, unit.text) if unit.kind == Kind.ACTION else unit.text
    _, cells = babyai.read_observation(unit, WordsRenderer.name)
    assert unit.data is not None
    if unit.data.get(OCCLUDED):
        raise ValueError(f"{WordsRenderer.name}: step {unit.step} has occluded cells, which words cannot show.")
    attributes = babyai.attributes_of_cells()
    column_X = [[attributes[cells[y * VIEW_SIZE + x]] for y in range(VIEW_SIZE)] for x in range(VIEW_SIZE)]
    carried = column_X[_AGENT_X][_AGENT_Y]
    lines = [f"You carry {_called(carried)}"] if carried[0] not in _INVISIBLE else []
    lines += _walls(column_X)
    for x, column in enumerate(column_X):
        for y, thing in enumerate(column):
            if thing[0] not in (*_INVISIBLE, "wall") and (x, y) != (_AGENT_X, _AGENT_Y):
                lines.append(f"{_called(thing)} {_where(x - _AGENT_X, _AGENT_Y - y)}")
    return "\n".join(lines) or _NOTHING


def _walls(column_X: Sequence[Sequence[_Attributes]]) -> list[str]:
    """The walls that the agent looks at, straight ahead and to both sides, with nothing else before them."""
    ahead = [column_X[_AGENT_X][y] for y in range(_AGENT_Y - 1, -1, -1)]
    left = [column_X[x][_AGENT_Y] for x in range(_AGENT_X - 1, -1, -1)]
    right = [column_X[x][_AGENT_Y] for x in range(_AGENT_X + 1, VIEW_SIZE)]
    lines = []
    for (sideways, forward), line in (((0, 1), ahead), ((-1, 0), left), ((1, 0), right)):
        distance = next((n for n, thing in enumerate(line, start=1) if thing[0] != "empty"), 0)
        if distance and line[distance - 1][0] == "wall":
            lines.append(f"a wall {_where(sideways * distance, forward * distance)}")
    return lines


def _called(thing: _Attributes) -> str:
    """("door", "red", "open") -> "an open red door"."""
    name, color, state = thing
    words = " ".join(word for word in (state, color, name) if word != "none")
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _where(sideways: int, forward: int) -> str:
    """(-2, 3) -> "2 steps left and 3 steps forward"."""
    parts = [(abs(sideways), "right" if sideways > 0 else "left"), (forward, "forward")]
    return " and ".join(f"{number} step{'s' * (number > 1)} {way}" for number, way in parts if number)


def parse(text: str) -> str:
    """The action of the grid that a text names, in words ("turn left") or by its name there ("left").

    Raises:
      ValueError: for any other text.
    """
    if text not in _NAMES or _NAMES[text] == "done":
        raise ValueError(f"expected one of {', '.join(_POSSIBLE)}, got {text!r}")
    return _NAMES[text]


_POSSIBLE = tuple(WORDS[name] for name in ACTIONS if name != "done")
"""Every action that a learner may do: the expert never says that it is done, and nothing ends by it."""


class BabyAIWords:
    """A level as a `TextEnvironment`; a task is a seed. Has an expert, tells valid actions (all are, always), and can
    be copied."""

    version = babyai.BabyAIEnvironment.version
    expert_name = babyai.BabyAIEnvironment.expert_name
    actions = Text(parse)

    def __init__(self, environment_id: str) -> None:
        self.id = environment_id
        self._level = babyai.environment(level_of(environment_id), "words")
        self._seed = -1
        self._done: list[str] = []  # actions, by their names in the grid
        self._expert: _Followed | None = None

    @property
    def max_steps(self) -> int:
        return self._level.max_steps

    def reset(self, task: str) -> list[Unit]:
        if not (task.isascii() and task.isdecimal()):
            raise ValueError(f"{self.id}: expected a number (the level's seed) as task, got {task!r}")
        self._seed, self._done, self._expert = int(task), [], None
        return [_in_text(unit) for unit in self._level.reset(self._seed)]

    def step(self, action: Unit) -> TextStep:
        name = parse(action.text or "")
        step = self._level.step(name)
        self._done.append(name)
        return TextStep((_in_text(step.observation),), step.reward, step.is_done, step.is_success)

    def advice(self) -> list[Unit]:
        """The bot's. It follows an episode from its start: what was done without asking it is done again for it."""
        if self._expert is None:
            self._expert = _Followed(level_of(self.id), self._seed)
        return [Unit(Kind.ACTION, len(self._done), text=WORDS[self._expert.after(self._done)])]

    def valid_actions(self) -> tuple[str, ...]:
        return _POSSIBLE

    def copy(self) -> BabyAIWords:
        other = copy.copy(self)
        other._level, other._done, other._expert = self._level.copy(), list(self._done), None
        return other

    def close(self) -> None:
        self._level.close()


class _Followed:
    """The bot of an episode, in a level of its own: it must see every step that is taken."""

    def __init__(self, level: str, seed: int) -> None:
        self._level = babyai.environment(level, "words")
        self._level.reset(seed)
        self._bot = self._level.expert()
        self._done: list[str] = []
        self._advice = self._bot.next_action(None)

    def after(self, done: Sequence[str]) -> str:
        """The advice after these actions, which go on from those of the last call."""
        for name in done[len(self._done) :]:
            if self._level.step(name).is_done:
                raise ExpertError("the episode is over")
            self._done.append(name)
            self._advice = self._bot.next_action(name)
        return self._advice


def _in_text(unit: Unit) -> Unit:
    return Unit(unit.kind, unit.step, text=text_of(unit))
