"""Mixtures: every source has its share of the examples, in an order that a resumed run finds again; one tokenizer."""

import collections
import dataclasses
import json
import shutil

import numpy as np
import pytest

import shop
from anyorder_jax import evaluate, generate, provenance, run_directory, task
from anyorder_jax.asking import rows
from anyorder_jax.checkpoint import Checkpointer
from anyorder_jax.config import CheckpointConfig, MaskingConfig, defaults, freeze, parse_sources, with_absolute_paths
from anyorder_jax.data import pipeline, sources, units
from anyorder_jax.data.mixtures import Mixture, Source
from anyorder_jax.environments import registry
from anyorder_jax.environments.play import play_episode
from anyorder_jax.evaluation import opening, reuse
from anyorder_jax.masking.sampler import AnyOrderMaskSampler
from anyorder_jax.training.resuming import are_same_sources
from anyorder_jax.types import Kind
from corridor import BPE_DIRECTORY
from runs import Trainer, tiny_config, tiny_model

LEVEL = "BabyAI-GoToObjS4-v0"


def write_grid(directory, num=24):
    environment = registry.make_environment(LEVEL)
    splits = {}
    for split, first, number in (("train", 0, num), ("validation", num, 4), ("test", num + 4, 4)):
        file = f"{split}/shard-00000.jsonl"
        episodes = [play_episode(environment, seed) for seed in range(first, first + number)]
        size, digest = sources.write_shard(directory / file, map(sources.encode, episodes))
        num_steps = sum(episode.units[-1].step for episode in episodes)
        splits[split] = (sources.Shard(file, number, num_steps, size, digest),)
    environment.close()
    sources.write_manifest(directory, sources.Manifest(LEVEL, {}, splits))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two of text, of other lengths, and one of grids."""
    root = tmp_path_factory.mktemp("sources")
    shop.write(root / "short", num_train=40)
    shop.write(root / "long", num_train=10, page_lines=12)
    write_grid(root / "grid")
    return root


def settings_for(folders, text, **data):
    config = defaults()
    config.data.sources = ",".join(f"{folders}/{part}" for part in text.split(","))
    config.data.num_episodes, config.data.num_tokens = 0, 500
    config.data.context_tokens, config.data.row_length = 128, 256
    config.train.batch_size, config.train.num_steps = 4, 40
    for name, value in data.items():
        config.data[name] = value
    return freeze(config)


def opened(config, split="train"):
    found = task.open_task(config)
    return found, found.examples(config, split)


@pytest.mark.parametrize("weights", ["short:0.3,long:0.7", "short:9,long:1", "short,long"])
def test_every_source_has_its_share_of_every_epoch(folders, weights):
    found, mixture = opened(settings_for(folders, weights))
    share = dict(zip(("short", "long"), [weight for _, weight in found.parts], strict=True))
    assert isinstance(mixture, Mixture) and sum(share.values()) == pytest.approx(1)
    total = np.zeros(2)
    for epoch in range(3):
        count = np.bincount([mixture.source_of(e) for e in mixture.numbers(epoch)], minlength=2)
        assert count.tolist() == mixture.count(epoch)
        assert np.abs(count - np.array([*share.values()]) * count.sum()).max() <= 1
        assert len(set(mixture.numbers(epoch).tolist())) == count.sum() < 2**31
        total += count
    assert total / total.sum() == pytest.approx([*share.values()], abs=1e-3)


class Numbers:
    """A source whose example i is ("name", i, times gone through)."""

    def __init__(self, name, size):
        self._name, self._size = name, size

    def lengths(self, epoch):
        return np.arange(self._size) + epoch % 2 + 1

    def example(self, e, epoch):
        return self._name, e, epoch

    def name(self, e):
        return f"number {e}"


@pytest.mark.parametrize(
    ("sizes", "weights"), [((5000, 300), (0.6, 0.4)), ((7, 40_000), (0.5, 0.5)), ((3, 2), (0.9, 0.1))]
)
def test_no_example_comes_again_before_all_others_of_its_source(sizes, weights):
    def make(seed=3):
        given = zip("ab", sizes, weights, strict=True)
        return Mixture([Source(name, Numbers(name, size), weight) for name, size, weight in given], seed)

    mixture, seen = make(), collections.Counter()
    for epoch in range(5):
        numbers = mixture.numbers(epoch)
        examples = [mixture.example(e, epoch) for e in numbers.tolist()]
        seen.update(examples)
        expected = [Numbers("", sizes["ab".index(name)]).lengths(times)[i] for name, i, times in examples]
        assert mixture.lengths(epoch).tolist() == expected
        for e, (name, i, _) in list(zip(numbers.tolist(), examples, strict=True))[::97]:
            assert mixture.name(e) == f"{name}: number {i}"
    assert set(seen.values()) == {1}  # (source, example, time) each once: the times follow one another
    for name, size in zip("ab", sizes, strict=True):
        rounds = collections.Counter(times for source, _, times in seen if source == name)
        assert [rounds[t] for t in range(len(rounds) - 1)] == [size] * (len(rounds) - 1)
    again = make()
    assert again.numbers(4).tolist() == mixture.numbers(4).tolist()  # asked first: the same
    assert make(seed=4).numbers(4).tolist() != mixture.numbers(4).tolist()


def batches_of(config, process_index=0, process_count=1):
    found, examples = opened(config)
    return pipeline.make_pipeline(
        config, examples, AnyOrderMaskSampler(config.masking), mask_id=found.vocabulary.mask_id,
        pad_id=found.vocabulary.pad_id, num_steps_total=40, share=(process_index, process_count),
    )  # fmt: skip


def test_batches_resume_and_shard(folders):
    config = settings_for(folders, "short:0.5,long:0.5")
    iterator = batches_of(config)
    first = [next(iterator) for _ in range(4)]
    state = iterator.get_state()
    rest = [next(iterator) for _ in range(4)]
    again = batches_of(config)
    again.set_state(state)
    for batch in rest:
        for one, other in zip(batch, next(again), strict=True):
            np.testing.assert_array_equal(one, other)
    halves = [batches_of(config, host, 2) for host in (0, 1)]
    for batch in first:
        parts = [next(half) for half in halves]
        np.testing.assert_array_equal(batch.tokens, np.stack([p.tokens for p in parts], 1).reshape(batch.tokens.shape))
    assert np.mean([(batch.segment_ids > 0).mean() for batch in first]) > 0.8


@pytest.mark.parametrize("tokenizer", ["", str(BPE_DIRECTORY)])
def test_grids_and_text_share_rows_and_a_tokenizer_and_keep_their_spans(folders, tokenizer):
    """Without a tokenizer one is trained on the words of both."""
    config = settings_for(folders, "grid:0.25,short:0.75", tokenizer=tokenizer, window=1, row_length=1024)
    masking = MaskingConfig(granularity="cell:0.4,line:0.3,token:0.3", causal_step="any")
    config = dataclasses.replace(config, masking=masking)
    found, mixture = opened(config)
    assert found.codec.name == "text" and found.decision() == (Kind.THOUGHT, Kind.ACTION)
    grid, text = (part for part, _ in found.parts)
    assert grid.vocabulary.tokenizer.get_vocab() == text.vocabulary.tokenizer.get_vocab()
    sampler, grains = AnyOrderMaskSampler(masking), {0: collections.Counter(), 1: collections.Counter()}
    kinds = set()
    for e in mixture.numbers(0)[::9].tolist():
        s, example = mixture.source_of(e), mixture.example(e)
        hidden = sampler(np.random.default_rng(e), example)
        grains[s][hidden.granularity] += 1
        part = (grid, text)[s]
        kinds.update(unit.kind for unit in units.detokenise(example, part.codec, part.vocabulary))
    assert set(grains[0]) == {"cell", "token"} and set(grains[1]) == {"line", "token"} and Kind.TOOL in kinds
    assert abs(grains[0]["cell"] / grains[0].total() - 4 / 7) < 0.2
    batch = next(batches_of(config))
    names = {mixture.name(e).partition(": ")[0].rpartition("/")[2] for e in np.unique(batch.example) if e >= 0}
    assert names == {"grid", "short"}


def test_what_the_sources_hold_is_in_the_fingerprint(folders, tmp_path):
    config = settings_for(folders, "short:0.5,long:0.5")
    found, _ = opened(config)
    began = found.fingerprint
    assert [sorted(part["files"]) for part in began["sources"]] == [["train/shard-00000.jsonl"]] * 2
    assert provenance.differences(began, opened(config)[0].fingerprint) == []
    changed = settings_for(folders, "short:0.5,short2:0.5")
    shop.write(folders / "short2", num_train=11)
    sentences = provenance.differences(began, opened(changed)[0].fingerprint)
    assert "source 2 of the mixture: train/shard-00000.jsonl has other contents than when the run began" in sentences
    assert "source 1 of the mixture: the tokenizer has other contents" in "; ".join(sentences)
    with pytest.raises(ValueError, match=r"asked for as one. Name one of its folders as data.path: .*/short"):
        found.trajectories("test")


def test_bad_records_of_every_source_are_counted_in_one_list(folders, tmp_path):
    shop.write(tmp_path / "bad", num_train=4)
    episodes = [shop.make_trajectory(n) for n in range(4)]
    episodes[1] = dataclasses.replace(
        episodes[1], units=(dataclasses.replace(episodes[1].units[0], text=None, data={}),)
    )
    size, digest = sources.write_shard(tmp_path / "bad/train/shard-00000.jsonl", map(sources.encode, episodes))
    manifest = sources.read_manifest(tmp_path / "bad")
    shard = sources.Shard("train/shard-00000.jsonl", 4, 12, size, digest)
    sources.write_manifest(
        tmp_path / "bad", dataclasses.replace(manifest, splits={**manifest.splits, "train": (shard,)})
    )
    config = settings_for(folders, "short", on_bad_record="skip")
    both = dataclasses.replace(config.data, sources=f"{config.data.sources},{tmp_path}/bad")
    config = dataclasses.replace(config, data=both)
    found, _ = opened(config)
    assert found.skipped is not None and len(found.skipped) == 1 and "shard-00000.jsonl:2" in found.skipped[0]


def test_sources_are_read_with_their_weights():
    assert parse_sources("a/b:0.3, c:0.7") == {"a/b": 0.3, "c": 0.7}
    assert parse_sources("gs://bucket/a:2,gs://bucket/b") == {"gs://bucket/a": 2, "gs://bucket/b": 1}
    for text in ("a:0,b:1", "a:-1", "a,a", "a,,b", ":1", "a:nan", "a:inf"):
        with pytest.raises(ValueError, match=r"data\.sources: expected"):
            parse_sources(text)


def test_sources_have_absolute_places_that_may_move(folders, monkeypatch):
    monkeypatch.chdir(folders)
    config = freeze({**defaults().to_dict(), "data": {**defaults().data.to_dict(), "sources": "short:0.3,long:0.7"}})
    saved = with_absolute_paths(config)
    assert saved.data.sources == f"{folders}/short:0.3,{folders}/long:0.7"
    assert with_absolute_paths(saved) == saved

    def same(one, other):
        return are_same_sources(one, other, folders / "run")

    assert same(saved.data.sources, saved.data.sources) and not same(saved.data.sources, "short:0.4,long:0.6")
    assert not same(saved.data.sources, f"{folders}/long:0.3,{folders}/short:0.7") and not same("", "short")
    assert same("/gone/short:0.3,/gone/long:0.7", saved.data.sources)


def test_what_no_source_offers_is_refused(folders):
    config = settings_for(folders, "short,grid", window=1)
    with pytest.raises(ValueError, match=r"'attribute' is no span of any of data\.sources"):
        masking = dataclasses.replace(config.masking, granularity="unit:0.5,attribute:0.5")
        data = dataclasses.replace(config.data, sources=f"{folders}/short,{folders}/long", profile="attributes")
        task.open_task(dataclasses.replace(config, masking=masking, data=data))
    with pytest.raises(ValueError, match=r"data\.frames: 'chat' is for running text"):
        chat = dataclasses.replace(config.data, frames="chat", tokenizer=str(BPE_DIRECTORY))
        task.open_task(dataclasses.replace(config, data=chat))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        task.open_task(settings_for(folders, "short,nowhere"))


@pytest.fixture(scope="module")
def run(folders):
    """A run on text and grids that learned nothing; text without a test split among them."""
    shop.write(folders / "untested", num_train=4)
    manifest = sources.read_manifest(folders / "untested")
    splits = {name: shards for name, shards in manifest.splits.items() if name != "test"}
    sources.write_manifest(folders / "untested", dataclasses.replace(manifest, splits=splits))
    shutil.rmtree(folders / "untested" / "test")
    config = settings_for(folders, "short:0.3,grid:0.6,untested:0.1", window=1)
    found, mixture = opened(config)
    found = found._replace(fingerprint={**found.fingerprint, "tokens_sha256": [mixture.sha256(), ""]})
    model_config = dataclasses.replace(tiny_model(), vocab_size=found.vocabulary.size)
    trainer = Trainer(dataclasses.replace(tiny_config(), data=config.data), model_config=model_config)
    with Checkpointer(folders / "run", CheckpointConfig()) as writer:
        writer.save(trainer.state, {}, run_directory.describe(config, model_config, found.fingerprint))
    found.vocabulary.save(folders / "run" / "tokenizer")
    (folders / "run" / "metrics").mkdir()
    (folders / "run" / "metrics" / "train.jsonl").write_text('{"step": 1, "loss": 6.0}\n', encoding="utf-8")
    return folders / "run"


def test_every_source_is_evaluated_by_itself(run, capsys):
    evaluate.main([f"--checkpoint={run}", "--num_episodes=2", "--num_windows=1", "--modes=greedy"])
    told = capsys.readouterr()
    assert "untested has no test split, so the validation split is asked about" in told.err
    assert "weight 0.3" in told.out and "WARNING" in told.out
    report = run / "report"
    alone = {name: rows.read(report / name / "rows.jsonl") for name in ("short", "grid", "untested")}
    together = rows.read(report / "rows.jsonl")
    assert together == [row for table in alone.values() for row in table] and {r.run for r in together} == {"run"}
    assert [{r.source for r in table} for table in alone.values()] == [{"short"}, {"grid"}, {"untested"}]
    assert {r.role for r in alone["short"]} >= {"tool", "thought", "action"}
    assert {r.question for r in alone["grid"]} >= {"causal", "acting"}
    content = json.loads((report / "report.json").read_text(encoding="utf-8"))
    assert list(content["sources"]) == ["short", "grid", "untested"] and len(content["about"]["data"]) == 3
    assert set(content["about"]["sources"]) == {"short", "grid", "untested"}
    of_grid = json.loads((report / "grid" / "report.json").read_text(encoding="utf-8"))
    measured = rows.summarise(
        together, by=("question", "predictor", "measure"), where={"source": ["grid"], "question": ["causal", "acting"]}
    )
    for predictor in ("model", "most_frequent"):
        told_of = of_grid["world_model"]["causal"][predictor]["action_accuracy"]["value"]
        assert measured["causal", predictor, "action_accuracy"].value == pytest.approx(told_of)
    solved = of_grid["acting"]["expert"]["success"]["value"]
    assert measured["acting", "expert", "success"].value == solved
    with pytest.raises(SystemExit, match=r"--env: .* was trained on several sources"):
        evaluate.main([f"--checkpoint={run}", f"--env={LEVEL}"])


def test_a_mixture_that_moved_with_its_run_is_found(run, tmp_path):
    shutil.copytree(run.parent, tmp_path / "moved", symlinks=True)
    meta = run_directory.read_meta(run)
    gone = json.loads(json.dumps(meta["config"]).replace(str(run.parent), "/gone/sources"))
    found = provenance.with_data_of(freeze(gone), tmp_path / "moved" / "run", meta["data"])
    assert list(parse_sources(found.data.sources).values()) == [0.3, 0.6, 0.1]
    assert all(place.startswith(str(tmp_path / "moved")) for place in parse_sources(found.data.sources))
    reuse.refuse_other_data(run, freeze(meta["config"]))
    for split in ("train", "validation", "test"):
        here, there = (tmp_path / "moved" / name / split for name in ("long", "short"))
        shutil.copytree(here, there, dirs_exist_ok=True)
    shutil.copy(tmp_path / "moved" / "long" / "manifest.json", tmp_path / "moved" / "short")
    with pytest.raises(ValueError, match=r"moved/short: train/shard-00000.jsonl has other contents"):
        reuse.refuse_other_data(run, found)


def test_a_report_of_a_mixture_stands_while_every_source_does(run, folders, tmp_path):
    data = [{"directory": str(folders / name), "files": sources.digests(folders / name)} for name in ("short", "grid")]
    for is_same in (True, False):
        (tmp_path / "report.json").write_text(json.dumps({"about": {"data": data}}), encoding="utf-8")
        assert reuse.is_answered(tmp_path, "report", ["--checkpoint=x"]) == is_same
        data[1]["files"]["train/shard-00000.jsonl"] = "0"


def test_sources_of_one_name_are_told_apart(folders, tmp_path):
    shutil.copytree(folders / "short", tmp_path / "short")
    config = settings_for(folders, "short,long")
    both = dataclasses.replace(config.data, sources=f"{config.data.sources},{tmp_path}/short")
    assert list(task.source_configs(dataclasses.replace(config, data=both))) == ["short-1", "long", "short-3"]


def test_an_episode_is_continued_as_its_source_writes(run, folders):
    grid = sources.read_record(folders / "grid" / "test" / "shard-00000.jsonl", 0)
    (answer,) = generate.generate(str(run), shop.make_trajectory(3), "action", generate.Decoding(threshold=0.5))
    assert answer["units"][0]["role"] == "action"
    with pytest.raises(ValueError, match="generator: babyai-joint writes units of fixed slots"):
        generate.generate(str(run), grid, "2", generate.Decoding())
    other = dataclasses.replace(grid, source={"environment": "Elsewhere-v0"})
    with pytest.raises(ValueError, match="no source is of 'Elsewhere-v0'; they are of '', 'BabyAI-GoToObjS4-v0'"):
        generate.generate(str(run), other, "2", generate.Decoding())


def test_the_page_shows_the_grids_of_a_mixture_or_else_its_first_text(run, folders):
    config = freeze(run_directory.read_meta(run)["config"])
    assert opening.shown_source(config).data.path == f"{folders}/grid"
    data = dataclasses.replace(config.data, sources=f"{folders}/short,{folders}/long")
    assert opening.shown_source(dataclasses.replace(config, data=data)).data.path == f"{folders}/short"
