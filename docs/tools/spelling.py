"""Spelling of the documents: what neither the language's dictionary nor docs/words.txt knows."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Final, Literal

from spellchecker import SpellChecker

from docs.tools.markdown_files import PROJECT_DIR, prose

WORDS: Final = PROJECT_DIR / "docs/words.txt"
Language = Literal["en", "fr"]


def unknown_words(markdown: str, language: Language) -> list[str]:
    """Words of the running text that may be misspelt, sorted."""
    return sorted(_dictionary(language).unknown(_words(prose(markdown), language)))


def _words(text: str, language: Language) -> Iterator[str]:
    """Words in small letters, without 's or l'; single letters, and what has capitals or digits inside, are none."""
    text = re.sub(r"https?://\S+", "", text).replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    for word in re.findall(r"(?<![\w./-])[^\W\d_]+(?:'[^\W\d_]+)?(?![\w/]|\.\w)", text):
        if word[1:] == word[1:].lower():
            parts = word.lower().split("'")
            if len(bare := parts[-1 if language == "fr" else 0]) > 1:
                yield bare


@cache
def _dictionary(language: Language) -> SpellChecker:
    dictionary = SpellChecker(language=language, distance=1)
    dictionary.word_frequency.load_words(WORDS.read_text(encoding="utf-8").split())
    return dictionary
