"""A draw depends on seed, epoch and example; hosts, threads and restarts change nothing."""

import dataclasses

import numpy as np
import pytest

from anyorder_jax import keys
from anyorder_jax.config import Config, DataConfig, MaskingConfig, TrainConfig
from anyorder_jax.data import units
from anyorder_jax.data.pipeline import Corpus, RowShape, make_pipeline, validation_batches
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.masking.sampler import AnyOrderMaskSampler
from anyorder_jax.types import Batch, Field, Kind, Trajectory
from corridor import CorridorCodec, invert, make_trajectories, make_trajectory, sample_tokens

CODEC = CorridorCodec("joint")
VOCABULARY = Vocabulary.builtin(CODEC)
IDS = {"mask_id": VOCABULARY.mask_id, "pad_id": VOCABULARY.pad_id}
ROW_LENGTH = 48
TRAJECTORIES = make_trajectories(30)
CORPUS = Corpus.build(TRAJECTORIES, CODEC, VOCABULARY, window=4)
PLAN = CORPUS.pack(ROW_LENGTH, seed=7)
CONFIG = Config(
    seed=7,
    data=DataConfig(row_length=ROW_LENGTH, num_threads=2, prefetch=3),
    train=TrainConfig(batch_size=8),
)


def pipeline(config=CONFIG, corpus=CORPUS, num_steps_total=100, **arguments):
    return make_pipeline(config, corpus, sample_tokens, num_steps_total=num_steps_total, **IDS, **arguments)


def take(iterator, count) -> list[Batch]:
    return [next(iterator) for _ in range(count)]


def rows_of(batch: Batch) -> set[bytes]:
    return {b"".join(array[r].tobytes() for array in batch) for r in range(len(batch.tokens))}


def assert_same(one: list[Batch], other: list[Batch]):
    for left, right in zip(one, other, strict=True):
        for name, a, b in zip(Batch._fields, left, right, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)


def examples_in(batches) -> list[tuple[int, np.ndarray, Batch]]:
    """(number, positions in the row, its row) of every example."""
    found = []
    for batch in batches:
        for r in range(len(batch.tokens)):
            row = Batch(*(array[r] for array in batch))
            for segment in range(1, row.segment_ids.max() + 1):
                here = np.flatnonzero(row.segment_ids == segment)
                found.append((int(row.example[here[0]]), here, row))
    return found


def test_corpus_has_every_end_step():
    expected = [(r, end) for r, t in enumerate(TRAJECTORIES) for end in range(t.units[-1].step + 1)]
    assert list(zip(CORPUS.record_E, CORPUS.end_step_E, strict=True)) == expected
    for e, (record, end_step) in enumerate(expected):
        cut = units.window(CORPUS.trajectories[record], end_step, 4)
        assert len(cut) == CORPUS.length_E[e] == len(CORPUS.example(e))
        np.testing.assert_array_equal(CORPUS.example(e).tokens_L, cut.tokens_L)


def test_corpus_of_whole_trajectories():
    corpus = Corpus.build(TRAJECTORIES, CODEC, VOCABULARY, window=0)
    assert corpus.length_E.tolist() == [len(units.tokenise(t, CODEC, VOCABULARY)) for t in TRAJECTORIES]
    assert tuple(units.detokenise(corpus.example(4), CODEC, VOCABULARY)) == TRAJECTORIES[4].units


def test_errors_name_the_trajectory():
    with pytest.raises(ValueError, match=r"trajectory episode-5: tokenization: the tokenizer does not know.*'fly'"):
        Corpus.build([make_trajectory(5, 2, goal="fly")], CODEC, VOCABULARY, window=4)
    with pytest.raises(ValueError, match="trajectory empty: expected a goal and at least one step"):
        Corpus.build([Trajectory("empty", TRAJECTORIES[0].units[:1])], CODEC, VOCABULARY, window=4)
    too_short = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, row_length=30))
    with pytest.raises(ValueError, match=r"trajectory episode-\d+, 4 steps to step \d+ has \d+ tokens, but data.row"):
        pipeline(too_short)


def test_batch_holds_what_was_cut_and_drawn():
    batches = take(pipeline(), 6)
    seen = examples_in(batches)
    assert len(seen) > 48
    for e, here, row in seen:
        example = CORPUS.example(e)
        hidden = sample_tokens(keys.generator(7, "mask", 0, e), example, 0.0)
        np.testing.assert_array_equal(row.targets[here], example.tokens_L)
        np.testing.assert_array_equal(row.positions[here], np.arange(len(example)))
        np.testing.assert_array_equal(row.field[here], example.field_L)
        assert (row.example[here] == e).all()
        is_unit_L = example.slots_GL[0] >= 0
        kind_L = np.where(is_unit_L, example.kind_U[example.slots_GL[0]], -1)
        np.testing.assert_array_equal(row.kind[here], kind_L)
        assert (row.kind[here][example.field_L == Field.ACTION] == Kind.ACTION).all()
        is_hidden_L = row.tokens[here] == VOCABULARY.mask_id
        np.testing.assert_array_equal(row.tokens[here][~is_hidden_L], example.tokens_L[~is_hidden_L])
        assert (is_hidden_L[row.is_target[here]]).all() and row.is_target[here].any()
        assert not is_hidden_L[example.field_L == Field.FRAME].any()
        assert hidden.order == "any_order"
    for batch in batches:
        is_pad = batch.segment_ids == 0
        assert is_pad.any()
        assert (batch.tokens[is_pad] == VOCABULARY.pad_id).all() and (batch.targets[is_pad] == VOCABULARY.pad_id).all()
        assert not batch.is_target[is_pad].any() and (batch.rate[is_pad] == 1).all()
        assert (batch.kind[is_pad] == -1).all() and (batch.field[is_pad] == Field.FRAME).all()
        assert (batch.example[is_pad] == -1).all() and (batch.positions[is_pad] == 0).all()
        assert [a.dtype for a in batch] == [
            np.int32, np.int32, bool, np.int32, np.int32, np.int8, np.int8, np.float32, np.int32,
        ]  # fmt: skip
        assert {a.shape for a in batch} == {(8, ROW_LENGTH)}


def test_a_draw_is_a_function_of_seed_epoch_and_example():
    rows_run = 8 * 100
    for g, (row_examples, row) in enumerate(_rows_in_order(take(pipeline(), 20))):
        for e in row_examples:
            example = CORPUS.example(e)
            generator = keys.generator(7, "mask", g // PLAN.num_rows, e)
            hidden = sample_tokens(generator, example, g / rows_run)
            here = row.example == e
            np.testing.assert_array_equal(row.tokens[here] == VOCABULARY.mask_id, hidden.is_hidden_L)
            np.testing.assert_array_equal(row.is_target[here], hidden.is_target_L)
            np.testing.assert_allclose(row.rate[here], hidden.rate, rtol=1e-6)


def _rows_in_order(batches):
    for batch in batches:
        for r in range(len(batch.tokens)):
            row = Batch(*(array[r] for array in batch))
            yield [e for e in dict.fromkeys(row.example.tolist()) if e >= 0], row


def test_every_epoch_holds_every_example_once_in_another_order_with_another_mask():
    assert PLAN.num_rows > 16
    rows = list(_rows_in_order(take(pipeline(num_steps_total=10**9), 2 * PLAN.num_rows // 8 + 1)))
    first, second = rows[: PLAN.num_rows], rows[PLAN.num_rows : 2 * PLAN.num_rows]
    for epoch in (first, second):
        assert sorted(e for examples, _ in epoch for e in examples) == list(range(len(CORPUS.length_E)))
    assert [examples for examples, _ in first] != [examples for examples, _ in second]
    rows_by_example = {tuple(examples): row for examples, row in first}
    same = [(rows_by_example[tuple(examples)].is_target == row.is_target).all() for examples, row in second]
    assert np.mean(same) < 0.1


def test_resume_continues_exactly():
    uninterrupted = take(pipeline(), 20)
    iterator = pipeline()
    assert_same(take(iterator, 10), uninterrupted[:10])
    state = iterator.get_state()
    assert len(repr(state)) < 100
    resumed = pipeline()
    resumed.set_state(state)
    assert_same(take(resumed, 10), uninterrupted[10:])


@pytest.mark.parametrize("process_count", [2, 4])
def test_hosts_share_the_same_global_batches(process_count):
    alone = take(pipeline(), 12)
    hosts = [take(pipeline(share=(h, process_count)), 12) for h in range(process_count)]
    for batch, *shares in zip(alone, *hosts, strict=True):
        assert all(len(share.tokens) == 8 // process_count for share in shares)
        assert set.union(*map(rows_of, shares)) == rows_of(batch)


def test_a_run_resumes_on_another_number_of_hosts():
    uninterrupted = take(pipeline(), 8)
    before = pipeline(share=(1, 2))
    take(before, 5)
    hosts = [pipeline(share=(h, 4)) for h in range(4)]
    for host in hosts:
        host.set_state(before.get_state())
    for expected, *shares in zip(uninterrupted[5:], *(take(host, 3) for host in hosts), strict=True):
        assert set.union(*map(rows_of, shares)) == rows_of(expected)


def test_threads_change_nothing():
    many = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, num_threads=7, prefetch=16))
    assert_same(take(pipeline(many), 12), take(pipeline(), 12))


def test_another_seed_draws_other_rows():
    other = dataclasses.replace(CONFIG, seed=8)
    assert not rows_of(next(pipeline(other))) & rows_of(next(pipeline()))


def test_complementary_rows():
    config = dataclasses.replace(CONFIG, masking=MaskingConfig(complementary=True))
    batches = take(pipeline(config, complement=invert), 4)
    plain = take(pipeline(num_steps_total=100), 2)
    for batch in batches:
        assert batch.tokens.shape == (8, ROW_LENGTH)
        is_hidden = batch.tokens == VOCABULARY.mask_id
        is_slot = (batch.segment_ids > 0) & (batch.field != Field.FRAME)
        np.testing.assert_array_equal(is_hidden[0::2] ^ is_hidden[1::2], is_slot[0::2])
        np.testing.assert_array_equal(batch.targets[0::2], batch.targets[1::2])
        np.testing.assert_array_equal(batch.example[0::2], batch.example[1::2])
        assert (batch.rate[0::2] != batch.rate[1::2])[is_slot[0::2]].all()
    # the rows are those of the run without complements, half as many in a batch
    np.testing.assert_array_equal(
        np.concatenate([b.example[0::2] for b in batches]), np.concatenate([b.example for b in plain])
    )
    share = [take(pipeline(config, complement=invert, share=(h, 4)), 1)[0] for h in range(4)]
    assert set.union(*map(rows_of, share)) == rows_of(batches[0])


def test_batches_that_do_not_divide_are_errors():
    with pytest.raises(ValueError, match="expected a multiple of 3"):
        pipeline(share=(0, 3))
    pairs = dataclasses.replace(CONFIG, masking=MaskingConfig(complementary=True))
    with pytest.raises(ValueError, match="expected a multiple of 16"):
        pipeline(pairs, complement=invert, share=(0, 8))
    with pytest.raises(ValueError, match="needs `complement`"):
        pipeline(pairs)


def validate(num_rows, batch_size=4, **arguments):
    return validation_batches(
        CORPUS, sample_tokens, 3, batch_size, num_rows, shape=RowShape(ROW_LENGTH, **IDS), **arguments
    )


def test_validation_batches_are_fixed_and_full():
    once, again = validate(10), validate(10)
    assert_same(once, again)
    assert [len(batch.tokens) for batch in once] == [4, 4, 4]
    assert (once[-1].segment_ids[2:] == 0).all() and not once[-1].is_target[2:].any()
    assert (once[-1].segment_ids[:2].max(axis=1) > 0).all()
    everything = examples_in(validate(10_000))
    assert sorted(e for e, *_ in everything) == list(range(len(CORPUS.length_E)))
    lengths = {len(here) for _, here, _ in examples_in(once)}
    assert len(lengths) > 3, "the rows come from all over the plan, not only its longest examples"


def test_validation_tells_the_sampler_the_progress():
    assert {float(r) for b in validate(8, progress=0.5) for r in b.rate[b.segment_ids > 0]} == {0.75}


def test_what_rows_are_full_of_is_tokens_not_the_room_between_blocks():
    plan = CORPUS.pack(ROW_LENGTH, seed=7, block_size=8)
    assert plan.fill == CORPUS.length_E.sum() / (plan.num_rows * ROW_LENGTH) < PLAN.fill


def test_block_diffusion_aligns_examples_and_hides_what_its_blocks_would_leak():
    config = dataclasses.replace(CONFIG, train=TrainConfig(batch_size=8, objective="block_diffusion", block_size=8))
    num_hidden = 0
    for e, here, row in examples_in(take(pipeline(config), 4)):
        example = CORPUS.example(e)
        assert here[0] % 8 == 0
        np.testing.assert_array_equal(row.targets[here], example.tokens_L)
        unit_L = example.slots_GL[0]
        for start in range(0, len(here), 8):
            block = range(start, min(start + 8, len(here)))
            steps = [int(example.step_U[unit_L[i]]) for i in block if unit_L[i] >= 0]
            for i in block:
                if unit_L[i] >= 0 and example.step_U[unit_L[i]] > min(steps):
                    assert row.tokens[here[i]] == VOCABULARY.mask_id
                    num_hidden += 1
    assert num_hidden > 50


@pytest.mark.parametrize(("order", "of"), [("prefix", Kind.ACTION), ("any_order", None)])
def test_block_diffusion_shows_later_blocks_nothing_that_is_hidden_only(order, of):
    """`prefix` hides the later actions and does not ask them: the clean tokens do not tell them either."""
    config = dataclasses.replace(CONFIG, train=TrainConfig(batch_size=8, objective="block_diffusion", block_size=8))
    sampler = AnyOrderMaskSampler(MaskingConfig(order=order))
    batches = make_pipeline(config, CORPUS, sampler, num_steps_total=100, **IDS)
    hidden = []
    for e, here, row in examples_in(take(batches, 4)):
        example = CORPUS.example(e)
        is_other_L = row.targets[here] != example.tokens_L
        assert not (is_other_L & row.is_target[here]).any()
        assert (row.targets[here][is_other_L] == VOCABULARY.mask_id).all()
        hidden += example.kind_U[example.slots_GL[0][is_other_L]].tolist()
    assert set(hidden) == ({of} if of else set())
    assert bool(hidden) == bool(of)
