"""Vocabulary: words survive, reserved tokens are looked up, the saved tokenizer is the same one."""

import json
import shutil

import pytest
from transformers import AutoTokenizer

from anyorder_jax.data.tokenization import MARKED_KINDS, Vocabulary
from anyorder_jax.types import Field, Kind
from corridor import BPE_DIRECTORY, CorridorCodec

BESIDE = ("config.json", "model.safetensors")
PROFILES = ("joint", "attributes")


@pytest.fixture
def model_directory(tmp_path):
    """A copy of the toy byte-BPE tokenizer (with `<|mask|>` in its vocabulary), to be changed."""
    directory = tmp_path / "model"
    shutil.copytree(BPE_DIRECTORY, directory)
    return directory


def edit_json(path, **changes):
    values = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({k: v for k, v in {**values, **changes}.items() if v is not None}))


def remove_mask_token(directory):
    """Renames `<|mask|>` everywhere, so that nothing tells which token is the mask."""
    for path in directory.glob("*.json"):
        path.write_text(path.read_text().replace("<|mask|>", "<|hole|>"))


@pytest.mark.parametrize("profile", PROFILES)
def test_builtin_has_one_token_a_word(profile):
    codec = CorridorCodec(profile)
    vocabulary = Vocabulary.builtin(codec)
    words = {word for words in codec.lexicon().values() for word in words}
    ids = [vocabulary.encode_slot(word) for word in sorted(words)]
    assert all(len(piece) == 1 for piece in ids)
    markers = [vocabulary.frame(kind) for kind in MARKED_KINDS]
    reserved = [(vocabulary.mask_id,), (vocabulary.pad_id,), (vocabulary.end_id,)]
    assert len({*map(tuple, ids), *markers, *reserved}) == len(words) + len(MARKED_KINDS) + 3
    assert vocabulary.size == len(words) + len(MARKED_KINDS) + 4
    assert [vocabulary.decode_slot(piece) for piece in ids] == sorted(words)


@pytest.mark.parametrize("profile", PROFILES)
def test_builtin_survives_save_and_load(tmp_path, profile):
    codec = CorridorCodec(profile)
    before = Vocabulary.builtin(codec)
    before.save(tmp_path)
    after = Vocabulary.from_directory(tmp_path, codec)
    assert (after.mask_id, after.pad_id, after.end_id, after.size) == (
        before.mask_id, before.pad_id, before.end_id, before.size,
    )  # fmt: skip
    assert [after.frame(kind) for kind in MARKED_KINDS] == [before.frame(kind) for kind in MARKED_KINDS]
    auto = AutoTokenizer.from_pretrained(tmp_path)
    for words in codec.lexicon().values():
        for word in words:
            assert after.encode_slot(word) == before.encode_slot(word)
            assert auto.encode(word, add_special_tokens=False) == before.encode_slot(word)


def test_unknown_word_is_an_error_that_names_its_neighbours():
    vocabulary = Vocabulary.builtin(CorridorCodec("joint"))
    with pytest.raises(ValueError, match=r"does not know the word 'bell' \(near: ball"):
        vocabulary.encode_slot("bell")


@pytest.mark.parametrize("word", ["<mask>", "<end>", "<goal>", "<pad>"])
def test_a_reserved_token_in_a_goal_is_an_error(word):
    with pytest.raises(ValueError, match="reserved token"):
        Vocabulary.builtin(CorridorCodec("joint")).encode_slot(word)


def test_a_control_token_of_a_real_tokenizer_in_a_goal_is_an_error():
    with pytest.raises(ValueError, match="reserved token"):
        Vocabulary.from_directory(BPE_DIRECTORY, CorridorCodec("joint")).encode_slot("<role>")


def test_a_word_of_another_field_is_an_error():
    with pytest.raises(ValueError, match="'wall' is not a word of field ACTION"):
        Vocabulary.builtin(CorridorCodec("attributes")).encode_fixed_slot(Field.ACTION, "wall")


def test_real_tokenizer_pads_fixed_slots_to_the_widest_word():
    vocabulary = Vocabulary.from_directory(BPE_DIRECTORY, CorridorCodec("attributes"))
    words = {word: vocabulary.encode_slot(word) for word in ("left", "forward", "pickup")}
    widest = max(map(len, words.values()))
    assert len({len(ids) for ids in words.values()}) > 1, "the toy tokenizer should split words unevenly"
    for word, ids in words.items():
        padded, num_own = vocabulary.encode_fixed_slot(Field.ACTION, word)
        assert len(padded) == widest and padded[:num_own] == ids
        assert set(padded[num_own:]) <= {vocabulary.end_id}


def test_real_tokenizer_spells_markers_and_any_goal_word():
    vocabulary = Vocabulary.from_directory(BPE_DIRECTORY, CorridorCodec("joint"))
    assert vocabulary.tokenizer.decode(vocabulary.frame(Kind.OBSERVATION)) == "\nobservation:"
    assert vocabulary.decode_slot(vocabulary.encode_slot("café")) == "café"


def test_mask_token_of_the_vocabulary_is_found():
    vocabulary = Vocabulary.from_directory(BPE_DIRECTORY, CorridorCodec("joint"))
    assert vocabulary.tokenizer.convert_ids_to_tokens(vocabulary.mask_id) == "<|mask|>"
    assert vocabulary.tokenizer.convert_ids_to_tokens(vocabulary.end_id) == "<|endoftext|>"
    assert vocabulary.pad_id == vocabulary.end_id  # this tokenizer pads with its end of text


def test_the_files_of_a_model_are_saved_as_they_are(model_directory, tmp_path):
    """Also where the model's config.json alone names the mask token, which is then found again."""
    remove_mask_token(model_directory)
    edit_json(model_directory / "config.json", mask_token_id=405, model_type="llada2_moe")
    (model_directory / "model.safetensors").write_bytes(b"weights")
    own = {path.name: path.read_bytes() for path in model_directory.iterdir() if path.name not in BESIDE}
    assert "chat_template.jinja" in own
    first, second = tmp_path / "first", tmp_path / "second"
    Vocabulary.from_directory(model_directory, CorridorCodec("joint")).save(first)
    again = Vocabulary.from_directory(first, CorridorCodec("joint"))
    again.save(second)
    again.save(first)  # onto itself
    for directory in (first, second):
        assert {path.name: path.read_bytes() for path in directory.iterdir() if path.name not in BESIDE} == own
        assert Vocabulary.from_directory(directory, CorridorCodec("joint")).mask_id == 405
        assert AutoTokenizer.from_pretrained(directory).encode(" go to café") == again.tokenizer.encode(" go to café")


def test_what_is_written_for_the_builtin_opens_with_transformers_4(tmp_path):
    """Version 4 knows no TokenizersBackend, and of extra_special_tokens only a dictionary."""
    vocabulary = Vocabulary.builtin(CorridorCodec("joint"))
    vocabulary.save(tmp_path)
    values = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert values["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not isinstance(values.get("extra_special_tokens"), list)
    auto = AutoTokenizer.from_pretrained(tmp_path)
    assert sorted(auto.all_special_tokens) == sorted(vocabulary.tokenizer.all_special_tokens)
    assert auto.get_vocab() == vocabulary.tokenizer.get_vocab()


def test_mask_token_named_by_the_tokenizer_wins(model_directory):
    edit_json(model_directory / "tokenizer_config.json", mask_token="<role>")
    edit_json(model_directory / "config.json", mask_token_id=405)
    vocabulary = Vocabulary.from_directory(model_directory, CorridorCodec("joint"))
    assert vocabulary.tokenizer.convert_ids_to_tokens(vocabulary.mask_id) == "<role>"


def test_mask_token_of_the_model_config_comes_second(model_directory):
    remove_mask_token(model_directory)
    edit_json(model_directory / "config.json", mask_token_id=405, model_type="llada2_moe", rope_scaling=None)
    assert Vocabulary.from_directory(model_directory, CorridorCodec("joint")).mask_id == 405


def test_no_mask_token_is_an_error(model_directory):
    remove_mask_token(model_directory)
    with pytest.raises(ValueError, match="no mask token in"):
        Vocabulary.from_directory(model_directory, CorridorCodec("joint"))


def test_mask_token_outside_the_vocabulary_is_an_error(model_directory):
    edit_json(model_directory / "config.json", mask_token_id=5000)
    with pytest.raises(ValueError, match="no such id"):
        Vocabulary.from_directory(model_directory, CorridorCodec("joint"))


def test_mask_token_outside_the_vocabulary_is_an_error_also_when_the_tokenizer_names_one(model_directory):
    edit_json(model_directory / "tokenizer_config.json", mask_token="<role>")
    for unusable in (5000, "405", True):
        edit_json(model_directory / "config.json", mask_token_id=unusable)
        with pytest.raises(ValueError, match=rf"mask_token_id = {unusable!r}, .* no such id"):
            Vocabulary.from_directory(model_directory, CorridorCodec("joint"))


def test_mask_token_that_pads_is_an_error(model_directory):
    edit_json(model_directory / "tokenizer_config.json", mask_token="<|endoftext|>")
    with pytest.raises(ValueError, match="also the pad or the end id"):
        Vocabulary.from_directory(model_directory, CorridorCodec("joint"))


def test_no_end_token_is_an_error(model_directory):
    edit_json(model_directory / "tokenizer_config.json", eos_token=None)
    (model_directory / "special_tokens_map.json").unlink()
    with pytest.raises(ValueError, match="no eos_token"):
        Vocabulary.from_directory(model_directory, CorridorCodec("joint"))


def test_missing_and_empty_directories_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a directory"):
        Vocabulary.from_directory(tmp_path / "nowhere", CorridorCodec("joint"))
    with pytest.raises(ValueError, match="holds no tokenizer"):
        Vocabulary.from_directory(tmp_path, CorridorCodec("joint"))


def cut(name, num_bytes):
    return lambda directory: (directory / name).write_bytes((directory / name).read_bytes()[:num_bytes])


def write(name, text):
    return lambda directory: (directory / name).write_text(text, encoding="utf-8")


def remove(*names):
    return lambda directory: [(directory / name).unlink() for name in names]


BROKEN = {
    "truncated": cut("tokenizer.json", 5000),
    "empty file": cut("tokenizer.json", 0),
    "no JSON": write("tokenizer.json", "hello"),
    "another JSON": write("tokenizer.json", "[]"),
    "an empty object": write("tokenizer.json", "{}"),
    "of a newer library": lambda d: write(
        "tokenizer.json", (d / "tokenizer.json").read_text().replace('"type": "BPE"', '"type": "Telepathy"')
    )(d),
    "bytes that are no text": lambda d: (d / "tokenizer.json").write_bytes(b"\xff\xfe\x00"),
    "truncated settings": cut("tokenizer_config.json", 300),
    "settings that are a list": write("tokenizer_config.json", "[1]"),
    "settings that are a number": write("tokenizer_config.json", "7"),
    "deep settings": write("tokenizer_config.json", "[" * 100_000),
    "no words": lambda d: (
        remove("special_tokens_map.json", "chat_template.jinja")(d),
        write("tokenizer.json", '{"version":"1.0","added_tokens":[],"model":{"type":"BPE","vocab":{},"merges":[]}}')(d),
        write("tokenizer_config.json", '{"tokenizer_class": "PreTrainedTokenizerFast"}')(d),
    ),
    "no tokenizer.json": remove("tokenizer.json"),
    "nothing but settings": remove("tokenizer.json", "chat_template.jinja", "special_tokens_map.json"),
    "tokenizer.json alone": remove("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"),
    "truncated config.json": write("config.json", '{"mask_token_id": 4'),
}  # fmt: skip


@pytest.mark.parametrize("damage", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_tokenizer_is_one_sentence_that_names_the_directory(model_directory, damage):
    damage(model_directory)
    with pytest.raises(ValueError) as caught:
        Vocabulary.from_directory(model_directory, CorridorCodec("joint"))
    message = str(caught.value)
    assert str(model_directory) in message and len(message) < 700 and "\n" not in message, message


def test_a_lexicon_word_that_does_not_survive_is_an_error(model_directory):
    """A tokenizer that lower-cases changes 'Ball'."""
    path = model_directory / "tokenizer.json"
    backend = json.loads(path.read_text())
    backend["normalizer"] = {"type": "Lowercase"}
    path.write_text(json.dumps(backend))

    class ShoutingCodec(CorridorCodec):
        def lexicon(self):
            return {**super().lexicon(), Field.ACTION: ("LEFT",)}

    with pytest.raises(ValueError, match="'LEFT' does not survive"):
        Vocabulary.from_directory(model_directory, ShoutingCodec("joint"))
