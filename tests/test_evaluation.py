"""Evaluation: an oracle gets everything, known answers come out, the policy never sees the future."""

import contextlib
import dataclasses
import functools

import jax
import numpy as np
import pytest

from anyorder_jax import statistics
from anyorder_jax.acting.episode import Episode
from anyorder_jax.acting.policy import Advised, Random
from anyorder_jax.asking.questions import Question, ask
from anyorder_jax.asking.targets import Prediction
from anyorder_jax.config import Config, MaskingConfig
from anyorder_jax.data import units
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.environments import registry
from anyorder_jax.environments.base import Start
from anyorder_jax.environments.local import LocalServer
from anyorder_jax.environments.server import SessionError
from anyorder_jax.evaluation import acting, baselines, policy, questions, rollout, world_model
from anyorder_jax.evaluation.likelihood import Model
from anyorder_jax.evaluation.measures import CellWords, measure
from anyorder_jax.evaluation.questions import Windows
from anyorder_jax.evaluation.targets import collect_targets
from anyorder_jax.loss import cross_entropy
from anyorder_jax.masking.sampler import AnyOrderMaskSampler
from anyorder_jax.model import presets, transformer
from anyorder_jax.model.attention import Segments
from anyorder_jax.types import Field, Kind, Trajectory, Unit

LEVEL = "BabyAI-GoToLocalS5N2-v0"
WINDOW = 3
CAUSAL, FORWARD = Question("causal", "causal"), Question("forward", "forward")
SEEDS = range(9_000_000, 9_000_008)


def make_environment():
    return registry.make_environment(LEVEL)


class World:
    """Expert episodes of one small level, tokenised in one profile."""

    def __init__(self, profile, episodes):
        self.codec = registry.make_codec(LEVEL, profile)
        self.vocabulary = Vocabulary.builtin(self.codec)
        self.trajectories = [Trajectory(e.task, tuple(e.units)) for e in episodes]
        self.examples = [units.tokenise(t, self.codec, self.vocabulary) for t in self.trajectories]
        self.actions = tuple(self.codec.lexicon()[Field.ACTION])
        attribute_codec = registry.make_codec(LEVEL, "attributes")
        observation = episodes[0].units[1]
        self.cell_words = CellWords(self.codec, attribute_codec, self.vocabulary, observation)

    def asks(self, question, **changes):
        settings = {"limit": 8, "seed": 0} | changes
        return ask(question, self.examples, Windows(WINDOW), **settings)

    def id_of(self, word):
        return self.vocabulary.encode_slot(word)[0]


@pytest.fixture(scope="module")
def expert():
    return rollout.play_all(make_environment, SEEDS, Advised())


@pytest.fixture(scope="module", params=["joint", "attributes"])
def world(request, expert):
    return World(request.param, expert[1])


@pytest.fixture(scope="module")
def joint(expert):
    return World("joint", expert[1])


def tiny_model(world, row_length):
    config = dataclasses.replace(
        presets.get("tiny"),
        vocab_size=world.vocabulary.size,
        num_hidden_layers=2,
        num_experts=4,
        hidden_size=32,
    )
    params = jax.jit(transformer.init, static_argnums=(0, 2))(config, jax.random.key(0), "float32")
    return config, params, Model(Config(), config, params, world.vocabulary, world.actions, row_length)


@pytest.fixture(scope="module")
def untrained(joint):
    return tiny_model(joint, questions.full_length(joint.examples, WINDOW))


class Oracle:
    """Knows the answer."""

    def predict(self, targets):
        return Prediction(np.zeros(len(targets.truth_T)), targets.truth_T)


# -- statistics ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # 0 of n is z^2 / (n + z^2); 81 of 263 stands in Newcombe 1998, table I (score method)
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662), (95, 100, 0.8882, 0.9785)],
)
def test_wilson_has_published_values(successes, trials, low, high):
    assert statistics.wilson(successes, trials) == pytest.approx((low, high), abs=1e-4)


def test_bootstrap_interval_is_that_of_the_normal_distribution():
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    estimate = statistics.mean(values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert estimate.low < estimate.value < estimate.high
    assert (estimate.high - estimate.low) / 2 == pytest.approx(half, rel=0.1)


def test_bootstrap_redraws_episodes_not_tokens():
    """100 equal tokens in each of 20 episodes tell as much as 20 tokens."""
    right = np.random.default_rng(1).random(20) < 0.5
    one, many = statistics.ratio(right, np.ones(20)), statistics.ratio(100 * right, np.full(20, 100))
    assert (many.low, many.high) == (one.low, one.high)
    assert (one.count, many.count, many.episodes) == (20, 2000, 20)


def test_a_perfect_score_still_has_an_interval():
    estimate = statistics.ratio(np.full(10, 5), np.full(10, 5), is_proportion=True)
    assert (estimate.value, estimate.low, estimate.high) == (1.0, pytest.approx(0.7225, abs=1e-4), 1.0)


def test_long_episodes_weigh_more_in_every_resample():
    """A ratio that is the same in every episode has no spread, however long the episodes are."""
    lengths = np.array([1.0, 5.0, 50.0, 300.0])
    estimate = statistics.ratio(0.25 * lengths, lengths)
    assert (estimate.low, estimate.high) == pytest.approx((0.25, 0.25))


def test_nothing_counted_is_no_estimate():
    assert statistics.ratio(np.zeros(3), np.zeros(3)) is None


# -- questions -------------------------------------------------------------------------------------


def test_causal_is_the_training_order_and_nothing_follows(joint):
    sampler = AnyOrderMaskSampler(MaskingConfig(order="causal"))
    asks = joint.asks(CAUSAL)
    assert len(asks) == sum(t.units[-1].step for t in joint.trajectories)
    for one in asks:
        trained = sampler(np.random.default_rng(0), one.example)
        np.testing.assert_array_equal(one.hidden.is_hidden_L, trained.is_hidden_L)
        np.testing.assert_array_equal(one.hidden.is_target_L, trained.is_target_L)
        assert one.hidden.is_hidden_L[-1]


@pytest.mark.parametrize("question", questions.QUESTIONS, ids=lambda q: q.name)
def test_questions_hide_what_they_say(joint, question):
    for one in joint.asks(question):
        example, hidden = one.example, one.hidden
        assert hidden.is_target_L.any()
        assert not (hidden.is_target_L & ~hidden.is_hidden_L).any()
        assert not hidden.is_hidden_L[example.field_L == Field.FRAME].any()
        unit_L = example.slots_GL[0]
        asked = np.unique(unit_L[hidden.is_target_L])
        kinds = set(example.kind_U[asked].tolist())
        expected = {
            "causal": Kind.ACTION,
            "inverse": Kind.ACTION,
            "forward": Kind.OBSERVATION,
            "goal": Kind.GOAL,
        }
        if question.order in expected:
            assert kinds == {expected[question.order]}
        if question.order == "inverse":  # both neighbours are seen, later actions are not
            (action,) = asked
            assert not hidden.is_hidden_L[(unit_L == action - 1) | (unit_L == action + 1)].any()
            assert hidden.is_hidden_L[unit_L > action + 1].all()
        if question.order == "forward":
            assert hidden.is_hidden_L[unit_L >= asked[0]].all()


def test_windows_of_one_step_hold_no_transition(joint):
    example = units.tokenise(joint.trajectories[0], joint.codec, joint.vocabulary)
    asked = {q.order for q in questions.QUESTIONS if ask(q, [example], Windows(1), limit=9, seed=0)}
    assert asked == {"any_order", "causal", "goal"}


def test_injected_actions_are_never_asked(joint):
    injected = [
        dataclasses.replace(u, is_expert=False) if u.kind == Kind.ACTION and u.step % 2 else u
        for u in joint.trajectories[0].units
    ]
    example = units.tokenise(Trajectory("noisy", tuple(injected)), joint.codec, joint.vocabulary)
    for question in questions.QUESTIONS:
        for one in ask(question, [example], Windows(WINDOW), limit=99, seed=0):
            is_target_U = np.zeros(len(one.example.kind_U), bool)
            is_target_U[one.example.slots_GL[0, one.hidden.is_target_L]] = True
            assert one.example.is_expert_U[is_target_U].all(), question.name


def test_questions_repeat_and_differ_by_seed(joint):
    question = questions.QUESTIONS[0]
    first, again, other = (joint.asks(question, seed=s) for s in (0, 0, 1))
    hidden = [np.concatenate([one.hidden.is_hidden_L for one in asks]) for asks in (first, again, other)]
    np.testing.assert_array_equal(hidden[0], hidden[1])
    assert (hidden[0] != hidden[2]).any()


# -- measures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("question", questions.QUESTIONS, ids=lambda q: q.name)
def test_oracle_gets_everything(world, question):
    targets = collect_targets(world.asks(question))
    found = measure(targets, Oracle().predict(targets), world.cell_words)
    assert found
    for name, estimate in found.items():
        assert estimate.value == (0.0 if "nll" in name else 1.0), name
        assert estimate.low <= estimate.value <= estimate.high, name


def test_nll_definitions(world):
    """A predictor that pays 0.25 nats a token: every definition is a count of tokens."""
    targets = collect_targets(world.asks(FORWARD))
    found = measure(targets, Prediction(np.full(len(targets.truth_T), 0.25), targets.truth_T), world.cell_words)
    words = 1 if world.codec.name.endswith("joint") else 3
    assert found["nll_per_token"].value == pytest.approx(0.25)
    assert found["nll_per_cell"].value == pytest.approx(0.25 * words)
    assert found["nll_per_observation"].value == pytest.approx(0.25 * (1 + 49 * words))


def test_one_wrong_attribute_costs_one_cell_and_one_observation(world):
    asks = world.asks(FORWARD)
    targets = collect_targets(asks)
    is_joint = world.codec.name.endswith("joint")
    names = {world.id_of(w): w for w in world.codec.lexicon()[Field.CELL if is_joint else Field.COLOR]}
    colored = [t for t, v in enumerate(targets.truth_T) if names.get(v, "none").split("_")[0] in ("red", "green")]
    t = next(t for t in colored if targets.field_T[t] in (Field.CELL, Field.COLOR))
    word = names[targets.truth_T[t]]
    other = word.replace("red", "blue") if word.startswith("red") else word.replace("green", "blue")
    chosen_T = targets.truth_T.copy()
    chosen_T[t] = world.id_of(other)
    found = measure(targets, Prediction(None, chosen_T), world.cell_words)
    num_views = len(asks)
    assert found["attribute_accuracy"].value == pytest.approx(1 - 1 / (num_views * 49 * 3))
    assert found["cell_accuracy"].value == pytest.approx(1 - 1 / (num_views * 49))
    assert found["object_cell_accuracy"].value == pytest.approx(1 - 1 / found["object_cell_accuracy"].count)
    assert found["exact_observation_rate"].value == pytest.approx(1 - 1 / num_views)
    assert found["direction_accuracy"].value == 1.0
    assert "nll_per_cell" not in found


def test_a_cell_counts_only_when_all_of_it_was_hidden(expert):
    """One attribute hidden in each cell: attributes are counted, cells and observations are not."""
    world = World("attributes", expert[1])
    asks = []
    for one in world.asks(FORWARD):
        is_color_L = one.hidden.is_target_L & (one.example.field_L == Field.COLOR)
        asks.append(one._replace(hidden=one.hidden._replace(is_hidden_L=is_color_L, is_target_L=is_color_L)))
    targets = collect_targets(asks)
    found = measure(targets, Oracle().predict(targets), world.cell_words)
    assert found["attribute_accuracy"].count == found["nll_per_token"].count == 49 * len(asks)
    assert set(found) == {"attribute_accuracy", "nll_per_token", "nll_per_target"}


def test_a_word_of_another_field_has_no_attributes(joint):
    targets = collect_targets(joint.asks(FORWARD))
    wrong = np.full(len(targets.truth_T), joint.id_of("left"))
    found = measure(targets, Prediction(None, wrong), joint.cell_words)
    assert found["attribute_accuracy"].value == found["cell_accuracy"].value == 0.0


def test_object_cells_are_those_that_hold_something(joint):
    targets = collect_targets(joint.asks(FORWARD))
    found = measure(targets, Oracle().predict(targets), joint.cell_words)
    words = [
        slot.word
        for t in joint.trajectories
        for u in t.units
        if u.kind == Kind.OBSERVATION and u.step > 0
        for slot in joint.codec.slots(u)
        if slot.field == Field.CELL
    ]
    expected = sum(word.split("_")[-1] in ("ball", "key", "box", "door") for word in words)
    assert found["object_cell_accuracy"].count == expected > 0


# -- baselines -------------------------------------------------------------------------------------


def constant_trajectory(world):
    """The agent turns on the spot and sees the same for ever."""
    goal, seen = world.trajectories[0].units[:2]
    steps = [
        u for step in range(4) for u in (dataclasses.replace(seen, step=step), Unit(Kind.ACTION, step, text="forward"))
    ]
    return Trajectory("constant", (goal, *steps, dataclasses.replace(seen, step=4)))


def test_baselines_are_perfect_where_nothing_changes(world):
    example = units.tokenise(constant_trajectory(world), world.codec, world.vocabulary)
    asks = ask(FORWARD, [example], Windows(2), limit=9, seed=0)
    targets = collect_targets(asks)
    elsewhere = baselines.SlotMarginals(world.examples[1:])
    itself = baselines.SlotMarginals([example])
    copied = baselines.copy_previous(targets, elsewhere.predict(targets))
    assert measure(targets, copied, world.cell_words)["exact_observation_rate"].value == 1.0
    frequent = measure(targets, itself.predict(targets), world.cell_words)
    assert frequent["exact_observation_rate"].value == 1.0
    acts = ask(CAUSAL, [example], Windows(2), limit=9, seed=0)
    targets = collect_targets(acts)
    always = baselines.always(world.vocabulary.encode_slot("forward"), targets, Kind.ACTION)
    assert measure(targets, always, world.cell_words)["action_accuracy"].value == 1.0
    never = baselines.always(world.vocabulary.encode_slot("left"), targets, Kind.ACTION)
    assert measure(targets, never, world.cell_words)["action_accuracy"].value == 0.0


def test_copy_never_copies_what_is_hidden(joint):
    """With every observation hidden there is nothing to copy: the fallback stays."""
    asks = [
        one._replace(hidden=one.hidden._replace(is_hidden_L=one.example.slots_GL[0] >= 0))
        for one in joint.asks(FORWARD)
    ]
    targets = collect_targets(asks)
    fallback = Prediction(None, np.full(len(targets.truth_T), 7))
    assert (baselines.copy_previous(targets, fallback).chosen_T == 7).all()


def test_unigram_by_hand(joint):
    """Four times `forward`, the one known token: p(forward) = 5 / 5; an unseen word gets 1 / 5."""
    example = units.tokenise(constant_trajectory(joint), joint.codec, joint.vocabulary)
    marginals = baselines.SlotMarginals([example])
    asks = joint.asks(CAUSAL)
    targets = collect_targets(asks)
    nll_T = marginals.predict(targets).nll_T
    is_forward_T = targets.truth_T == joint.id_of("forward")
    assert is_forward_T.any() and not is_forward_T.all()
    np.testing.assert_allclose(nll_T[is_forward_T], 0.0, atol=1e-12)
    np.testing.assert_allclose(nll_T[~is_forward_T], np.log(5))
    log_p_A = marginals.action_log_marginals([joint.vocabulary.encode_slot(a) for a in joint.actions])
    assert joint.actions[int(log_p_A.argmax())] == "forward" and np.isneginf(log_p_A).sum() == len(joint.actions) - 1


def test_unigram_probabilities_sum_to_one(joint):
    marginals = baselines.SlotMarginals(joint.examples)
    (one, *_) = joint.asks(CAUSAL)
    targets = collect_targets([one])
    known = np.unique(np.concatenate([e.tokens_L[e.field_L == Field.ACTION] for e in joint.examples]))
    total = sum(np.exp(-marginals.predict(dataclasses.replace(targets, truth_T=np.array([v]))).nll_T[0]) for v in known)
    assert total == pytest.approx(1.0)


# -- the model -------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=0)
def apply_to_one_row(config, params, tokens_BL, positions_BL):
    segments = Segments(jax.numpy.ones_like(positions_BL))
    return transformer.apply(config, params, tokens_BL, positions_BL, segments).logits_BLV[0]


def direct_logits(config, params, tokens_L):
    """Logits of a row without padding or company."""
    positions_BL = np.arange(len(tokens_L), dtype=np.int32)[None]
    return np.asarray(apply_to_one_row(config, params, tokens_L[None], positions_BL))


def test_model_scores_are_those_of_the_bare_row(joint, untrained):
    """Batches, padding and rows longer than the model's row length change nothing."""
    config, params, model = untrained
    asks = joint.asks(questions.QUESTIONS[2])
    targets = collect_targets(asks)
    found = model.predict(targets)
    short = Model(Config(), config, params, joint.vocabulary, joint.actions, 64)
    shorter = short.predict(targets)
    np.testing.assert_allclose(shorter.nll_T, found.nll_T, rtol=2e-5, atol=2e-5)
    lengths_A = np.array([len(one.example) for one in asks])
    for a in (int(lengths_A.argmin()), int(lengths_A.argmax())):
        example, hidden = asks[a].example, asks[a].hidden
        seen_L = np.where(hidden.is_hidden_L, joint.vocabulary.mask_id, example.tokens_L).astype(np.int32)
        logits_LV = direct_logits(config, params, seen_L)
        nll_L = np.asarray(cross_entropy(jax.numpy.asarray(logits_LV), jax.numpy.asarray(example.tokens_L)))
        mine = targets.ask_T == a
        np.testing.assert_allclose(found.nll_T[mine], nll_L[hidden.is_target_L], rtol=2e-5, atol=2e-5)
        np.testing.assert_array_equal(found.chosen_T[mine], logits_LV.argmax(-1)[hidden.is_target_L])


def test_action_logits_are_log_probabilities_in_the_hole(joint, untrained):
    config, params, model = untrained
    framer = policy.Framer(joint.codec, joint.vocabulary, WINDOW, joint.actions)
    rows = [framer.row(str(i), t.units[:2]) for i, t in enumerate(joint.trajectories)]
    rows += [framer.row(str(i), t.units[:4]) for i, t in enumerate(joint.trajectories)]
    found_NA = model.action_logits(rows, framer.first_hidden)
    ids_A = [joint.id_of(a) for a in joint.actions]
    for n in (0, len(rows) - 1):
        assert rows[n][framer.first_hidden] == joint.vocabulary.mask_id
        log_p_V = policy.log_softmax(direct_logits(config, params, rows[n])[framer.first_hidden])
        np.testing.assert_allclose(found_NA[n], log_p_V[ids_A], rtol=2e-5, atol=2e-5)


def test_world_model_table_of_an_oracle(joint):
    found = world_model.evaluate(
        Oracle(), baselines.SlotMarginals(joint.examples), joint.cell_words, joint.examples,
        ("forward", joint.vocabulary.encode_slot("forward")), num_steps=WINDOW, limit=2, seed=0,
    )  # fmt: skip
    assert set(found) == {q.name for q in questions.QUESTIONS}
    assert found["causal"]["model"]["action_accuracy"].value == 1.0
    assert set(found["causal"]) == {"model", "most_frequent", "always_forward"}
    assert set(found["forward"]["copy_previous"]) == set(world_model.OBSERVATION_SHARES)


def test_a_foreign_vocabulary_is_refused(joint, untrained):
    config, params, _ = untrained
    small = dataclasses.replace(config, vocab_size=20)
    with pytest.raises(ValueError, match=r"do not belong together"):
        Model(Config(), small, params, joint.vocabulary, joint.actions, 64)


# -- policies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_policy_rows_are_training_windows(world, num_steps):
    """What the policy shows is, token for token, the causal example of training."""
    for seed, trajectory in enumerate(world.trajectories):
        framer = policy.Framer(world.codec, world.vocabulary, num_steps, world.actions)
        for one in ask(CAUSAL, [world.examples[seed]], Windows(num_steps), limit=99, seed=0):
            step = int(one.example.step_U[-1])
            seen = [u for u in trajectory.units if u.step < step or (u.step == step and u.kind != Kind.ACTION)]
            row = framer.row(str(seed), seen)
            expected = np.where(one.hidden.is_hidden_L, world.vocabulary.mask_id, one.example.tokens_L)
            np.testing.assert_array_equal(row, expected)


def test_the_future_changes_nothing(joint, untrained):
    """Later observations and actions of the recording do not reach the causal question."""
    *_, model = untrained
    first = next(t for t in joint.trajectories if t.units[-1].step >= 3)
    other_view = joint.trajectories[1].units[1]
    changed = [
        u if u.step < 1 or (u.step == 1 and u.kind == Kind.OBSERVATION)
        else dataclasses.replace(other_view, step=u.step) if u.kind == Kind.OBSERVATION
        else Unit(Kind.ACTION, u.step, text="drop")
        for u in first.units
    ]  # fmt: skip
    question = CAUSAL
    predictions = []
    for trajectory in (first, Trajectory("changed", tuple(changed))):
        example = units.tokenise(trajectory, joint.codec, joint.vocabulary)
        asks = ask(question, [example], Windows(WINDOW), limit=99, seed=0)[:2]
        targets = collect_targets(asks)
        # the truth of step 1 differs; what the model would do must not
        predictions.append(model.predict(targets).chosen_T)
        rows = [np.where(a.hidden.is_hidden_L, -1, a.example.tokens_L) for a in asks]
        predictions.append(np.concatenate(rows))
    np.testing.assert_array_equal(predictions[0], predictions[2])
    np.testing.assert_array_equal(predictions[1], predictions[3])


class Fixed:
    """The same logits always."""

    def __init__(self, *logits_A):
        self._logits_A = np.array(logits_A)

    def logits(self, episodes):
        return np.tile(self._logits_A, (len(episodes), 1))


@contextlib.contextmanager
def begun(seeds):
    """Episodes that have just begun."""
    with LocalServer(make_environment, len(seeds)) as server:
        episodes = [Episode(str(seed), server, number) for number, seed in enumerate(seeds)]
        for episode in episodes:
            episode.begin(episode.ask("reset", episode.task).result())
        yield episodes


def words_of(decisions):
    """What each decision does."""
    return [decision.units[-1].text for decision in decisions]


def test_rules(joint):
    actions = joint.actions[:3]  # left, right, forward
    scorer = Fixed(1.0, 0.0, 2.5)
    with begun(SEEDS[:1]) as episodes:
        greedy = policy.RulePolicy(scorer, "greedy", actions, 0)
        assert [*words_of(greedy.act(episodes)), *words_of(greedy.act(episodes))] == ["forward"] * 2
        # in one place: 2.5, then 1.0 > 0.5, then 0.5 > 0.0 > -1.0, then 0.0
        penalised = policy.RulePolicy(scorer, "visit_penalty", actions, 0)
        chosen = [words_of(penalised.act(episodes))[0] for _ in range(4)]
    assert chosen == ["forward", "left", "forward", "right"]
    with pytest.raises(ValueError, match="greedy, sampled, visit_penalty"):
        policy.RulePolicy(scorer, "greedi", actions, 0)


def test_sampled_follows_the_distribution_whatever_else_is_played(joint):
    actions = joint.actions[:3]
    probability = np.array([0.6, 0.3, 0.1])
    rule = policy.RulePolicy(Fixed(*np.log(probability)), "sampled", actions, 0)
    episodes = [Episode(str(seed), None, 0) for seed in range(300)]
    for episode in episodes:
        episode.begin(Start((Unit(Kind.GOAL, 0, text="go"), Unit(Kind.OBSERVATION, 0, text="here")), 9))
    drawn = words_of(rule.act(episodes))
    shares = [drawn.count(action) / len(drawn) for action in actions]
    np.testing.assert_allclose(shares, probability, atol=0.1)  # 3.5 standard errors of a share of 0.6
    assert words_of(rule.act(episodes[200:210])) == drawn[200:210]


def test_lockstep_plays_as_one_by_one(joint, untrained):
    *_, model = untrained

    def make_policy():
        framer = policy.Framer(joint.codec, joint.vocabulary, WINDOW, joint.actions)
        return policy.RulePolicy(policy.ModelScorer(framer, model.action_logits), "sampled", joint.actions, 0)

    together, _ = rollout.play_all(make_environment, SEEDS[:3], make_policy())
    alone = [rollout.play_all(make_environment, [seed], make_policy())[0] for seed in SEEDS[:3]]
    np.testing.assert_array_equal(together.steps_E, [a.steps_E[0] for a in alone])
    np.testing.assert_array_equal(together.is_success_E, [a.is_success_E[0] for a in alone])


def test_expert_beats_random_and_is_its_own_measure(joint, expert):
    outcomes, episodes = expert
    found = rollout.summarise(outcomes, outcomes)
    assert found["success"].value == found["steps_relative_to_expert"].value == 1.0
    assert found["success_weighted_path_length"].value == 1.0
    assert found["steps"].value == np.mean([e.units[-1].step for e in episodes])
    random, _ = rollout.play_all(make_environment, SEEDS, Random(0, policy.seed_of))
    worse = rollout.summarise(random, outcomes)
    assert worse["success"].value < 1.0 and worse["return"].value < found["return"].value
    assert worse["steps"].value > found["steps"].value
    with pytest.raises(ValueError, match="different seeds"):
        rollout.summarise(dataclasses.replace(random, seed_E=random.seed_E + 1), outcomes)


def test_an_expert_that_gives_up_fails_its_episode():
    """On this level the bot never works (upstream's list of broken environments)."""
    outcomes, _ = rollout.play_all(lambda: registry.make_environment("BabyAI-KeyInBox-v0"), [0, 1], Advised())
    assert not outcomes.is_success_E.any()


def test_grids_answer_as_worlds_of_text_do():
    with begun(SEEDS[:1]) as (episode,):
        assert episode.ask("valid_actions").result() == make_environment().actions
        assert [episode.ask("parse_error", text).result() for text in ("left", "levt")] == [
            "", "expected one of left, right, forward, pickup, drop, toggle, done, got 'levt'"]  # fmt: skip
        (advised,) = episode.ask("advice").result()
        assert advised.kind == Kind.ACTION and advised.step == 0
        episode.take(episode.decide(policy.one_action(episode, "left")).result())
        assert [unit.step for unit in episode.units] == [0, 0, 0, 1] and episode.max_steps > 1
        assert episode.ask("advice").result()[0].step == 1
        episode.begin(episode.ask("reset", episode.task).result())
        episode.take(episode.decide(policy.one_action(episode, "left")).result())
        with pytest.raises(SessionError, match="from the start"):  # the bot has missed a step
            episode.ask("advice").result()


def test_acting_plays_every_rule_with_and_without_the_model(joint, untrained):
    *_, model = untrained
    played = acting.evaluate(
        make_environment, SEEDS[:2], model.action_logits,
        lambda: policy.Framer(joint.codec, joint.vocabulary, WINDOW, joint.actions),
        dict.fromkeys(joint.actions, -np.log(len(joint.actions))),
        rules=("greedy", "visit_penalty"), seed=0, say=lambda line: None,
    )  # fmt: skip
    assert set(played.summaries) == {
        "model/greedy", "model/visit_penalty", "no_model/greedy", "no_model/visit_penalty",
        "random", "expert",
    }  # fmt: skip
    assert played.summaries["expert"]["success"].value == 1.0
