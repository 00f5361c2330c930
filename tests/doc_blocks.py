"""The pages of the project and the code in them: fenced blocks, and the spans of code in the text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *sorted(ROOT.glob("README*.md")),
    *(ROOT / name for name in ("CONTRIBUTING.md", "deploy/serving/README.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
]
RUN = ("bash", "python", "yaml")  # what the tests look into; "text" is only shown
_FENCE = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^>]+) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """One fenced block; ``reason`` is that of ``<!-- not run: reason -->`` on the line before it."""

    where: str
    language: str
    text: str
    reason: str


def read(page: Path) -> str:
    """The page's text."""
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str = "") -> list[Block]:
    """The fenced blocks of a page in order, of one language if it is named."""
    text = read(page)
    found = []
    for fence in _FENCE.finditer(text):
        line = text.count("\n", 0, fence.start("text"))
        where = f"{page.relative_to(ROOT)}:{line}"
        found.append(Block(where, fence["language"], fence["text"], fence["reason"] or ""))
    return [block for block in found if language in ("", block.language)]


def without_blocks(page: Path) -> str:
    """The page's text outside its fenced blocks."""
    return _FENCE.sub("", read(page))


def spans(page: Path) -> list[str]:
    """What stands between single backticks; in a table ``\\|`` means ``|``."""
    return [span.replace("\\|", "|") for span in re.findall(r"`([^`\n]+)`", without_blocks(page))]
