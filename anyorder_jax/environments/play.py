"""Play: an expert plays one episode, with wrong actions among its own when asked; in a grid or in a world of text."""

from __future__ import annotations

import dataclasses

import numpy as np

from anyorder_jax.environments.base import (
    Environment,
    ExpertError,
    HasExpert,
    HasPath,
    HasValidActions,
    TextEnvironment,
    take,
)
from anyorder_jax.environments.branching import Brancher, draws
from anyorder_jax.environments.slips import slip
from anyorder_jax.types import Kind, Trajectory, Unit


def play_episode(
    environment: Environment, seed: int, noise: float = 0.0, brancher: Brancher | None = None
) -> Trajectory:
    """Lets the expert play one episode to its successful end.

    With probability `noise` a step does one of `environment.wrong_actions` instead of the expert's advice.
    It is marked `is_expert=False`, and the expert goes on from where it led. Draws depend on the episode
    seed alone.

        advice   forward  left     forward  right    forward
        done     forward  forward  forward  right    forward       left -> forward: a bump into what was ahead
        expert   x        .        x        x        x

    Args:
      environment: any environment with an expert.
      seed: of the episode, >= 0.
      noise: probability of a wrong action, in [0, 1).
      brancher: of this environment: each action records what others would have led to.

    Returns:
      goal, observation_0, action_0, observation_1, ..., action_{n-1}, observation_n.

    Raises:
      ExpertError: when the expert gives up, or the episode ends without success.
    """
    rng = draws("wrong action", seed)
    units = environment.reset(seed)
    expert = environment.expert()
    action: str | None = None
    total_reward, done = 0.0, list[Unit]()
    for index in range(environment.max_steps):
        action, is_expert = expert.next_action(action), True
        if noise and rng.random() < noise:
            wrong = environment.wrong_actions(action)
            action, is_expert = wrong[int(rng.integers(len(wrong)))], False
        unit = Unit(Kind.ACTION, index, text=action, is_expert=is_expert)
        if brancher:
            unit = dataclasses.replace(unit, branches=brancher.ask(seed, done, unit))
        done.append(unit)
        step = environment.step(action)
        total_reward += step.reward
        units += (unit, step.observation)
        if step.is_done:
            if not step.is_success:
                raise ExpertError(f"the episode ended without success after {index + 1} steps")
            return Trajectory(
                id=f"{environment.id}/{seed}",
                units=tuple(units),
                outcome={"success": True, "return": total_reward, "num_steps": index + 1},
                source={
                    "environment": environment.id,
                    "seed": seed,
                    "expert": environment.expert_name,
                    "version": environment.version,
                },
            )
    raise ExpertError(f"no end within {environment.max_steps} steps")


def play_text_episode(
    environment: TextEnvironment,
    task: str,
    noise: float = 0.0,
    brancher: Brancher | None = None,
    slips: float = 0.0,
) -> Trajectory:
    """`play_episode` for a world of text: the expert's thoughts and actions, and what they led to.

    Args:
      environment: with an expert, and for noise with valid actions; an injected one comes without thoughts.
      task: of the episode.
      noise: probability of a wrong action, in [0, 1); the draws depend on the task alone.
      brancher: as in `play_episode`.
      slips: probability that an action is tried first which the world refuses (`slips`), marked like a wrong one, in
        [0, 1); of its own draws. It can follow a path, too: the world is as before.

    Returns:
      What `reset` gave, then each decision and its consequences.

    Raises:
      ExpertError: when there is no expert, it gives up, or the episode ends without success.
      ValueError: noise or slips in a world that does not tell which actions are valid, or noise where the expert
        cannot recover.
    """
    if not isinstance(environment, HasExpert):
        raise ExpertError(f"{environment.id} has no expert")
    for name, share in (("noise", noise), ("slips", slips)):
        if share and not isinstance(environment, HasValidActions):
            raise ValueError(f"play: {environment.id} does not tell which actions are valid, so {name} must be 0.")
    if noise and isinstance(environment, HasPath):
        raise ValueError(
            f"play: the expert of {environment.id} follows a path and cannot go on after a wrong action, so noise must "
            "be 0."
        )
    rng, slipping = draws("wrong action", *task.encode()), draws("slip", *task.encode())
    units = list(environment.reset(task))
    total_reward, num_slips, done = 0.0, 0, list[Unit]()
    for index in range(environment.max_steps):
        if slips and slipping.random() < slips:
            slipped = _slipped(environment, slipping, units[-1].step)
            units += slipped
            num_slips += bool(slipped)
        decision = [dataclasses.replace(unit, step=units[-1].step) for unit in environment.advice()]
        if noise and rng.random() < noise:
            assert isinstance(environment, HasValidActions)
            wrong = [text for text in environment.valid_actions() if text != decision[-1].text]
            if wrong:
                text = wrong[int(rng.integers(len(wrong)))]
                decision = [Unit(Kind.ACTION, decision[-1].step, text=text, is_expert=False)]
        if brancher:
            decision[-1] = dataclasses.replace(decision[-1], branches=brancher.ask(task, done, decision[-1]))
        done.append(decision[-1])
        step = take(environment, decision[-1])
        total_reward += step.reward
        units += [*decision, *step.units]
        if step.is_done:
            if not step.is_success:
                raise ExpertError(f"the episode ended without success after {index + 1} steps")
            return Trajectory(
                id=f"{environment.id}/{task}",
                units=tuple(units),
                outcome={"success": True, "return": total_reward, "num_steps": index + 1 + num_slips},
                source={
                    "environment": environment.id,
                    "task": task,
                    "expert": environment.expert_name,
                    "version": environment.version,
                },
            )
    raise ExpertError(f"no end within {environment.max_steps} steps")


def _slipped(environment: TextEnvironment, rng: np.random.Generator, step: int) -> tuple[Unit, ...]:
    """A slip and what the world answered; nothing where none was found.

    Raises:
      ExpertError: the world did it all the same.
    """
    assert isinstance(environment, HasValidActions) and isinstance(environment, HasExpert)
    text = slip(rng, [*environment.valid_actions(), environment.advice()[-1].text or ""])
    if text is None:
        return ()
    action = Unit(Kind.ACTION, step, text=text, is_expert=False)
    answer = take(environment, action)
    if not answer.is_invalid:
        raise ExpertError(f"slip {text!r} was done, though it is no valid action")
    return action, *answer.units
