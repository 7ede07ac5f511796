"""Every recipe builds; impossible values, mistyped keys and unknown variants are refused by name."""

import json
import re
import runpy
from pathlib import Path

import pytest

from anyorder_jax.config import defaults, freeze, parse_mixture, to_json, unknown_key

RECIPES = sorted(Path(__file__).parents[1].glob("configs/*.py"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: p.stem)
@pytest.mark.parametrize("variant", ["", "smoke"])
def test_every_recipe_builds(recipe, variant):
    config = freeze(runpy.run_path(str(recipe))["get_config"](variant))
    assert freeze(json.loads(to_json(config))) == config
    if variant == "smoke":
        assert config.train.num_steps <= 300


def test_unknown_variant_is_refused():
    with pytest.raises(ValueError, match=r"unknown variant 'smok'.*'smoke'"):
        defaults("smok")


def test_a_mistyped_key_names_its_neighbour():
    config = defaults()
    with pytest.raises(AttributeError, match="rate"):
        config.masking.rat = 0.3
    values = json.loads(to_json(freeze(config)))
    values["masking"]["rat"] = 0.3
    with pytest.raises(ValueError, match=r"config\.masking: unknown key 'rat'.*'rate'"):
        freeze(values)


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("--config.data.batch_size=4", r"no key 'data\.batch_size'\. Did you mean train\.batch_size\?"),
        ("--config.train.num_stepz=4", r"no key 'train\.num_stepz'\. Did you mean train\.num_steps"),
        ("--config.dat.path=x", r"no key 'dat\.path'\. Did you mean .*data\.path"),
        ("--config.zzzzzzzz=x", r"Did you mean one of anyorder_jax/config/sections\.py\?"),
    ],
)
def test_a_mistyped_flag_names_the_key_that_was_meant(argument, told):
    assert not unknown_key(["--config=configs/any_order.py", "--config.seed=3", "--config.train.num_steps=4"])
    assert re.search(told, unknown_key(["--config=any_order", "--config.seed=3", argument]))


@pytest.mark.parametrize(
    ("section", "name", "value", "message"),
    [
        ("masking", "rate", 1.5, r"masking\.rate: expected a probability"),
        ("masking", "order", "any_ordr", r"unknown name 'any_ordr'.*any_order"),
        ("masking", "order", "any_order:0.5,any_order:0.5", "each name once"),
        ("masking", "order", "any_order:x", "not a number"),
        ("masking", "rate_max", 0.2, r"masking\.rate_max"),
        ("masking", "rate_end", 0.2, r"masking\.rate_end"),
        ("masking", "granularity", "attribute", "data.profile: expected 'attributes'"),
        ("data", "window", -1, r"data\.window"),
        ("train", "accumulation_steps", 3, "a multiple of accumulation_steps = 3"),
        ("mesh", "fsdp", -1, "at most one -1"),
        ("loss", "normalisation", "mean", "'kind', 'token' or 'rate'"),
        ("optimizer", "b2", 1.0, r"optimizer\.b2"),
    ],
)
def test_impossible_values_are_refused(section, name, value, message):
    config = defaults()
    config[section][name] = value
    with pytest.raises(ValueError, match=message):
        freeze(config)


def test_causal_on_whole_trajectories_must_ask_any_action():
    config = defaults()
    config.masking.order, config.data.window = "causal", 0
    with pytest.raises(ValueError, match="only final actions"):
        freeze(config)
    config.masking.causal_step = "any"
    assert freeze(config).masking.causal_step == "any"


def test_mixtures_are_normalised():
    assert parse_mixture("causal:1, prefix:3", ("causal", "prefix"), "x") == {"causal": 0.25, "prefix": 0.75}
