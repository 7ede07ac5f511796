"""World: a session of ToolBench. The agent calls APIs of a simulator of our own, and finishes with an answer.

system        love_quote_for_olato_quotes(quotes?: string = "random quotes")\\n ... \\nFinish(return_type: string, ...)
goal          I need a quote about love for my wedding ...
action        {"name":"love_quote_for_olato_quotes","arguments":{}}
tool          {"error":"","response":{"quote":"Relvano-412"}}
action        {"name":"Finish","arguments":{"return_type":"give_answer","final_answer":"Relvano-412"}}
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence

from anyorder_jax.environments import calls, noise, options
from anyorder_jax.environments.base import Text, TextStep
from anyorder_jax.environments.branching import draws
from anyorder_jax.environments.calls import Call, Function
from anyorder_jax.environments.gold import next_on
from anyorder_jax.environments.noise import Noise
from anyorder_jax.environments.options import Known
from anyorder_jax.environments.toolbench import apis, data, names, simulator
from anyorder_jax.environments.toolbench.apis import FINISH, GIVE_ANSWER, GIVE_UP, Api
from anyorder_jax.types import Kind, Unit

VERSION = "1"
MAX_STEPS = 12
"""As ToolBench's `single_chain_max_step`."""
OPTIONS: Known = {"names": names.EDITS, "parameters": names.EDITS, **noise.OPTIONS}


class Session:
    """An episode at a time. Success is the *rule-based pass rate*'s rule, which no model judges (so it is neither
    ToolBench's pass rate nor StableToolBench's solvable pass rate, SoPR):

    1. every API that the data call relevant to the query has been called with arguments that its schema allows;
    2. the episode ends, within its steps, with Finish and return_type give_answer;
    3. the final answer quotes, for each of them, one value that it told (`simulator.quotable`), where it told any.

    Whether the arguments are those that the query means is not looked at: the data do not say which they are.
    """

    expert_name = "relevant APIs"
    max_steps = MAX_STEPS

    def __init__(self, environment_id: str) -> None:
        self.id = environment_id
        self._root = data.directory()
        self._split, self._with_schemas = data.name_of(environment_id)
        self._options = options.read(environment_id, OPTIONS)
        self.version = f"toolbench simulator {VERSION}, data {data.digest(self._root)}"
        self.actions = Text(self._parse)
        self._apis: dict[str, Api] = {}

    def functions(self) -> Sequence[Function]:
        """What may be called."""
        return [*(api.function for api in self._apis.values()), FINISH]

    def _parse(self, text: str) -> Call:
        """A call of one of the task's functions. Raises ValueError for another text."""
        return calls.from_json(text, {function.name: function for function in self.functions()})

    def reset(self, task: str) -> list[Unit]:
        group = task.partition("/")[0]
        if group not in (self._split, self._split[:2]):
            raise ValueError(f"{self.id}: expected a task like '{self._split}/588', got {task!r}")
        instruction = data.instruction(self._root, task)
        found = apis.of_task(instruction)
        self._relevant = [api.key for api in apis.relevant(instruction, found)]
        edits = (str(self._options[name]) if name in self._options else "" for name in ("names", "parameters"))
        new = names.disturbed([api.function for api in found], task, *edits)
        self._apis = {f.name: api.renamed(f) for api, f in zip(found, new, strict=True)}
        self._task, self._query = task, str(instruction["query"]).strip()
        self._noise = Noise.of(task, self._options)
        self._done: list[str] = []
        self._told: dict[tuple[str, str], list[str]] = {}
        self._texts = [self._query]
        self._path = self._solution()
        system = Unit(Kind.SYSTEM, 0, text=calls.describe(self.functions(), self._with_schemas))
        return [system, Unit(Kind.GOAL, 0, text=self._query)]

    def _solution(self) -> list[str]:
        """The expert's actions."""
        by_key = {api.key: api for api in self._apis.values()}
        solving = [apis.solving_call(by_key[key], self._query, self._task) for key in self._relevant]
        quotes = [(self._answer(call)[1] or ["done"])[0] for call in solving]
        answer = Call(FINISH.name, {"return_type": GIVE_ANSWER, "final_answer": f"I found {', '.join(quotes)}."})
        return [*self._noise.path([call.json() for call in solving]), answer.json()]

    def _answer(self, call: Call) -> tuple[str, list[str]]:
        """(what the agent is told, the values in it that it can quote)."""
        api = self._apis[call.name]
        arguments = {api.given[name]: value for name, value in call.arguments.items()}
        response = simulator.answer(self._task, "\0".join(api.key), arguments, api.schema)
        whole = json.dumps({"error": "", "response": response}, ensure_ascii=False, separators=(",", ":"))
        told = self._noise.told(whole)
        return told, [value for value in simulator.quotable(response) if simulator.is_quoted(value, told)]

    def step(self, action: Unit) -> TextStep:
        call = self._parse(action.text or "")
        if call.name == FINISH.name:
            return self._finish(call, action.step + 1)
        told = noise.ERROR
        if not self._noise.fails(len(self._done)):
            told, values = self._answer(call)
            self._told.setdefault(self._apis[call.name].key, []).extend(values)
        self._done.append(call.json())
        self._texts.append(told)
        return TextStep((Unit(Kind.TOOL, action.step + 1, text=told),), 0.0, False, False)

    def _finish(self, call: Call, step: int) -> TextStep:
        answer = str(call.arguments.get("final_answer", ""))
        is_success = call.arguments["return_type"] == GIVE_ANSWER and all(
            key in self._told
            and (not self._told[key] or any(simulator.is_quoted(value, answer) for value in self._told[key]))
            for key in self._relevant
        )
        said = Unit(Kind.TOOL, step, text='{"response":"the answer was taken"}')
        return TextStep((said,), float(is_success), True, is_success)

    def path(self) -> list[str]:
        """The expert's actions: each relevant API once, and an answer that quotes the first value of each."""
        return self._path

    def advice(self) -> list[Unit]:
        return [Unit(Kind.ACTION, len(self._done), text=next_on(self._path, self._done))]

    def valid_actions(self) -> list[str]:
        """Two calls of every function, with arguments from what was said last, and answers that quote some of it."""
        words = calls.words_in(" ".join(self._texts[-3:])[-4000:])
        rng = draws("valid calls", *self._task.encode(), len(self._done))
        found = []
        for api in self._apis.values():
            required = [p for p in api.function.parameters if p.is_required]
            for _ in range(2 if required else 1):
                found.append(Call(api.function.name, {p.name: calls.drawn(p, words, rng) for p in required}).json())
        quoted = ", ".join(value for values in self._told.values() for value in values[:1])
        answer = {"return_type": GIVE_ANSWER, "final_answer": quoted or words[int(rng.integers(len(words)))]}
        found += [Call(FINISH.name, answer).json(), Call(FINISH.name, {"return_type": GIVE_UP}).json()]
        return list(dict.fromkeys(found))

    def copy(self) -> Session:
        """In the same state; the task is shared."""
        other = copy.copy(self)
        other.actions = Text(other._parse)
        other._done, other._texts = list(self._done), list(self._texts)
        other._told = {key: list(values) for key, values in self._told.items()}
        return other

    def close(self) -> None:
        pass
