"""A curriculum of p from 0.15 to 0.50, linear and cosine, against fixed p.

python -m anyorder_jax.ablate --suite=configs/ablations/schedule.py --num_workers=2
"""

from anyorder_jax.evaluation.suite import Suite, size_of


def get_suite(size="small"):
    chosen = size_of(size)
    scheduled = ("--config=configs/scheduled_masking.py", *chosen.train)
    return Suite(
        question="Does a rate that grows over training beat a fixed one?",
        variants={
            "fixed 0.50": ("--config=configs/any_order.py", *chosen.train),
            "fixed 0.15": ("--config=configs/any_order_p15.py", *chosen.train),
            "fixed 0.30": ("--config=configs/any_order_p30.py", *chosen.train),
            "linear 0.15-0.50": (*scheduled, "--config.masking.schedule=linear"),
            "cosine 0.15-0.50": scheduled,
        },
        seeds=range(chosen.num_seeds),
        evaluate=chosen.evaluate,
    )
