"""Grids, evaluated: a checkpoint's reports about held-out episodes of one level. What `evaluate` opens."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from anyorder_jax import weights
from anyorder_jax.asking import rows
from anyorder_jax.asking.scorer import mesh_of
from anyorder_jax.asking.subject import Subject
from anyorder_jax.collected import collect, directory_of, is_collected
from anyorder_jax.environments import registry
from anyorder_jax.evaluation import (
    acting,
    calibration,
    grid_rows,
    planning,
    policy,
    report,
    robustness,
    sequence_nll,
    viewer,
    world_model,
)
from anyorder_jax.evaluation.held_out import HeldOut, open_held_out
from anyorder_jax.evaluation.likelihood import Model
from anyorder_jax.evaluation.request import Request
from anyorder_jax.provenance import differences

CONSTANT_ACTION = "forward"
"""What the constant baseline does, where the environment has such an action; else its first action."""


BASELINE_EPISODES = 500
"""Training episodes of another level (`--env`): only its trivial baselines are counted from them."""

TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "likelihood": lambda found: report.likelihood_table(found["likelihood"]),
    "robustness": lambda found: report.robustness_table(found["curves"]),
    "decoding": lambda found: report.acting_table(found["variants"]),
}
"""What is printed of a part's content once it is written; the report prints its own before the pictures."""


class Opened(NamedTuple):
    """What is evaluated, ready: subject, request, model (in which dtype), held_out, and where the files go."""

    subject: Subject
    request: Request
    model: Model
    held_out: HeldOut
    directory: Path
    say: Callable[[str], None]
    dtype: str

    @property
    def seed(self) -> int:
        """The seed that masks and sampled actions are drawn with."""
        return self.request.seed or 0


def evaluate(subject: Subject, directory: Path, request: Request, say: Callable[[str], None]) -> dict[str, Any]:
    """Evaluates a checkpoint on episodes of a level and writes the files of `request.parts`.

    Args:
      subject: the checkpoint and its data.
      directory: for the files; made when it is not there.
      request: what is asked.
      say: gets lines of progress.

    Returns:
      The content of every file, by part.

    Raises:
      FileNotFoundError, ValueError: an unknown level, missing data, or parts that do not belong together; says which.
    """
    environment, config = request.environment, subject.config
    mesh = mesh_of(config, request.mesh)
    loaded = weights.load_for_inference(subject.path, mesh, request.dtype, subject.is_average)
    _, model_config, params, tokenizer = loaded
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
    held_out = open_held_out(config, tokenizer, request.num_episodes, request.seed, request.which, trained_on)
    if not environment:
        refuse_other_data(subject, held_out)
    model = Model(config, model_config, params, held_out.task.vocabulary, held_out.actions, held_out.row_length)
    opened = Opened(subject, request, model, held_out, directory, say, loaded.dtype)
    about = _about(opened)
    contents: dict[str, Any] = {}
    for part in request.parts:
        start = time.perf_counter()
        found = _report(opened, about) if part == "report" else _others(opened)[part]()
        about_it = {**about, "seconds": round(time.perf_counter() - start, 1)}
        contents[part] = {"about": about_it, **report.encoded(found)}
        report.write_json(directory / f"{part}.json", contents[part])  # before it is printed: nobody may be there
        if part in TABLES:
            print(TABLES[part](found))
        if part != "report":
            print(held_out.overlap.sentence())
    return contents


def _about(opened: Opened) -> dict[str, Any]:
    held_out, request = opened.held_out, opened.request
    return {
        "checkpoint": str(opened.subject.path), "step": opened.subject.step, "environment": held_out.task.environment,
        "profile": held_out.profile,
        "window": held_out.num_steps, "num_episodes": len(held_out.seeds), "first_seed": held_out.seeds[0],
        "num_test_episodes": len(held_out.examples), "num_windows": request.num_windows, "seed": opened.seed,
        "goals": list(request.which.goals), "weights": request.weights, "dtype": opened.dtype,
        "visit_penalty": policy.VISIT_PENALTY,
        "overlap": held_out.overlap._asdict(), "held_out": held_out.overlap.sentence(),
        "data": {"directory": str(held_out.task.directory), "files": dict(held_out.task.fingerprint["files"])},
    }  # fmt: skip


def refuse_other_data(subject: Subject, held_out: HeldOut) -> None:
    """Raises ValueError when the training split, or the tokenizer, is not what the run was trained on: then it is not
    known what is held out."""
    began, now = subject.began, held_out.task.fingerprint
    changed = differences(began, {**now, "shards_sha256": began.get("shards_sha256")})
    if changed:
        raise ValueError(
            f"{held_out.task.directory}: not the data that {subject.path} was trained on ({'; '.join(changed)}). Put "
            "those back, or train again."
        )


def _others(opened: Opened) -> dict[str, Callable[[], dict[str, Any]]]:
    """What makes the content of each part's file but the report's."""
    model, held_out, seed, say = opened.model, opened.held_out, opened.seed, opened.say
    rules, num_windows = opened.request.rules, opened.request.num_windows
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


def _report(opened: Opened, about: dict[str, Any]) -> dict[str, Any]:
    """World model and acting: the table, the episodes, the pictures."""
    model, held_out, seed, say = opened.model, opened.held_out, opened.seed, opened.say
    directory, rules = opened.directory, opened.request.rules
    actions, encode = held_out.actions, held_out.task.vocabulary.encode_slot
    say(f"world model: {len(held_out.examples)} test episodes, windows of {held_out.num_steps} steps")
    constant = CONSTANT_ACTION if CONSTANT_ACTION in actions else actions[0]
    known = world_model.evaluate(
        model, held_out.marginals, held_out.cell_words, held_out.examples,
        (constant, encode(constant)),
        num_steps=held_out.num_steps, limit=opened.request.num_windows, seed=seed,
    )  # fmt: skip
    log_marginals = held_out.marginals.action_log_marginals([encode(word) for word in actions])
    played = acting.evaluate(
        held_out.make_environment, held_out.seeds, model.action_logits, held_out.make_framer,
        dict(zip(actions, log_marginals.tolist(), strict=True)),
        rules=rules, seed=seed, say=say,
    )  # fmt: skip
    paired = report.by_episode({**{f"world_model.{q}": by for q, by in known.items()}, "acting": played.summaries})
    report.write_compact(directory / "episodes.json", paired)
    rows.write(directory / "rows.jsonl", grid_rows.of(opened.subject, held_out, known, played.summaries))
    content = {"world_model": known, "acting": played.summaries}
    report.write_json(
        directory / "report.json", {"about": about, **report.encoded(content)}
    )  # before all that may fail
    print(report.text(about, known, played.summaries))
    draw(opened, known, played)
    return content


def draw(opened: Opened, known: world_model.Results, played: acting.Played) -> None:
    """Writes the pictures.

    Raises:
      ModuleNotFoundError: when the extra `report` is not installed.
    """
    directory, held_out, run = opened.directory, opened.held_out, opened.subject.run
    charts = charts_module(directory)
    from anyorder_jax.evaluation import film, strip

    opened.say("pictures")
    masking = opened.subject.config.masking
    charts.loss_curves(run / "metrics", directory / "loss.png", masking)
    title = f"{run.name} on {held_out.task.environment}, {len(held_out.seeds)} held-out episodes"
    charts.summary_chart(known, played.summaries, title, directory / "summary.png")
    shown = strip.choose(held_out.examples, held_out.num_steps, opened.seed)
    strip.draw(shown, opened.model, held_out.cell_words, held_out.task.vocabulary, directory / "strip.png")
    name = acting.model_name(opened.request.rules[0])
    environment = held_out.make_environment()
    try:
        steps_E = played.outcomes[acting.EXPERT].steps_E
        for file, who in (("rollout.gif", name), ("expert.gif", acting.EXPERT)):
            episode = film.choose(played.episodes[who], steps_E)
            film.save(film.frames(environment, episode, who.replace("/", ", ")), directory / file)
    finally:
        environment.close()


def charts_module(directory: Path) -> ModuleType:
    """What draws; ModuleNotFoundError when the extra `report` is not installed."""
    try:
        from anyorder_jax.evaluation import charts, film, strip  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the pictures need {error.name!r}, which is not installed; the numbers are in "
            f"{directory}/report.json. Run `pip install 'anyorder-jax[report]'`."
        ) from error
    return charts
