"""World: a session of BFCL. The agent calls functions, and says when it is done with what the user asked.

system        cd(folder: string)\\n ... \\nend_turn()
goal          I need to gather files that have 'test' in their name ...          the first turn
action        {"name":"find","arguments":{"path":".","name":"test"}}
tool          {"matches": ["./projects/photography/test_image1.jpg", ...]}
action        {"name":"end_turn","arguments":{}}
user          After identifying them, ...                                        the next turn
"""

from __future__ import annotations

import copy
import functools

from anyorder_jax.environments import calls, options
from anyorder_jax.environments.base import InvalidActionError, Text, TextStep
from anyorder_jax.environments.bfcl import folds, generate, tools
from anyorder_jax.environments.bfcl.disturbed import disturbed
from anyorder_jax.environments.bfcl.task import Task, official
from anyorder_jax.environments.branching import draws
from anyorder_jax.environments.calls import Call, Function, describe
from anyorder_jax.environments.gold import next_on
from anyorder_jax.environments.noise import ERROR, Noise
from anyorder_jax.types import Kind, Unit

END = Call("end_turn", {})
"""What an agent writes when it is done with a turn, as a message without calls is in the official harness."""
MAX_STEPS_A_TURN = 40
"""On average. The official harness allows 20 answers of several calls each; the longest official turn has 34 calls."""
MADE_STEPS_A_TURN = 12
"""Of generated tasks, whose turns need five at most: an agent that repeats itself is not waited for."""

_END = {END.name: Function(END.name, "", (), {})}


def parse(text: str) -> Call:
    """A call of any of the eight classes, or `END`. Raises ValueError for another text."""
    return calls.from_json(text, {**tools.functions(), **_END})


@functools.lru_cache(maxsize=64)
def _task(name: str, task: str, wanted: tuple[tuple[str, float | str], ...]) -> Task:
    """A task of a category or a generated world, disturbed as an id's options say."""
    return disturbed(generate.task(name, task) if name in folds.MADE else official(task), dict(wanted))


class Session:
    """An episode at a time. The expert makes the calls of the answer.

    As in the official harness a function of the task's classes is done when it is called, also where it has not been
    described yet (one official answer does so). Success is what the official checker says: after every turn that has an
    answer the state is the answer's, and what the answer's calls tell has been told.
    """

    version = tools.VERSION
    expert_name = "official answer"
    actions = Text(parse)

    def __init__(self, environment_id: str) -> None:
        self.id = environment_id
        self._name, self._with_schemas = folds.name_of(environment_id)
        self._options = options.read(environment_id, folds.OPTIONS)
        if self._name in folds.MADE:
            self.version, self.expert_name = f"{tools.VERSION}, generated {generate.VERSION}", "generating calls"
        self._task: Task | None = None

    @property
    def max_steps(self) -> int:
        most = MADE_STEPS_A_TURN if self._name in folds.MADE else MAX_STEPS_A_TURN
        return most * len(self._playing.turns)

    @property
    def _playing(self) -> Task:
        assert self._task is not None, "reset first"
        return self._task

    def reset(self, task: str) -> list[Unit]:
        if self._name not in folds.MADE and not task.startswith(f"multi_turn_{self._name}_"):
            raise ValueError(f"{self.id}: expected a task like 'multi_turn_{self._name}_7', got {task!r}")
        self._task = _task(self._name, task, tuple(sorted(self._options.items())))
        self._noise = Noise.of(self._task.id, self._options)
        self._instances = self._task.instances()
        self._turn, self._is_wrong = 0, False
        self._transcript: list[list[Call]] = [[]]
        self._answers: list[str] = []
        self._done: list[str] = []
        self._offer()
        lines = describe([*self._offered.values()], self._with_schemas)
        system = Unit(Kind.SYSTEM, 0, text=f"{lines}\n{END.name}()")
        goal = Unit(Kind.GOAL, 0, text=self._task.said(0, self._with_schemas))
        self._texts = [goal.text or ""]
        return [system, goal]

    def _offer(self) -> None:
        self._offered = {function.name: function for function in self._playing.offered(self._turn)}

    def step(self, action: Unit) -> TextStep:
        call = parse(action.text or "")
        if call != END and tools.functions()[call.name].class_name not in self._playing.classes:
            raise InvalidActionError(f"there is no function {call.name!r} here")
        number = sum(done != END.json() for done in self._done)
        self._done.append(call.json())
        if call == END:
            return self._end_turn(action.step + 1)
        told = ERROR
        if not self._noise.fails(number):
            answer = self._instances.execute(call)
            self._transcript[-1].append(call)
            self._answers.append(answer)
            told = self._noise.told(answer)
        self._texts.append(told)
        return TextStep((Unit(Kind.TOOL, action.step + 1, text=told),), 0.0, False, False)

    def _end_turn(self, step: int) -> TextStep:
        if self._playing.truth[self._turn]:
            reference = self._playing.references[self._turn]
            is_right = (
                bool(self._transcript[-1])
                and self._instances.has_state_of(reference.instances)
                and tools.answers_hold(self._answers, reference.answers)
            )
            self._is_wrong |= not is_right
        self._turn += 1
        if self._turn == len(self._playing.turns):
            said = Unit(Kind.USER, step, text="That is all.")
            return TextStep((said,), float(not self._is_wrong), True, not self._is_wrong)
        self._transcript.append([])
        self._offer()
        said = Unit(Kind.USER, step, text=self._playing.said(self._turn, self._with_schemas))
        self._texts.append(said.text or "")
        return TextStep((said,), 0.0, False, False)

    def transcript(self) -> list[list[list[str]]]:
        """The calls of every turn as the official checker reads a model's result: one step a call."""
        return [[[call.python()] for call in turn] for turn in self._transcript]

    def path(self) -> list[str]:
        """The answer's calls, each turn with its end; a call that fails at first is made again."""
        calls = [call.json() for turn in self._playing.truth for call in (*turn, END)]
        return list(self._noise.path(calls, free=END.json()))

    def functions(self) -> list[Function]:
        """What may be called in this turn."""
        return [*self._offered.values(), _END[END.name]]

    def advice(self) -> list[Unit]:
        return [Unit(Kind.ACTION, len(self._done), text=next_on(self.path(), self._done))]

    def valid_actions(self) -> list[str]:
        """Two calls of every function, with arguments from what the user and the tools said last, and the end."""
        words = calls.words_in(" ".join(self._texts[-3:])[-4000:])
        rng = draws("valid calls", *self._playing.id.encode(), len(self._done))
        found = []
        for function in self._offered.values():
            for _ in range(2 if function.parameters else 1):
                chosen = {p.name: calls.drawn(p, words, rng) for p in function.parameters if p.is_required}
                found.append(Call(function.name, chosen).json())
        return [*dict.fromkeys(found), END.json()]

    def copy(self) -> Session:
        """In the same state; the task and what its answer leads to are shared."""
        other = copy.copy(self)
        other._instances = self._instances.copy()
        other._transcript = [list(turn) for turn in self._transcript]
        other._answers, other._done, other._texts = list(self._answers), list(self._done), list(self._texts)
        return other

    def close(self) -> None:
        pass
