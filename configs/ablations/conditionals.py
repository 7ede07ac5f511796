"""UniMASK's heat-map: rows are what was trained, columns what is asked; how far each is from the column's best.

    python -m anyorder_jax.ablate --suite=configs/ablations/conditionals.py --num_workers=2

The last row trains any-order first and causal for half as long again, from its weights (2211.10869, "finetuning").
"""

from anyorder_jax.evaluation.suite import HEATMAP, MEASURES, Suite, size_of

ANY_ORDER = "--config=configs/any_order.py"


def get_suite(size="small"):
    chosen = size_of(size, num_seeds=5)
    fine_tuned = (
        "--config=configs/causal_sft.py", *chosen.train, f"--config.train.num_steps={chosen.num_steps // 2}",
        f"--config.log.validate_every_steps={chosen.num_steps // 2}", "--config.model.path={run:any-order p=0.5}",
    )  # fmt: skip
    weighted = (
        "--config.masking.rate=0.02", "--config.masking.rate_max=1.0", "--config.loss.normalisation=rate",
    )  # fmt: skip
    return Suite(
        question="Is one model that learned every conditional as good at each as a model that learned that one?",
        variants={
            "any-order p=0.5": (ANY_ORDER, *chosen.train),
            "any-order p=0.15": ("--config=configs/any_order_p15.py", *chosen.train),
            "any-order p=0.3": ("--config=configs/any_order_p30.py", *chosen.train),
            "p~U(0.15-0.5)": (ANY_ORDER, "--config.masking.rate=0.15", "--config.masking.rate_max=0.5", *chosen.train),
            "p~U(0-1) weighted": (ANY_ORDER, *weighted, *chosen.train),
            "causal": ("--config=configs/causal_sft.py", *chosen.train),
            "prefix": ("--config=configs/prefix_sft.py", *chosen.train),
            "suffix": (ANY_ORDER, "--config.masking.order=suffix", *chosen.train),
            "mixture": ("--config=configs/mixture.py", *chosen.train),
            "any-order then causal": fine_tuned,
        },
        seeds=range(chosen.num_seeds),
        evaluate=chosen.evaluate,
        measures={**MEASURES, **{f"nll {title}": path for title, path in HEATMAP.items()}},
        heatmap=HEATMAP,
    )
