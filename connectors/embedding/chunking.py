"""Cuts a text into pieces that a model reads whole, at sentence and paragraph ends if possible. Pure computation."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from semantic_text_splitter import TextSplitter
from tokenizers import Tokenizer

from connectors.errors import EmbeddingFailed, Misconfigured

# A megabyte takes ten seconds of one core. A text longer than a section is cut section by section, so that its progress
# is visible.
_SECTION_CHARACTERS = 32 * 1024
_SECTION_WINDOWS = 64
# Where a section may end, within its last quarter; the best first.
_ENDS = ("\n\n", "\n", ". ", " ")
# A smaller chunk cannot hold a sentence, and a single rare character may take several tokens.
MINIMUM_TOKENS = 8


def plain_tokenizer(serialised: str) -> Tokenizer:
    """Return a new tokenizer from its JSON form, one that neither truncates nor pads."""
    tokenizer: Tokenizer = Tokenizer.from_str(serialised)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


class Chunker:
    """Chunks of at most `max_tokens` tokens, special tokens not counted; neighbours share up to `overlap_tokens`.

    Safe to use from several threads; the compiled splitter lets other threads run. Without overlap the chunks hold
    every character of the text in order, except white space at their ends. Two sections of a long text share nothing.
    """

    def __init__(self, tokenizer: Tokenizer, max_tokens: int, overlap_tokens: int) -> None:
        if max_tokens < MINIMUM_TOKENS:
            raise Misconfigured(f"chunk_tokens is {max_tokens}, the least is {MINIMUM_TOKENS}")
        if not 0 <= overlap_tokens < max_tokens:
            raise Misconfigured(f"chunk_overlap is {overlap_tokens}, it must be below the chunk's {max_tokens} tokens")
        self.max_tokens = max_tokens
        self.overlap_tokens = overlap_tokens
        self._tokenizer = tokenizer
        self._section = max(_SECTION_CHARACTERS, _SECTION_WINDOWS * max_tokens)
        self._splitter = TextSplitter.from_huggingface_tokenizer(tokenizer, max_tokens, overlap=overlap_tokens)

    def tokens(self, text: str) -> int:
        """Return the number of tokens, special tokens not counted."""
        try:
            return len(self._tokenizer.encode(text, add_special_tokens=False))
        except (TypeError, UnicodeError) as error:
            raise EmbeddingFailed("the text is not valid Unicode (a lone surrogate)") from error

    def chunks(self, text: str, progress: Callable[[], None] = lambda: None) -> tuple[str, ...]:
        """Return the chunks, at least one. A text without content gives one empty chunk.

        `progress` is called after each section of a long text.
        """
        stripped = text.strip()
        if len(stripped) <= self._section and self.tokens(stripped) <= self.max_tokens:
            return (stripped,)
        pieces: list[str] = []
        for section in self._sections(stripped):
            self.tokens(section)  # refuses text that is not valid Unicode
            for chunk in self._splitter.chunks(section):
                pieces += self._fitting(chunk)
            progress()
        return tuple(pieces) or ("",)

    def _sections(self, text: str) -> Iterator[str]:
        begin = 0
        while len(text) - begin > self._section:
            latest = begin + self._section
            found = ((text.rfind(mark, latest - self._section // 4, latest), mark) for mark in _ENDS)
            end = next((at + len(mark) for at, mark in found if at >= 0), latest)
            yield text[begin:end]
            begin = end
        yield text[begin:]

    def _fitting(self, chunk: str) -> list[str]:
        # The splitter assumes that a longer text has more tokens. A tokenizer that merges need not follow that.
        if len(chunk) == 1 or self.tokens(chunk) <= self.max_tokens:
            return [chunk]
        middle = len(chunk) // 2
        return self._fitting(chunk[:middle]) + self._fitting(chunk[middle:])
