"""GoToRedBall from 5,000 demonstrations: five seeds of the recipe, and the same without recoveries.

python -m anyorder_jax.ablate --suite=configs/ablations/redball.py --num_workers=2
"""

from anyorder_jax.evaluation.results import played
from anyorder_jax.evaluation.suite import MEASURES, Suite

RECIPE = "--config=configs/babyai_redball.py"


def get_suite():
    return Suite(
        question="How well does the recipe act on GoToRedBall, and what do recoveries in the data add?",
        variants={"recoveries": (RECIPE,), "expert only": (RECIPE, "--config.data.noise=0.0")},
        seeds=(0, 1, 2, 3, 4),
        evaluate=("--num_episodes=200",),
        measures={
            **MEASURES,
            "visit-penalty success": played("model/visit_penalty", "success"),
            "visit penalty alone": played("no_model/visit_penalty", "success"),
        },
    )
