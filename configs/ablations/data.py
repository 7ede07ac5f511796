"""Sample efficiency, BabyAI's own question: 100 to 10,000 demonstrations, any-order and causal.

    python -m anyorder_jax.ablate --suite=configs/ablations/data.py --num_workers=2

BabyAI (1810.08272, table 3) counts the demonstrations to 99% success per level by imitation learning.
"""

from anyorder_jax.evaluation.suite import Suite, size_of

NUM_DEMONSTRATIONS = (100, 300, 1000, 3000, 10_000)
ORDERS = {"any-order": "--config=configs/any_order.py", "causal": "--config=configs/causal_sft.py"}


def get_suite(size="small"):
    chosen = size_of(size)
    return Suite(
        question="How many demonstrations does each order need?",
        variants={
            f"{name} {num}": (recipe, f"--config.data.num_episodes={num}", *chosen.train)
            for num in NUM_DEMONSTRATIONS
            for name, recipe in ORDERS.items()
        },
        against={f"causal {num}": f"any-order {num}" for num in NUM_DEMONSTRATIONS},
        seeds=range(chosen.num_seeds),
        evaluate=chosen.evaluate,
    )
