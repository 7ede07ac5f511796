"""Vocabulary: text as token ids and back, by a model's own tokenizer, the built-in one, or one trained on the corpus.

Each slot of a grid is tokenised on its own, with a leading space, so its span is exact with any tokenizer: byte-pair
merges cannot reach across a slot's border. Running text is tokenised whole (`encode_text`): its ids are those that the
tokenizer gives the text anywhere else, and spans come from the tokenizer's offsets.
"""

from __future__ import annotations

import copy
import difflib
import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from anyorder_jax.data import tokenizer_files
from anyorder_jax.data.frames import VERSION, ChatFrames, Frames, Markers
from anyorder_jax.data.literal_text import as_text, cut, is_lossless, num_spaces, without_reserved
from anyorder_jax.data.tokenizer_opening import find_mask_id, open_tokenizer
from anyorder_jax.types import Codec, Field, Kind

PAD, MASK, END, UNKNOWN = "<pad>", "<mask>", "<end>", "<unk>"
"""Reserved words of the built-in tokenizer."""


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
      reserved_ids: of the special tokens, which no text becomes.
      frames: what stands around units of running text: markers, but for `with_chat_frames`.
    """

    def __init__(
        self, tokenizer: Any, codec: Codec, *, mask_id: int, pad_id: int, end_id: int, source: Path | None = None
    ) -> None:
        """Use `builtin` or `from_directory`. Raises ValueError for a word that does not round-trip.

        source: the directory that holds the tokenizer's own files, which `save` copies; None: the built-in one.
        """
        if mask_id in (pad_id, end_id):
            raise ValueError(
                f"tokenization: the mask id {mask_id} is also the pad or the end id ({pad_id}, {end_id}), so "
                "a hidden token looks like a visible one. Name another mask_token in tokenizer_config.json."
            )
        self.tokenizer, self._source = tokenizer, source
        self.mask_id, self.pad_id, self.end_id = mask_id, pad_id, end_id
        ids = tokenizer.get_vocab()
        self.size = max(ids.values()) + 1
        special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        self.reserved_ids = special | {*tokenizer.all_special_ids, mask_id, pad_id, end_id}
        self._literal = as_text(tokenizer)
        self._is_lossless = is_lossless(self._literal)
        reserved = [tokenizer.convert_ids_to_tokens(i) for i in sorted(self.reserved_ids) if i in ids.values()]
        longest_first = sorted(filter(None, reserved), key=len, reverse=True)
        self._reserved_text = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._ids_of_word: dict[str, tuple[int, ...]] = {}
        self._word_of_ids: dict[tuple[int, ...], str] = {}
        self._markers = {
            # our own tokenizers, saved and loaded again, have a token for each marker; others spell it
            kind: (ids[_marker(kind)],)
            if _marker(kind) in ids
            else tuple(tokenizer.encode(f"\n{kind.name.lower()}:", add_special_tokens=False))
            for kind in Kind
        }
        self.frames: Frames = Markers(self._markers, end_id)
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
    def trained(cls, texts: Iterable[str], codec: Codec, num_tokens: int) -> Vocabulary:
        """A byte-pair tokenizer (byte-level, so that it spells any text) with the merges that `texts` suggest.

        A digit is always a token of its own: a number is then written alike wherever it stands, and can be copied.
        The same texts in the same order give the same ids.

        Args:
          texts: of the training split.
          codec: of the trajectories, one of running text.
          num_tokens: rows of the embedding at most: 256 bytes, the reserved tokens, and merges.
        """
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        backend.decoder = decoders.ByteLevel()  # type: ignore[assignment]
        backend.post_processor = processors.ByteLevel(trim_offsets=False)  # type: ignore[assignment]
        markers = [_marker(kind) for kind in Kind]
        trainer = trainers.BpeTrainer(
            vocab_size=num_tokens,
            special_tokens=[PAD, MASK, END, *markers],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        backend.train_from_iterator(without_reserved(texts, [PAD, MASK, END, *markers]), trainer)
        from transformers import PreTrainedTokenizerFast  # late: importing it takes a second and speaks

        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend, pad_token=PAD, mask_token=MASK, eos_token=END, extra_special_tokens=markers
        )
        ids = tokenizer.get_vocab()
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
        tokenizer = open_tokenizer(directory)
        end_id = tokenizer.eos_token_id
        if end_id is None:
            raise ValueError(
                f"tokenization: the tokenizer in {directory} has no eos_token, which ends units. Name it in "
                "tokenizer_config.json."
            )
        mask_id = find_mask_id(tokenizer, directory)
        pad_id = end_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        return cls(tokenizer, codec, mask_id=mask_id, pad_id=pad_id, end_id=end_id, source=directory)

    def for_codec(self, codec: Codec) -> Vocabulary:
        """The same tokenizer for the words of another codec. Raises ValueError for a word that does not survive it."""
        ids = {"mask_id": self.mask_id, "pad_id": self.pad_id, "end_id": self.end_id}
        return Vocabulary(self.tokenizer, codec, **ids, source=self._source)

    def with_chat_frames(self, version: int = VERSION) -> Vocabulary:
        """The same, with the frames of the tokenizer's chat template, of a version of ours. Raises ValueError as
        `frames.ChatFrames`."""
        other = copy.copy(self)
        other.frames = ChatFrames(self.tokenizer, self.end_id, frozenset(self.reserved_ids), version)
        return other

    def save(self, directory: str | Path) -> None:
        """Writes the tokenizer's files: a model's own byte for byte, the built-in one's as transformers 4 and 5 both
        open them. `from_directory` and `AutoTokenizer` give the same ids."""
        directory = Path(directory)
        if self._source is None:
            tokenizer_files.write(self.tokenizer, directory)
        else:
            is_named = self.tokenizer.mask_token_id is not None
            tokenizer_files.copy(self._source, directory, None if is_named else self.mask_id)

    def sha256(self) -> str:
        """Of what the tokenizer does, in hex: every token's id, mask, pad and end, the frames and the lexicon's words.
        The same for a tokenizer saved in another format; another one for two tokens that changed places."""
        content = [
            sorted(self.tokenizer.get_vocab().items()),
            [self.mask_id, self.pad_id, self.end_id], self.frames.content(),
            [[word, self.encode_slot(word)] for word in self._known_words],
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def frame(self, kind: Kind) -> tuple[int, ...]:
        """The ids of the marker that stands before a unit of this kind."""
        return self._markers[kind]

    def encode_text(self, text: str) -> tuple[list[int], list[int]]:
        """The ids of running text, and where in the text each one's first character that is no space stands.

        What spells a reserved token ("<|mask|>" in a log) is text like any other: it never becomes that token.

        Raises:
          ValueError: when the text does not come back from its ids (but for Unicode's NFC).
        """
        ids: list[int] = []
        places: list[int] = []
        for start, part in cut(text, self._reserved_text):
            encoded = self._literal.encode(part, add_special_tokens=False)
            ids += encoded.ids
            places += [start + place + num_spaces(part[place:end]) for place, end in encoded.offsets]
        if self._is_lossless:  # by construction: half the work of tokenising would be to look
            return ids, places
        decoded = self.decode_text(ids)
        if self.reserved_ids.intersection(ids) or decoded not in (text, unicodedata.normalize("NFC", text)):
            at = next((i for i, (a, b) in enumerate(zip(text, decoded, strict=False)) if a != b), len(decoded))
            raise ValueError(
                f"tokenization: the text {text[max(0, at - 20) : at + 20]!r} does not survive the tokenizer: it comes "
                f"back as {decoded[max(0, at - 20) : at + 20]!r}. Use another tokenizer (data.tokenizer), or skip such "
                "records (data.on_bad_record=skip)."
            )
        return ids, places

    def count_tokens(self, texts: Sequence[str]) -> list[int | ValueError]:
        """How many ids `encode_text` gives each text, all of them at once; an error where it would raise one."""
        counts: list[int | ValueError] = [0] * len(texts)
        plain = [i for i, text in enumerate(texts) if self._is_lossless and not self._reserved_text.search(text)]
        batch = self._literal.encode_batch_fast([texts[i] for i in plain], add_special_tokens=False)
        for i, encoded in zip(plain, batch, strict=True):
            counts[i] = len(encoded.ids)
        for i in sorted(set(range(len(texts))).difference(plain)):
            try:
                counts[i] = len(self.encode_text(texts[i])[0])
            except ValueError as error:
                counts[i] = error
        return counts

    def decode_text(self, ids: Sequence[int]) -> str:
        """The text of running ids: the inverse of `encode_text`; tokens that no text has are spelled out."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def has_id(self, token_id: int) -> bool:
        """Whether a token of the vocabulary has this id."""
        return token_id in self.tokenizer.get_vocab().values()

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
        if self.reserved_ids.intersection(ids):
            raise ValueError(f"tokenization: the word {word!r} spells a reserved token of the tokenizer: {list(ids)}.")
        if not ids or self._decode(ids) != word:
            raise ValueError(
                f"tokenization: the word {word!r} does not survive the tokenizer: {list(ids)} decode to "
                f"{self._decode(ids)!r}. Use another word in the codec, or another tokenizer."
            )
