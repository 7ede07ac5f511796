"""Vocabulary: words of slots as token ids and back, by a model's own tokenizer or the built-in one.

Each slot is tokenised on its own, with a leading space, so its span is exact with any tokenizer: byte-pair
merges cannot reach across a slot's border.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers

from anyorder_jax.types import Codec, Field, Kind

PAD, MASK, END, UNKNOWN = "<pad>", "<mask>", "<end>", "<unk>"
"""Reserved words of the built-in tokenizer."""

LLADA_MASK = "<|mask|>"
"""How LLaDA2's tokenizer writes the mask token, which neither its settings nor its config.json name."""


MARKED_KINDS = tuple(kind for kind in Kind if kind is not Kind.SYSTEM)
"""Kinds that have a marker of their own in the built-in tokenizer; more of them would move every id of its words."""


def _marker(kind: Kind) -> str:
    return f"<{kind.name.lower()}>"


class Vocabulary:
    """A tokenizer, the ids that are looked up in it, and the token ids of every word of a lexicon.

    Attributes:
      tokenizer: the transformers tokenizer.
      mask_id, pad_id, end_id: ids of the mask, pad and end-of-unit tokens (pad and end may be the same id).
      size: rows that an embedding needs for it.
    """

    def __init__(self, tokenizer: Any, codec: Codec, *, mask_id: int, pad_id: int, end_id: int) -> None:
        """Use `builtin` or `from_directory`. Raises ValueError for a word that does not round-trip."""
        if mask_id in (pad_id, end_id):
            raise ValueError(
                f"tokenization: the mask id {mask_id} is also the pad or the end id ({pad_id}, {end_id}), so "
                "a hidden token looks like a visible one. Name another mask_token in tokenizer_config.json."
            )
        self.tokenizer = tokenizer
        self.mask_id, self.pad_id, self.end_id = mask_id, pad_id, end_id
        ids = tokenizer.get_vocab()
        self.size = max(ids.values()) + 1
        special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._reserved_ids = special | {*tokenizer.all_special_ids, mask_id, pad_id, end_id}
        self._ids_of_word: dict[str, tuple[int, ...]] = {}
        self._word_of_ids: dict[tuple[int, ...], str] = {}
        self._frames = {
            # the built-in tokenizer, saved and loaded again, has a token for each marker; others spell it
            kind: (ids[_marker(kind)],)
            if _marker(kind) in ids
            else tuple(tokenizer.encode(f"\n{kind.name.lower()}:", add_special_tokens=False))
            for kind in Kind
        }
        lexicon = {Field(field): tuple(words) for field, words in codec.lexicon().items()}
        self._known_words = sorted({word for words in lexicon.values() for word in words})
        for word in self._known_words:
            self.encode_slot(word)
        fixed = {field: words for field, words in lexicon.items() if field is not Field.TEXT}
        self._fixed_slots: dict[Field, dict[str, tuple[list[int], int]]] = {
            field: self._pad_to_widest(words) for field, words in fixed.items()
        }

    @classmethod
    def builtin(cls, codec: Codec) -> Vocabulary:
        """A word-level tokenizer: one token a word, the same ids for the same lexicon."""
        lexicon = codec.lexicon()
        words = [PAD, MASK, END, UNKNOWN, *(_marker(kind) for kind in MARKED_KINDS)]
        words += [word for field in sorted(lexicon) for word in lexicon[field]]
        ids = {word: i for i, word in enumerate(dict.fromkeys(words))}
        backend = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
        backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
        from transformers import PreTrainedTokenizerFast  # late: importing it takes a second and speaks

        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend,
            unk_token=UNKNOWN,
            pad_token=PAD,
            mask_token=MASK,
            eos_token=END,
            extra_special_tokens=[_marker(kind) for kind in MARKED_KINDS],
        )
        return cls(tokenizer, codec, mask_id=ids[MASK], pad_id=ids[PAD], end_id=ids[END])

    @classmethod
    def from_directory(cls, directory: str | Path, codec: Codec) -> Vocabulary:
        """The tokenizer of a Hugging Face model directory, or one that `save` wrote; never runs remote code.

        The mask token is the tokenizer's own; else `mask_token_id` of config.json; else `<|mask|>`. Pad is
        the tokenizer's pad token, else its end-of-text token; end-of-unit is its end-of-text token.

        Raises:
          FileNotFoundError: if there is no such directory.
          ValueError: if it holds no loadable tokenizer, one of these tokens is not found, or a word of the
            codec's lexicon does not survive it.
        """
        directory = Path(directory)
        if not directory.is_dir():
            raise FileNotFoundError(f"tokenization: {directory} is not a directory. Give a model or tokenizer folder.")
        from transformers import AutoTokenizer, PreTrainedConfig

        try:
            # an empty config: that of the model may need remote code, and its tokenizer does not need it
            tokenizer = AutoTokenizer.from_pretrained(
                directory, config=PreTrainedConfig(), trust_remote_code=False, local_files_only=True
            )
        except (ValueError, OSError, KeyError, AttributeError, ImportError) as error:
            raise ValueError(
                f"tokenization: {directory} holds no tokenizer that loads without remote code: "
                f"{str(error).strip()} Expected tokenizer.json and tokenizer_config.json."
            ) from error
        end_id = tokenizer.eos_token_id
        if end_id is None:
            raise ValueError(
                f"tokenization: the tokenizer in {directory} has no eos_token, which ends units. Name it in "
                "tokenizer_config.json."
            )
        mask_id = _find_mask_id(tokenizer, directory)
        tokenizer.mask_token = tokenizer.convert_ids_to_tokens(mask_id)  # so that `save` keeps what was found
        pad_id = end_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        return cls(tokenizer, codec, mask_id=mask_id, pad_id=pad_id, end_id=end_id)

    def save(self, directory: str | Path) -> None:
        """Writes the tokenizer's files; `from_directory` and `AutoTokenizer` give the same ids."""
        self.tokenizer.save_pretrained(directory)

    def frame(self, kind: Kind) -> tuple[int, ...]:
        """The ids of the marker that stands before a unit of this kind."""
        return self._frames[kind]

    def encode_slot(self, word: str) -> list[int]:
        """The ids of one word, without padding.

        Raises:
          ValueError: if the word is unknown to the tokenizer, spells a reserved token, or does not return.
        """
        ids = self._ids_of_word.get(word)
        if ids is None:
            ids = tuple(self.tokenizer.encode(f" {word}", add_special_tokens=False))
            self._check(word, ids)
            self._ids_of_word[word] = ids
            self._word_of_ids[ids] = word
        return list(ids)

    def encode_fixed_slot(self, field: Field, word: str) -> tuple[list[int], int]:
        """The ids of a slot of fixed width, and how many of them are the word's; the rest is filler.

        Every slot of a field is as wide as the widest word of its lexicon, so that a hidden one does not tell
        its length.

        Raises:
          ValueError: if the lexicon does not list the word under this field.
        """
        try:
            return self._fixed_slots[field][word]
        except KeyError:
            known = sorted(self._fixed_slots.get(field, ()))
            raise ValueError(
                f"tokenization: {word!r} is not a word of field {field.name}; the codec's lexicon lists {known}."
            ) from None

    def decode_slot(self, ids: Sequence[int]) -> str:
        """The word of one slot's ids (without filler): the inverse of `encode_slot`."""
        word = self._word_of_ids.get(tuple(ids))
        return self._decode(ids) if word is None else word

    def _decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False).removeprefix(" ")

    def _pad_to_widest(self, words: Sequence[str]) -> dict[str, tuple[list[int], int]]:
        encoded: Mapping[str, list[int]] = {word: self.encode_slot(word) for word in words}
        width = max(map(len, encoded.values()))
        return {w: (ids + [self.end_id] * (width - len(ids)), len(ids)) for w, ids in encoded.items()}

    def _check(self, word: str, ids: tuple[int, ...]) -> None:
        if self.tokenizer.unk_token_id is not None and self.tokenizer.unk_token_id in ids:
            near = difflib.get_close_matches(word, self._known_words)
            raise ValueError(
                f"tokenization: the tokenizer does not know the word {word!r} (near: "
                f"{', '.join(near) or 'none'}). Add it to the codec's lexicon, or name a tokenizer that "
                f"spells "
                "any word (data.tokenizer)."
            )
        if self._reserved_ids.intersection(ids):
            raise ValueError(f"tokenization: the word {word!r} spells a reserved token of the tokenizer: {list(ids)}.")
        if not ids or self._decode(ids) != word:
            raise ValueError(
                f"tokenization: the word {word!r} does not survive the tokenizer: {list(ids)} decode to "
                f"{self._decode(ids)!r}. Use another word in the codec, or another tokenizer."
            )


def _find_mask_id(tokenizer: Any, directory: Path) -> int:
    if tokenizer.mask_token_id is not None:
        return tokenizer.mask_token_id
    ids, config_path = tokenizer.get_vocab(), directory / "config.json"
    named = json.loads(config_path.read_text(encoding="utf-8")).get("mask_token_id") if config_path.is_file() else None
    if named is not None:
        if named not in ids.values():
            raise ValueError(
                f"tokenization: {config_path} says mask_token_id = {named!r}, but the tokenizer beside it "
                f"has no such id (it ends at {max(ids.values())}). Use the tokenizer that belongs to the "
                f"model."
            )
        return named
    if LLADA_MASK in ids:
        return ids[LLADA_MASK]
    raise ValueError(
        f"tokenization: no mask token in {directory}: the tokenizer names no mask_token, config.json no "
        f"mask_token_id, and the vocabulary has no {LLADA_MASK!r}. Add one of them: a model that fills holes "
        "has such a token."
    )
