"""What closes any-order's gap to causal training on success, at equal compute: a last phase that asks for actions.

    python -m anyorder_jax.ablate --suite=configs/ablations/then_causal.py --num_workers=2

Two thirds of the updates any-order, the last third causal or half causal, from its weights; in all as many updates, and
tokens, as any-order and causal training alone, whose runs it shares with `orders`.
"""

from anyorder_jax.evaluation.suite import Suite, size_of


def get_suite(size="small"):
    chosen = size_of(size)
    last = chosen.num_steps // 3

    def of_length(num_steps):
        return (
            *chosen.train, f"--config.train.num_steps={num_steps}", f"--config.log.validate_every_steps={last}",
        )  # fmt: skip

    first = "any-order first"
    warm = "--config.model.path={run:" + first + "}"
    return Suite(
        question="At equal compute, does a last phase that asks for actions make any-order act like causal training?",
        variants={
            "any-order": ("--config=configs/any_order.py", *chosen.train),
            "causal": ("--config=configs/causal_sft.py", *chosen.train),
            first: ("--config=configs/any_order.py", *of_length(2 * last)),
            "then causal": ("--config=configs/causal_sft.py", *of_length(last), warm),
            "then half causal": ("--config=configs/mixture.py", *of_length(last), warm),
        },
        seeds=range(chosen.num_seeds),
        evaluate=chosen.evaluate,
    )
