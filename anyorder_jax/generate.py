"""Generate: what a checkpoint writes into an episode.

    python -m anyorder_jax.generate --checkpoint=runs/own_data --input=episode.json --ask=action
        [--record=0 --threshold=0.95 --temperature=0 --top_p=1 --num_samples=1 --seed=0 --output=answers.jsonl]
        [--reuse_prefix] [--mesh=data:2,expert:4 --dtype=bfloat16 | int8]         (the last two as of `evaluate`)

`--input` is a shard, or a log in any of the formats that ingest reads (docs/own_data.md), and --record the number of
the episode in it. What is not over yet will do: messages that end with the user's. `--ask` is

    decision, action, thought, observation, tool, user      the next unit of that role, after the episode's last one
    goal                                                    the goal, hidden in its place
    3 or 3,5                                                units of these numbers, hidden in their places
    3.1                                                     line (or argument of a call) 1 of unit 3; 3.1.0: its word 0

and "decision" is a thought and an action where the training data have thoughts. What is asked is hidden and filled from
everything else, a few tokens a forward pass; every word is shown with the probability that it was accepted with. Of an
episode longer than the run's contexts the model sees what training showed: system text, goal and the last steps.
"""

from __future__ import annotations

if __name__ == "__main__":
    from anyorder_jax import command

    command.begin("generate")  # imports take seconds

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from anyorder_jax import command, files, paths, process, run_directory, terminal, weights
from anyorder_jax.acting import filling
from anyorder_jax.acting.decoding import Decoding
from anyorder_jax.acting.generator import Generator
from anyorder_jax.asking.scorer import mesh_of
from anyorder_jax.config import freeze
from anyorder_jax.data import sources, units
from anyorder_jax.ingestion import episodes
from anyorder_jax.provenance import with_data_of
from anyorder_jax.task import Task, config_of_part, open_task
from anyorder_jax.types import ROLES, Kind, Trajectory

NEXT = ("decision", "action", "thought", "observation", "tool", "user")
_NUM_LOOKED_AT = 100
"""Training episodes in which a role is looked for."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command. What a person can mend ends in one sentence on stderr and exit status 1."""
    terminal.accept_any_letter()
    flags = _parse(arguments)
    with command.door("generate"):
        try:
            decoding = Decoding(
                flags.threshold, flags.temperature, flags.seed, top_p=flags.top_p, reuse_prefix=flags.reuse_prefix
            )
            decoding.refuse_nonsense(flags.num_samples)
            answers = generate(
                flags.checkpoint, episodes.read(flags.input, flags.record)[0], flags.ask, decoding, flags.num_samples,
                mesh_text=flags.mesh, dtype=flags.dtype,
            )  # fmt: skip
            if flags.output:
                lines = "".join(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers)
                files.write_whole(flags.output, lines)
            for number, answer in enumerate(answers):
                print(_shown(answer, number if len(answers) > 1 else None))
        except (ValueError, OSError, ModuleNotFoundError) as error:
            sys.exit(f"generate: {error}")


def generate(
    checkpoint: str,
    episode: Trajectory,
    ask: str,
    decoding: Decoding,
    num_samples: int = 1,
    *,
    mesh_text: str = "",
    dtype: str = "",
) -> list[dict[str, Any]]:
    """What the checkpoint writes.

    Args:
      checkpoint: RUN or RUN/checkpoints/STEP.
      episode: what has been seen.
      ask: see the module.
      decoding: how holes are filled; sample n takes seed + n.
      num_samples: answers.
      mesh_text: where the weights lie; see `asking.scorer.mesh_of`.
      dtype: in which they are held; see `weights.held_in`.

    Returns:
      For each sample {"units": [{"role", "step", "text", "tokens": [[text, probability], ...]}, ...], "passes"}.

    Raises:
      FileNotFoundError, ValueError: no such checkpoint; an episode or a question that it cannot answer.
    """
    meta, (run, _) = run_directory.read_meta(checkpoint), run_directory.find(checkpoint)
    mesh = mesh_of(freeze(meta["config"]), mesh_text)
    config, model_config, params, tokenizer = weights.load_for_inference(checkpoint, mesh, dtype)
    task = open_task(with_data_of(config, run, meta["data"]), tokenizer)
    if task.parts:
        task = task.part_of(episode.source.get("environment", ""))
        config = config_of_part(config, task)
    generator = Generator(config, model_config, params, task, decoding)
    if ask in NEXT and ask != "decision" and not _is_written(task, Kind[ask.upper()]):
        say(f"warning: no {ask} stands in the first training episodes, so the model has not learned to write one.")
    seeds = [decoding.seed + number for number in range(num_samples)]
    if ask in NEXT:
        return _next(generator, task, episode, ask, seeds)
    return _filled(generator, task, episode, ask, seeds)


def _is_written(task: Task, kind: Kind) -> bool:
    first = sources.iterate_trajectories(task.directory, "train", on_bad=lambda _: None)
    return any(unit.kind == kind for t in itertools.islice(first, _NUM_LOOKED_AT) for unit in t.units)


def _next(
    generator: Generator, task: Task, episode: Trajectory, ask: str, seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """The units that come next, for each seed."""
    kinds = task.decision() if ask == "decision" else (Kind[ask.upper()],)
    answers = []
    for written in generator.write([episode] * len(seeds), [kinds] * len(seeds), seeds):
        found = [
            {"role": ROLES[unit.kind], "step": unit.step, "text": unit.text, "tokens": _tokens(task, ids, sure)}
            for unit, ids, sure in zip(written.units, written.ids, written.probabilities, strict=True)
        ]
        answers.append({"units": found, "passes": written.num_passes})
    return answers


def _filled(
    generator: Generator, task: Task, episode: Trajectory, ask: str, seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """The units that are asked in their places, for each seed."""
    whole = units.tokenise(episode, task.codec, task.vocabulary, task.layout)
    is_asked_L = np.zeros(len(whole), bool)
    for part in ask.split(","):
        is_asked_L |= _hidden(whole, part)
    shown = filling.shown_around(whole, is_asked_L, generator.budget)
    if told := filling.what_is_seen(whole, shown):
        say(told)
    example, is_hidden_L, _, number_U = shown
    answers = []
    for answer in generator.fill([filling.question(shown, task.layout)] * len(seeds), seeds):
        found = []
        for u in np.unique(example.slots_GL[0][is_hidden_L]).tolist():
            span = example.slots_GL[0] == u
            ids, sure = answer.tokens_L[span].tolist(), answer.probability_L[span]
            kind = Kind(example.kind_U[u])
            shown_ids = np.array(ids)[is_hidden_L[span]]
            found.append({
                "unit": int(number_U[u]), "role": ROLES[kind], "step": int(example.step_U[u]),
                "text": units.text_of(ids, task.vocabulary),
                "tokens": _tokens(task, shown_ids, sure[is_hidden_L[span]]),
            })  # fmt: skip
        answers.append({"units": found, "passes": answer.num_passes})
    return answers


def say(line: str) -> None:
    """Remarks go to stderr; stdout holds the answers alone."""
    print(line, file=sys.stderr, flush=True)


def _hidden(example: units.TokenisedTrajectory, part: str) -> np.ndarray:
    """bool [L]: what one part of `--ask` hides."""
    unit_L = example.slots_GL[0]
    if part == "goal":
        goals = np.flatnonzero(example.kind_U == Kind.GOAL)
        if not len(goals):
            raise ValueError("--ask=goal: the episode has no goal. Give it one, whose text is then hidden.")
        return np.isin(unit_L, goals)
    place = part.split(".")
    if not all(number.isdigit() for number in place):
        raise ValueError(
            f"--ask: expected one of {', '.join(NEXT)}, goal, or numbers of units below {len(example.kind_U)} "
            f"(3, or 3.1 for a line of it, 3.1.0 for a word of that), got {part!r}."
        )
    try:
        return filling.hidden_at(example, [int(number) for number in place])
    except ValueError as error:
        raise ValueError(f"--ask={part}: {error}") from None


def _tokens(task: Task, ids: np.ndarray, sure: np.ndarray) -> list[list[Any]]:
    """[text, probability] of each token up to the first end."""
    end_ids = task.vocabulary.frames.end_ids
    ends = np.flatnonzero(np.isin(ids, list(end_ids)))
    stop = int(ends[0]) + 1 if len(ends) else len(ids)
    words = ["<end>" if i in end_ids else task.vocabulary.decode_text([i]) for i in ids[:stop].tolist()]
    return [[word, round(float(p), 4)] for word, p in zip(words, sure[:stop], strict=True)]


def _shown(answer: dict[str, Any], number: int | None) -> str:
    lines = [] if number is None else [f"sample {number}"]
    for unit in answer["units"]:
        lines += [f"{unit['role']} {unit['step']}: {unit['text']}"]
        lines += ["    " + " ".join(f"{word!r} {p:.2f}" for word, p in unit["tokens"])]
    return "\n".join([*lines, f"({answer['passes']} forward passes)"])


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m anyorder_jax.generate", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--checkpoint", type=paths.typed, required=True, help="run directory, or RUN/checkpoints/STEP")
    parser.add_argument("--input", type=paths.typed, required=True, help="a shard, or a log that ingest reads")
    parser.add_argument("--record", type=int, default=0, help="number of the episode in it, from 0")
    parser.add_argument("--ask", required=True, help="what is written: a role, goal, or numbers of units")
    parser.add_argument("--threshold", type=float, default=0.95, help="probability from which a token is accepted")
    parser.add_argument("--temperature", type=float, default=0.0, help="0: the likeliest token; 1: draws")
    parser.add_argument("--top_p", type=float, default=1.0, help="draw among the likeliest tokens of this share alone")
    parser.add_argument("--num_samples", type=int, default=1)
    parser.add_argument(
        "--reuse_prefix", action="store_true",
        help="full attention: compute what stands before the holes once a unit; faster, an approximation",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mesh", default="", help="AXIS:SIZE,...; default the run's, or one device")
    parser.add_argument(
        "--dtype", default="", choices=weights.DTYPES[1:], metavar=",".join(weights.DTYPES[1:]),
        help="in which the weights are held (int8: the layers' matrices); default the run's",
    )  # fmt: skip
    parser.add_argument("--output", default="", help="a .jsonl for the answers with every token's probability")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    process.prepare()
    main()
