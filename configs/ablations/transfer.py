"""Train on some levels, test on others: other missions, larger rooms, pairs of color and kind never asked for.

    python -m anyorder_jax.ablate --suite=configs/ablations/transfer.py --num_workers=2

Training levels have several missions (a model of one mission ignores it). "without pairs" trains without three pairs
of color and kind, in a level that shows one thing at a time, so they are never seen; "held-out pairs" asks for them.
BossLevel is asked in 20 episodes of a run (they last a thousand steps, minutes for each run); in 100 in the full size.
"""

from anyorder_jax.evaluation.results import asked, played
from anyorder_jax.evaluation.suite import MEASURES, Suite, size_of

PAIRS = "red ball,blue key,yellow box"
FEW = ("--num_episodes=100", "--rules=sampled")
LEVELS = {
    "go to, rooms of 8": ("--env=BabyAI-GoToLocalS8N4-v0", *FEW),
    "pick up": ("--env=BabyAI-PickupLoc-v0", *FEW),
    "put next": ("--env=BabyAI-PutNextLocalS6N4-v0", *FEW),
    "held-out pairs": ("--env=BabyAI-GoToObjS6-v1", f"--goals={PAIRS}", *FEW),
}
ORDERS = {"any-order": "any_order", "causal": "causal_sft", "mixture": "mixture"}


def _environment(name):
    return f"--config.data.environment=BabyAI-{name}"


def get_suite(size="small"):
    chosen = size_of(size)
    recipes = {name: (f"--config=configs/{file}.py", *chosen.train) for name, file in ORDERS.items()}
    local = {f"go to in 6 {name}": (*recipe, _environment("GoToLocalS6N3-v0")) for name, recipe in recipes.items()}
    pick = {f"pick up {name}": (*recipe, _environment("PickupLoc-v0")) for name, recipe in recipes.items()}
    pairs = {
        f"without pairs {name}": (*recipe, _environment("GoToObjS6-v1"), f"--config.data.exclude_goals={PAIRS}")
        for name, recipe in recipes.items()
    }
    boss = ("--env=BabyAI-BossLevel-v0", *FEW, *(() if size == "full" else ("--num_episodes=20",)))
    levels = {**LEVELS, "boss": boss}
    longer = "--config.data.row_length=264"  # missions of PickupLoc are longer
    return Suite(
        question="Which order carries over to levels, rooms and missions that training did not show?",
        variants={name: (*arguments, longer) for name, arguments in {**local, **pick, **pairs}.items()},
        seeds=range(chosen.num_seeds),
        evaluate=chosen.evaluate,
        levels=levels,
        measures={
            "own level, sampled": MEASURES["sampled success"],
            **{f"{level}, sampled": played("model/sampled", "success", level=level) for level in levels},
            **{f"{level}, action acc.": asked("causal", "action_accuracy", level=level) for level in levels},
            **{f"{level}, next cell": asked("forward", "cell_accuracy", level=level) for level in levels},
        },
    )
