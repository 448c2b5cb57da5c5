"""What the Markdown files of the project say, as its site and its tests need it: links, anchors, code blocks."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token

PROJECT_DIR: Final = Path(__file__).resolve().parents[2]
PARSER: Final = MarkdownIt("commonmark").enable("table")


@dataclass(frozen=True)
class Block:
    """A fenced code block.

    Attributes:
        language: The word behind the fence; empty if there is none.
        text: What is in it.
        line: Line of its fence, from 1.
    """

    language: str
    text: str
    line: int


def markdown_files() -> list[Path]:
    """README and its like, and the pages of docs/."""
    return sorted(PROJECT_DIR.glob("*.md")) + sorted((PROJECT_DIR / "docs").glob("*.md"))


def links(text: str) -> list[str]:
    """Targets of all links and pictures, as they are written."""
    found = []
    for token in _inline_tokens(text):
        target = token.attrGet("href") if token.type == "link_open" else token.attrGet("src")
        if token.type in {"link_open", "image"} and isinstance(target, str):
            found.append(target)
    return found


def is_relative(target: str) -> bool:
    """Whether a link leads to a file of the project."""
    return not re.match(r"[a-z][a-z0-9+.-]*:|#|//", target)


def headings(text: str) -> list[str]:
    """Headings in order, without their markup."""
    tokens = PARSER.parse(text)
    return [
        "".join(child.content for child in inline.children or ())
        for opening, inline in pairwise(tokens)
        if opening.type == "heading_open"
    ]


def anchors(text: str) -> set[str]:
    """What GitHub calls the headings in addresses: small letters, hyphens for spaces, numbers on repeated ones."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in headings(text):
        name = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        found.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return found


def blocks(text: str) -> list[Block]:
    """All fenced code blocks."""
    return [
        Block(token.info.strip(), token.content, token.map[0] + 1 if token.map else 0)
        for token in PARSER.parse(text)
        if token.type == "fence"
    ]


def inline_code(text: str) -> list[str]:
    """All code in running text."""
    return [token.content for token in _inline_tokens(text) if token.type == "code_inline"]


def prose(text: str) -> str:
    """The words that a reader reads: no code, no addresses, a line for each paragraph, heading or cell."""
    return "\n".join(
        " ".join(child.content for child in token.children or () if child.type in {"text", "image"})
        for token in PARSER.parse(text)
        if token.type == "inline"
    )


def _inline_tokens(text: str) -> Iterator[Token]:
    for token in PARSER.parse(text):
        yield from token.children or ()
