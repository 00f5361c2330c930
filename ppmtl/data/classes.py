"""Class lists from files: a text file, the categories of a COCO file, or the words of caption files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ppmtl.data.findings import Finding, refuse, shorten
from ppmtl.data.listing import read_json, read_text
from ppmtl.ops.words import SPECIAL, words
from ppmtl.structures import IGNORE_LABEL, ClassList

# Label descriptions often list the ignore label beside the classes ("255 ignore"); it is not a class.
_IGNORE_NAMES = {"ignore", "ignored", "unlabelled", "unlabeled", "void"}


def read_class_file(path: str | Path) -> ClassList:
    """The classes of a text file or of a COCO file (``.json``).

    A text file has one name per line (line 1 is class 0), or ``id name`` on EVERY line; then the classes are sorted by
    id, and a line like ``255 ignore`` is not counted as a class. Blank lines are skipped. Names that all begin with
    different numbers ("30 km/h", "50 km/h") would be taken for ids: write ``id name`` in such a file.

    Raises:
        ValueError: if the file cannot be read, lists nothing, or a name or an id twice; the message names the file.
    """
    path = Path(path)
    if path.suffix.lower() == ".json":
        return read_categories(path)
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    pairs = [line.split(maxsplit=1) for line in lines]
    if all(len(pair) == 2 and pair[0].isdecimal() for pair in pairs):
        numbered = sorted((int(number), name) for number, name in pairs)
        return _class_list(
            path, [(i, name) for i, name in numbered if i != IGNORE_LABEL or name.casefold() not in _IGNORE_NAMES]
        )
    return _class_list(path, list(enumerate(lines)))


def read_categories(json_path: str | Path) -> ClassList:
    """The categories of a COCO file in the file's order (the order of pycocotools' ``getCatIds``).

    Raises:
        ValueError: if the file has no usable ``categories`` list, or a name or an id twice; the message names the file.
    """
    path = Path(json_path)
    content = read_json(path)
    categories = content.get("categories") if isinstance(content, dict) else None
    if not isinstance(categories, list) or not categories:
        raise ValueError(f"{path}: has no 'categories' list, so it names no classes; give a COCO file that has one")
    bad = [
        f"categories[{i}]: {c!r}"
        for i, c in enumerate(categories)
        if not (isinstance(c, dict) and type(c.get("id")) is int and isinstance(c.get("name"), str))
    ]
    if bad:
        raise ValueError(f"{path}: {len(bad)} categories lack a whole-number 'id' or a text 'name':\n{shorten(bad)}")
    return _class_list(path, [(c["id"], c["name"]) for c in categories])


def read_vocabulary(paths: Sequence[str | Path], min_count: int) -> ClassList:
    """The words of COCO caption files that occur at least ``min_count`` times, the most frequent first, after [PAD] and others.

    Raises:
        ValueError: if a file has no list ``annotations``.
        DataError: with every annotation that has no caption.
    """
    counts: Counter[str] = Counter()
    for path in map(Path, paths):
        content = read_json(path)
        annotations = content.get("annotations") if isinstance(content, dict) else None
        if not isinstance(annotations, list) or not annotations:
            raise ValueError(f"{path}: has no 'annotations' list, so there are no captions to take words from")
        problems = {i: text for i, a in enumerate(annotations) if (text := caption_problem(a))}
        if problems:
            found = [Finding(f"{path}: annotations[{i}]", text, kind="bad_caption") for i, text in problems.items()]
            refuse(path, f"{len(problems)} annotations are no captions", found)
        captions = (a["caption"] for i, a in enumerate(annotations) if i not in problems)
        counts.update(word for caption in captions for word in words(caption))
    known = sorted(
        (word for word, count in counts.items() if count >= min_count), key=lambda word: (-counts[word], word)
    )
    return ClassList((*SPECIAL, *known))


def caption_problem(annotation: Any) -> str:
    """What is wrong with the text of an entry of ``annotations`` of a caption file, or an empty string."""
    caption = annotation.get("caption") if isinstance(annotation, dict) else None
    if not isinstance(caption, str) or not words(caption):
        return f"needs a text 'caption' with at least one word, got {caption!r}"
    return ""


def _class_list(path: Path, pairs: Sequence[tuple[int, str]]) -> ClassList:
    if not pairs:
        raise ValueError(f"{path}: lists no classes; write one name per line, or 'id name'")
    ids, names = zip(*pairs, strict=True)
    for what, values in (("name", names), ("id", ids)):
        if twice := [value for value, count in Counter(values).items() if count > 1]:
            raise ValueError(f"{path}: every class {what} must be there once, these are repeated:\n{shorten(twice)}")
    return ClassList(names, ids)
