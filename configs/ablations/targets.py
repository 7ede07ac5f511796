"""What is asked: observations, actions, both, and weights between them.

python -m anyorder_jax.ablate --suite=configs/ablations/targets.py --num_workers=2
"""

from anyorder_jax.evaluation.suite import Suite, size_of

RECIPE = "--config=configs/any_order.py"


def get_suite(size="small"):
    chosen = size_of(size)
    only_actions = ("--config.masking.rates=observation:0,goal:0",)
    return Suite(
        question="Must a policy predict observations, and how much should they weigh?",
        variants={
            "both": (RECIPE, *chosen.train),
            "observations only": (RECIPE, "--config.masking.rates=action:0", *chosen.train),
            "actions only": (RECIPE, *only_actions, *chosen.train),
            "actions weigh 3": (RECIPE, "--config.loss.weights=observation:1,action:3,other:0.3", *chosen.train),
            "actions weigh 0.33": (RECIPE, "--config.loss.weights=observation:1,action:0.333,other:0.3", *chosen.train),
            "every token alike": (RECIPE, "--config.loss.normalisation=token", *chosen.train),
        },
        seeds=range(chosen.num_seeds),
        evaluate=chosen.evaluate,
    )
