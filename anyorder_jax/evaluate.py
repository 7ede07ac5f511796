"""Evaluate: what a checkpoint knows of held-out episodes, and what it does in the environment.

    python -m anyorder_jax.evaluate --checkpoint=runs/any_order [--suite=report,likelihood,robustness,decoding,viewer]
        [--env=BabyAI-GoToObj-v0 --num_episodes=200 --seed=0 --output_dir=runs/any_order/report]
        [--modes=greedy,sampled,visit_penalty --num_windows=8 --goals="red ball,blue key" --mesh=data:2,expert:4]
        [--held_out=seed | layout] [--weights=last | ema]

It leaves in the output directory:

    report      report.json    every number with its interval and counts; the terminal shows the main ones
                episodes.json  the main ones episode by episode
                loss.png       the run's loss curves
                summary.png    success and accuracy beside their baselines
                strip.png      a test trajectory: truth, holes, what the model filled in
                rollout.gif    an episode played by the model; expert.gif the same seed played by the expert
    likelihood  likelihood.json  bounds and chains (evaluation/sequence_nll.py), calibration
    robustness  robustness.json  success and NLL over the strength of disturbances
    decoding    decoding.json    success of other ways to choose an action (evaluation/planning.py)
    viewer      viewer.json      answers for the page that hides what one clicks (evaluation/viewer.py)

Held-out episodes have other seeds, but some are episodes of the training split all the same, and more begin like one:
every report counts them. --held_out=layout leaves out what begins like a training episode (same goal and first
observation) and writes to RUN/report/layout.

A run of text (docs/own_data.md) is asked about its test episodes (asking/), and leaves report.json, rows.jsonl (every
number, episode by episode) and loss.png; where its world is registered it also acts there, on the test episodes' tasks,
and leaves acting.json.
"""

from __future__ import annotations

if __name__ == "__main__":
    from anyorder_jax import command

    command.begin("evaluate")  # imports take seconds

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from anyorder_jax import command, paths, process, run_directory, terminal, weights
from anyorder_jax.acting import evaluation as playing
from anyorder_jax.acting.generator import Generator
from anyorder_jax.asking.run import evaluate_text, is_of_text
from anyorder_jax.config import Config, freeze
from anyorder_jax.environments import registry
from anyorder_jax.evaluation import (
    acting,
    calibration,
    planning,
    policy,
    report,
    robustness,
    sequence_nll,
    viewer,
    world_model,
)
from anyorder_jax.evaluation.held_out import HELD_OUT, HeldOut, Which, open_held_out
from anyorder_jax.evaluation.likelihood import Model
from anyorder_jax.task import collect, differences, directory_of, is_collected, open_task, with_data_of

CONSTANT_ACTION = "forward"
"""What the constant baseline does, where the environment has such an action; else its first action."""


BASELINE_EPISODES = 500
"""Training episodes of another level (`--env`): only its trivial baselines are counted from them."""

SUITES = ("report", "likelihood", "robustness", "decoding", "viewer")

TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "likelihood": lambda found: report.likelihood_table(found["likelihood"]),
    "robustness": lambda found: report.robustness_table(found["curves"]),
    "decoding": lambda found: report.acting_table(found["variants"]),
}
"""What is printed of a suite's content once it is written; the report prints its own before the pictures."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command. What a person can mend ends in one sentence on stderr and exit status 1."""
    terminal.accept_any_letter()
    flags = _parse(arguments)
    with command.door("evaluate"):
        try:
            evaluate(
                flags.checkpoint,
                environment=flags.env,
                num_episodes=flags.num_episodes,
                seed=flags.seed,
                output_dir=flags.output_dir,
                rules=tuple(flags.modes.split(",")),
                num_windows=flags.num_windows,
                suites=tuple(flags.suite.split(",")),
                mesh=flags.mesh,
                which=Which(tuple(filter(None, flags.goals.split(","))), flags.held_out),
                is_average=flags.weights == "ema",
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
    suites: Sequence[str] = ("report",),
    mesh: str = "",
    which: Which = Which(),  # noqa: B008 (a tuple)
    is_average: bool = False,
) -> dict[str, Any]:
    """Evaluates one checkpoint and writes its report.

    Args:
      path: run directory (newest checkpoint) or RUN/checkpoints/STEP.
      environment: another level than it was trained on; empty: the same.
      num_episodes: rollouts, and test episodes asked about (as many as there are).
      seed: rollouts take the first seeds of `sources.seed_range(seed, "test")`, which no training split of
        any collection holds; masks and sampled actions depend on it too. None: the seed of the recorded
        episodes.
      output_dir: default RUN/report, with another level RUN/report/LEVEL, held out by layout "layout" below it.
      rules: how the model's logits become actions, of `policy.RULES`.
      num_windows: windows asked per episode and question at most (of `likelihood`: an eighth of it).
      suites: what is evaluated, of SUITES; a file each.
      mesh: of a run of text, sizes of mesh axes; see `asking.scorer.mesh_of`.
      which: which episodes: with certain goals, held out by seed or by layout.
      is_average: the running average of the weights (config.optimizer.ema_decay) in place of the last ones; the default
        output_dir then ends in "ema".

    Returns:
      The content of every file, by suite.

    Raises:
      FileNotFoundError: no checkpoint there.
      ValueError: an unknown level or rule, or parts that do not belong together; says which.
    """
    if num_episodes < 1 or num_windows < 1 or (seed is not None and seed < 0):
        raise ValueError(
            f"expected num_episodes >= 1, num_windows >= 1 and seed >= 0, got {num_episodes}, {num_windows}, {seed}."
        )
    policy.check_rules(rules)
    unknown = [name for name in suites if name not in SUITES]
    if unknown or not suites:
        raise ValueError(f"--suite: expected names out of {', '.join(SUITES)}, got {unknown or 'none'}.")
    if which.held_out not in HELD_OUT:
        raise ValueError(f"--held_out: expected one of {', '.join(HELD_OUT)}, got {which.held_out!r}.")
    run, step = run_directory.find(path)
    subfolder = which.held_out if which.held_out != "seed" else ""
    kind = "ema" if is_average else ""
    directory = Path(output_dir) if output_dir else run / "report" / environment / subfolder / kind
    meta = run_directory.read_meta(path)
    config = with_data_of(freeze(meta["config"]), run, meta["data"])
    if is_of_text(config):
        if tuple(suites) != ("report",) or environment or subfolder:
            raise ValueError(
                f"{path}: a run of text is asked about its held-out episodes (--suite=report); --suite="
                f"{','.join(suites)}, --env={environment or 'LEVEL'} and --held_out={which.held_out} are for grids. "
                "Leave them out."
            )
        report.make_directory(directory)
        content = evaluate_text(
            path, directory, num_episodes=num_episodes, num_windows=num_windows, seed=seed or 0, goals=which.goals,
            mesh_text=mesh, say=say, is_average=is_average,
        )  # fmt: skip
        known = {"report": content}
        world = content["about"]["environment"]
        if world and registry.is_registered(world):
            known["acting"] = _act_in_text(path, config, directory, num_episodes, seed or 0, is_average)
        _charts(directory).loss_curves(run / "metrics", directory / "loss.png", config.masking)
        print(f"\nWritten to {paths.shown(directory)}")
        return known
    if mesh:
        raise ValueError("--mesh: only runs of text are evaluated on a mesh; leave it out.")
    config, model_config, params, tokenizer = weights.load_for_inference(path, is_average=is_average)
    config = with_data_of(config, run, meta["data"])
    if environment:
        registry.make_environment(environment, config.data.profile).close()  # an unknown level fails here
    report.make_directory(directory)
    trained_on = config.data
    if environment:
        num_training = min(config.data.num_episodes or BASELINE_EPISODES, BASELINE_EPISODES)
        data = dataclasses.replace(config.data, environment=environment, path="", sources="", num_episodes=num_training)
        config = dataclasses.replace(config, data=data)
        if not is_collected(directory_of(config.data)):
            collect(config.data)
    held_out = open_held_out(config, tokenizer, num_episodes, seed, which, trained_on)
    if not environment:
        _refuse_other_data(path, held_out)
    seed = 0 if seed is None else seed
    model = Model(config, model_config, params, held_out.task.vocabulary, held_out.actions, held_out.row_length)
    about = {
        "checkpoint": str(path), "step": step, "environment": held_out.task.environment, "profile": held_out.profile,
        "window": held_out.num_steps, "num_episodes": len(held_out.seeds), "first_seed": held_out.seeds[0],
        "num_test_episodes": len(held_out.examples), "num_windows": num_windows, "seed": seed,
        "goals": list(which.goals), "weights": kind or "last",
        "visit_penalty": policy.VISIT_PENALTY, "overlap": held_out.overlap._asdict(),
        "held_out": held_out.overlap.sentence(),
        "data": {"directory": str(held_out.task.directory), "files": dict(held_out.task.fingerprint["files"])},
    }  # fmt: skip
    contents: dict[str, Any] = {}
    for suite in suites:
        start = time.perf_counter()
        if suite == "report":
            found = _report(directory, run, model, held_out, about, rules, num_windows, seed)
        else:
            found = _others(model, held_out, rules, num_windows, seed)[suite]()
        about_it = {**about, "seconds": round(time.perf_counter() - start, 1)}
        contents[suite] = {"about": about_it, **report.encoded(found)}
        report.write_json(directory / f"{suite}.json", contents[suite])  # before it is printed: nobody may be there
        if suite in TABLES:
            print(TABLES[suite](found))
        if suite != "report":
            print(held_out.overlap.sentence())
    print(f"\nWritten to {paths.shown(directory)}")
    return contents


def _act_in_text(
    path: str, config: Config, directory: Path, num_episodes: int, seed: int, is_average: bool
) -> dict[str, Any]:
    """Plays the test episodes' tasks in the run's world of text, with the model and the baselines."""
    run_config, model_config, params, tokenizer = weights.load_for_inference(path, is_average=is_average)
    task = open_task(config, tokenizer)
    generator = Generator(run_config, model_config, params, task)
    tasks = playing.tasks_of(task.directory, "test", num_episodes)
    found = playing.evaluate(task, generator, task.environment, tasks, seed=seed, say=say)
    content = playing.as_json(found)
    report.write_json(directory / "acting.json", content)  # before it is printed: nobody may be there
    print("\n" + playing.table(found))
    return content


def _refuse_other_data(path: str, held_out: HeldOut) -> None:
    """Raises ValueError when the training split, or the tokenizer, is not what the run was trained on: then it is not
    known what is held out."""
    began, now = run_directory.read_meta(path)["data"], held_out.task.fingerprint
    changed = differences(began, {**now, "shards_sha256": began.get("shards_sha256")})
    if changed:
        raise ValueError(
            f"{held_out.task.directory}: not the data that {path} was trained on ({'; '.join(changed)}). Put those "
            "back, or train again."
        )


def _others(
    model: Model, held_out: HeldOut, rules: Sequence[str], num_windows: int, seed: int
) -> dict[str, Callable[[], dict[str, Any]]]:
    """What makes the content of each suite's file but the report's."""
    settings = {"num_steps": held_out.num_steps, "seed": seed}
    limit = max(1, num_windows // 8)

    def likelihood() -> dict[str, Any]:
        say(f"likelihood: {len(held_out.examples)} test episodes, {limit} windows each")
        found = sequence_nll.evaluate(
            model, held_out.marginals, held_out.cell_words, held_out.examples, limit=limit, **settings
        )
        diagrams = calibration.evaluate(model, held_out.examples, limit=num_windows, **settings)
        return {"likelihood": found, "calibration": diagrams, "num_draws": sequence_nll.NUM_DRAWS}

    def robust() -> dict[str, Any]:
        return {"curves": robustness.evaluate(held_out, model, rules=rules, limit=num_windows, seed=seed, say=say)}

    def decoding() -> dict[str, Any]:
        return {"variants": planning.evaluate(held_out, model, seed=seed, say=say)}

    def view() -> dict[str, Any]:
        say("viewer: every single hole of a few test windows")
        return viewer.precomputed(held_out, model, seed)

    return {"likelihood": likelihood, "robustness": robust, "decoding": decoding, "viewer": view}


def _report(
    directory: Path, run: Path, model: Model, held_out: HeldOut, about: dict[str, Any], rules: Sequence[str],
    num_windows: int, seed: int,
) -> dict[str, Any]:  # fmt: skip
    """World model and acting: the table, the episodes, the pictures."""
    actions, encode = held_out.actions, held_out.task.vocabulary.encode_slot
    say(f"world model: {len(held_out.examples)} test episodes, windows of {held_out.num_steps} steps")
    constant = CONSTANT_ACTION if CONSTANT_ACTION in actions else actions[0]
    known = world_model.evaluate(
        model, held_out.marginals, held_out.cell_words, held_out.examples,
        (constant, encode(constant)),
        num_steps=held_out.num_steps, limit=num_windows, seed=seed,
    )  # fmt: skip
    played = acting.evaluate(
        held_out.make_environment, held_out.seeds, model.action_logits, held_out.make_framer,
        held_out.marginals.action_log_marginals([encode(word) for word in actions]), actions,
        rules=rules, seed=seed, say=say,
    )  # fmt: skip
    paired = report.by_episode({**{f"world_model.{q}": by for q, by in known.items()}, "acting": played.summaries})
    report.write_compact(directory / "episodes.json", paired)
    content = {"world_model": known, "acting": played.summaries}
    report.write_json(
        directory / "report.json", {"about": about, **report.encoded(content)}
    )  # before all that may fail
    print(report.text(about, known, played.summaries))
    draw(directory, run, model, held_out, known, played, rules[0], seed)
    return content


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
    charts = _charts(directory)
    from anyorder_jax.evaluation import film, strip

    say("pictures")
    masking = freeze(run_directory.read_meta(run)["config"]).masking
    charts.loss_curves(run / "metrics", directory / "loss.png", masking)
    title = f"{run.name} on {held_out.task.environment}, {len(held_out.seeds)} held-out episodes"
    charts.summary_chart(known, played.summaries, title, directory / "summary.png")
    shown = strip.choose(held_out.examples, held_out.num_steps, seed)
    strip.draw(shown, model, held_out.cell_words, held_out.task.vocabulary, directory / "strip.png")
    name = acting.model_name(rule)
    environment = held_out.make_environment()
    try:
        steps_E = played.outcomes[acting.EXPERT].steps_E
        for file, who in (("rollout.gif", name), ("expert.gif", acting.EXPERT)):
            episode = film.choose(played.episodes[who], steps_E)
            film.save(film.frames(environment, episode, who.replace("/", ", ")), directory / file)
    finally:
        environment.close()


def _charts(directory: Path) -> ModuleType:
    """What draws; ModuleNotFoundError when the extra `report` is not installed."""
    try:
        from anyorder_jax.evaluation import charts, film, strip  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the pictures need {error.name!r}, which is not installed; the numbers are in "
            f"{directory}/report.json. Run `pip install 'anyorder-jax[report]'`."
        ) from error
    return charts


def say(line: str) -> None:
    """Progress goes to stderr; stdout holds the result alone."""
    print(line, file=sys.stderr, flush=True)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m anyorder_jax.evaluate",
        description="World model and success of a checkpoint on held-out episodes.",
        allow_abbrev=False,
    )
    parser.add_argument("--checkpoint", type=paths.typed, required=True, help="run directory, or RUN/checkpoints/STEP")
    parser.add_argument("--suite", default="report", help=f"comma-separated, of {', '.join(SUITES)}")
    parser.add_argument("--goals", default="", help="only missions with one of these phrases, comma-separated")
    parser.add_argument("--held_out", default="seed", choices=HELD_OUT, help="layout: without starts seen in training")
    parser.add_argument(
        "--weights", default="last", choices=("last", "ema"),
        help="ema: the running average, of a run with config.optimizer.ema_decay",
    )  # fmt: skip
    parser.add_argument("--env", default="", help="another level than it was trained on")
    parser.add_argument("--num_episodes", type=int, default=200, help="rollouts and test episodes")
    parser.add_argument("--seed", type=int, default=None, help="chooses rollout seeds, masks and sampled actions")
    parser.add_argument("--output_dir", type=paths.typed, default="", help="default: RUN/report, or RUN/report/ENV")
    parser.add_argument("--modes", default=",".join(policy.RULES), help="how logits become actions")
    parser.add_argument("--num_windows", type=int, default=8, help="windows asked per episode and question")
    parser.add_argument("--mesh", default="", help="of a run of text: AXIS:SIZE,...; default the run's, or one device")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    process.prepare()
    main()
