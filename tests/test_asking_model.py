"""A model is asked about running text: the scorer on one device and on several, its memory, the command."""

import dataclasses
import json
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import shop
from anyorder_jax import evaluate, keys, run_directory, sharding, state, step, task, weights
from anyorder_jax.asking import evaluation, measures, questions, rows, scorer
from anyorder_jax.asking.baselines import BASELINES
from anyorder_jax.asking.questions import QUESTIONS, Contexts, ask
from anyorder_jax.asking.targets import collect_targets
from anyorder_jax.checkpoint import Checkpointer
from anyorder_jax.config import CheckpointConfig, Config, DataConfig, MeshConfig, TrainConfig, defaults, freeze
from anyorder_jax.data import pipeline, sources, units
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.model import presets, transformer
from anyorder_jax.model.attention import Segments
from anyorder_jax.rendering.text import TextRenderer
from anyorder_jax.types import Field, Tokenised
from runs import Trainer, tiny_config, tiny_model

RENDERER = TextRenderer()
EPISODES = [shop.make_trajectory(n) for n in range(6)]
VOCABULARY = Vocabulary.trained([unit.text for e in EPISODES for unit in e.units], RENDERER, 400)
WHOLE = [units.tokenise(e, RENDERER, VOCABULARY) for e in EPISODES]
BY_NAME = {question.name: question for question in QUESTIONS}
DATA = DataConfig(context_tokens=160)


def asks_of(name, data=DATA):
    return ask(BY_NAME[name], WHOLE, Contexts(data), limit=3, seed=0)


MODEL = dataclasses.replace(
    tiny_model(), vocab_size=400, pad_token_id=VOCABULARY.pad_id, mask_token_id=VOCABULARY.mask_id
)


@pytest.fixture(scope="module")
def params():
    return jax.jit(lambda key: transformer.init(MODEL, key, "float32"))(keys.key(0, "init"))


@pytest.fixture(scope="module")
def targets():
    asks = asks_of("any_order@0.5") + asks_of("decision") + asks_of("future", data=DataConfig())
    assert len({scorer.padded_length(len(one.example)) for one in asks}) > 1
    found = collect_targets(asks, VOCABULARY)
    assert np.bincount(found.ask_T).max() > 2 * scorer.MAX_CHUNK
    return found


@pytest.fixture(scope="module")
def on_one_device(params, targets):
    return scorer.Scorer(Config(), MODEL, params, VOCABULARY).predict(targets)


def test_the_scorer_says_what_all_logits_say(params, targets, on_one_device):
    apply = jax.jit(lambda *x: transformer.apply(MODEL, params, *x[:2], Segments(x[2])).logits_BLV)
    for a in range(0, len(targets.asks), 5):
        one, mine = targets.asks[a], targets.ask_T == a
        seen = np.where(one.hidden.is_hidden_L, VOCABULARY.mask_id, one.example.tokens_L)
        row = np.pad(seen, (0, 512 - len(seen)))[None]
        places = np.arange(512)[None]
        log_p = np.asarray(jax.nn.log_softmax(apply(row, places, (places < len(seen)).astype(np.int32))[0]))
        places = np.flatnonzero(one.hidden.is_target_L & (one.example.field_L != Field.END))
        nll = -log_p[places, one.example.tokens_L[places]]
        np.testing.assert_allclose(on_one_device.nll_T[mine], nll, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(on_one_device.chosen_T[mine], log_p[places].argmax(-1))
        np.testing.assert_allclose(on_one_device.confidence_T[mine], np.exp(log_p[places].max(-1)), rtol=1e-4)


class Only(NamedTuple):
    """A corpus of one example."""

    one: Tokenised

    def example(self, e, epoch):
        return self.one

    def branched(self, e, epoch, example, hidden, rng):
        return example, hidden


DIFFUSION = dataclasses.replace(Config(), train=TrainConfig(objective="block_diffusion", block_size=16))


@pytest.fixture(scope="module")
def of_diffusion(params):
    asks = asks_of("any_order@0.5") + asks_of("inverse") + asks_of("decision")
    return collect_targets(asks, VOCABULARY), scorer.Scorer(DIFFUSION, MODEL, params, VOCABULARY)


def test_block_diffusion_is_asked_what_it_is_trained_on(params, of_diffusion):
    """What a question costs is the loss of its draw (where a block holds more turns, with all that is visible seen)."""
    targets, model = of_diffusion
    nll_T = model.predict(targets).nll_T
    mesh = sharding.make_mesh(MeshConfig(), jax.devices()[:1])
    loss_of = jax.jit(lambda *x: step.batch_loss(params, *x, DIFFUSION, MODEL, mesh)[0])
    for a in range(0, len(targets.asks), 4):
        example, hidden, _ = targets.asks[a]
        maker = pipeline.RowMaker(Only(example), lambda *_, h=hidden: h, None, 512, VOCABULARY.mask_id, 0, 16)
        batch = maker.row([0], lambda e: None, 1.0)
        batch.tokens[0, : len(example)] = np.where(hidden.is_hidden_L, VOCABULARY.mask_id, example.tokens_L)
        weights = (batch.is_target & (batch.field != Field.END)).astype(np.float32)
        assert weights.sum() == (targets.ask_T == a).sum()
        assert nll_T[targets.ask_T == a].sum() == pytest.approx(float(loss_of(batch, weights)), rel=1e-4)


def test_block_diffusion_sees_no_later_block_and_nothing_that_is_hidden_only(of_diffusion):
    targets, model = of_diffusion
    expected = model.predict(targets).nll_T
    asks, is_kept_T = [], np.zeros(len(targets.truth_T), bool)
    num_changed = 0
    for a, (example, hidden, episode) in enumerate(targets.asks):
        mine = targets.ask_T == a
        last = targets.position_T[mine][mine.sum() // 2] // 16
        is_kept_T |= mine & (targets.position_T // 16 <= last)
        is_free_L = (np.arange(len(example)) // 16 > last) | (hidden.is_hidden_L & ~hidden.is_target_L)
        num_changed += is_free_L.sum()
        other_L = np.where(is_free_L, (example.tokens_L + 7) % 300 + 20, example.tokens_L)
        asks.append((dataclasses.replace(example, tokens_L=other_L), hidden, episode))
    changed = [questions.Ask(*one) for one in asks]
    found = model.predict(dataclasses.replace(targets, asks=changed)).nll_T
    assert num_changed > 1000 and 100 < is_kept_T.sum() < len(is_kept_T)
    np.testing.assert_allclose(found[is_kept_T], expected[is_kept_T], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("text", ["data:2,expert:2,tensor:2", "fsdp:4,data:2"])
def test_eight_devices_say_what_one_says(params, targets, on_one_device, text):
    mesh = scorer.mesh_of(Config(), text)
    assert mesh.size == 8
    shapes = state.abstract_params(MODEL, mesh, "float32")
    placed = jax.device_put(params, jax.tree.map(lambda s: s.sharding, shapes))
    found = scorer.Scorer(Config(), MODEL, placed, VOCABULARY, mesh).predict(targets)
    np.testing.assert_allclose(found.nll_T, on_one_device.nll_T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.confidence_T, on_one_device.confidence_T, rtol=1e-4)
    assert (found.chosen_T == on_one_device.chosen_T).mean() > 0.999


def test_where_a_run_is_evaluated(devices):
    assert scorer.mesh_of(Config()).size == len(devices)  # its mesh takes all that there are
    assert scorer.mesh_of(Config(mesh=MeshConfig(data=64))).size == 1
    for text, message in [
        ("data", "expected AXIS:SIZE"), ("rows:2", "expected AXIS:SIZE of data, fsdp"), ("data:0", "expected"),
        ("data:64", "needs 64 devices, and there are 8"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            scorer.mesh_of(Config(), text)


def temporaries(model):
    """GiB beside the weights, of a row of 4,096 tokens; read off the compiled program. All in float32: in bfloat16 a
    CPU's compiler keeps a copy of the weights in float32, which no accelerator does."""
    mesh = sharding.make_mesh(MeshConfig(), jax.devices()[:1])

    def whole(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.int32, sharding=sharding.rows(mesh))

    rows_BL, shapes = whole(1, 4096), state.abstract_params(model, mesh, "float32")
    score = jax.jit(scorer.make_score(Config(), model, mesh, 1))
    compiled = score.lower(shapes, rows_BL, rows_BL, whole(1), rows_BL, rows_BL, whole(1)).compile()
    return compiled.memory_analysis().temp_size_in_bytes / 2**30


def test_mini_is_scored_beside_its_weights(monkeypatch):
    """The logits of all places are 2.4 GiB: with mini's vocabulary on smaller layers they would be most of it."""
    mini = presets.get("llada2_mini")
    assert temporaries(mini) < 6
    few = {"num_hidden_layers": 2, "num_experts": 8, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 1}
    small = dataclasses.replace(mini, **few, num_attention_heads=1, num_key_value_heads=1)
    assert temporaries(small) < 1
    monkeypatch.setattr(scorer, "chunk_of", lambda num_rows, length, vocab_size: length)
    assert temporaries(small) > 2.4


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of text that learned nothing, with its data."""
    directory = tmp_path_factory.mktemp("asking")
    shop.write(directory / "data", num_train=12, num_others=4)
    config = defaults()
    config.data.path, config.data.num_episodes, config.data.num_tokens = str(directory / "data"), 0, 400
    config.data.context_tokens = config.data.row_length = 128
    config = freeze(config)
    opened = task.open_task(config)
    trainer = Trainer(dataclasses.replace(tiny_config(), data=config.data), model_config=MODEL)
    writer = Checkpointer(directory / "run", CheckpointConfig())
    meta = run_directory.describe(config, MODEL, opened.fingerprint)
    writer.save(trainer.state, {"batches": {"next_index": 0}}, meta)
    writer.close()
    opened.vocabulary.save(directory / "run" / "tokenizer")
    (directory / "run" / "metrics").mkdir()
    (directory / "run" / "metrics" / "train.jsonl").write_text('{"step": 1, "loss": 6.0}\n', encoding="utf-8")
    return directory / "run"


def test_the_command_on_eight_devices_and_on_one(run, tmp_path, capsys):
    evaluate.main([f"--checkpoint={run}", "--num_episodes=3", "--num_windows=2"])
    out = capsys.readouterr().out
    assert "Acting is left out: the data have no environment." in out and "any_order@0.3/line" in out
    report = run / "report"
    assert {path.name for path in report.iterdir()} == {"report.json", "rows.jsonl", "loss.png"}
    content = json.loads((report / "report.json").read_text(encoding="utf-8"))
    assert content["about"]["num_test_episodes"] == 3 and content["about"]["mesh"]["data"] == 8
    table = rows.read(report / "rows.jsonl")
    assert {r.question for r in table} == set(BY_NAME) and {r.predictor for r in table} == {"model", *BASELINES}
    assert {r.task for r in table} == {"shop-16", "shop-17", "shop-18"} and {r.run for r in table} == {"run"}
    found = rows.summarise(table, by=("question", "role", "measure", "predictor"))
    assert len(content["summary"]) == len(found) and {r.measure for r in table} == set(measures.MEASURES)
    for entry in content["summary"]:
        estimate = found[entry["question"], entry["role"], entry["measure"], entry["predictor"]]
        assert entry["value"] == estimate.value
    assert content["calibration"]["decision"]["action"]["count"] > 0

    evaluate.main([
        f"--checkpoint={run}", "--num_episodes=3", "--num_windows=2", "--mesh=data:1", f"--output_dir={tmp_path}"
    ])  # fmt: skip
    other = rows.read(tmp_path / "rows.jsonl")
    assert [r[:-2] for r in other] == [r[:-2] for r in table]
    for ours, theirs in zip(table, other, strict=True):
        if "nll" in ours.measure:
            np.testing.assert_allclose(ours.numerator, theirs.numerator, rtol=1e-4)


def answers(run, output, *flags):
    """(about, the rows of the model's NLL) of the command."""
    evaluate.main([
        f"--checkpoint={run}", "--num_episodes=2", "--num_windows=1", f"--output_dir={output}", *flags
    ])  # fmt: skip
    about = json.loads((output / "report.json").read_text(encoding="utf-8"))["about"]
    table = [r for r in rows.read(output / "rows.jsonl") if r.predictor == "model" and "nll" in r.measure]
    return about, np.array([r.numerator for r in table])


def test_weights_in_bfloat16_and_8_bits_on_eight_devices_and_on_one(run, tmp_path):
    """A mesh changes the order of sums only: far less than what 16 or 8 bits round away."""
    plain = answers(run, tmp_path / "plain", "--mesh=data:1")[1]
    for dtype in ("bfloat16", "int8"):
        about, one = answers(run, tmp_path / dtype, "--mesh=data:1", f"--dtype={dtype}")
        assert about["dtype"] == dtype and about["mesh"]["data"] == 1
        about, eight = answers(run, tmp_path / f"{dtype}-8", "--mesh=data:2,fsdp:2,expert:2", f"--dtype={dtype}")
        assert about["mesh"] == {"data": 2, "fsdp": 2, "expert": 2, "tensor": 1}
        np.testing.assert_allclose(eight, one, rtol=2e-3)
        np.testing.assert_allclose(one, plain, rtol=2e-2)
        assert (one != plain).any()


@pytest.mark.parametrize("text", ["", "data:2,fsdp:2,expert:2"])
def test_a_run_is_held_in_8_bits_or_in_16(run, text, monkeypatch):
    """Each weight is put into its form as it is read, whether the run's are read together or one after another."""
    if text:
        monkeypatch.setattr(weights, "AT_ONCE_BYTES", 0)
    mesh = scorer.mesh_of(Config(), text or "data:1")
    plain, in_bits, narrow = (weights.load_for_inference(run, mesh, dtype) for dtype in ("", "int8", "bfloat16"))
    assert [loaded.dtype for loaded in (plain, in_bits, narrow)] == ["float32", "int8", "bfloat16"]
    assert in_bits.config.model.compute_dtype == narrow.config.model.compute_dtype == "bfloat16"
    shapes = weights.shapes_for_inference(plain.config, plain.model_config, mesh, "int8")
    jax.tree.map(lambda x, s: check_form(x, s.shape, s.dtype, s.sharding), in_bits.params, shapes)
    down = plain.params["moe"]["expert_down"]
    held = in_bits.params["moe"]["expert_down"]
    step = np.asarray(held["scale"])[:, :, None]
    assert np.abs(np.asarray(held["bits"]) * step - np.asarray(down)).max() <= step.max() / 2 * (1 + 1e-5)
    cast = jax.tree.map(lambda x, y: np.asarray(x, y.dtype), plain.params, narrow.params)
    jax.tree.map(np.testing.assert_array_equal, cast, narrow.params)
    with pytest.raises(ValueError, match="--dtype: expected one of float32, bfloat16, int8, got 'int4'"):
        weights.load_for_inference(run, mesh, "int4")


def check_form(x, shape, dtype, placed):
    assert (x.shape, x.dtype) == (shape, dtype) and x.sharding.is_equivalent_to(placed, x.ndim)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--suite=report,viewer", "--parts=report,viewer and .* are for grids"),
        ("--env=BabyAI-GoToObj-v0", "BabyAI-GoToObj-v0 is no world of text"),
        ("--goals=a spaceship", "no episode with a goal that holds a spaceship"),
        ("--mesh=data:99", "needs 99 devices"),
    ],
)
def test_what_a_run_of_text_cannot_answer_is_refused(run, flag, message):
    with pytest.raises(SystemExit, match=message):
        evaluate.main([f"--checkpoint={run}", flag])


@pytest.mark.parametrize(
    ("there", "asked", "chosen", "told"),
    [
        (("train", "validation", "test"), "", "test", ""),
        (("train", "validation", "test"), "train", "train", "what it remembers"),
        (("train", "validation"), "", "validation", "no test split, so the validation split .* a little too good"),
        (("train",), "", "train", "no test split, so the train split .* what it remembers.*ingest --test=0.1"),
    ],
)
def test_a_handful_of_logs_is_asked_about_what_there_is(tmp_path, there, asked, chosen, told):
    shop.write(tmp_path)
    splits = sources.read_manifest(tmp_path).splits
    sources.write_manifest(tmp_path, sources.Manifest("", {}, {split: splits[split] for split in there}))
    config = defaults()
    config.data.path, config.data.num_episodes, config.data.num_tokens = str(tmp_path), 0, 400
    config = freeze(config)
    held_out = evaluation.open_held_out(config, task.open_task(config), evaluation.Selection(2, (), asked))
    assert held_out.split == chosen and re.search(told, held_out.warning) and bool(told) == bool(held_out.warning)
    assert held_out.ids == [t.id for t in sources.read_trajectories(tmp_path, chosen)[:2]]
    if "test" not in there:
        with pytest.raises(ValueError, match=r"no test split\. --split: choose one of train"):
            evaluation.choose_split(tmp_path, "test")
