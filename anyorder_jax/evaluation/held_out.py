"""Held out: the episodes a checkpoint is evaluated on, the baselines of its training split, and the seeds it plays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from anyorder_jax.collected import directory_of
from anyorder_jax.config import Config, DataConfig
from anyorder_jax.data import sources, units
from anyorder_jax.data.overlap import Known
from anyorder_jax.data.units import TokenisedTrajectory
from anyorder_jax.environments import registry
from anyorder_jax.environments.base import Environment
from anyorder_jax.evaluation.baselines import SlotMarginals
from anyorder_jax.evaluation.measures import CellWords
from anyorder_jax.evaluation.policy import Framer
from anyorder_jax.evaluation.questions import fitting_steps, full_length
from anyorder_jax.task import Task, admitted, open_task
from anyorder_jax.types import Field, Kind, Trajectory, Unit

HELD_OUT = ("seed", "layout")
"""How episodes are held out: by another seed, or also by another start (goal and first observation)."""


class Which(NamedTuple):
    """Which episodes. goals: only those whose goal holds one of these phrases (empty: all). held_out: of HELD_OUT."""

    goals: Sequence[str] = ()
    held_out: str = "seed"


class Overlap(NamedTuple):
    """How many of the held-out episodes the run has trained on under another seed. Counts of `layout` are of what was
    left out. num_same_start: test episodes with goal and first observation of a training episode; num_identical: of
    them those that are equal to the end; None: the training data are not here."""

    held_out: str
    num_episodes: int
    num_identical: int | None
    num_same_start: int | None
    num_seeds: int
    num_seeds_same_start: int | None

    def sentence(self) -> str:
        """How many held-out episodes begin like, or are, training episodes: a sentence for the report."""
        if self.num_identical is None:
            return "Held out by seed: what the run was trained on is not here, so nobody counted episodes it has seen."
        test = (
            f"of {self.num_episodes} test episodes {self.num_identical} are identical to a training episode of another "
            f"seed, {self.num_same_start} begin like one (same goal and first observation); of {self.num_seeds} "
            f"rollout seeds {self.num_seeds_same_start} begin like one"
        )
        if self.held_out == "seed":
            return f"Held out by seed: {test}. --held_out=layout leaves these out."
        return f"Held out by layout: {test}; these were left out."


class HeldOut(NamedTuple):
    """What is evaluated on. trajectories, examples: the test split, and tokenised. marginals: of the training split.
    seeds: of the rollouts. num_steps: H. row_length: L of a full window. overlap: what of it the run has seen."""

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
    overlap: Overlap

    def make_environment(self) -> Environment:
        """Opens the environment that the data come from."""
        return registry.make_environment(self.task.environment, self.profile)

    def make_framer(self) -> Framer:
        """A fresh framer (it remembers episodes)."""
        return Framer(self.task.codec, self.task.vocabulary, self.num_steps, self.actions)


def open_held_out(
    config: Config,
    tokenizer: Path,
    num_episodes: int,
    seed: int | None,
    which: Which = Which(),  # noqa: B008 (a tuple)
    trained_on: DataConfig | None = None,
) -> HeldOut:
    """Reads test and training split, fits the baselines, and chooses the seeds of the rollouts.

    Args:
      config: of the run; its data section says where.
      tokenizer: the run's tokenizer directory.
      num_episodes: rollouts, and test episodes at most.
      seed: chooses the seeds of the rollouts; None: the seed of the recorded episodes.
      which: which episodes.
      trained_on: what the run learned from, when that is not `config.data` (another level).

    Raises:
      FileNotFoundError, ValueError: missing or broken data; episodes that no environment plays; a seed that the
        training split holds; no such episode; held out by layout where the training data are not here.
    """
    task = open_task(config, tokenizer)
    if not registry.is_registered(task.environment):
        raise ValueError(
            f"{task.directory}: the episodes are of {task.environment or 'no environment'!r}, which is not registered "
            "here (environments/registry.py), so nobody can act in it: they can be trained on, but not evaluated."
        )
    if task.codec.is_running_text:
        raise ValueError(
            f"{task.directory}: a run of text ({task.codec.name}); what is drawn of a grid cannot be drawn of it. "
            "`python -m anyorder_jax.evaluate --checkpoint=RUN` asks it, and acts."
        )
    training = task.trajectories("train", config.data.num_episodes)
    known = _known(task, training, config.data, trained_on or config.data)
    if which.held_out == "layout" and known is None:
        raise ValueError("--held_out=layout: the data that the run was trained on are not here. Put them there again.")
    recorded = sources.read_manifest(task.directory).settings
    collected_with = int(recorded["seed"]) if "seed" in recorded else 0
    all_seeds = sources.seed_range(collected_with if seed is None else seed, "test")
    seeds, tried = _choose_seeds(task, config.data.profile, all_seeds, num_episodes, which, known)
    asked = [t for t in task.trajectories("test") if _asks(t.units, which.goals)]
    test, looked_at = asked[:num_episodes], asked[:num_episodes]
    if which.held_out == "layout" and known is not None:
        test, looked_at = [t for t in asked if not known.begins(t.units)][:num_episodes], asked
    if not test:
        goals = f" with {' or '.join(which.goals)}" if which.goals else ""
        raise ValueError(f"{task.directory}: no test episode{goals} is left, held out by {which.held_out}.")
    trained_seeds = {t.source["seed"] for t in training if "seed" in t.source}
    if trained_seeds.intersection(seeds):
        raise ValueError(
            f"{task.directory}: the training split holds episodes of the rollouts' seeds "
            f"{seeds[0]}..{seeds[-1]}. Choose another --seed."
        )
    counts = known.counts(looked_at) if known is not None else {}
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
        overlap=Overlap(
            which.held_out, len(looked_at), counts.get("num_identical"), counts.get("num_same_start"), len(tried),
            sum(tried) if known is not None else None,
        ),
    )  # fmt: skip


def _known(task: Task, training: Sequence[Trajectory], data: DataConfig, trained_on: DataConfig) -> Known | None:
    """What the run was trained on; None where that is another level's and not here any more."""
    if trained_on is not data:
        try:
            directory = directory_of(trained_on)
            training = task._replace(directory=directory, fingerprint={}).trajectories("train", trained_on.num_episodes)
        except FileNotFoundError:
            return None
    return Known.of(admitted(training, trained_on))


def tokenise(trajectory: Trajectory, task: Task) -> TokenisedTrajectory:
    """Its tokens; an error says which trajectory it is."""
    try:
        return units.tokenise(trajectory, task.codec, task.vocabulary)
    except ValueError as error:
        raise ValueError(f"trajectory {trajectory.id}: {error}") from error


def _asks(units: Sequence[Unit], phrases: Sequence[str]) -> bool:
    return not phrases or any(phrase in (units[0].text or "") for phrase in phrases)


MAX_RESETS = 20_000


def _choose_seeds(
    task: Task, profile: str, seeds: range, num: int, which: Which, known: Known | None
) -> tuple[list[int], list[bool]]:
    """(the first seeds that `which` admits, of all with such a goal that were looked at whether a training episode
    begins alike)."""
    environment = registry.make_environment(task.environment, profile)
    found: list[int] = []
    tried: list[bool] = []
    try:
        for seed in seeds[: max(num, MAX_RESETS)]:
            if len(found) == num:
                break
            units = environment.reset(seed)
            if _asks(units, which.goals):
                tried.append(known is not None and known.begins(units))
                if which.held_out == "seed" or not tried[-1]:
                    found.append(seed)
    finally:
        environment.close()
    if not found:
        goals = f" has {' or '.join(which.goals)}" if which.goals else " is left"
        raise ValueError(f"none of {MAX_RESETS} seeds of {task.environment}{goals}, held out by {which.held_out}.")
    return found, tried
