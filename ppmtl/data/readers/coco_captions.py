"""Captions: sentences from a COCO caption file (COCO, Flickr8k and others in its form)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppmtl.data.classes import caption_problem
from ppmtl.data.findings import Finding, refuse
from ppmtl.data.labels import Captions
from ppmtl.data.listing import read_json, require_files
from ppmtl.data.reader import Reader
from ppmtl.data.readers.coco import image_entries
from ppmtl.ops.words import numbered, words
from ppmtl.structures import ClassList, Label


class COCOCaptions(Reader):
    """Images of a folder with the sentences that a COCO caption file gives them; an image without any has no label.

    Args:
        root: where relative paths start.
        tasks: the one task and its vocabulary.
        images: folder that the ``file_name`` entries start from.
        annotations: the caption file.

    Raises:
        ValueError: if it is no COCO file.
        DataError: with every wrong id or text, and every missing image.
    """

    def __init__(self, root: str | Path, tasks: Mapping[str, ClassList], *, images: str, annotations: str) -> None:
        super().__init__(root, tasks)
        self._task, vocabulary = self.only_task()
        self._json, self._folder = self.root / annotations, self.root / images
        content = read_json(self._json)
        entries, wrong = image_entries(self._json, content)
        texts: dict[int, list[str]] = {image_id: [] for image_id in entries}
        for position, annotation in enumerate(content["annotations"]):
            problem, kind = caption_problem(annotation), "bad_caption"
            if not problem and (type(image_id := annotation.get("image_id")) is not int or image_id not in texts):
                problem, kind = f"image_id {image_id!r} is not in 'images'", "dangling_image_id"
            if problem:
                wrong.append(Finding(f"{self._json}: annotations[{position}]", problem, kind=kind))
            else:
                texts[annotation["image_id"]].append(annotation["caption"])
        if wrong:
            refuse(self._json, f"{len(wrong)} wrong entries; correct them", wrong)
        self.remarks += self._unknown_words(texts.values(), vocabulary)
        self._files = [self._folder / entry.file_name for entry in entries.values()]
        self._ids = list(entries)
        self._texts = [tuple(of_image) for of_image in texts.values()]
        require_files(self._json, self._files)

    def _unknown_words(self, texts: Iterable[Sequence[str]], vocabulary: ClassList) -> list[Finding]:
        """A note on every word that the vocabulary cannot write, the most frequent first; none if it is only counted."""
        index = {piece: number for number, piece in enumerate(vocabulary.names)}
        if "[UNK]" not in index:
            return []
        counts = Counter(word for of_image in texts for text in of_image for word in words(text))
        unknown, text = index["[UNK]"], "'{}' ({} x) is not in the vocabulary and read as [UNK]"
        return [
            Finding(str(self._json), text.format(word, count), "note", "unknown_word")
            for word, count in counts.most_common()
            if word not in index and unknown in numbered(word, index)
        ]

    @staticmethod
    def required_paths(root: str | Path, tasks: Sequence[str], **settings: Any) -> list[Path]:  # noqa: ARG004
        return [Path(root) / settings["images"], Path(root) / settings["annotations"]]

    def __len__(self) -> int:
        return len(self._files)

    def path(self, index: int) -> str:
        return str(self._files[index])

    def image_id(self, index: int, task: str) -> int:  # noqa: ARG002
        """The file's own ``id``."""
        return self._ids[index]

    def labels(self, index: int, image: np.ndarray) -> dict[str, Label]:  # noqa: ARG002
        """The sentences of the image, as the file has them."""
        return {self._task: Captions(self._texts[index])} if self._texts[index] else {}

    def describe(self) -> str:
        without = sum(not texts for texts in self._texts)
        count = sum(map(len, self._texts))
        return f"{self._json.name}: {len(self)} images ({without} without captions), {count} captions"
