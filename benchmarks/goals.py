"""Are goals inferred where they can be? `python benchmarks/goals.py --checkpoint=RUN [--out=FILE]`.  Runs: one or more.

A hidden goal of BabyAI names an object; a window of a few steps may not show any. Nobody can know more than chance
where none is in view, so `exact` over all windows has a ceiling below 1. Held-out windows are taken apart by it:

    in view   an object stands in a visible cell of the window      out of view   none does

Each with its windows, and how many hidden goals the run writes right in every word (all at once, from all else).
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from anyorder_jax import weights
from anyorder_jax.asking.questions import ask
from anyorder_jax.data.units import TokenisedTrajectory
from anyorder_jax.evaluation.held_out import open_held_out
from anyorder_jax.evaluation.likelihood import Model
from anyorder_jax.evaluation.measures import BACKGROUND, CellWords
from anyorder_jax.evaluation.questions import QUESTIONS, Windows
from anyorder_jax.evaluation.targets import collect_targets
from anyorder_jax.files import write_whole
from anyorder_jax.types import Field, Tokenised


def shows_an_object(example: Tokenised, cell_words: CellWords) -> bool:
    """Whether a cell of the window holds one."""
    for field in (Field.CELL, Field.OBJECT):
        ids = np.unique(example.tokens_L[example.field_L == field]).tolist()
        words = [cell_words.parts(field, (token,)) for token in ids]
        if any(parts and parts[0] not in (*BACKGROUND, "agent") for parts in words):
            return True
    return False


def right_goals(model: Model, examples: Sequence[TokenisedTrajectory], num_steps: int) -> tuple[list[Any], np.ndarray]:
    """(the questions, bool [A]: is every word of the goal right)."""
    goal = next(question for question in QUESTIONS if question.name == "goal")
    asks = ask(goal, examples, Windows(num_steps), limit=99, seed=0)
    targets = collect_targets(asks)
    is_right_T = model.predict(targets).chosen_T == targets.truth_T
    num_wrong_A = np.bincount(targets.ask_T, weights=~is_right_T, minlength=len(asks))
    return list(asks), num_wrong_A == 0


def measure(checkpoint: str, num_episodes: int) -> dict[str, Any]:
    """A run's row.

    Args:
      checkpoint: RUN or RUN/checkpoints/STEP, of a grid.
      num_episodes: test episodes at most.
    """
    config, model_config, params, tokenizer = weights.load_for_inference(checkpoint)[:4]
    held_out = open_held_out(config, tokenizer, num_episodes, None)
    model = Model(config, model_config, params, held_out.task.vocabulary, held_out.actions, held_out.row_length)
    asks, is_right_A = right_goals(model, held_out.examples, held_out.num_steps)
    is_in_view_A = np.array([shows_an_object(one.example, held_out.cell_words) for one in asks])
    exact = {
        name: f"{is_right_A[which].mean():.1%} of {which.sum():,}"
        for name, which in (("an object in view", is_in_view_A), ("none in view", ~is_in_view_A))
    }
    return {
        "a goal weighs": f"{config.loss.role_weights()['goal']:g}",
        "orders": config.masking.order, "updates": f"{config.train.num_steps:,}", "seed": config.seed, **exact,
        "all": f"{is_right_A.mean():.1%}",
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(prog="python benchmarks/goals.py", allow_abbrev=False)
    parser.add_argument("--checkpoint", action="append", required=True, help="run directory; may be given again")
    parser.add_argument("--num_episodes", type=int, default=200, help="test episodes at most (200)")
    parser.add_argument("--out", help="JSON file that is written")
    options = parser.parse_args(arguments)
    content = json.dumps({
        "command": "python benchmarks/goals.py --checkpoint=RUN",
        "machine": platform.processor() or platform.machine(), "versions": f"jax {jax.__version__}",
        "note": "hidden goals that are right in every word, of all test windows", "rows": [
            measure(one, options.num_episodes) for one in options.checkpoint
        ],
    }, indent=1)  # fmt: skip
    print(content)
    if options.out:
        write_whole(Path(options.out), content + "\n")


if __name__ == "__main__":
    main()
