"""By contents: text of any environment is trained on, and a run that goes on notices edited data and tokenizers."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from anyorder_jax.config import Config, DataConfig
from anyorder_jax.data import sources, units
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.environments import registry
from anyorder_jax.evaluation import held_out, reuse
from anyorder_jax.provenance import differences
from anyorder_jax.task import open_task
from anyorder_jax.training import loop
from anyorder_jax.training.run import Run
from anyorder_jax.types import Kind, Unit
from corridor import BPE_DIRECTORY, CorridorCodec, make_trajectory
from edited_shop import edit, shop_config, shop_episode, swap_two_tokens, write_shop


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """(data, tokenizer, run): two updates on the shop's episodes, by the real loop."""
    folder = tmp_path_factory.mktemp("shop")
    write_shop(folder / "data")
    shutil.copytree(BPE_DIRECTORY, folder / "tokenizer")
    assert loop.train(shop_config(folder / "data", folder / "tokenizer"), folder / "run")
    return folder


def test_text_of_an_unknown_environment_is_trained_on(shop):
    lines = [json.loads(line) for line in (shop / "run" / "metrics" / "train.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2] and all(np.isfinite(line["loss"]) for line in lines)


@pytest.mark.parametrize("environment", ["Shop-v0", ""])
def test_text_survives_the_codec_and_the_tokenizer(tmp_path, environment):
    write_shop(tmp_path, environment)
    task = open_task(shop_config(tmp_path, BPE_DIRECTORY))
    (first, *_) = task.trajectories("train")
    example = units.tokenise(first, task.codec, task.vocabulary)
    assert units.detokenise(example, task.codec, task.vocabulary) == list(first.units)
    with pytest.raises(ValueError, match=r"does not survive the tokenizer.*data\.tokenizer"):
        units.tokenise(first, task.codec, Vocabulary.builtin(task.codec))
    structured = dataclasses.replace(first, units=(Unit(Kind.OBSERVATION, 0, data={"place": 0}),))
    with pytest.raises(ValueError, match="observation of step 0 has structured data"):
        units.tokenise(structured, task.codec, task.vocabulary)
    with pytest.raises(ValueError, match=r"not registered here .* not evaluated"):
        held_out.open_held_out(shop_config(tmp_path, BPE_DIRECTORY), BPE_DIRECTORY, 2, None)


def test_an_own_environments_observations_are_its_codecs_business(tmp_path, monkeypatch):
    """One file and one line in the registry: its observations are read and trained on."""
    module = type("corridor", (), {"ids": lambda: {"Corridor-v0"}, "codec": CorridorCodec})
    monkeypatch.setitem(registry._FAMILIES, "Corridor-", ("corridor_family", ""))
    monkeypatch.setattr(registry, "_family", lambda name, extra: module)
    write_shop(tmp_path, "Corridor-v0", episode=lambda number: make_trajectory(number, 3))
    config = shop_config(tmp_path, "")
    task = open_task(config)
    assert len(task.corpus(task.training(config.data), 2).length_E) == 4 * 4


@pytest.fixture
def folder(shop, tmp_path):
    """The shop, to be edited: it is put back afterwards."""
    shutil.copytree(shop, tmp_path / "kept")
    yield shop
    shutil.rmtree(shop)
    shutil.copytree(tmp_path / "kept", shop)


def go_on(folder):
    """Starts the run again, as far as its first update."""
    return Run(shop_config(folder / "data", folder / "tokenizer"), folder / "run")


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("is_listed", [True, False], ids=["manifest too", "shard alone"])
def test_a_run_does_not_go_on_with_an_edited_shard(folder, split, is_listed):
    assert int(go_on(folder).state.step) == 2
    file = f"{split}/shard-00000.jsonl"
    edit(folder / "data" / file, "mug", "jug", is_listed)
    with pytest.raises(ValueError, match=f"{file}.* other contents than"):
        go_on(folder)


def test_a_run_does_not_go_on_with_a_shard_more(folder):
    """Shards that the manifest lists, and own ones that it does not."""
    more = folder / "data" / "train" / "shard-00001.jsonl"
    size, digest = sources.write_shard(more, [sources.encode(shop_episode(99))])
    manifest = sources.read_manifest(folder / "data")
    shards = (*manifest.splits["train"], sources.Shard("train/shard-00001.jsonl", 1, 1, size, digest))
    sources.write_manifest(folder / "data", dataclasses.replace(manifest, splits={**manifest.splits, "train": shards}))
    with pytest.raises(ValueError, match=r"train/shard-00001\.jsonl is new since the run began"):
        go_on(folder)
    sources.write_manifest(folder / "data", dataclasses.replace(manifest, splits={}))
    with pytest.raises(ValueError, match=r"train/shard-00001\.jsonl is new since the run began"):
        go_on(folder)


def test_a_run_does_not_go_on_with_a_tokenizer_of_the_same_size(folder):
    swap_two_tokens(folder / "tokenizer")
    with pytest.raises(ValueError, match=r"tokenizer.*other contents than when the run began: as many tokens"):
        go_on(folder)


def test_checkpoints_that_know_less_are_compared_by_what_they_know(shop):
    """Version 0.1.0 stored the digests that the manifest says, and the tokenizer's size."""
    task = open_task(shop_config(shop / "data", shop / "tokenizer"))
    now = task.fingerprint
    old = {name: now[name] for name in ("environment", "shards_sha256", "vocabulary_size")}
    assert differences(old, now) == differences(now, now) == differences({}, now) == []
    assert differences({**old, "shards_sha256": "0"}, now) == [
        "manifest.json lists other shards than when the run began"
    ]
    assert "had 7 tokens" in differences({**old, "vocabulary_size": 7}, now)[0]
    assert differences({**now, "tokens_sha256": 1}, {**now, "tokens_sha256": 2})[0].startswith("the same files give")


def test_a_saved_tokenizer_is_the_same_one(tmp_path):
    for name, vocabulary in (
        ("builtin", Vocabulary.builtin(CorridorCodec("joint"))),
        ("bpe", Vocabulary.from_directory(BPE_DIRECTORY, CorridorCodec("joint"))),
    ):
        vocabulary.save(tmp_path / name)
        again = Vocabulary.from_directory(tmp_path / name, CorridorCodec("joint"))
        assert vocabulary.sha256() == again.sha256(), name


def test_the_cache_of_another_environment_is_refused(tmp_path):
    config = Config(data=DataConfig(cache_dir=str(tmp_path), num_episodes=4))
    write_shop(tmp_path / "BabyAI-GoToObj-v0-4-200-200")
    with pytest.raises(ValueError, match=r"episodes of 'Shop-v0', not of config\.data\.environment"):
        open_task(config)


def test_results_on_data_that_were_edited_since_do_not_stand(folder):
    """Those trained on: refused. Those asked about: asked again."""
    config = shop_config(folder / "data", folder / "tokenizer")
    reuse.refuse_other_data(folder / "run", config)
    reports = folder / "run" / "report"
    reports.mkdir()
    data = {"directory": str(folder / "data"), "files": sources.digests(folder / "data")}
    (reports / "report.json").write_text(json.dumps({"about": {"data": data}}))
    assert reuse.is_answered(reports, "report", [])
    edit(folder / "data" / "test" / "shard-00000.jsonl", "mug", "jug", is_listed=True)
    assert not reuse.is_answered(reports, "report", [])
    reuse.refuse_other_data(folder / "run", config)
    edit(folder / "data" / "train" / "shard-00000.jsonl", "mug", "jug", is_listed=True)
    with pytest.raises(ValueError, match=r"trained on other data .*train/shard-00000\.jsonl has other contents"):
        reuse.refuse_other_data(folder / "run", config)
    edit(folder / "data" / "train" / "shard-00000.jsonl", "mug", "jug", is_listed=False)
    with pytest.raises(ValueError, match=r"train/shard-00000\.jsonl: other contents than .*manifest\.json says"):
        reuse.refuse_other_data(folder / "run", config)
