"""Chat frames: the ids of a conversation are the chat template's own, whatever the template wants of its messages."""

import copy
import dataclasses
import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shop
from anyorder_jax import decode, task
from anyorder_jax.acting.generator import Answer, Generator
from anyorder_jax.acting.message import action_start
from anyorder_jax.config import defaults, freeze
from anyorder_jax.data import contexts, units
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.model import transformer
from anyorder_jax.rendering.text import TextRenderer
from anyorder_jax.types import DECISION, ROLES, Kind, Trajectory, Unit
from corridor import BPE_DIRECTORY
from runs import tiny_config, tiny_model

RENDERER = TextRenderer()
PLAIN = Vocabulary.from_directory(BPE_DIRECTORY, RENDERER)
TOUCHING = units.Layout((1,) * len(ROLES))
"""Every unit ends in one end token."""

WITH_TOOLS = (
    "{% if messages[0].role != 'system' %}<role>SYSTEM</role>off<|role_end|>{% endif %}{% for m in messages %}"
    "{% if m.role == 'system' %}<role>SYSTEM</role>{{ m.content }}<|role_end|>"
    "{% elif m.role == 'user' %}<role>HUMAN</role>{{ m.content }}<|role_end|>"
    "{% elif m.role == 'assistant' %}<role>ASSISTANT</role>{{ m.content }}<|role_end|>"
    "{% elif m.role == 'tool' %}{% if messages[loop.index0 - 1].role != 'tool' %}<role>OBSERVATION</role>{% endif %}"
    "{{ '\n<result>\n' + m.content + '\n</result>' }}"
    "{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}<|role_end|>{% endif %}"
    "{% else %}{{ raise_exception('no such role: ' + m.role) }}{% endif %}{% endfor %}"
)
ALTERNATING = (
    "{{ '<|startoftext|>' }}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "<role>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<|role_end|>\n{% endfor %}"
)
OPENED_ONLY = (
    "{% for m in messages %}<role>{{ m.role }}</role>\n{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<role>assistant</role>\n{% endif %}"
)
NO_TAGS = "{% for m in messages %}{{ 'A: ' if m.role == 'assistant' else 'Q: ' }}{{ m.content }}\n\n{% endfor %}"
HERMES = (
    "{% for m in messages %}<role>{{ m.role }}</role>\n"
    "{% if m.role == 'tool' %}<tool_response>\n{{ m.content }}\n</tool_response>{% else %}{{ m.content }}{% endif %}"
    "{% for call in m.tool_calls %}{% if m.content or not loop.first %}{{ '\n' }}{% endif %}"
    '<tool_call>\n{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}'
    "\n</tool_call>{% endfor %}<|role_end|>\n{% endfor %}"
)
TEMPLATES = {
    "golden": PLAIN.tokenizer.chat_template, "tools": WITH_TOOLS, "alternating": ALTERNATING, "open": OPENED_ONLY,
    "no tags": NO_TAGS, "hermes": HERMES,
}  # fmt: skip


def with_template(template):
    vocabulary = copy.copy(PLAIN)
    vocabulary.tokenizer = copy.deepcopy(PLAIN.tokenizer)
    vocabulary.tokenizer.chat_template = template
    return vocabulary


VOCABULARIES = {name: with_template(template).with_chat_frames() for name, template in TEMPLATES.items()}
GOLDEN = VOCABULARIES["golden"]


def tokenise(vocabulary, given_units, layout=TOUCHING, **around):
    return units.tokenise(Trajectory("a", tuple(given_units)), RENDERER, vocabulary, layout, **around)


def template_ids(vocabulary, messages):
    given = [{"role": role, "content": content} for role, content in messages]
    return vocabulary.tokenizer.apply_chat_template(given, tokenize=True, return_dict=False)


@pytest.mark.parametrize("layout", [TOUCHING, units.DEFAULT_LAYOUT, units.Layout((32,) * len(ROLES))])
def test_a_conversation_has_the_ids_of_the_golden_template(layout):
    texts = ["Be brief.", "Name a colour.", "Blue. café ☕ 你好", "Another.\n", "#### 19"]
    kinds = [Kind.SYSTEM, Kind.GOAL, Kind.ACTION, Kind.USER, Kind.ACTION]
    roles = ["system", "user", "assistant", "user", "assistant"]
    for first in (0, 1):  # with the system's text, and with what the template says instead
        given = [Unit(k, 0, text=t) for k, t in zip(kinds[first:], texts[first:], strict=True)]
        example = tokenise(GOLDEN, given, layout)
        expected = template_ids(GOLDEN, list(zip(roles[first:], texts[first:], strict=True)))
        assert [i for i in example.tokens_L.tolist() if i != GOLDEN.end_id] == expected
        if first and layout is TOUCHING:
            assert example.tokens_L.tolist() == expected  # what ends the last answer included
        assert [unit.text for unit in units.detokenise(example, RENDERER, GOLDEN)] == texts[first:]


def test_what_spells_special_tokens_inside_a_text_stays_text():
    text = "<role>ASSISTANT</role>Yes.<|role_end|> and <|mask|>, <|endoftext|>"
    for kind in Kind:
        given = [Unit(Kind.GOAL, 0, text="a"), Unit(kind, 0, text=text), Unit(Kind.ACTION, 0, text=text)]
        with_text, without = (
            tokenise(GOLDEN, given),
            tokenise(GOLDEN, [dataclasses.replace(u, text="a") for u in given]),
        )
        for token in GOLDEN.reserved_ids:
            assert (with_text.tokens_L == token).sum() == (without.tokens_L == token).sum()
        assert units.detokenise(with_text, RENDERER, GOLDEN)[1].text == text


def messages_of(name, kinds, texts):
    """The messages as one would write them for the template, from the documentation of `ChatFrames`."""
    messages = []
    for kind, text in zip(kinds, texts, strict=True):
        role = "assistant" if kind in DECISION else "user"
        if kind == Kind.SYSTEM and name != "alternating" and all(k == Kind.SYSTEM for k in kinds[: len(messages) + 1]):
            role = "system"
        if kind == Kind.TOOL and name in ("tools", "open", "hermes"):
            role = "tool"
        if messages and messages[-1][0] == role != "tool":
            messages[-1] = (role, f"{messages[-1][1]}\n{text}")
        else:
            messages.append((role, text))
    return messages


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(sorted(TEMPLATES)), st.integers(0, 1), st.lists(st.sampled_from(list(Kind)), max_size=8))
def test_any_order_of_roles_is_what_the_template_writes(name, num_system, kinds):
    vocabulary = VOCABULARIES[name]
    kinds = [*[Kind.SYSTEM] * num_system, Kind.GOAL, *(k for k in kinds if k != Kind.SYSTEM)]
    texts = [f"text {number}" for number in range(len(kinds))]
    given_units = [Unit(kind, 0, text=text) for kind, text in zip(kinds, texts, strict=True)]
    for layout in (TOUCHING, units.DEFAULT_LAYOUT):
        example = tokenise(vocabulary, given_units, layout)
        own = [i for i in example.tokens_L.tolist() if i != vocabulary.end_id]
        messages = [{"role": r, "content": c} for r, c in messages_of(name, kinds, texts)]
        expected = vocabulary.tokenizer.apply_chat_template(messages, tokenize=False)
        written = vocabulary.decode_text(own)
        assert expected.startswith(written) and texts[-1] not in expected[len(written) :]
        widths = units.unit_widths([Trajectory("a", tuple(given_units))], RENDERER, vocabulary, layout)
        assert [width for width, _, _ in widths] == np.diff(contexts.unit_starts(example)).tolist()
        for cut in range(1, len(kinds)):
            first = tokenise(vocabulary, given_units[:cut], layout, after=kinds[cut:])
            second = tokenise(vocabulary, given_units[cut:], layout, before=kinds[:cut])
            both = contexts.joined(first, second)
            np.testing.assert_array_equal(both.tokens_L, example.tokens_L)
            np.testing.assert_array_equal(both.slots_GL, example.slots_GL)


@pytest.mark.parametrize(
    ("name", "closing"), [("golden", True), ("tools", True), ("alternating", True), ("open", False)]
)
def test_an_answer_ends_as_the_served_model_ends_it(name, closing):
    vocabulary = VOCABULARIES[name]
    role_end = vocabulary.tokenizer.convert_tokens_to_ids("<|role_end|>")
    kinds = [Kind.GOAL, Kind.THOUGHT, Kind.ACTION, Kind.OBSERVATION]
    ends = [around.end for around in vocabulary.frames.around(kinds)]
    last = role_end if closing else vocabulary.end_id
    assert ends == [last, vocabulary.end_id, last, last]
    assert vocabulary.frames.end_ids == {vocabulary.end_id, last}
    example = tokenise(vocabulary, [Unit(kind, 0, text="a") for kind in kinds], units.DEFAULT_LAYOUT)
    action = example.tokens_L[example.slots_GL[0] == 2].tolist()
    assert action[1:] == [last] + [vocabulary.end_id] * (len(action) - 2)


def test_results_of_tools_are_tool_messages_where_the_template_has_them():
    given = [Unit(k, 0, text="x") for k in (Kind.GOAL, Kind.ACTION, Kind.TOOL, Kind.TOOL, Kind.USER, Kind.ACTION)]
    texts = {name: v.decode_text(tokenise(v, given).tokens_L.tolist()) for name, v in VOCABULARIES.items()}
    assert "<role>OBSERVATION</role>\n<result>\nx<|endoftext|>\n</result>\n<result>\nx" in texts["tools"]
    assert "<role>HUMAN</role>x<|endoftext|>\nx<|endoftext|>\nx<|role_end|>" in texts["golden"]


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        (None, "'chat' takes a tokenizer with a chat template, and this one has none"),
        ("{{ raise_exception('only for tools') }}", "no place for user at the beginning: only for tools"),
        ("{% for m in messages %}{{ m.role }}{% endfor %}", "at the beginning: it leaves contents out"),
        ("{% for m in messages %}{{ loop.index }}. {{ m.content }}{% endfor %}", "depends on more than these roles"),
        ("{% for m in messages %}<role>{{ m.role }}</role>{% if loop.last and m.role == 'assistant' %}<think></think>"
         "{% endif %}{{ m.content }}{% endfor %}",
         "'<role>assistant</role>' or '<role>assistant</role><think></think>' for assistant after user"),
    ],
)  # fmt: skip
def test_a_template_that_cannot_frame_units_is_refused(template, sentence):
    with pytest.raises(ValueError, match=r"config\.data\.frames: ") as caught:
        with_template(template).with_chat_frames()
    assert sentence in str(caught.value) and "data.frames=markers" in str(caught.value)


def test_an_order_that_the_template_forbids_is_a_bad_record():
    given = (Unit(Kind.ACTION, 0, text="Hello."), Unit(Kind.USER, 1, text="Hi."))
    with pytest.raises(ValueError, match="no place for assistant at the beginning"):
        tokenise(VOCABULARIES["alternating"], given)
    good = (Unit(Kind.GOAL, 0, text="Hello."), Unit(Kind.ACTION, 0, text="Hi."))
    both = [Trajectory("bad", given), Trajectory("good", good)]
    reasons = [reason for _, _, reason in units.unit_widths(both, RENDERER, VOCABULARIES["alternating"], TOUCHING)]
    assert all("no place for assistant" in reason for reason in reasons[:2]) and reasons[2:] == ["", ""]


def settings_for(directory, **changes):
    config = defaults()
    config.data.path, config.data.num_episodes, config.data.frames = str(directory), 0, "chat"
    config.data.tokenizer = str(BPE_DIRECTORY)
    config.data.context_tokens = config.data.row_length = 700
    config.data.blocks = "action:16,thought:16"
    for name, value in changes.items():
        config.data[name] = value
    return freeze(config)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    directory = tmp_path_factory.mktemp("shop")
    shop.write(directory)
    return directory


def test_a_run_opens_its_tokenizer_with_the_same_frames(data, tmp_path):
    config = settings_for(data)
    opened = task.open_task(config)
    assert opened.vocabulary.frames.content() == GOLDEN.frames.content()
    opened.vocabulary.save(tmp_path)
    again = task.open_task(config, tmp_path)
    markers = task.open_task(settings_for(data, frames="markers"))
    digests = [t.fingerprint["vocabulary_sha256"] for t in (opened, again, markers)]
    assert digests[0] == digests[1] != digests[2] and markers.vocabulary.sha256() == PLAIN.sha256()
    corpus = opened.examples(config, "train")
    for e in range(0, len(corpus.record_E), 9):
        assert len(corpus.example(e, 1)) == corpus.ends(1)[1][e]


def test_chat_frames_take_a_models_tokenizer_and_running_text(data, tmp_path):
    with pytest.raises(ValueError, match=r"data\.frames: 'chat' takes a tokenizer with a chat template"):
        task.open_task(settings_for(data, tokenizer=""))
    with pytest.raises(ValueError, match=r"data\.frames: expected 'markers' or 'chat', got 'chatml'"):
        settings_for(data, frames="chatml")
    manifest = json.loads((data / "manifest.json").read_text(encoding="utf-8"))
    grid = {**manifest, "environment": "BabyAI-GoToObj-v0"}
    (tmp_path / "manifest.json").write_text(json.dumps(grid), encoding="utf-8")
    with pytest.raises(ValueError, match=r"data\.frames: 'chat' is for running text"):
        task.open_task(settings_for(tmp_path, context_tokens=0))


def test_holes_stand_where_training_showed_units(data):
    config = settings_for(data)
    opened = task.open_task(config)
    model_config = dataclasses.replace(tiny_model(initializer_range=0.3), vocab_size=opened.vocabulary.size)
    params = transformer.init(model_config, jax.random.key(2), jnp.float32)
    generator = Generator(config, model_config, params, opened)
    episode = shop.make_trajectory(3)
    for num, kinds in ((3, (Kind.THOUGHT, Kind.ACTION)), (6, (Kind.ACTION,)), (8, (Kind.TOOL,)), (4, (Kind.ACTION,))):
        seen = dataclasses.replace(episode, units=episode.units[:num])
        question = generator.question(seen, kinds, [1] * len(kinds))
        whole = dataclasses.replace(episode, units=episode.units[: num + len(kinds)])
        trained = units.tokenise(whole, RENDERER, opened.vocabulary, opened.layout)
        first = int(np.argmax(question.is_hidden_L))
        np.testing.assert_array_equal(question.example.tokens_L[:first], trained.tokens_L[:first])
        assert trained.slots_GL[0, first] == num
    (written,) = generator.write([dataclasses.replace(episode, units=episode.units[:3])], [(Kind.THOUGHT, Kind.ACTION)])
    assert [unit.kind for unit in written.units] == [Kind.THOUGHT, Kind.ACTION]
    for unit, ids in zip(written.units, written.ids, strict=True):
        assert not opened.vocabulary.reserved_ids.intersection(ids[:-1].tolist())
        assert "<|role_end|>" not in unit.text


@pytest.mark.parametrize("end", [30, 37])
def test_any_end_token_ends_a_unit(end):
    """Of 37, end-of-text, and 30, which closes a message, the model always wants the one: the rest is end-of-text."""
    model_config = tiny_model()
    params = transformer.init(model_config, jax.random.key(1), jnp.float32)
    fill = decode.make_fill(tiny_config(), model_config, 37, closing_ids=(30, 37))
    holes = decode.Holes(np.arange(4, 12)[None], np.zeros((1, 8), np.int32), np.zeros((1, 8), np.int32))
    allowed_HV = np.zeros((8, 40), bool)
    allowed_HV[:3, 5], allowed_HV[3:, end] = True, True  # three words, then nothing but the end
    tokens_BL = np.full((1, 16), 39, np.int32)
    seeds_B = np.zeros(1, np.uint32)
    filled = fill(params, tokens_BL, np.array([16], np.int32), holes, allowed_HV[None], 2.0, seeds_B, decode.LIKELIEST)
    assert np.asarray(filled.tokens_BH)[0].tolist() == [5] * 3 + [end] + [37] * 4
    assert int(filled.passes_B[0]) == 4


def test_a_thought_and_its_action_are_one_text_as_they_are_served():
    """No end-of-text, where a server would stop, stands inside a message; the ids are those of the whole message."""
    role_end = GOLDEN.tokenizer.convert_tokens_to_ids("<|role_end|>")
    for thought in ("I do not know.", "Two\nlines: 'so'", "Yes!\n\n", "ends in a space "):
        kinds, texts = (Kind.GOAL, Kind.THOUGHT, Kind.ACTION), ("Name a colour.", thought, "Blue.\nOr not.")
        given = [Unit(kind, 0, text=text) for kind, text in zip(kinds, texts, strict=True)]
        example = tokenise(GOLDEN, given, units.DEFAULT_LAYOUT)
        messages = [("user", texts[0]), ("assistant", f"{thought}\n{texts[2]}")]
        before, message = np.split(example.tokens_L, [int(np.argmax(example.slots_GL[0] == 1))])
        assert GOLDEN.end_id not in message[: int(np.argmax(message == role_end))]
        whole = [i for i in before.tolist() if i != GOLDEN.end_id] + [i for i in message.tolist() if i != GOLDEN.end_id]
        assert whole == template_ids(GOLDEN, messages)
        assert [unit.text for unit in units.detokenise(example, RENDERER, GOLDEN)] == list(texts)
        assert (np.diff(example.slots_GL[1][example.slots_GL[0] >= 0]) >= 0).all()


def test_runs_of_the_first_version_keep_their_ids(data):
    """Measured before there was a second one."""
    first = {name: with_template(TEMPLATES[name]).with_chat_frames(1) for name in ("golden", "tools")}
    assert first["golden"].sha256() == "a81933c5a1a746bea2f088b23f7a9e7162692000f7e480701cf2c5f3d64fef58"
    assert first["tools"].sha256() == "1c4213cb230661f4215329f93fd441e23118ce6b1dd1bbddd42061cec84c7897"
    example = tokenise(first["golden"], shop.make_trajectory(3).units, units.DEFAULT_LAYOUT)
    digest = hashlib.sha256(example.tokens_L.tobytes() + example.slots_GL.tobytes()).hexdigest()
    assert digest == "464af0e59ed80ea2693165d036abd614e6e02f331b7537a600cb5290496de00c"
    saved = dataclasses.asdict(settings_for(data))
    assert saved["data"].pop("frames_version") == 2
    assert freeze(saved).data.frames_version == 1
    assert task.open_task(freeze(saved)).vocabulary.sha256() == first["golden"].sha256()
    assert freeze({**saved, "data": {**saved["data"], "frames": "markers"}}).data.frames_version == 2


CALL = '{"name":"search","arguments":{"query":"<mug> \u00e9 \\"x\\"","n":[1,null]}}'


def test_calls_are_written_as_the_template_writes_them():
    hermes = VOCABULARIES["hermes"]
    assert hermes.frames.calls and not VOCABULARIES["tools"].frames.calls and not GOLDEN.frames.calls
    kinds = [Kind.GOAL, Kind.THOUGHT, Kind.ACTION, Kind.ACTION, Kind.TOOL, Kind.ACTION]
    other = '{"name":"buy","arguments":{}}'
    texts = ["Buy.", "A mug.", CALL, other, "7 found", "Done."]
    given = [Unit(kind, 0, text=text) for kind, text in zip(kinds, texts, strict=True)]
    calls = [{"type": "function", "function": json.loads(text)} for text in (CALL, other)]
    messages = [
        {"role": "user", "content": "Buy."}, {"role": "assistant", "content": "A mug.", "tool_calls": calls},
        {"role": "tool", "content": "7 found"}, {"role": "assistant", "content": "Done."},
    ]  # fmt: skip
    expected = hermes.tokenizer.apply_chat_template(messages, tokenize=False)
    for layout in (TOUCHING, units.DEFAULT_LAYOUT):
        example = tokenise(hermes, given, layout)
        written = hermes.decode_text([i for i in example.tokens_L.tolist() if i != hermes.end_id])
        assert expected.startswith(written) and "Done." in written
        assert [unit.text for unit in units.detokenise(example, RENDERER, hermes)] == texts
        widths = units.unit_widths([Trajectory("a", tuple(given))], RENDERER, hermes, layout)
        assert [width for width, _, _ in widths] == np.diff(contexts.unit_starts(example)).tolist()
    argument_L = example.slots_GL[1][example.slots_GL[0] == 2]
    assert len(np.unique(argument_L)) == 4 + 1  # the head, two arguments, the tail; and the newline behind it
    for text in ('{"name": "spaced", "arguments": {}}', '{"name":"a"}', "[1]", "<tool_call>\n{}\n</tool_call>", "{"):
        example = tokenise(hermes, [given[0], Unit(Kind.ACTION, 0, text=text)])
        assert units.detokenise(example, RENDERER, hermes)[1].text == text


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("I do not know.\nWhich color?", "Which color?"),
        ("Which color?", "Which color?"),
        (f"Two\nlines.\n{CALL}", CALL),
        ("Look.\n```bash\nls\n\ncat x\n```", "```bash\nls\n\ncat x\n```"),
        ("Not a call:\n{\nsend", "send"),
    ],
)
def test_a_message_is_read_as_its_thought_and_its_action(text, action):
    assert text[action_start(text, None) :] == action
    tagged = f"Well.\n<tool_call>\n{action}\n</tool_call>"
    assert tagged[action_start(tagged, VOCABULARIES["hermes"].frames.calls) :].startswith("<tool_call>")


def test_a_decision_is_written_as_one_message(data, monkeypatch):
    """What a model writes into the hole is read as a thought and an action, whatever their lengths."""
    config = settings_for(data)
    opened = task.open_task(config)
    model_config = dataclasses.replace(tiny_model(), vocab_size=opened.vocabulary.size)
    params = transformer.init(model_config, jax.random.key(2), jnp.float32)
    generator = Generator(config, model_config, params, opened)
    episode = dataclasses.replace(shop.make_trajectory(3), units=shop.make_trajectory(3).units[:3])
    whole = tokenise(opened.vocabulary, shop.make_trajectory(3).units[:5], opened.layout)
    start = int(np.argmax(whole.slots_GL[0] == 3))
    said = [i for i in whole.tokens_L[start:].tolist() if i != opened.vocabulary.end_id]

    def fill(questions, seeds):
        (question,) = questions
        assert question.is_hidden_L.sum() >= 32 and question.is_hidden_L.sum() % 16 == 0
        tokens_L = question.example.tokens_L.copy()
        places = np.flatnonzero(question.is_hidden_L)
        np.testing.assert_array_equal(tokens_L[: places[0]], whole.tokens_L[: places[0]])
        tokens_L[places] = (said + [opened.vocabulary.end_id] * len(places))[: len(places)]
        return [Answer(tokens_L, np.ones(len(tokens_L), np.float32), 1)]

    monkeypatch.setattr(generator, "fill", fill)
    (written,) = generator.write([episode], [(Kind.THOUGHT, Kind.ACTION)])
    assert [unit.text for unit in written.units] == [unit.text for unit in shop.make_trajectory(3).units[3:5]]
    assert np.concatenate(written.ids).tolist() == said
    (thought,) = generator.write([episode], [(Kind.THOUGHT,)])
    assert [unit.text for unit in thought.units] == [written.units[0].text]
