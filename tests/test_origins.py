"""What an exported model takes along: through a chain of runs, from any folder, with what is missing said in a line."""

import json
import shutil

import pytest
from safetensors import safe_open
from transformers import AutoTokenizer

from anyorder_jax.data.tokenization import Vocabulary
from conversion.__main__ import main
from corridor import CorridorCodec
from saved_runs import MODEL, save_run, write_model

OWN = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
       "modeling_llada2_moe.py", "generation_config.json")  # fmt: skip


def export(run, output, *more):
    return main(["to_hf", "--checkpoint", str(run), "--output_path", str(output), "--layout", "split", *more])


def assert_has_all_of(model, exported):
    for name in OWN:
        assert (exported / name).read_bytes() == (model / name).read_bytes(), name
    assert json.loads((exported / "config.json").read_text()) == MODEL
    with safe_open(exported / "model.safetensors", framework="np") as file:
        dtypes = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    assert {dtype for name, dtype in dtypes.items() if not name.endswith("expert_bias")} == {"BF16"}


@pytest.fixture
def chain(tmp_path):
    """model <- first <- second (factors) <- third, which is one of its steps."""
    model = write_model(tmp_path / "model")
    first = save_run(tmp_path / "first", model)
    second = save_run(tmp_path / "second", first, rank=2)
    third = save_run(tmp_path / "third", second / "checkpoints" / "5")
    (tmp_path / "elsewhere").mkdir()
    return model, first, second, third


def test_a_chain_of_runs_is_followed_to_the_model_from_any_folder(chain, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path / "elsewhere")
    for run in chain[1:]:
        capsys.readouterr()
        assert export(run, tmp_path / "out") == 0
        assert_has_all_of(chain[0], tmp_path / "out")
        assert "note:" not in capsys.readouterr().err
        shutil.rmtree(tmp_path / "out")


def test_what_to_orbax_made_is_at_the_end_of_a_chain(chain, tmp_path):
    assert main(["to_orbax", "--input_path", str(chain[0]), "--output_path", str(tmp_path / "orbax")]) == 0
    run = save_run(tmp_path / "run", tmp_path / "orbax")
    chain[0].rename(tmp_path / "kept")  # its companions lie in the run
    assert export(run, tmp_path / "out") == 0
    assert_has_all_of(tmp_path / "kept", tmp_path / "out")


def test_an_origin_that_is_gone_is_said_and_the_rest_exported(chain, tmp_path, capsys):
    model, *_, third = chain
    model.rename(tmp_path / "kept")
    chain[2].rename(tmp_path / "gone")
    for gone in (chain[2] / "checkpoints" / "5", model):
        capsys.readouterr()
        assert export(third, tmp_path / "out") == 0
        error = capsys.readouterr().err
        assert error.count("note:") == 1 and f"{gone} (config.model.path of " in error and "float32" in error, error
        for name in OWN[:4]:  # the run has its own copy of the tokenizer
            assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "kept" / name).read_bytes()
        assert not (tmp_path / "out" / OWN[4]).exists()
        shutil.rmtree(tmp_path / "out")
        if (tmp_path / "gone").exists():
            (tmp_path / "gone").rename(chain[2])


def test_a_relative_place_of_an_earlier_version_is_found_or_named(tmp_path, monkeypatch, capsys):
    model = write_model(tmp_path / "model")
    run = save_run(tmp_path / "run", "model", model=model)
    monkeypatch.chdir(tmp_path)
    assert export(run, tmp_path / "here") == 0
    assert_has_all_of(model, tmp_path / "here")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    capsys.readouterr()
    assert export(run, tmp_path / "there") == 0
    assert "relative: found only from the folder where the run was started" in capsys.readouterr().err


def test_runs_that_started_from_one_another_end_in_a_line(tmp_path, capsys):
    model = write_model(tmp_path / "model")
    save_run(tmp_path / "a", tmp_path / "b", model=model)
    save_run(tmp_path / "b", tmp_path / "a", model=model)
    assert export(tmp_path / "a", tmp_path / "out") == 0
    assert "started from itself" in capsys.readouterr().err


def test_tokenizers_that_an_earlier_version_rewrote_are_exported_as_the_models_own(tmp_path):
    """transformers 5 had written them; where the model is gone they are put so that version 4 opens them."""
    model = write_model(tmp_path / "model")
    run = save_run(tmp_path / "run", model)
    shutil.rmtree(run / "tokenizer")
    AutoTokenizer.from_pretrained(model).save_pretrained(run / "tokenizer")
    assert "TokenizersBackend" in (run / "tokenizer" / "tokenizer_config.json").read_text()
    assert export(run, tmp_path / "out") == 0
    assert_has_all_of(model, tmp_path / "out")
    model.rename(tmp_path / "kept")
    assert export(run, tmp_path / "alone") == 0
    values = json.loads((tmp_path / "alone" / "tokenizer_config.json").read_text())
    assert values["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not isinstance(values.get("extra_special_tokens"), list)
    first, second = (AutoTokenizer.from_pretrained(tmp_path / name) for name in ("kept", "alone"))
    chat = [{"role": "user", "content": "hi"}]
    assert first.apply_chat_template(chat, tokenize=False) == second.apply_chat_template(chat, tokenize=False)
    assert first.get_vocab() == second.get_vocab()


def test_another_tokenizer_replaces_the_models_own(tmp_path):
    model = write_model(tmp_path / "model")
    run = save_run(tmp_path / "run", model)
    shutil.rmtree(run / "tokenizer")
    Vocabulary.builtin(CorridorCodec("joint")).save(run / "tokenizer")
    assert export(run, tmp_path / "out") == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names & {*OWN} == {"tokenizer.json", "tokenizer_config.json", "modeling_llada2_moe.py",
                              "generation_config.json"}  # fmt: skip
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (run / "tokenizer" / name).read_bytes()
    assert "PreTrainedTokenizerFast" in (tmp_path / "out" / "tokenizer_config.json").read_text()


def test_a_config_that_describes_another_model_now_is_not_taken_along(tmp_path, capsys):
    model = write_model(tmp_path / "model")
    run = save_run(tmp_path / "run", model)
    (model / "config.json").write_text(json.dumps(MODEL | {"rope_theta": 5.0}))
    assert export(run, tmp_path / "out") == 0
    assert "describes another model than the run" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "config.json").read_text())["rope_theta"] == MODEL["rope_theta"]


def test_an_adapter_of_a_run_says_that_its_base_must_be_exported(chain, tmp_path, capsys):
    arguments = ["to_hf", "--checkpoint", str(chain[2]), "--output_path", str(tmp_path / "out"), "--layout", "adapter"]
    assert main(arguments) == 0
    assert f"the base is the run {chain[1]}" in capsys.readouterr().err
