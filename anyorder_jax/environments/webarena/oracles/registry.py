"""Registry: which template of the benchmark has which oracle."""

from __future__ import annotations

from collections.abc import Callable

from anyorder_jax.environments.webarena.oracles.steps import Plan, Step, Task

Maker = Callable[[Task], "Plan | list[Step] | None"]
"""What writes a task's plan; None: the task is left out."""
MAKERS: dict[int, Maker] = {}
LEFT_OUT = {
    "604": "the scorer looks for the number of a forum that it does not know ({{forum_id}})",
    "811": "the scorer cannot read what it expects itself (alternatives of one item)",
}
"""Tasks of these templates that nobody can do by the scorer's word, and why. What a maker leaves out it says itself."""


def plans(*templates: int) -> Callable[[Maker], Maker]:
    """Says of which templates a function writes the plans."""

    def keep(maker: Maker) -> Maker:
        for template in templates:
            assert template not in MAKERS, template
            MAKERS[template] = maker
        return maker

    return keep


def plan_of(task: Task) -> Plan | None:
    """A task's plan; None where there is none."""
    maker = None if task.number in LEFT_OUT else MAKERS.get(task.template)
    made = maker(task) if maker else None
    return Plan(made) if isinstance(made, list) else made
