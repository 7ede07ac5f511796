"""Ways to choose an action: each agrees with how one would write it down plainly, and its passes are counted."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import shop_world
from anyorder_jax import collect, task
from anyorder_jax.acting import evaluation, generator, policy
from anyorder_jax.acting.choosing import CHOICES, Choosing, Chosen
from anyorder_jax.acting.doubt import Doubt
from anyorder_jax.acting.episode import Decision
from anyorder_jax.acting.rollout import play
from anyorder_jax.config import defaults, freeze
from anyorder_jax.data import units
from anyorder_jax.environments import registry
from anyorder_jax.environments.play import play_text_episode
from anyorder_jax.environments.server import Server
from anyorder_jax.evaluation.request import Request
from anyorder_jax.model import transformer
from anyorder_jax.model.attention import Segments
from anyorder_jax.types import Field, Kind, Trajectory, Unit
from runs import tiny_model

WORLD = "Shop-v0"


@pytest.fixture(autouse=True, scope="module")
def worlds():
    patch = pytest.MonkeyPatch()
    patch.setenv(registry.WORLDS, "")
    shop_world.register()
    patch.setattr(generator, "MAX_BLOCKS", 2)  # a model that knows nothing knows no end either
    yield
    patch.undo()


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """(task, generator, log_softmax of the model at every place of a row of tokens)."""
    data = collect.collect(
        collect.Collection(WORLD, num_episodes=12, num_workers=1, num_validation_episodes=2, num_test_episodes=2),
        tmp_path_factory.mktemp("shop"),
    )
    config = defaults()
    config.data.path, config.data.num_episodes, config.data.num_tokens = str(data), 0, 360
    config.data.context_tokens = config.data.row_length = 256
    config.data.blocks = "action:16,observation:8"
    config = freeze(config)
    opened = task.open_task(config)
    model = dataclasses.replace(tiny_model(initializer_range=0.3), vocab_size=opened.vocabulary.size)
    params = transformer.init(model, jax.random.key(2), jnp.float32)

    @jax.jit
    def logits_of(params, tokens_BL):
        places_BL = jnp.arange(tokens_BL.shape[1], dtype=jnp.int32)[None]
        segments = Segments(jnp.ones_like(tokens_BL))
        hidden, _, _ = transformer.hidden(model, params, tokens_BL, places_BL, segments)
        return transformer.head(params, hidden)[0]

    def log_p(tokens_L):
        tokens_BL = jnp.asarray(tokens_L, jnp.int32)[None]
        logits_LV = np.array(logits_of(params, tokens_BL), np.float64)
        ids = opened.vocabulary
        logits_LV[:, sorted(ids.reserved_ids - ids.frames.end_ids)] = -np.inf
        logits_LV -= logits_LV.max(-1, keepdims=True)
        return logits_LV - np.log(np.exp(logits_LV).sum(-1, keepdims=True))

    return opened, generator.Generator(config, model, params, opened), log_p


def a_beginning(num_units=3):
    episode = play_text_episode(registry.make_session(WORLD), "5")
    return dataclasses.replace(episode, units=episode.units[:num_units])


def plain_score(opened, log_p, seen, text, num_blocks, is_goal_hidden):
    """The sum of log p over the action's tokens and first end, all of it hidden, from a row written by hand."""
    vocabulary, mask = opened.vocabulary, opened.vocabulary.mask_id
    before = units.tokenise(seen, opened.codec, vocabulary, opened.layout)
    tokens = before.tokens_L.copy()
    if is_goal_hidden:
        tokens[before.kind_U[np.maximum(before.slots_GL[0], 0)] == Kind.GOAL] = mask
        tokens[before.slots_GL[0] < 0] = before.tokens_L[before.slots_GL[0] < 0]
    row = np.concatenate([tokens, vocabulary.frame(Kind.ACTION), [mask] * (16 * num_blocks)])
    start = len(tokens) + len(vocabulary.frame(Kind.ACTION))
    ids = [*vocabulary.encode_text(text)[0], vocabulary.end_id]
    return log_p(row)[start + np.arange(len(ids)), ids].sum()


@pytest.mark.parametrize("guidance", [0.0, 0.7])
def test_scores_are_those_of_a_plain_row(opened, guidance, monkeypatch):
    its_task, model, log_p = opened
    seen = a_beginning()
    texts = registry.make_session(WORLD).valid_actions()[:3]
    chooser = Chosen(model, (Kind.ACTION,), Choosing(guidance=guidance))
    found = chooser.scores(seen, texts)
    lengths = [len(its_task.vocabulary.encode_text(text)[0]) + 1 for text in texts]
    num_blocks = -(-max(lengths) // 16)
    for text, score in zip(texts, found, strict=True):
        given, without = (plain_score(its_task, log_p, seen, text, num_blocks, h) for h in (False, True))
        assert score == pytest.approx(given + guidance * (given - without), rel=1e-3), text
    assert guidance == 0 or not np.allclose(found, Chosen(model, (Kind.ACTION,), Choosing()).scores(seen, texts))
    monkeypatch.setattr("anyorder_jax.acting.choosing.MAX_BLOCKS", 1)
    assert chooser.scores(seen, ["x" * 60, "x"])[0] == -np.inf < chooser.scores(seen, ["x" * 60, "x"])[1]


def test_a_check_is_a_prediction_and_its_inverse(opened, monkeypatch):
    its_task, model, _ = opened
    seen = a_beginning()
    chooser = Chosen(model, (Kind.ACTION,), Choosing(is_checked=True))
    for text in registry.make_session(WORLD).valid_actions()[:2]:
        action = Unit(Kind.ACTION, 0, text=text)
        done = dataclasses.replace(seen, units=(*seen.units, action))
        (written,) = model.write([done], [(Kind.OBSERVATION,)])
        whole = units.tokenise(
            Trajectory("x", (*done.units, *written.units)), its_task.codec, its_task.vocabulary, its_task.layout
        )
        is_hidden_L = whole.slots_GL[0] == len(seen.units)
        (answer,) = model.fill([generator.Question(whole, is_hidden_L, 16)])
        given_back = units.text_of(answer.tokens_L[is_hidden_L].tolist(), its_task.vocabulary)
        assert chooser.check(seen, text) == (given_back == text, written.num_passes + answer.num_passes)
    monkeypatch.setattr(model, "fill", lambda qs: [generator.Answer(q.example.tokens_L, None, 3) for q in qs])
    monkeypatch.setattr(model, "write", lambda *_: [written])  # an inverse that is always right
    assert chooser.check(seen, text) == (True, written.num_passes + 3)


def test_the_first_that_its_result_gives_back_is_chosen(opened, monkeypatch):
    _, model, _ = opened
    chooser = Chosen(model, (Kind.ACTION,), Choosing(is_checked=True, max_checked=2))
    asked, good = [], set()
    monkeypatch.setattr(chooser, "scores", lambda seen, texts: np.arange(len(texts), dtype=float))
    monkeypatch.setattr(chooser, "check", lambda seen, text: (asked.append(text), (text in good, 5))[1])
    with Server(WORLD, 1, 1) as server:
        valid = registry.make_session(WORLD).valid_actions()
        for given_back, expected, passes in ((-1, -1, 6), (-2, -2, 11), (-3, -1, 11)):
            asked.clear()
            good.clear()
            good.add(valid[given_back])
            (episode,) = play(server, ["5"], chooser)
            first = episode.decisions[0]
            assert (first.units[-1].text, first.num_passes) == (valid[expected], passes)
            assert asked[0] == valid[-1]


@pytest.mark.parametrize("choosing", [CHOICES["checked"], Choosing(guidance=1.0, num_proposals=2)])
def test_a_decision_depends_on_its_episode_alone(opened, choosing):
    _, model, _ = opened
    chooser = Chosen(model, (Kind.ACTION,), choosing._replace(max_checked=1))
    tasks = ["5", "6"]
    with Server(WORLD, 2, 1) as server:
        together = play(server, tasks, OnlyFirst(chooser))
        alone = [play(server, [name], OnlyFirst(chooser))[0] for name in tasks]
    assert [e.decisions[0] for e in together] == [e.decisions[0] for e in alone]
    assert all(e.decisions[0].num_passes >= 2 for e in together)


def plain_judged(opened, log_p, example, is_hidden_L, is_unseen_L):
    """(log p of the words that are hidden, minus the entropy at their places), from a row written by hand."""
    row = np.where(is_hidden_L | is_unseen_L, opened.vocabulary.mask_id, example.tokens_L)
    places = np.flatnonzero(is_hidden_L & (example.field_L == Field.TEXT))
    log_p_HV = log_p(row)[places]
    safe_HV = np.where(np.isfinite(log_p_HV), log_p_HV, 0.0)
    return log_p_HV[np.arange(len(places)), example.tokens_L[places]], (np.exp(log_p_HV) * safe_HV).sum(-1)


def test_what_surprises_beyond_what_is_expected_is_doubted(opened):
    its_task, model, log_p = opened
    episodes = [a_beginning(7), a_beginning(3), a_beginning(2)]
    surprise = {}
    for e, seen in enumerate(episodes):
        question = model.question(seen, (Kind.ACTION,), [1])
        last = max((u for u, unit in enumerate(seen.units) if unit.kind == Kind.ACTION), default=-1)
        for u, unit in enumerate(seen.units[: last + 1]):
            if unit.kind == Kind.OBSERVATION:
                is_unit_L = question.example.slots_GL[0] == u
                given, expected = plain_judged(its_task, log_p, question.example, is_unit_L, question.is_hidden_L)
                surprise[e, u] = (expected - given).mean()
    limit = float(np.median(list(surprise.values()))) - 1e-3  # of the two in the first episode and one in the second
    assert {e for e, _ in surprise} == {0, 1} and 0 < sum(s > limit for s in surprise.values()) < 4
    found = Doubt(model, (Kind.ACTION,), limit).units(episodes)
    for e, (numbers, passes) in enumerate(found):
        assert numbers.tolist() == [u for (own, u), s in surprise.items() if own == e and s > limit]
        assert passes == sum(own == e for own, _ in surprise)


def test_what_is_doubted_is_not_seen_when_it_acts(opened, monkeypatch):
    its_task, model, _ = opened
    seen = a_beginning(7)
    question = model.question(seen, (Kind.ACTION,), [1])
    is_unseen_L = question.example.slots_GL[0] == 1
    masked = np.where(is_unseen_L, its_task.vocabulary.mask_id, question.example.tokens_L)
    assert (masked != question.example.tokens_L).any()
    (expected,) = model.fill([question._replace(example=dataclasses.replace(question.example, tokens_L=masked))])
    filled = []
    real = model.fill
    monkeypatch.setattr(model, "fill", lambda *given: filled.append(real(*given)) or filled[-1])
    model.write([seen], [(Kind.ACTION,)], unseen=[np.array([1])])
    np.testing.assert_array_equal(filled[0][0].tokens_L, expected.tokens_L)
    monkeypatch.undo()

    plain, doubtful = (
        policy.Generated(model, (Kind.ACTION,), doubt)
        for doubt in (
            None,
            Doubt(model, (Kind.ACTION,), np.inf),
        )
    )
    with Server(WORLD, 1, 1) as server:
        (one,), (two,) = (play(server, ["5"], OnlyFirst(p)) for p in (plain, doubtful))
    assert one.decisions[0] == two.decisions[0]  # nothing precedes the first observation: nothing to ask


def test_a_plan_is_judged_by_the_goal_that_it_tells(opened):
    its_task, model, log_p = opened
    seen = a_beginning()
    texts = registry.make_session(WORLD).valid_actions()[:2]
    found, passes, tokens = Chosen(model, (Kind.ACTION,), Choosing(horizon=2)).plan(seen, texts)
    num_passes = num_tokens = 0
    for text, score in zip(texts, found, strict=True):
        plan = dataclasses.replace(seen, units=(*seen.units, Unit(Kind.ACTION, 0, text=text)))
        for kind in (Kind.OBSERVATION, Kind.ACTION, Kind.OBSERVATION):
            (written,) = model.write([plan], [(kind,)])
            plan = dataclasses.replace(plan, units=(*plan.units, *written.units))
            num_passes, num_tokens = num_passes + written.num_passes, num_tokens + len(written.ids[0])
        assert [unit.step for unit in plan.units[-3:]] == [1, 1, 2]
        whole = units.tokenise(plan, its_task.codec, its_task.vocabulary, its_task.layout)
        is_goal_L = whole.slots_GL[0] == 0
        given, _ = plain_judged(its_task, log_p, whole, is_goal_L, np.zeros(len(whole), bool))
        assert score == pytest.approx(given.sum(), rel=1e-3), text
    assert (passes, tokens) == (num_passes + 2, num_tokens) and found[0] != found[1]


def test_the_likeliest_plan_is_begun(opened, monkeypatch):
    _, model, _ = opened
    chooser = Chosen(model, (Kind.ACTION,), Choosing(horizon=2))
    monkeypatch.setattr(chooser, "scores", lambda seen, texts: -np.arange(len(texts), dtype=float))
    asked = []
    monkeypatch.setattr(
        chooser, "plan", lambda seen, texts: (asked.append(texts), (np.array([1.0, 3.0, 2.0]), 7, 5))[1]
    )
    with Server(WORLD, 1, 1) as server:
        (episode,) = play(server, ["5"], OnlyFirst(chooser))
    first = episode.decisions[0]
    assert asked == [registry.make_session(WORLD).valid_actions()[:3]]
    assert (first.units[-1].text, first.num_passes, first.num_tokens) == (asked[0][1], 8, 5)
    asked.clear()
    monkeypatch.setattr(chooser, "_propose", lambda seen, valid: (["wait"], 4, 2))
    with Server(WORLD, 1, 1) as server:
        (episode,) = play(server, ["5"], OnlyFirst(chooser))
    first = episode.decisions[0]  # where the model proposes one action alone, nothing is planned
    assert (asked, first.units[-1].text, first.num_passes, first.num_tokens) == ([], "wait", 5, 2)


class OnlyFirst:
    """A policy that gives up after its first decision."""

    def __init__(self, policy):
        self.policy = policy

    def act(self, episodes):
        return [Decision(()) if e.num_steps else self.policy.act([e])[0] for e in episodes]


def test_ways_are_asked_for_by_name(opened):
    its_task, model, _ = opened
    names = evaluation.policies_of(its_task, model, choosing=CHOICES)
    assert list(names)[:5] == ["model", *(f"model/{n}" for n in ("guided", "checked", "planned", "doubtful"))]
    assert "model/guided" not in evaluation.policies_of(its_task, model)
    with pytest.raises(
        ValueError, match=r"--choosing: expected names out of guided, checked, planned, doubtful, valid, got \['wise'\]"
    ):
        Request(choosing=("wise",))
