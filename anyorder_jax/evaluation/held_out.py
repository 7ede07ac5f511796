"""Held out: the episodes a checkpoint is evaluated on, the baselines of its training split, and the seeds it plays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from anyorder_jax.config import Config
from anyorder_jax.data import sources, units
from anyorder_jax.data.units import TokenisedTrajectory
from anyorder_jax.environments import registry
from anyorder_jax.environments.base import Environment
from anyorder_jax.evaluation.baselines import SlotMarginals
from anyorder_jax.evaluation.measures import CellWords
from anyorder_jax.evaluation.policy import Framer
from anyorder_jax.evaluation.questions import fitting_steps, full_length
from anyorder_jax.task import Task, open_task
from anyorder_jax.types import Field, Kind, Trajectory


class HeldOut(NamedTuple):
    """What is evaluated on. trajectories, examples: the test split, and tokenised. marginals: of the training split.
    seeds: of the rollouts. num_steps: H. row_length: L of a full window."""

    task: Task
    profile: str
    actions: tuple[str, ...]
    trajectories: list[Trajectory]
    examples: list[TokenisedTrajectory]
    marginals: SlotMarginals
    cell_words: CellWords
    seeds: list[int]
    num_steps: int
    row_length: int

    def make_environment(self) -> Environment:
        """Opens the environment that the data come from."""
        return registry.make_environment(self.task.environment, self.profile)

    def make_framer(self) -> Framer:
        """A fresh framer (it remembers episodes)."""
        return Framer(self.task.codec, self.task.vocabulary, self.num_steps, self.actions)


def open_held_out(
    config: Config, tokenizer: Path, num_episodes: int, seed: int | None, goals: Sequence[str] = ()
) -> HeldOut:
    """Reads test and training split, fits the baselines, and chooses the seeds of the rollouts.

    Args:
      config: of the run; its data section says where.
      tokenizer: the run's tokenizer directory.
      num_episodes: rollouts, and test episodes at most.
      seed: chooses the seeds of the rollouts; None: the seed of the recorded episodes.
      goals: keep only episodes whose goal holds one of these phrases (empty: all).

    Raises:
      FileNotFoundError, ValueError: missing or broken data; a seed that the training split holds; no episode with
        such a goal.
    """
    task = open_task(config, tokenizer)
    recorded = sources.read_manifest(task.directory).settings
    collected_with = int(recorded["seed"]) if "seed" in recorded else 0
    all_seeds = sources.seed_range(collected_with if seed is None else seed, "test")
    seeds = (
        _seeds_with(task, config.data.profile, all_seeds, num_episodes, goals)
        if goals
        else list(all_seeds[:num_episodes])
    )
    test = [t for t in task.trajectories("test") if _asks(t.units[0].text or "", goals)][:num_episodes]
    if not test:
        raise ValueError(f"{task.directory}: no test episode has a goal with {' or '.join(goals)}.")
    training = task.trajectories("train", config.data.num_episodes)
    trained_on = {t.source["seed"] for t in training if "seed" in t.source}
    if trained_on.intersection(seeds):
        raise ValueError(
            f"{task.directory}: the training split holds episodes of the rollouts' seeds "
            f"{seeds[0]}..{seeds[-1]}. Choose another --seed."
        )
    examples = [tokenise(t, task) for t in test]
    num_steps = fitting_steps(examples, config.data.window, config.data.row_length)
    observation = next(unit for unit in test[0].units if unit.kind == Kind.OBSERVATION)
    attribute_codec = registry.make_codec(task.environment, "attributes")
    return HeldOut(
        task=task,
        profile=config.data.profile,
        actions=tuple(task.codec.lexicon()[Field.ACTION]),
        trajectories=test,
        examples=examples,
        marginals=SlotMarginals(tokenise(t, task) for t in training),
        cell_words=CellWords(task.codec, attribute_codec, task.vocabulary, observation),
        seeds=seeds,
        num_steps=num_steps,
        row_length=full_length(examples, num_steps),
    )


def tokenise(trajectory: Trajectory, task: Task) -> TokenisedTrajectory:
    """Its tokens; an error says which trajectory it is."""
    try:
        return units.tokenise(trajectory, task.codec, task.vocabulary)
    except ValueError as error:
        raise ValueError(f"trajectory {trajectory.id}: {error}") from error


def _asks(goal: str, phrases: Sequence[str]) -> bool:
    return not phrases or any(phrase in goal for phrase in phrases)


MAX_RESETS = 20_000


def _seeds_with(task: Task, profile: str, seeds: range, num: int, goals: Sequence[str]) -> list[int]:
    """The first seeds whose mission holds one of the phrases."""
    environment = registry.make_environment(task.environment, profile)
    found: list[int] = []
    try:
        for seed in seeds[:MAX_RESETS]:
            if len(found) == num:
                break
            if _asks(environment.reset(seed)[0].text or "", goals):
                found.append(seed)
    finally:
        environment.close()
    if not found:
        raise ValueError(f"--goals: none of {MAX_RESETS} seeds of {task.environment} has {' or '.join(goals)}.")
    return found
