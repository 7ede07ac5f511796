"""Evaluate: what a checkpoint knows of held-out episodes, and what it does in the environment.

    python -m anyorder_jax.evaluate --checkpoint=runs/any_order [--parts=report,likelihood,robustness,decoding,viewer]
        [--env=BabyAI-GoToObj-v0 --num_episodes=200 --seed=0 --output_dir=runs/any_order/report]
        [--rules=greedy,sampled,visit_penalty --num_windows=8 --goals="red ball,blue key"]
        [--mesh=data:2,expert:4 --dtype=bfloat16 | int8]
        [--held_out=seed | layout] [--choosing=guided,checked] [--weights=last | ema] [--split=test]
        [--threshold=0.95] [--reuse_prefix]                   (how a run of text writes its actions; docs/decoding.md)

It leaves in the output directory:

    report      report.json    every number with its interval and counts; the terminal shows the main ones
                episodes.json  the main ones episode by episode
                rows.jsonl     every number episode by episode, as result rows (asking/rows.py)
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

Weights lie on the run's mesh where its devices are there (--mesh: another), in the run's dtype or in --dtype:
bfloat16, or int8 for the layers' matrices. Only what is asked goes through the head. Whether that fits a machine that
is not here: `python -m anyorder_jax.fit --what=evaluate`.

A run of text (docs/own_data.md) is asked about its test episodes (asking/), and leaves report.json, rows.jsonl (every
number, episode by episode) and loss.png; where its world can be opened it also acts there, on the test episodes' tasks,
and leaves acting.json and the model's episodes (played/, a directory of episodes like any other). Where a handful of
logs has no test split, it is asked about validation, or else training episodes, with a warning; --split names one.
With --env it acts alone, on the test tasks of another world, or of its own with options ("BFCL-base+errors=0.3").

A run on several sources (data.sources) is evaluated on each by itself, into a folder named for it (RUN/report/mine);
RUN/report/rows.jsonl has the rows of all of them, RUN/report/report.json says what was evaluated.
"""

from __future__ import annotations

if __name__ == "__main__":
    from anyorder_jax import command

    command.begin("evaluate")  # imports take seconds

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anyorder_jax import command, paths, process, run_directory, terminal, weights
from anyorder_jax.acting import evaluation as playing
from anyorder_jax.acting.choosing import CHOICES
from anyorder_jax.acting.decoding import SURE, Decoding
from anyorder_jax.acting.generator import Generator
from anyorder_jax.asking import rows
from anyorder_jax.asking.evaluation import Selection, choose_split
from anyorder_jax.asking.run import evaluate_text, is_of_text
from anyorder_jax.asking.scorer import mesh_of
from anyorder_jax.asking.subject import Subject
from anyorder_jax.config import freeze, parse_sources
from anyorder_jax.data import sources
from anyorder_jax.environments import registry
from anyorder_jax.evaluation import of_grid, policy, report
from anyorder_jax.evaluation.held_out import HELD_OUT, Which
from anyorder_jax.evaluation.request import PARTS, Request
from anyorder_jax.provenance import with_data_of
from anyorder_jax.task import open_task, source_configs


def main(arguments: Sequence[str] | None = None) -> None:
    """The command. What a person can mend ends in one sentence on stderr and exit status 1."""
    terminal.accept_any_letter()
    flags = _parse(arguments)
    with command.door("evaluate"):
        try:
            request = Request(
                environment=flags.env,
                num_episodes=flags.num_episodes,
                seed=flags.seed,
                output_dir=flags.output_dir,
                rules=tuple(flags.rules.split(",")),
                num_windows=flags.num_windows,
                parts=tuple(flags.parts.split(",")),
                mesh=flags.mesh,
                dtype=flags.dtype,
                choosing=tuple(filter(None, flags.choosing.split(","))),
                which=Which(tuple(filter(None, flags.goals.split(","))), flags.held_out),
                is_average=flags.weights == "ema",
                split=flags.split,
                decoding=Decoding(flags.threshold, reuse_prefix=flags.reuse_prefix),
            )
            evaluate(flags.checkpoint, request)
        except (ValueError, OSError, ModuleNotFoundError) as error:
            sys.exit(f"evaluate: {error}")


def evaluate(path: str, request: Request = Request()) -> dict[str, Any]:  # noqa: B008 (frozen)
    """Evaluates one checkpoint and writes its report.

    Args:
      path: run directory (newest checkpoint) or RUN/checkpoints/STEP.
      request: what is evaluated.

    Returns:
      The content of every file, by part; of a mixture {source: the same}.

    Raises:
      FileNotFoundError: no checkpoint there, or no data.
      ValueError: an unknown level, or parts that do not belong together; says which.
    """
    run, step = run_directory.find(path)
    meta = run_directory.read_meta(path)
    config = weights.held_in(with_data_of(freeze(meta["config"]), run, meta["data"]), request.dtype)
    subject = Subject(path, run, step, config, meta["data"], is_average=request.is_average)
    kind = "ema" if request.is_average else ""
    if config.data.sources:
        directory = Path(request.output_dir) if request.output_dir else run / "report" / request.subfolder / kind
        contents = _each_source(subject, directory, request)
    else:
        folder = run / "report" / request.environment / request.subfolder / kind
        directory = Path(request.output_dir) if request.output_dir else folder
        contents = _one_source(subject, directory, request)
    print(f"\nWritten to {paths.shown(directory)}")
    return contents


def _one_source(subject: Subject, directory: Path, request: Request) -> dict[str, Any]:
    """The content of every file, by part, of data of one kind."""
    if not is_of_text(subject.config):
        if request.choosing:
            raise ValueError("--choosing: only runs of text act so; leave it out (--parts=decoding has a grid's ways).")
        if request.decoding != SURE:
            raise ValueError("--threshold, --reuse_prefix: only runs of text write their actions so; leave them out.")
        if request.split not in ("", "test"):
            raise ValueError("--split: only runs of text are asked about other splits than test; leave it out.")
        return of_grid.evaluate(subject, directory, request, say)
    if tuple(request.parts) != ("report",) or request.subfolder:
        raise ValueError(
            f"{subject.path}: a run of text is asked about its held-out episodes (--parts=report); --parts="
            f"{','.join(request.parts)} and --held_out={request.which.held_out} are for grids. Leave them out."
        )
    if request.environment and not registry.is_text(request.environment):
        raise ValueError(f"--env: {request.environment} is no world of text, in which a run of text could act.")
    if request.environment:
        registry.make_session(request.environment).close()  # before anything is loaded
    mesh = mesh_of(subject.config, request.mesh)
    request.decoding.refuse_devices(mesh.size)  # before hours of asking
    report.make_directory(directory)
    loaded = weights.load_for_inference(subject.path, mesh, request.dtype, subject.is_average)
    if request.environment:
        return {"acting": _act_in_text(subject, loaded, request.environment, directory, request)}
    content = evaluate_text(
        subject, directory, selection=Selection(request.num_episodes, request.which.goals, request.split),
        num_windows=request.num_windows, seed=request.seed or 0, loaded=loaded, say=say,
    )  # fmt: skip
    known = {"report": content}
    world = registry.world_of_text(content["about"]["environment"], subject.config.data.profile)
    if world and _can_open(world):
        known["acting"] = _act_in_text(subject, loaded, world, directory, request)
    charts = of_grid.charts_module(directory)
    charts.loss_curves(subject.run / "metrics", directory / "loss.png", subject.config.masking)
    return known


def _each_source(mixture: Subject, directory: Path, request: Request) -> dict[str, dict[str, Any]]:
    """Evaluates the sources of a mixture one by one, each into a folder of its name below `directory`.

    Raises:
      ValueError: when no source can be asked.
    """
    if request.environment:
        raise ValueError(
            f"--env: {mixture.path} was trained on several sources, and is evaluated on those. Leave it out."
        )
    weights_of = list(parse_sources(mixture.config.data.sources).values())
    configs = source_configs(mixture.config)
    contents: dict[str, dict[str, Any]] = {}
    about: dict[str, Any] = {"checkpoint": str(mixture.path), "step": mixture.step, "sources": {}}
    began = mixture.began.get("sources", [{}] * len(configs))
    for (name, config), weight, then in zip(configs.items(), weights_of, began, strict=True):
        asked, reason = _request_of(request, is_of_text(config), sources.has_split(config.data.path, "test"))
        if asked is None:
            say(f"{name}: left out, because {reason}.")
            about["sources"][name] = {"directory": config.data.path, "weight": weight, "left_out": reason}
            continue
        print(f"\n{name}: {paths.shown(config.data.path)}, weight {weight / sum(weights_of):.3g}\n", flush=True)
        subject = mixture._replace(config=config, began=then, source=name)
        contents[name] = _one_source(subject, directory / name, asked)
        about["sources"][name] = {"directory": config.data.path, "weight": weight}
    if not contents:
        raise ValueError(f"{mixture.path}: none of its sources can be asked for --parts={','.join(request.parts)}.")
    about["data"] = [data for found in contents.values() for one in found.values() for data in _data_of(one)]
    if "report" in request.parts:
        files = [directory / name / "rows.jsonl" for name in contents]
        rows.write(directory / "rows.jsonl", (row for file in files for row in rows.read(file)))
    for part in request.parts:
        told = {name: found[part] for name, found in contents.items() if part in found}
        report.write_json(directory / f"{part}.json", {"about": about, "sources": told})
    return contents


def _data_of(content: dict[str, Any]) -> list[dict[str, Any]]:
    data = content.get("about", {}).get("data")
    return [data] if data else []


def _request_of(request: Request, is_text: bool, has_test: bool) -> tuple[Request | None, str]:
    """What one source of a mixture can be asked of a request; None and why, where it is nothing."""
    if not is_text:
        if not has_test:
            return None, "it has no test split, whose episodes would be asked about"
        return dataclasses.replace(request, choosing=(), split="", decoding=SURE), ""
    if "report" not in request.parts or request.subfolder:
        return None, "text is asked about its test episodes by --parts=report alone, held out as they are"
    return dataclasses.replace(request, parts=("report",)), ""


def _can_open(world: str) -> bool:
    """Whether a world can be acted in on this machine; says why it cannot."""
    try:
        registry.make_session(world).close()
    except (ImportError, RuntimeError) as error:
        say(f"acting is left out: {error}")
        return False
    return True


def _act_in_text(
    subject: Subject, loaded: weights.Loaded, world: str, directory: Path, request: Request
) -> dict[str, Any]:
    """Plays the test episodes' tasks in the run's world of text, with the model and the baselines.

    Args:
      subject: the checkpoint and its data.
      loaded: its weights.
      world: name of the environment.
      directory: for acting.json and the episodes.
      request: what is asked.
    """
    task = open_task(subject.config, loaded.tokenizer)
    generator = Generator(subject.config, loaded.model_config, loaded.params, task, request.decoding)
    split, _ = choose_split(task.directory, request.split)
    tasks = playing.tasks_of(task.directory, split, request.num_episodes)
    if request.environment:
        tasks = playing.tasks_in(world, tasks, split, request.num_episodes)
    found = playing.evaluate(
        task, generator, world, tasks, seed=request.seed or 0,
        choosing={name: CHOICES[name] for name in request.choosing}, say=say,
    )  # fmt: skip
    how = {"threshold": request.decoding.threshold, "reuse_prefix": request.decoding.reuse_prefix}
    content = {"decoding": how} | playing.as_json(found)
    report.write_json(directory / "acting.json", content)  # before it is printed: nobody may be there
    playing.write_played(directory / "played", world, found["policies"][playing.MODEL]["episodes"])
    print("\n" + playing.table(found))
    return content


def say(line: str) -> None:
    """Progress goes to stderr; stdout holds the result alone."""
    print(line, file=sys.stderr, flush=True)


class _Renamed(argparse.Action):
    """A flag that has an older name, which is taken as well, with a sentence. The first of its names is today's."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        if option != self.option_strings[0]:
            say(f"evaluate: {option} is called {self.option_strings[0]} now; it means the same.")
        setattr(namespace, self.dest, values)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m anyorder_jax.evaluate",
        description="World model and success of a checkpoint on held-out episodes.",
        allow_abbrev=False,
    )
    parser.add_argument("--checkpoint", type=paths.typed, required=True, help="run directory, or RUN/checkpoints/STEP")
    parser.add_argument(
        "--parts", "--suite", default="report", action=_Renamed, help=f"comma-separated, of {', '.join(PARTS)}"
    )
    parser.add_argument("--goals", default="", help="only missions with one of these phrases, comma-separated")
    parser.add_argument("--held_out", default="seed", choices=HELD_OUT, help="layout: without starts seen in training")
    parser.add_argument(
        "--weights", default="last", choices=("last", "ema"),
        help="ema: the running average, of a run with config.optimizer.ema_decay",
    )  # fmt: skip
    parser.add_argument("--split", default="", help="of a run of text: train, validation or test (if there is one)")
    parser.add_argument("--env", default="", help="another level than it was trained on")
    parser.add_argument("--num_episodes", type=int, default=200, help="rollouts and test episodes")
    parser.add_argument("--seed", type=int, default=None, help="chooses rollout seeds, masks and sampled actions")
    parser.add_argument("--output_dir", type=paths.typed, default="", help="default: RUN/report, or RUN/report/ENV")
    parser.add_argument(
        "--rules", "--modes", default=",".join(policy.RULES), action=_Renamed, help="how logits become actions"
    )
    parser.add_argument("--num_windows", type=int, default=8, help="windows asked per episode and question")
    parser.add_argument("--choosing", default="", help=f"of a run of text: also act so, of {', '.join(CHOICES)}")
    parser.add_argument(
        "--threshold", type=float, default=SURE.threshold,
        help="of a run of text: probability from which a token of an action is taken; above 1: one a pass",
    )  # fmt: skip
    parser.add_argument("--reuse_prefix", action="store_true", help="of a run of text: as of `generate`; one device")
    parser.add_argument("--mesh", default="", help="AXIS:SIZE,...; default the run's, or one device")
    parser.add_argument(
        "--dtype", default="", choices=weights.DTYPES[1:], metavar=",".join(weights.DTYPES[1:]),
        help="in which the weights are held (int8: the layers' matrices); default the run's",
    )  # fmt: skip
    return parser.parse_args(arguments)


if __name__ == "__main__":
    process.prepare()
    main()
