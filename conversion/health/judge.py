"""From numbers to findings and a verdict."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from anyorder_jax.health.verdict import expected, is_untrained, mean_and_error
from anyorder_jax.model.config import ModelConfig
from conversion.health.alternatives import EPSILONS
from conversion.health.examine import BIAS_DROPPED, SCORED, Examined, Trial
from conversion.health.findings import DOUBT, FAULT, NOTE, Finding

MIN_GAIN, MIN_SHARE, MIN_ERRORS = 0.01, 0.03, 3.5
"""A repair counts when it saves so many nats per token, so much of the loss, and so many standard errors. Of some
hundred repairs of a healthy model none does; each is paired, token by token."""


BROKEN = ("zeros", "not finite", "misread bits")
"""Where these are, no repair of another fault can be judged."""


class Verdict(NamedTuple):
    """is_healthy: nothing found that a training run should not start from. sentence: in one line."""

    is_healthy: bool
    sentence: str
    findings: list[Finding]


def helping(found: Examined) -> list[Trial]:
    """The repairs that lower the loss for sure, the best first."""
    if not found.trials:
        return []
    base = float(np.concatenate([found.losses[name] for name in SCORED]).mean())
    least = max(MIN_GAIN, MIN_SHARE * base) if math.isfinite(base) else MIN_GAIN
    return [trial for trial in found.trials if trial.gain > least and trial.gain > MIN_ERRORS * trial.error]


def active_parameters(config: ModelConfig) -> int:
    """Parameters in matrices that a token meets, without embedding and head."""
    D, C = config.hidden_size, config.head_dim
    attention = D * C * (2 * config.num_attention_heads + 2 * config.num_key_value_heads)
    experts = 3 * D * config.moe_intermediate_size * (config.num_experts_per_tok + config.num_shared_experts)
    dense = config.first_k_dense_replace * 3 * D * config.intermediate_size
    return config.num_hidden_layers * attention + dense + config.num_moe_layers * experts


def _of_loss(found: Examined, config: ModelConfig) -> list[Finding]:
    mean = {name: float(nll.mean()) for name, nll in found.losses.items()}
    guess = math.log(config.vocab_size)
    if is_untrained(mean["15%"], config.vocab_size):
        told = f"{mean['15%']:.2f} nats per hidden token with 15% hidden, where guessing costs ln V = {guess:.2f}"
        return [Finding(FAULT, "not trained", f"the loss is not that of a trained model: {told}")]
    findings = []
    for rate in (0.15, 0.5, 0.8):
        bound, loss = expected(rate, active_parameters(config)), mean[f"{rate:.0%}"]
        if bound is not None and not loss < bound:
            told = f"{loss:.2f} nats per hidden token, {rate:.0%} of them hidden; others of this size: below {bound}"
            findings.append(Finding(DOUBT, "high loss", told))
    gap = mean["shuffled"] - mean["15%"]
    _, error = mean_and_error(found.losses["shuffled"].tolist())
    if gap < max(0.1, 0.1 * mean["15%"], 2 * error):
        told = f"{mean['shuffled']:.2f} nats where the text is shuffled, {mean['15%']:.2f} as it is: no difference"
        findings.append(Finding(FAULT, "position code", f"{told}; positions do not reach the model"))
    return findings


def _of_trials(found: Examined, config: ModelConfig) -> list[Finding]:
    """The best repair; and another kind of fault where its repair saves half as much. Where the best leaves a loss that
    is none of a trained model it is a hint, not the fault: of many changes to random numbers some save a little."""
    helps = helping(found)
    findings: list[Finding] = []
    for trial in helps:
        if trial.gain < helps[0].gain / 2 or trial.alternative.fault in [x.name for x in findings]:
            continue
        left = float(np.concatenate([found.losses[name] for name in SCORED]).mean()) - trial.gain
        is_enough = not is_untrained(left, config.vocab_size)
        told = f"{trial.alternative.sentence}: read so, it saves {trial.gain:.3f} +- {trial.error:.3f} nats per token"
        told += "" if is_enough else f", which leaves {left:.2f}: not enough"
        findings.append(Finding(FAULT if is_enough else NOTE, trial.alternative.fault, told))
    return findings


def _of_zero_bias(found: Examined) -> list[Finding]:
    """Biases that are all zero, and could be others at no cost: then the router was not trained with zeros."""
    trial = next((t for t in found.trials if t.alternative.fault == BIAS_DROPPED), None)
    if trial is None or not all(found.weights.is_bias_zero) or trial.gain < -2 * trial.error:
        return []
    told = (
        f"expert_bias is zero in every layer, and biases that even the load cost nothing ({trial.gain:+.3f} +- "
        f"{trial.error:.3f} nats per token), as where they were dropped: compare with the original"
    )
    return [Finding(DOUBT, BIAS_DROPPED, told)]


def _of_experts(found: Examined, config: ModelConfig) -> list[Finding]:
    findings = []
    for n, load_E in enumerate(found.load_NE):
        dead = np.flatnonzero(load_E == 0)
        chances = load_E.sum() / len(load_E)
        if chances >= 20 and len(dead) > len(load_E) // 2:
            told = f"layer {config.first_k_dense_replace + n}: {len(dead)} of {len(load_E)} experts got no token"
            findings.append(Finding(DOUBT, "dead experts", told))
    return findings


def _of_config(config: ModelConfig) -> list[Finding]:
    if config.rms_norm_eps in EPSILONS:
        return []
    told = f"rms_norm_eps = {config.rms_norm_eps:g}: published LLaDA2 configurations have 1e-06"
    return [Finding(DOUBT, "norm epsilon", told)]


def judge(found: Examined, config: ModelConfig) -> Verdict:
    """Everything that was found, and what follows from it."""
    findings = found.weights.findings()
    is_broken = any(finding.name in BROKEN for finding in findings)
    if found.losses:
        findings += [*_of_loss(found, config), *_of_experts(found, config)]
        findings += [] if is_broken else [*_of_trials(found, config), *_of_zero_bias(found)]
    findings += _of_config(config)
    is_known = bool(found.losses) and not is_untrained(float(found.losses["15%"].mean()), config.vocab_size)
    if found.weights.is_random() and not is_known:
        told = "experts and attention hold numbers as they are drawn, in every layer"
        findings.insert(0, Finding(FAULT, "not trained", told))
    order = {FAULT: 0, DOUBT: 1, NOTE: 2}
    findings.sort(key=lambda finding: order[finding.weight])
    faults = [finding for finding in findings if finding.weight == FAULT]
    if faults:
        reason = next((x for x in faults if x.name != "not trained"), faults[0])
        kind = "not trained" if all(x.name == "not trained" for x in faults) else "damaged"
        return Verdict(False, f"{kind}: {reason.sentence}", findings)
    if not found.losses:
        return Verdict(True, "nothing wrong in the weights themselves; no tokenizer, so nothing was asked", findings)
    doubts = sorted({finding.name for finding in findings if finding.weight == DOUBT})
    look = f"; look at: {', '.join(doubts)}" if doubts else ""
    return Verdict(
        True, f"healthy: these are the weights of a trained model, read as they were trained{look}", findings
    )
