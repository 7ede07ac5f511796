"""Text as the general case: spans, literal special tokens, contexts within a budget, examples drawn from the disk."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shop
from anyorder_jax import task
from anyorder_jax.config import defaults, freeze, parse_roles
from anyorder_jax.data import contexts, pipeline, units
from anyorder_jax.data.text_corpus import TextCorpus, Texts
from anyorder_jax.data.text_index import open_index
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.masking import holes
from anyorder_jax.masking.granularity import slots_of
from anyorder_jax.masking.sampler import AnyOrderMaskSampler
from anyorder_jax.rendering.text import TextRenderer, lines_of, words_of
from anyorder_jax.types import EVIDENCE, ROLES, Field, Kind, Trajectory, Unit
from corridor import BPE_DIRECTORY

RENDERER = TextRenderer()
EPISODES = [shop.make_trajectory(n) for n in range(12)]
TEXTS = [unit.text for episode in EPISODES for unit in episode.units]
TRAINED = Vocabulary.trained(TEXTS, RENDERER, 400)
GIVEN = Vocabulary.from_directory(BPE_DIRECTORY, RENDERER)
PARTS = ["<mask>", "<|mask|>", "<|endoftext|>", "<end>", "<goal>", " ", "\n", '{"name":"f","arguments":{', "}}", "é"]
any_text = st.text(max_size=60) | st.lists(st.sampled_from(PARTS)).map("".join)


@given(any_text)
def test_lines_and_words_are_the_text(text):
    assert "".join(lines_of(text)) == text == "".join(word for line in lines_of(text) for word in words_of(line))


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ('{"name":"buy","arguments":{"item":"a, \\"b\\"","n":{"x":[1,2]}}}',
         ['{"name":"buy","arguments":{', '"item":"a, \\"b\\"",', '"n":{"x":[1,2]}', "}}"]),
        ('{"name": "buy", "arguments": {"item": 1, "n": 2}}',
         ['{"name": "buy", "arguments": {', '"item": 1,', ' "n": 2', "}}"]),
        ('{"name":"buy","arguments":{}}', ['{"name":"buy","arguments":{', "}}"]),
        ('{"name":"buy","arguments":{"item":', ['{"name":"buy","arguments":{"item":']),
    ],
)  # fmt: skip
def test_arguments_of_a_call_are_lines(text, lines):
    assert lines_of(text) == lines


@settings(deadline=None)
@given(st.lists(any_text, min_size=1, max_size=4), st.sampled_from([TRAINED, GIVEN]))
def test_any_text_comes_back_and_spells_no_special_token(texts, vocabulary):
    given_units = tuple(Unit(Kind.OBSERVATION, step, text=text) for step, text in enumerate(texts))
    example = units.tokenise(Trajectory("a", given_units), RENDERER, vocabulary)
    assert tuple(units.detokenise(example, RENDERER, vocabulary)) == given_units
    own = example.tokens_L[example.field_L == Field.TEXT]
    assert vocabulary.mask_id not in own and (own == vocabulary.end_id).sum() == len(texts)
    for coarse, fine in zip(example.slots_GL[:-1], example.slots_GL[1:], strict=True):
        assert len(np.unique(np.stack([coarse, fine]), axis=1).T) == len(np.unique(fine))  # spans are nested
    widths = units.unit_widths([Trajectory("a", given_units)], RENDERER, vocabulary, units.DEFAULT_LAYOUT)
    assert [width for width, _, _ in widths] == np.diff(contexts.unit_starts(example)).tolist()


def test_the_same_texts_train_the_same_tokenizer(tmp_path):
    again = Vocabulary.trained(TEXTS, RENDERER, 400)
    assert again.sha256() == TRAINED.sha256() and again.size <= 400
    again.save(tmp_path)
    assert Vocabulary.from_directory(tmp_path, RENDERER).encode_text(TEXTS[5]) == TRAINED.encode_text(TEXTS[5])


def test_a_span_is_hidden_as_a_whole_and_nothing_else():
    example = units.tokenise(EPISODES[0], RENDERER, GIVEN)
    slots = slots_of(example, "line")
    lines = np.flatnonzero(slots.unit_S[:-1] == 6)
    texts = [GIVEN.decode_text(example.tokens_L[slots.slot_L == line]) for line in lines]
    assert texts[:4] == lines_of(EPISODES[0].units[6].text)
    with pytest.raises(ValueError, match="'cell' is no span of these trajectories; they offer unit, line, word, token"):
        slots_of(example, "cell")


def test_a_unit_is_filled_to_its_roles_block_and_later_ends_are_marked():
    layout = units.Layout(tuple(32 if role == "action" else 8 for role in ROLES))
    example = units.tokenise(EPISODES[1], RENDERER, TRAINED, layout)
    frames = sum(len(TRAINED.frame(unit.kind)) for unit in EPISODES[1].units)
    widths = np.bincount(example.slots_GL[0][example.slots_GL[0] >= 0])
    assert frames + widths.sum() == len(example)
    assert (widths[example.kind_U == Kind.ACTION] % 32 == 0).all() and (widths % 8 == 0).all()
    is_end_L = example.tokens_L == TRAINED.end_id
    for unit in range(len(widths)):
        fields = example.field_L[is_end_L & (example.slots_GL[0] == unit)]
        assert fields[0] == Field.TEXT and (fields[1:] == Field.END).all()


def test_a_long_unit_is_shortened_with_a_mark_that_counts():
    long = shop.make_trajectory(3, page_lines=200)
    example = units.tokenise(long, RENDERER, TRAINED, units.Layout(max_unit_tokens=80))
    whole, page = long.units[8].text, units.detokenise(example, RENDERER, TRAINED)[8].text
    assert example.num_shortened == 1 and whole.startswith(page[:20]) and whole.endswith(page[-8:])
    left_out = int(page.split("[... ")[1].split(" characters")[0])
    mark = f"\n[... {left_out} characters left out ...]\n"
    assert len(page) - len(mark) + left_out == len(long.units[8].text)
    assert len(TRAINED.encode_text(page)[0]) <= 80


@pytest.mark.parametrize("budget", [60, 100, 150, 260])
def test_a_context_shows_purpose_newest_user_and_last_steps(budget):
    example = units.tokenise(EPISODES[0], RENDERER, TRAINED, units.Layout(max_unit_tokens=24))
    whole = contexts.lengths_of(example)
    for end in range(len(whole.kind_U)):
        chosen = contexts.choose(whole, end, budget)
        shown = set(chosen.tolist())
        assert end in shown and max(shown) == end
        assert shown >= {u for u in (0, 1) if u <= end}, "system and goal"
        assert 5 in shown or end < 5, "the newest user turn"
        rest = sorted(shown - {0, 1, 5, end}, reverse=True)
        steps = {int(whole.step_U[u]) for u in rest}
        for step in steps - {int(whole.step_U[end])}:  # an earlier step is there whole, and those after it too
            later = {u for u in range(end + 1) if step <= whole.step_U[u]}
            assert later <= shown
        context = contexts.context(example, end, budget)
        assert len(context) == whole.width_U[chosen].sum()
        assert len(context) <= max(budget, whole.width_U[sorted({*(u for u in (0, 1, 5) if u <= end), end})].sum())
        texts = [unit.text for unit in units.detokenise(context, RENDERER, TRAINED)]
        assert texts == [unit.text for unit in np.array(units.detokenise(example, RENDERER, TRAINED), object)[chosen]]
        used = context.slots_GL[:, context.slots_GL[0] >= 0]
        assert all(set(np.diff(row)) <= {0, 1} and row[0] == 0 for row in used)  # dense


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    directory = tmp_path_factory.mktemp("shop")
    shop.write(directory)
    return directory


def corpus_of(directory, budget=120, seed=0):
    texts = Texts(RENDERER, TRAINED, units.Layout(max_unit_tokens=30))
    return TextCorpus(directory, open_index(directory, "train", texts), texts, budget, seed)


def test_examples_are_drawn_anew_in_every_epoch_and_fit(data):
    corpus = corpus_of(data)
    seen = []
    for epoch in range(4):
        end_E, length_E = corpus.ends(epoch)
        assert (length_E <= 120).all() and len(end_E) > corpus.num_episodes
        for e in range(0, len(end_E), 7):
            assert len(corpus.example(e, epoch)) == length_E[e]
        seen.append(end_E.tolist())
    assert len({tuple(ends) for ends in seen}) == 4
    other = corpus_of(data)
    other.ends(3)  # a resumed run asks for a later epoch first
    assert other.ends(3)[0].tolist() == seen[3] and corpus.ends(0)[0].tolist() == seen[0]
    assert corpus_of(data, seed=1).ends(0)[0].tolist() != seen[0]


def test_every_step_is_an_end_sooner_or_later(data):
    corpus = corpus_of(data)
    ends = {int(end) for epoch in range(60) for end in corpus.ends(epoch)[0][corpus.record_E == 0]}
    assert ends == {4, 7, 9, 11, 12}  # the last unit of each step, and of each decision


def test_the_index_is_kept_and_noticed_when_the_data_change(data, tmp_path):
    shop.write(tmp_path)
    corpus_of(tmp_path)
    (file,) = (tmp_path / "lengths").iterdir()
    before = file.stat().st_mtime_ns
    corpus_of(tmp_path)
    assert file.stat().st_mtime_ns == before
    shard = tmp_path / "train" / "shard-00000.jsonl"
    shard.write_text(shard.read_text(encoding="utf-8").replace("lamp", "lump"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"shard-00000.jsonl: other contents than .*manifest.json says"):
        corpus_of(tmp_path)


def test_a_record_that_cannot_be_used_is_named_or_skipped(tmp_path):
    shop.write(tmp_path, num_train=6)
    from anyorder_jax.data import sources

    episodes = [shop.make_trajectory(n) for n in range(6)]
    broken = (*episodes[2].units[:2], Unit(Kind.OBSERVATION, 0, data={"image": []}))
    episodes[2] = dataclasses.replace(episodes[2], units=broken)
    size, digest = sources.write_shard(tmp_path / "train" / "shard-00000.jsonl", map(sources.encode, episodes))
    manifest = sources.read_manifest(tmp_path)
    shard = sources.Shard("train/shard-00000.jsonl", 6, 18, size, digest)
    sources.write_manifest(tmp_path, dataclasses.replace(manifest, splits={**manifest.splits, "train": (shard,)}))
    with pytest.raises(ValueError, match=r"shard-00000.jsonl:3: trajectory shop-2: text: the observation of step 0"):
        corpus_of(tmp_path)
    sentences = []
    texts = Texts(RENDERER, TRAINED, units.DEFAULT_LAYOUT)
    index = open_index(tmp_path, "train", texts, on_bad=sentences.append)
    assert len(index.file_R) == 5 and len(sentences) == 1
    again = []
    open_index(tmp_path, "train", texts, on_bad=again.append)  # from the kept index
    assert again == sentences


def settings_for(directory):
    config = defaults()
    config.data.path, config.data.num_episodes, config.data.num_tokens = str(directory), 0, 400
    config.data.context_tokens = config.data.row_length = 128
    config.train.batch_size, config.train.num_steps = 4, 40
    config.masking.order, config.masking.granularity = "any_order:0.6,causal:0.4", "unit:0.5,line:0.3,token:0.2"
    config.loss.end_weight = 0.1
    return freeze(config)


def batches_of(config, process_index=0, process_count=1):
    opened = task.open_task(config)
    sampler = AnyOrderMaskSampler(config.masking)
    return pipeline.make_pipeline(
        config, opened.examples(config, "train"), sampler, mask_id=opened.vocabulary.mask_id,
        pad_id=opened.vocabulary.pad_id, num_steps_total=40, share=(process_index, process_count),
    )  # fmt: skip


def test_batches_over_epochs_resume_and_shard(data):
    config = settings_for(data)
    iterator = batches_of(config)
    first = [next(iterator) for _ in range(10)]
    state = iterator.get_state()
    rest = [next(iterator) for _ in range(10)]
    again = batches_of(config)
    again.set_state(state)
    for batch in rest:
        for one, other in zip(batch, next(again), strict=True):
            np.testing.assert_array_equal(one, other)
    halves = [batches_of(config, host, 2) for host in (0, 1)]
    for batch in first[:3]:
        parts = [next(half) for half in halves]
        np.testing.assert_array_equal(batch.tokens, np.stack([p.tokens for p in parts], 1).reshape(batch.tokens.shape))
    for batch in first:
        assert (batch.is_target.sum(1) > 0).all()
        assert not (batch.is_target & ((batch.kind == Kind.SYSTEM) | (batch.kind < 0))).any()
    fill = np.mean([(batch.segment_ids > 0).mean() for batch in first])
    assert fill > 0.75


def test_settings_that_the_renderer_cannot_honour_are_refused(data):
    config = settings_for(data)
    bad = dataclasses.replace(config, masking=dataclasses.replace(config.masking, granularity="cell"))
    with pytest.raises(ValueError, match=r"'cell' is no span of these trajectories \(text\); they offer unit"):
        task.open_task(bad)


def test_roles_are_read_with_near_names_and_others():
    assert parse_roles("action:2,other:0.5", "loss.weights", {})["tool"] == 0.5
    assert parse_roles("", "masking.rates", dict.fromkeys(ROLES, 1.0))["goal"] == 1
    with pytest.raises(ValueError, match=r"unknown role 'actoin' .* Did you mean 'action'"):
        parse_roles("actoin:1", "loss.weights", {})


def test_configurations_of_version_0_1_0_load():
    old = json.loads((BPE_DIRECTORY.parent / "checkpoint" / "0.1.0" / "config.json").read_text(encoding="utf-8"))
    old["masking"]["observation_rate_scale"], old["loss"]["action_weight"] = 0.0, 3.0
    config = freeze(old)
    assert config.masking.role_rates()["observation"] == 0 and config.masking.role_rates()["action"] == 1
    assert config.loss.role_weights()["action"] == 3 and config.loss.role_weights()["goal"] == 0.3


@pytest.mark.parametrize("order", ["causal", "forward", "inverse"])
def test_nothing_later_and_nothing_else_of_the_decision_is_seen(order):
    """Every later unit and every other part of the asked decision is changed: the model sees the same tokens."""
    given_units = EPISODES[1].units
    roles = {"causal": (Kind.ACTION,), "forward": EVIDENCE, "inverse": EVIDENCE}[order]
    for end, unit in enumerate(given_units):
        if unit.kind not in roles or (order != "causal" and end < 5):
            continue
        whole = units.tokenise(EPISODES[1], RENDERER, TRAINED)
        (asked,) = {int(u) for u in holes.decision(whole, end)[-1:]} if order == "causal" else {end}
        seen = []
        for is_changed in (False, True):
            changed = list(given_units)
            example = contexts.context(whole, asked, 0)
            hidden = holes.hide(order, example)
            assert hidden.is_target_L.any() and not (hidden.is_target_L & ~hidden.is_hidden_L).any()
            for u in np.unique(example.slots_GL[0][hidden.is_hidden_L]) if is_changed else []:
                changed[u] = dataclasses.replace(changed[u], text="x" * len(changed[u].text))
            for u in range(asked + 1, len(changed)):
                changed[u] = dataclasses.replace(changed[u], text="other") if is_changed else changed[u]
            other = units.tokenise(dataclasses.replace(EPISODES[1], units=tuple(changed)), RENDERER, TRAINED)
            example = contexts.context(other, asked, 0)
            visible = ~holes.hide(order, example).is_hidden_L
            seen.append(example.tokens_L[visible & (example.field_L != Field.FRAME)].tolist())
        assert seen[0] == seen[1]


def test_a_decision_is_the_thoughts_and_actions_of_a_step_in_a_row():
    example = units.tokenise(EPISODES[1], RENDERER, TRAINED)
    found = {u: holes.decision(example, u).tolist() for u in (3, 4, 6, 7, 10, 11)}
    assert found == {3: [3, 4], 4: [3, 4], 6: [6, 7], 7: [6, 7], 10: [10, 11], 11: [10, 11]}
    hidden = holes.hide("causal", contexts.context(example, 7, 0))
    assert set(example.slots_GL[0][: len(hidden.is_target_L)][hidden.is_target_L]) == {6, 7}
