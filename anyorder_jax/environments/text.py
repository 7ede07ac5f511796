"""Text: the codec of episodes whose environment is not here. Every unit is free text, any words, no fixed slots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from anyorder_jax.types import Field, Kind, Slot, Unit


class TextCodec:
    """Between free text and its words: what stands between two spaces, line breaks included (a `Codec`)."""

    name = "text"

    def lexicon(self) -> Mapping[Field, Sequence[str]]:
        """No words: they need a tokenizer that spells any (`data.tokenizer`)."""
        return {}

    def slots(self, unit: Unit) -> list[Slot]:
        """The words in order, each a cell. Raises ValueError for a unit that has no text."""
        if unit.text is None:
            raise ValueError(
                f"text: the {unit.kind.name.lower()} of step {unit.step} has structured data, which only the codec of "
                "its environment can spell. Register that (environments/registry.py), or write text."
            )
        return [Slot(word, Field.TEXT, i, i) for i, word in enumerate(unit.text.split(" "))]

    def unit(self, kind: Kind, step: int, words: Sequence[str]) -> Unit:
        """The inverse of `slots`."""
        return Unit(kind, step, text=" ".join(words))
