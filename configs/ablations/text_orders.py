"""Worlds of text: any-order beside causal SFT, prefix, two-stage early experience, action-only masking and a mixture.

    python -m anyorder_jax.collect --env=TextWorldExpress-CookingWorld --num_episodes=1000 --branches=3 \
        --output_dir=data/cooking
    python -m anyorder_jax.ablate --suite=configs/ablations/text_orders.py:cooking --num_workers=2

The size is the name of a world: cooking, mapreader, scienceworld, words (BabyAI's), miniwob or bfcl. Each variant is
that world's recipe with another order, and has as many updates in all. "world first" is the first stage of "then
imitation": a third of them, three quarters on what other actions led to (collect with --branches=3).
"""

from typing import NamedTuple

from anyorder_jax.evaluation.results import asked, played
from anyorder_jax.evaluation.suite import Suite


class World(NamedTuple):
    """A recipe, its updates here and further arguments of `train`; words of its observations' role in reports."""

    recipe: str
    num_steps: int
    more: tuple[str, ...] = ()
    evidence: str = "observation"


WORLDS = {
    "cooking": World("configs/textworld_cooking.py", 1500),
    "mapreader": World(
        "configs/textworld_cooking.py", 1200,
        ("--config.data.path=data/mapreader", "--config.data.context_tokens=320", "--config.data.row_length=320"),
    ),
    "scienceworld": World("configs/scienceworld_easy.py", 2000),
    "words": World("configs/babyai_words.py", 1500),
    "miniwob": World("configs/miniwob.py", 3000),
    "bfcl": World("configs/bfcl.py", 4000, evidence="tool"),
}  # fmt: skip

EVERYTHING = "--config.masking.rates="
NUM_SEEDS = 5


def get_suite(size="cooking"):
    if size not in WORLDS:
        raise ValueError(f"suite: unknown size {size!r}; expected a world: {', '.join(WORLDS)}.")
    world = WORLDS[size]
    first = world.num_steps // 3

    def variant(order, *more, num_steps=world.num_steps):
        return (
            f"--config={world.recipe}", *world.more, f"--config.masking.order={order}",
            f"--config.train.num_steps={num_steps}", f"--config.log.validate_every_steps={first}", *more,
        )  # fmt: skip

    return Suite(
        question=f"Does any-order training help an agent of text on {size}, at equal updates?",
        variants={
            "any-order": variant("any_order", EVERYTHING),
            "causal": variant("causal", EVERYTHING),
            "prefix": variant("prefix", EVERYTHING),
            "world first": variant("forward", EVERYTHING, "--config.masking.branches=0.75", num_steps=first),
            "then imitation": variant(
                "causal", EVERYTHING, "--config.model.path={run:world first}", num_steps=world.num_steps - first
            ),
            "actions only": variant("any_order"),
            "mixture": variant("any_order:0.5,causal:0.5", EVERYTHING),
        },
        seeds=range(NUM_SEEDS),
        evaluate=("--num_episodes=200", "--num_windows=4"),
        parts=("report",),
        measures={
            "success": played("model", "success"),
            "score": played("model", "return"),
            "invalid": played("model", "invalid"),
            "action nll": asked("decision", "nll_per_token", role="action"),
            "action exact": asked("decision", "exact_unit", role="action"),
            "next nll": asked("forward", "nll_per_token", role=world.evidence),
            "next nll changed": asked("forward", "changed_line_nll_per_token", role=world.evidence),
            "inverse exact": asked("inverse", "exact_unit", role="action"),
            "goal exact": asked("goal", "exact_unit", role="goal"),
        },
    )
