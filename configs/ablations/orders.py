"""Any-order against causal, prefix and their mixture at equal compute, five seeds each, on GoToObj.

    python -m anyorder_jax.ablate --suite=configs/ablations/orders.py --num_workers=2

1,500 updates of 8 rows each: few enough that the orders have not all arrived at 100% success.
"""

from anyorder_jax.evaluation.suite import Suite

STEPS = ("--config.train.num_steps=1500", "--config.log.validate_every_steps=1500")


def get_suite():
    return Suite(
        question="Which order of masking learns to act, and to predict, from the same number of updates?",
        variants={
            "any-order p=0.5": ("--config=configs/any_order.py", *STEPS),
            "causal": ("--config=configs/causal_sft.py", *STEPS),
            "prefix": ("--config=configs/prefix_sft.py", *STEPS),
            "mixture": ("--config=configs/mixture.py", *STEPS),
        },
        seeds=(0, 1, 2, 3, 4),
        evaluate=("--num_episodes=200", "--modes=greedy,sampled", "--num_windows=4"),
    )
