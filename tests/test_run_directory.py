"""Which folder is a run, a step or a model; places that are found from anywhere; models without their tokenizer."""

import dataclasses
import json
import shutil

import pytest

import checkpoints
from anyorder_jax import run_directory, weights
from anyorder_jax.config import Config, DataConfig, ModelSelection, with_absolute_paths
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.task import Task, tokenizer_of_model
from anyorder_jax.training import resuming, shape
from conversion.__main__ import main
from corridor import BPE_DIRECTORY, CorridorCodec
from saved_runs import MODEL, save_run, write_model


@pytest.mark.parametrize("place", ["checkpoints/mini", "checkpoints/7", "7", "models/checkpoints/mini/checkpoints/0"])
def test_a_model_in_a_folder_of_any_name_is_a_model(tmp_path, place, capsys, monkeypatch):
    model = write_model(tmp_path / place)
    (model / "checkpoints").mkdir()  # left by another trainer
    assert not run_directory.is_run(model)
    assert weights.read_model_config(model).vocab_size == MODEL["vocab_size"]
    assert main(["inspect", str(model)]) == 0
    assert "split layout" in capsys.readouterr().out
    assert tokenizer_of_model(str(model)) == model
    monkeypatch.chdir(model.parent)
    assert not run_directory.is_run(model.name)


def test_a_step_is_a_numbered_folder_that_holds_params(tmp_path, monkeypatch):
    run = tmp_path / "checkpoints" / "run"  # which lies in such a folder itself
    for step in ("5", "40", "100.orbax-checkpoint-tmp", "best"):
        (run / "checkpoints" / step / "params").mkdir(parents=True)
    (run / "checkpoints" / "900").mkdir()  # nothing in it
    assert run_directory.find(run) == (run, 40) == run_directory.find(run / "checkpoints" / "40")
    assert run_directory.is_run(run) and run_directory.is_run(run / "checkpoints" / "5")
    monkeypatch.chdir(run / "checkpoints")
    assert run_directory.is_run("5") and run_directory.find("5") == (run, 5)
    with pytest.raises(FileNotFoundError, match="no checkpoint here"):
        run_directory.find(tmp_path / "checkpoints")
    (run / "checkpoints" / "900" / "meta").mkdir()  # what is left of a newer one: not passed over in silence
    with pytest.raises(ValueError, match=r"checkpoints/900: this checkpoint is damaged .* another step: \[5, 40\]"):
        run_directory.find(run)
    assert run_directory.find(run / "checkpoints" / "40") == (run, 40)


def test_a_description_with_another_byte_is_refused(tmp_path):
    run = save_run(tmp_path / "run", write_model(tmp_path / "model"))
    file = run / "checkpoints" / "5" / "meta" / run_directory.META_NAME
    whole = file.read_text()
    for found, other in (('"rope_theta": 10000', '"rope_theta": 10001'), ('"digest":', '"digesT":'), ("{", "[")):
        changed = whole.replace(found, other, 1)
        assert changed != whole
        file.write_text(changed)
        with pytest.raises(ValueError, match="metadata: the description of the checkpoint cannot be read"):
            run_directory.read_meta(run)
    file.write_text("[]")
    with pytest.raises(ValueError, match="cannot be read"):
        run_directory.read_meta(run)


def test_places_are_recorded_so_that_they_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = Config(data=DataConfig(path="gs://bucket/episodes", tokenizer="mini"), model=ModelSelection(path="runs/a"))
    found = with_absolute_paths(config)
    assert (found.model.path, found.data.tokenizer) == (f"{tmp_path}/runs/a", f"{tmp_path}/mini")
    assert (found.data.path, found.data.cache_dir) == ("gs://bucket/episodes", f"{tmp_path}/data")
    assert with_absolute_paths(found) == found
    assert with_absolute_paths(Config()).model.path == ""


def test_a_run_goes_on_where_its_places_were_relative_or_were_moved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved = dataclasses.replace(Config(), model=ModelSelection(path="models/a"))
    for name in ("a", "b"):
        (tmp_path / "models" / name).mkdir(parents=True)

    def resume(path):
        now = dataclasses.replace(saved, model=ModelSelection(path=str(path)))
        meta = run_directory.describe(saved, weights.load.read_model_config(write_model(tmp_path / "m")), {})
        shutil.rmtree(tmp_path / "m")
        resuming.refuse_other_run(with_absolute_paths(now), meta, {}, tmp_path / "run")

    resume("models/a")  # an earlier version recorded it as it was typed
    with pytest.raises(ValueError, match=r"model\.path: 'models/a' -> '.*/models/b'"):
        resume("models/b")
    (tmp_path / "models" / "a").rename(tmp_path / "models" / "c")
    resume("models/c")
    with pytest.raises(ValueError, match=r"model\.path: 'models/a' -> ''"):
        resume("")


def test_a_model_without_its_tokenizer_is_refused(tmp_path):
    model = checkpoints.write(tmp_path / "model", MODEL)
    with pytest.raises(ValueError, match=r"model has no tokenizer .*--config\.data\.tokenizer=DIRECTORY"):
        tokenizer_of_model(str(model))
    shutil.copy(BPE_DIRECTORY / "tokenizer.json", model)
    with pytest.raises(ValueError, match=r"only tokenizer\.json, which does not tell the mask and end tokens"):
        tokenizer_of_model(str(model))
    with pytest.raises(ValueError, match=r"nowhere is not there"):
        tokenizer_of_model(str(tmp_path / "nowhere"))


def test_a_step_is_read_with_the_tokenizer_of_its_run(tmp_path):
    run = save_run(tmp_path / "run", write_model(tmp_path / "model"))
    for path in (run, run / "checkpoints" / "5"):
        assert tokenizer_of_model(str(path)) == run / "tokenizer"
    shutil.rmtree(run / "tokenizer")
    with pytest.raises(ValueError, match=r"has no tokenizer \(no tokenizer_config\.json in .*run/tokenizer"):
        tokenizer_of_model(str(run / "checkpoints" / "5"))


@pytest.mark.parametrize("mask_id", [406, 419])
def test_a_mask_id_that_the_vocabulary_does_not_have_is_refused(tmp_path, mask_id):
    """Also one that has an embedding row, and when the tokenizer is another directory's."""
    model = write_model(tmp_path / "model")
    (model / "config.json").write_text(json.dumps(MODEL | {"mask_token_id": mask_id}))
    vocabulary = Vocabulary.from_directory(BPE_DIRECTORY, CorridorCodec("joint"))
    config = dataclasses.replace(Config(data=DataConfig(row_length=64)), model=ModelSelection(path=str(model)))
    task = Task(None, "", None, vocabulary, {})
    with pytest.raises(ValueError, match=f"says mask_token_id = {mask_id}, and the tokenizer has no such id"):
        shape.model_config_of(config, task)


def test_two_names_of_the_mask_token_are_told(tmp_path, capsys):
    model = write_model(tmp_path / "model")
    vocabulary = Vocabulary.from_directory(BPE_DIRECTORY, CorridorCodec("joint"))
    task = Task(None, "", None, vocabulary, {})
    for mask_id, is_told in ((None, False), (405, False), (403, True)):
        (model / "config.json").write_text(json.dumps(MODEL | {"mask_token_id": mask_id}))
        shape.say_other_mask(weights.read_model_config(model), task)
        assert ("'<|mask|>' (405), not the model's config.json's '<role>' (403)" in capsys.readouterr().out) == is_told
