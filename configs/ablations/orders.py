"""Any-order against causal, prefix and their mixture on GoToObj, five seeds each.

    python -m anyorder_jax.ablate --suite=configs/ablations/orders.py --num_workers=2     (or orders.py:full, for a GPU)

1,500 updates of 8 rows each: few enough that the orders have not all arrived at 100% success. Checkpoints on the way
are evaluated too: three tables, at equal updates (tokens seen are then equal as well: all orders read the same packed
rows), equal targets, equal seconds.
"""

from anyorder_jax.evaluation.suite import Suite, size_of


def get_suite(size="small"):
    chosen = size_of(size, num_seeds=5)
    return Suite(
        question="Which order of masking learns to act, and to predict, from the same number of updates?",
        variants={
            "any-order p=0.5": ("--config=configs/any_order.py", *chosen.train),
            "causal": ("--config=configs/causal_sft.py", *chosen.train),
            "prefix": ("--config=configs/prefix_sft.py", *chosen.train),
            "mixture": ("--config=configs/mixture.py", *chosen.train),
        },
        seeds=range(chosen.num_seeds),
        evaluate=chosen.evaluate,
        parts=("report", "likelihood", "viewer"),
        at_steps=chosen.at_steps,
    )
