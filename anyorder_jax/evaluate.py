"""Evaluate: what a checkpoint knows of held-out episodes, and what it does in the environment.

    python -m anyorder_jax.evaluate --checkpoint=runs/any_order [--env=BabyAI-GoToObj-v0 --num_episodes=200]
        [--seed=0 --output_dir=runs/any_order/report --modes=greedy,sampled,visit_penalty --num_windows=8]

It leaves in the output directory:

    report.json    every number with its interval and counts; the terminal shows the main ones
    loss.png       the run's loss curves
    summary.png    success and accuracy beside their baselines
    strip.png      a test trajectory: truth, holes, what the model filled in
    rollout.gif    an episode played by the model
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from anyorder_jax import checkpoint, process
from anyorder_jax.config import Config
from anyorder_jax.data import sources, units
from anyorder_jax.data.units import TokenisedTrajectory
from anyorder_jax.environments import registry
from anyorder_jax.environments.base import Environment
from anyorder_jax.evaluation import acting, policy, report, world_model
from anyorder_jax.evaluation.baselines import SlotMarginals
from anyorder_jax.evaluation.likelihood import Model
from anyorder_jax.evaluation.measures import CellWords
from anyorder_jax.evaluation.policy import Framer
from anyorder_jax.evaluation.questions import fitting_steps, full_length
from anyorder_jax.task import Task, collect, directory_of, is_collected, open_task
from anyorder_jax.types import Field, Kind, Trajectory

CONSTANT_ACTION = "forward"
"""What the constant baseline does, where the environment has such an action; else its first action."""


class HeldOut(NamedTuple):
    """What is evaluated on. examples: the test split, tokenised. marginals: of the training split.
    seeds: of the rollouts. num_steps: H. row_length: L of a full window."""

    task: Task
    profile: str
    actions: tuple[str, ...]
    examples: list[TokenisedTrajectory]
    marginals: SlotMarginals
    cell_words: CellWords
    seeds: list[int]
    num_steps: int
    row_length: int

    def make_environment(self) -> Environment:
        """Opens the environment that the data come from."""
        return registry.make_environment(self.task.environment, self.profile)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command. What a person can mend ends in one sentence on stderr and exit status 1."""
    flags = _parse(arguments)
    try:
        evaluate(
            flags.checkpoint,
            environment=flags.env,
            num_episodes=flags.num_episodes,
            seed=flags.seed,
            output_dir=flags.output_dir,
            rules=tuple(flags.modes.split(",")),
            num_windows=flags.num_windows,
        )
    except (ValueError, OSError, ModuleNotFoundError) as error:
        sys.exit(f"evaluate: {error}")


def evaluate(
    path: str,
    *,
    environment: str = "",
    num_episodes: int = 200,
    seed: int | None = None,
    output_dir: str = "",
    rules: Sequence[str] = policy.RULES,
    num_windows: int = 8,
) -> dict[str, Any]:
    """Evaluates one checkpoint and writes its report.

    Args:
      path: run directory (newest checkpoint) or RUN/checkpoints/STEP.
      environment: another level than it was trained on; empty: the same.
      num_episodes: rollouts, and test episodes asked about (as many as there are).
      seed: rollouts take the first seeds of `sources.seed_range(seed, "test")`, which no training split of
        any collection holds; masks and sampled actions depend on it too. None: the seed of the recorded
        episodes.
      output_dir: default RUN/report, with another level RUN/report/LEVEL.
      rules: how the model's logits become actions, of `policy.RULES`.
      num_windows: windows asked per episode and question at most.

    Returns:
      The content of report.json.

    Raises:
      FileNotFoundError: no checkpoint there.
      ValueError: an unknown level or rule, or parts that do not belong together; says which.
    """
    if num_episodes < 1 or num_windows < 1 or (seed is not None and seed < 0):
        raise ValueError(
            f"expected num_episodes >= 1, num_windows >= 1 and seed >= 0, got {num_episodes}, {num_windows}, {seed}."
        )
    policy.check_rules(rules)
    start = time.perf_counter()
    run, step = checkpoint.find(path)
    directory = Path(output_dir) if output_dir else run / "report" / environment
    config, model_config, params, tokenizer = checkpoint.load_for_inference(path)
    if environment:
        registry.make_codec(environment, config.data.profile)  # an unknown level fails here
    report.make_directory(directory)
    if environment:
        data = dataclasses.replace(config.data, environment=environment, path="")
        config = dataclasses.replace(config, data=data)
        if not is_collected(directory_of(config.data)):
            collect(config.data)
    held_out = open_held_out(config, tokenizer, num_episodes, seed)
    seed = 0 if seed is None else seed
    task, actions = held_out.task, held_out.actions
    encode = task.vocabulary.encode_slot
    model = Model(config, model_config, params, task.vocabulary, actions, held_out.row_length)
    say(f"world model: {len(held_out.examples)} test episodes, windows of {held_out.num_steps} steps")
    constant = CONSTANT_ACTION if CONSTANT_ACTION in actions else actions[0]
    known = world_model.evaluate(
        model, held_out.marginals, held_out.cell_words, held_out.examples,
        (constant, encode(constant)),
        num_steps=held_out.num_steps, limit=num_windows, seed=seed,
    )  # fmt: skip
    played = acting.evaluate(
        held_out.make_environment, held_out.seeds, model.action_logits,
        lambda: Framer(task.codec, task.vocabulary, held_out.num_steps, actions),
        held_out.marginals.action_log_marginals([encode(word) for word in actions]), actions,
        rules=rules, seed=seed, say=say,
    )  # fmt: skip
    about = {
        "checkpoint": str(path), "step": step, "environment": task.environment, "profile": held_out.profile,
        "window": held_out.num_steps, "num_episodes": len(held_out.seeds), "first_seed": held_out.seeds[0],
        "num_test_episodes": len(held_out.examples), "num_windows": num_windows, "seed": seed,
        "visit_penalty": policy.VISIT_PENALTY, "seconds": round(time.perf_counter() - start, 1),
    }  # fmt: skip
    content = report.document(about, known, played.summaries)
    report.write_json(directory / "report.json", content)
    print(report.text(about, known, played.summaries))
    draw(directory, run, model, held_out, known, played, rules[0], seed)
    print(f"\nWritten to {directory}")
    return content


def open_held_out(config: Config, tokenizer: Path, num_episodes: int, seed: int | None) -> HeldOut:
    """Reads test and training split, fits the baselines, and chooses the seeds of the rollouts.

    Raises:
      FileNotFoundError, ValueError: missing or broken data; a seed that the training split holds.
    """
    task = open_task(config, tokenizer)
    recorded = sources.read_manifest(task.directory).settings
    collected_with = int(recorded["seed"]) if "seed" in recorded else 0
    seeds = list(sources.seed_range(collected_with if seed is None else seed, "test")[:num_episodes])
    test = task.trajectories("test")[:num_episodes]
    training = task.trajectories("train", config.data.num_episodes)
    trained_on = {t.source["seed"] for t in training if "seed" in t.source}
    if trained_on.intersection(seeds):
        raise ValueError(
            f"{task.directory}: the training split holds episodes of the rollouts' seeds "
            f"{seeds[0]}..{seeds[-1]}. Choose another --seed."
        )
    examples = [_tokenise(t, task) for t in test]
    num_steps = fitting_steps(examples, config.data.window, config.data.row_length)
    observation = next(unit for unit in test[0].units if unit.kind == Kind.OBSERVATION)
    attribute_codec = registry.make_codec(task.environment, "attributes")
    return HeldOut(
        task=task,
        profile=config.data.profile,
        actions=tuple(task.codec.lexicon()[Field.ACTION]),
        examples=examples,
        marginals=SlotMarginals(_tokenise(t, task) for t in training),
        cell_words=CellWords(task.codec, attribute_codec, task.vocabulary, observation),
        seeds=seeds,
        num_steps=num_steps,
        row_length=full_length(examples, num_steps),
    )


def _tokenise(trajectory: Trajectory, task: Task) -> TokenisedTrajectory:
    try:
        return units.tokenise(trajectory, task.codec, task.vocabulary)
    except ValueError as error:
        raise ValueError(f"trajectory {trajectory.id}: {error}") from error


def draw(
    directory: Path,
    run: Path,
    model: Model,
    held_out: HeldOut,
    known: world_model.Results,
    played: acting.Played,
    rule: str,
    seed: int,
) -> None:
    """Writes the pictures.

    Raises:
      ModuleNotFoundError: when the extra `report` is not installed.
    """
    try:
        from anyorder_jax.evaluation import charts, film, strip
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the pictures need {error.name!r}, which is not installed; the numbers are in "
            f"{directory}/report.json. Run `pip install 'anyorder-jax[report]'`."
        ) from error
    say("pictures")
    charts.loss_curves(run / "metrics", directory / "loss.png")
    title = f"{run.name} on {held_out.task.environment}, {len(held_out.seeds)} held-out episodes"
    charts.summary_chart(known, played.summaries, title, directory / "summary.png")
    shown = strip.choose(held_out.examples, held_out.num_steps, seed)
    strip.draw(shown, model, held_out.cell_words, held_out.task.vocabulary, directory / "strip.png")
    name = acting.model_name(rule)
    environment = held_out.make_environment()
    try:
        episode = film.choose(played.episodes[name], played.outcomes[acting.EXPERT].steps_E)
        film.save(film.frames(environment, episode, name.replace("/", ", ")), directory / "rollout.gif")
    finally:
        environment.close()


def say(line: str) -> None:
    """Progress goes to stderr; stdout holds the result alone."""
    print(line, file=sys.stderr, flush=True)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m anyorder_jax.evaluate",
        description="World model and success of a checkpoint on held-out episodes.",
        allow_abbrev=False,
    )
    parser.add_argument("--checkpoint", required=True, help="run directory, or RUN/checkpoints/STEP")
    parser.add_argument("--env", default="", help="another level than it was trained on")
    parser.add_argument("--num_episodes", type=int, default=200, help="rollouts and test episodes")
    parser.add_argument("--seed", type=int, default=None, help="chooses rollout seeds, masks and sampled actions")
    parser.add_argument("--output_dir", default="", help="default: RUN/report, or RUN/report/ENV")
    parser.add_argument("--modes", default=",".join(policy.RULES), help="how logits become actions")
    parser.add_argument("--num_windows", type=int, default=8, help="windows asked per episode and question")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    process.prepare()
    main()
