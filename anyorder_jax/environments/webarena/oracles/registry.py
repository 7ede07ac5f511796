"""Registry: which template of the benchmark has which oracle."""

from __future__ import annotations

from collections.abc import Callable

from anyorder_jax.environments.webarena.oracles.steps import Plan, Step, Task

Maker = Callable[[Task], "Plan | list[Step] | None"]
"""What writes a task's plan; None: the task is left out."""
MAKERS: dict[int, Maker] = {}


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
    maker = MAKERS.get(task.template)
    made = maker(task) if maker else None
    return Plan(made) if isinstance(made, list) else made
