"""Tokens per second of the input pipeline, how full its rows are, and how many tokens an observation takes.

    python benchmarks/input_pipeline.py [--env=BabyAI-GoToObj-v0] [--num_episodes=300] [--num_runs=5]
    python benchmarks/input_pipeline.py --row_length=4096 --batch_size=2 --num_batches=20    # LLaDA2.0-mini's shapes

Plays expert episodes, then for each profile prints the sizes and the median speed over runs, from Corpus to
batches of NumPy arrays. `tokens` counts those of examples, not the padding. --tokenizer adds a Hugging Face
model directory.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from anyorder_jax.config import Config, DataConfig, MaskingConfig, TrainConfig
from anyorder_jax.data.pipeline import Corpus, make_pipeline
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.environments import registry
from anyorder_jax.environments.base import ExpertError
from anyorder_jax.environments.play import play_episode
from anyorder_jax.masking.sampler import AnyOrderMaskSampler
from anyorder_jax.types import Codec, Kind, Trajectory

PROFILES = ("joint", "attributes")


def play(environment_id: str, num_episodes: int) -> list[Trajectory]:
    """Expert episodes of consecutive seeds; those on which the expert fails are left out."""
    environment = registry.make_environment(environment_id)
    trajectories = []
    for seed in range(num_episodes):
        try:
            trajectories.append(play_episode(environment, seed))
        except ExpertError as error:
            print(f"seed {seed} left out: {error}")
    return trajectories


def print_sizes(name: str, corpus: Corpus, vocabulary: Vocabulary) -> None:
    """Tokens of each kind of unit, of a step, of a window and of a whole trajectory."""
    whole = corpus.trajectories[0]
    of_kind = {}
    for kind in (Kind.GOAL, Kind.OBSERVATION, Kind.ACTION):
        unit = int(np.argmax(whole.kind_U == kind))
        of_kind[kind] = int((whole.slots_GL[0] == unit).sum())
    step = int(whole.token_S1[1] - whole.token_S1[0])
    lengths = np.array([len(trajectory) for trajectory in corpus.trajectories])
    print(
        f"{name:22} vocabulary {vocabulary.size:5d}  goal {of_kind[Kind.GOAL]:3d}  "
        f"observation {of_kind[Kind.OBSERVATION]:4d}  action {of_kind[Kind.ACTION]:2d}  step with markers "
        f"{step:4d}  "
        f"trajectory mean {lengths.mean():6.0f} p95 {np.percentile(lengths, 95):6.0f} max {lengths.max():6d} "
        f" "
        f"window of {corpus.window}: mean {corpus.length_E.mean():6.0f} max {corpus.length_E.max():5d}"
    )


def measure(corpus: Corpus, vocabulary: Vocabulary, config: Config, num_batches: int, num_runs: int) -> float:
    """Median tokens per second over runs."""
    speeds = []
    for _ in range(num_runs):
        iterator = make_pipeline(
            config,
            corpus,
            AnyOrderMaskSampler(config.masking),
            mask_id=vocabulary.mask_id,
            pad_id=vocabulary.pad_id,
            num_steps_total=num_batches,
        )
        next(iterator)
        start, num_tokens = time.perf_counter(), 0
        for _ in range(num_batches):
            num_tokens += int(np.count_nonzero(next(iterator).segment_ids))
        speeds.append(num_tokens / (time.perf_counter() - start))
    return statistics.median(speeds)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="BabyAI-GoToObj-v0")
    parser.add_argument("--num_episodes", type=int, default=300)
    parser.add_argument("--window", type=int, default=DataConfig.window)
    parser.add_argument("--row_length", type=int, default=0, help="default: the recipe's, or the longest window")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--block_size", type=int, default=1, help="examples start at multiples of it, as they do under "
                        "block diffusion; for the share of rows that is full")  # fmt: skip
    parser.add_argument("--num_batches", type=int, default=200)
    parser.add_argument("--num_runs", type=int, default=5)
    parser.add_argument("--tokenizer", default="")
    arguments = parser.parse_args()
    trajectories = play(arguments.env, arguments.num_episodes)
    print(f"{arguments.env}: {len(trajectories)} episodes")
    for profile in PROFILES:
        codec: Codec = registry.make_codec(arguments.env, profile)
        vocabularies = {"built-in": Vocabulary.builtin(codec)}
        if arguments.tokenizer:
            vocabularies["real"] = Vocabulary.from_directory(arguments.tokenizer, codec)
        for name, vocabulary in vocabularies.items():
            start = time.perf_counter()
            corpus = Corpus.build(trajectories, codec, vocabulary, arguments.window)
            seconds = time.perf_counter() - start
            print_sizes(f"{profile}, {name}", corpus, vocabulary)
            row_length = arguments.row_length or max(DataConfig.row_length, int(1.05 * corpus.length_E.max()))
            for num_threads in (1, DataConfig.num_threads):
                config = Config(
                    data=DataConfig(row_length=row_length, num_threads=num_threads, profile=profile),
                    masking=MaskingConfig(order="any_order:0.5,causal:0.5"),
                    train=TrainConfig(batch_size=arguments.batch_size),
                )
                speed = measure(corpus, vocabulary, config, arguments.num_batches, arguments.num_runs)
                fill = corpus.pack(row_length, config.seed, arguments.block_size).fill
                print(
                    f"  rows of {row_length}: {fill:.1%} full; {num_threads} thread(s): {speed:,.0f} "
                    f"tokens/s "
                    f"(median of {arguments.num_runs}); the corpus was built in {seconds:.2f} s"
                )


if __name__ == "__main__":
    main()
