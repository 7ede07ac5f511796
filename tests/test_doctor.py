"""The doctor names each of ten damages of a model that was trained, passes it healthy, and passes no random weights."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import checkpoints
import patients
import shop
from anyorder_jax.config import Config, ModelSelection, defaults, freeze_typed
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.health import questions, start, verdict
from anyorder_jax.health.text import PARAGRAPHS, SENTENCES
from anyorder_jax.model import transformer
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.rendering.text import TextRenderer
from anyorder_jax.training.run import Run
from conversion import __main__ as conversion
from conversion.doctor import doctor
from conversion.health import alternatives, judge, statistics
from conversion.health.examine import BIAS_DROPPED, Examined, Trial
from conversion.health.weights import Collector
from conversion.orbax import to_orbax

GOLDEN = Path(__file__).parent / "golden"
STATIC = {patients.random_expert, patients.zero_shard, patients.misread_bits}
"""Damages that single weights tell: no repair needs to be tried."""


@pytest.fixture(scope="session")
def trained():
    """(config.json's values, tensors, vocabulary) of the small model, trained once."""
    model, params, vocabulary = patients.train()
    return model.to_hf(dtype="float32"), patients.as_tensors(model, params), vocabulary


def admit(folder, trained, damage=None):
    """The model as a checkpoint, damaged; returns its directory."""
    config, tensors, vocabulary = dict(trained[0]), dict(trained[1]), trained[2]
    if damage is not None:
        damage(config, tensors)
    return patients.write(folder / "patient", config, tensors, vocabulary)


def examine(patient, folder, **more):
    """(exit status, the JSON)."""
    status = doctor(patient, json_path=str(folder / "found.json"), **more)
    return status, json.loads((folder / "found.json").read_text(encoding="utf-8"))


def named(found, weights=("fault",)):
    return [finding["name"] for finding in found["findings"] if finding["weight"] in weights]


def test_a_healthy_model_is_passed(trained, tmp_path, capsys):
    status, found = examine(admit(tmp_path, trained), tmp_path)
    assert status == 0 and found["is_healthy"] and not named(found, ("fault", "doubt")), found["findings"]
    loss = found["loss"]
    assert loss["15%"] < loss["50%"] < loss["80%"] < found["ln_vocabulary"] < loss["shuffled"]
    right = [own["text"] for own in found["infilled"] if f"[{own['expected']}]" in own["text"]]
    assert len(right) >= 8, found["infilled"]
    printed = capsys.readouterr().out
    assert "rotary over 16 of 32 dims" in printed and "[ Paris]" in printed
    assert printed.splitlines()[-1].startswith("verdict: healthy")


SAID = {
    patients.rotary_width: "over 16 dims of a head, not 32",
    patients.transposed: "layer 2: attention.dense is stored transposed",
    patients.gate_and_up: "mlp.experts.*.gate_proj and up_proj are swapped",
    patients.random_expert: "layers.1.mlp.experts.5",
    patients.zero_shard: "nothing but zeros",
    patients.shifted_embedding: "row i + 1 holds what token i needs",
    patients.misread_bits: "bfloat16 bits were read as float16",
}


@pytest.mark.parametrize("damage", patients.DAMAGES, ids=lambda damage: damage.__name__)
def test_each_damage_is_named(trained, tmp_path, damage):
    patient = admit(tmp_path, trained, damage)
    status, found = examine(patient, tmp_path, tries="none" if damage in STATIC else "layers")
    name = patients.DAMAGES[damage]
    if damage is patients.dropped_bias:  # costs this model next to nothing, so that no more than a doubt is honest
        assert "expert bias dropped" in named(found, ("doubt", "fault")) and "expert bias" in found["verdict"]
        return
    assert status == 1 and not found["is_healthy"]
    others = set(named(found)) - {name, "not trained"}
    assert name in named(found) and not others, found["findings"]
    sentence = next(x["sentence"] for x in found["findings"] if x["name"] == name and x["weight"] == "fault")
    assert sentence in found["verdict"] and (damage not in SAID or SAID[damage] in sentence)
    if damage is patients.zero_shard:
        assert "model-00002-of-00003.safetensors holds zeros alone" in json.dumps(found["findings"])


def test_biases_that_were_never_moved_are_no_doubt(trained):
    """Where the router was trained with zeros, biases that even the load cost something."""
    collector = Collector(ModelConfig.from_hf(trained[0]))
    collector.is_bias_zero = [True, True]

    def doubted(gain, error):
        trial = Trial(alternatives.Alternative(BIAS_DROPPED, "", collector.config), gain, error)
        return judge._of_zero_bias(Examined(collector, {}, [], np.zeros((2, 8)), [trial], 0.0))

    assert doubted(-0.007, 0.009) and not doubted(-0.08, 0.017)  # measured: dropped, and trained without


@pytest.mark.parametrize("model", ["a/split_bf16", "a/merged_bf16", "b/split_bf16", "b/merged_bf16"])
def test_random_weights_are_not_trained(model, tmp_path):
    status, found = examine(GOLDEN / model, tmp_path)
    assert status == 1 and found["verdict"].startswith("not trained")


def test_a_run_is_examined_like_its_model(trained, tmp_path):
    patient = admit(tmp_path, trained)
    to_orbax(patient, tmp_path / "run", mesh={})
    assert examine(tmp_path / "run", tmp_path, tries="none")[0] == 0


def test_names_and_shapes_are_told_by_name(tmp_path):
    config = {**checkpoints.CONFIG}
    tensors = checkpoints.random_tensors(config)
    name = "model.layers.0.attention.query_key_value.weight"
    tensors[name] = np.ascontiguousarray(tensors[name].T)
    status, found = examine(checkpoints.write(tmp_path / "turned", config, tensors), tmp_path)
    assert status == 1 and named(found) == ["transposed"] and name in found["verdict"]
    tensors.pop(name)
    status, found = examine(checkpoints.write(tmp_path / "less", config, tensors), tmp_path)
    assert status == 1 and named(found) == ["names and shapes"] and name in found["verdict"]


def test_a_config_that_asks_for_something_else_is_a_fault(tmp_path):
    patient = checkpoints.write(tmp_path / "config", {**checkpoints.CONFIG, "rotary_dim": 8})
    status, found = examine(patient, tmp_path)
    assert status == 1 and "rotary_dim = 8 contradicts" in found["verdict"]


def test_what_is_no_checkpoint_ends_in_one_line(tmp_path, capsys):
    assert conversion.main(["doctor", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_another_models_tokenizer_is_refused(tmp_path, capsys):
    command = ["doctor", str(GOLDEN / "a" / "split_bf16"), f"--tokenizer={GOLDEN / 'tokenizer'}"]
    assert conversion.main(command) == 2
    assert "has 406 tokens, the model 300" in capsys.readouterr().err


def test_a_dry_run_reads_no_weights(capsys):
    assert conversion.main(["doctor", str(GOLDEN / "a" / "split_bf16"), "--dry_run"]) == 0
    assert "a layer at a time" in capsys.readouterr().out


def test_only_random_experts_among_others_stand_out():
    rng = np.random.default_rng(0)
    shared = np.linalg.qr(rng.normal(size=(64, 8)))[0]
    experts = rng.normal(size=(16, 64, 32)) + 3 * shared @ rng.normal(size=(16, 8, 32))
    experts[11] = 0.01 * rng.normal(size=(64, 32))
    assert statistics.random_ones(statistics.shared_directions(experts)).tolist() == [11]
    assert not len(statistics.random_ones(statistics.shared_directions(rng.normal(size=(16, 64, 32)))))


def test_turning_back_undoes_what_was_turned():
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(3, 6, 4)))
    stored = weights.reshape(3, 4, 6).swapaxes(1, 2)  # on disk [in, out] numbers under the shape [out, in]
    np.testing.assert_array_equal(alternatives._turned(stored, 1), weights)


@pytest.mark.parametrize("rate", questions.RATES)
def test_hidden_tokens_are_the_same_every_time(rate):
    texts = [list(range(1, 200)), list(range(300, 340))]
    one, two = (questions.masked(texts, rate, length=128, mask_id=0, pad_id=299) for _ in range(2))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)
    assert abs(one.is_asked.sum() / one.segment_ids.sum() - rate) < 0.1
    assert (one.tokens[one.is_asked] == 0).all() and not one.is_asked[one.segment_ids == 0].any()


def test_the_text_has_four_languages_and_code_and_ten_sentences():
    assert set(PARAGRAPHS) == {"English", "German", "Spanish", "Chinese", "code"} and len(SENTENCES) == 10
    compile(PARAGRAPHS["code"], "code", "exec")


def test_one_text_that_is_known_is_enough_to_start():
    assert not verdict.start_sentence({"text": 6.0, "own": 1.0}, 1000, "x")
    assert "6.00 on text" in verdict.start_sentence({"text": 6.0}, 1000, "x")
    assert verdict.start_sentence({"text": float("nan")}, 1000, "x")


def start_of_run(folder, model, **settings):
    """Builds the nouns of a run on logs of a shop that starts from `model`; returns its state's step."""
    shop.write(folder / "data")
    config = defaults()
    config.data.path, config.data.num_episodes, config.model.path = str(folder / "data"), 0, str(model)
    config.data.row_length = 512
    config.log.num_validation_rows = 8
    config.model.update(settings)
    run = Run(freeze_typed(config), folder / "run")
    run.checkpointer.close()
    return int(run.state.step)


@pytest.fixture
def untrained(trained, tmp_path):
    """The same model before training, as a checkpoint."""
    model = ModelConfig.from_hf(trained[0])
    params = transformer.init(model, jax.random.key(0), "float32")
    return admit(tmp_path, (trained[0], patients.as_tensors(model, params), trained[2]))


def test_a_run_starts_from_a_trained_model_and_says_what_it_knows(trained, tmp_path, capsys):
    start_of_run(tmp_path, admit(tmp_path, trained))
    told = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("Weights of "))
    assert "on a built-in text" in told and "the run's own validation rows" in told and "guessing costs 5.99" in told


def test_a_run_does_not_start_from_random_weights(untrained, tmp_path):
    with pytest.raises(ValueError, match=r"not the weights of a trained model.*conversion doctor.*check=off"):
        start_of_run(tmp_path, untrained)


def test_a_run_starts_from_random_weights_when_it_is_told_to(untrained, tmp_path, capsys):
    assert start_of_run(tmp_path, untrained, check="off") == 0
    assert "Weights of " not in capsys.readouterr().out


def test_weights_that_training_here_saved_are_not_asked(tmp_path):
    (tmp_path / "run" / "checkpoints" / "0" / "params").mkdir(parents=True)
    config = dataclasses.replace(Config(), model=ModelSelection(path=str(tmp_path / "run")))
    assert start.is_due(config, 0) and not start.is_due(config, 5) and not start.is_due(Config(), 0)
    (tmp_path / "run" / "checkpoints" / "6" / "params").mkdir(parents=True)
    assert not start.is_due(config, 0)


def test_a_run_asks_what_the_doctor_asks():
    vocabulary = Vocabulary.trained(list(PARAGRAPHS.values()), TextRenderer(), 400)
    rows = start.rows_of(vocabulary, 512, 8)
    texts = questions.paragraphs(lambda text: vocabulary.encode_text(text)[0])
    ids = {"mask_id": vocabulary.mask_id, "pad_id": vocabulary.pad_id}
    asked = questions.masked(texts, 0.15, length=questions.LENGTH, **ids)
    assert rows.tokens.shape == (8, 512)
    for ours, theirs in ((rows.tokens, asked.tokens), (rows.is_target, asked.is_asked)):
        np.testing.assert_array_equal(ours[:5, : questions.LENGTH], theirs)
    assert not rows.segment_ids[:, questions.LENGTH :].any() and not rows.is_target[5:].any()
