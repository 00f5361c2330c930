"""A sentence that describes the image.

Raw contract: ``tokens`` (B, T) float32, whole numbers of the vocabulary without begin, the end and padding after it;
``log_probs`` (B,) float32, the mean log probability of the sentence's tokens, its end included.

The vocabulary is the task's class list, one piece per class: "[PAD]" first; "[UNK]", "[BOS]" or "[CLS]", and "[EOS]" or "[SEP]"
somewhere.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import Ge
from typing_extensions import TypedDict

from ppmtl.data import labels
from ppmtl.ops.caption_scores import bleu, cider_d
from ppmtl.ops.drawing import write_lines
from ppmtl.ops.words import SPECIAL, numbered, sentence, words
from ppmtl.structures import ImageMeta, Label, Sample, Size
from ppmtl.tasks.base import ListMeter, Merge, Meter, Metrics, Raw, Task

_BLEU = ("bleu1", "bleu2", "bleu3", "bleu4")
_CONSTANTS = 5  # sentences that are tried as the answer to every image; each costs one CIDEr-D of the data set


class FoundCaption(TypedDict):
    """The sentence, and the geometric mean of its tokens' probabilities."""

    caption: str
    score: float


@dataclass(frozen=True)
class Caption:
    """A sentence about one image: ``text`` without special tokens, ``score`` in 0..1."""

    text: str
    score: float


@dataclass(eq=False, kw_only=True)
class Captions(Task[Caption]):
    """What does the image show, in one sentence? CIDEr-D is the measure; BLEU-1 to 4 are reported beside it.

    So is what sentences that ignore the images would score: see the meter's ``result``.

    Args:
        captions_per_image: so many [sentences] of an image are targets of one step, drawn at random.
        max_length: [tokens] of a target, begin and end included; longer sentences are cut.
        allow: transforms that may make a sentence untrue are refused in views that train this task, but for these:
            "mirror" turns left into right, "mix" shows other images too (mosaic, mixup, copy-paste). For comparison.
    """

    task_type: ClassVar[str] = "captions"
    label_type: ClassVar[type[Label]] = labels.Captions
    json_type: ClassVar[Any] = FoundCaption
    tolerances: ClassVar[Mapping[str, float]] = {"tokens": 0.0, "log_probs": 1e-3}
    layer: ClassVar[int] = 2
    names_classes: ClassVar[bool] = False
    mirrors: ClassVar[bool] = False

    captions_per_image: Annotated[int, Ge(1)] = 1
    max_length: Annotated[int, Ge(3)] = 40
    allow: tuple[Literal["mirror", "mix"], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self._index = {piece: number for number, piece in enumerate(self.classes.names)}
        if self.classes.names == tuple(map(str, range(len(self.classes)))):  # only counted, to look at the model
            self._index |= {piece: number for number, piece in enumerate(SPECIAL)}
        found = [
            next((self._index[name] for name in names if name in self._index), None)
            for names in (("[PAD]",), ("[UNK]",), ("[BOS]", "[CLS]"), ("[EOS]", "[SEP]"))
        ]
        pad, unknown, begin, end = found
        if pad != 0 or unknown is None or begin is None or end is None:
            raise ValueError(
                f"tasks.{self.name}.classes: a vocabulary needs [PAD] as its first line, [UNK], [BOS] or [CLS], and [EOS] or "
                f"[SEP]; got {len(self.classes)} pieces that begin with {', '.join(self.classes.names[:5])}; give a BERT "
                "vocabulary as classes.names, or caption files as classes.captions to build one"
            )
        self._unknown, self._begin, self._end = unknown, begin, end

    def refuses(self, transform: Callable[..., Any]) -> str:
        """Why a view with this transform cannot supervise the task, or an empty text; see ``allow``."""
        name = type(transform).__name__
        for kind, does, why in (
            ("mirror", getattr(transform, "mirrors", False), "turns left into right"),
            ("mix", getattr(transform, "mixes", False), "shows what the sentences do not speak of"),
        ):
            if does and kind not in self.allow:
                return (
                    f"{name} {why}, so the captions become untrue; train task '{self.name}' with a view of its own without "
                    f"it, or set tasks.{self.name}.allow to [{kind}] to try all the same"
                )
        return ""

    def collate(self, samples: Sequence[Sample]) -> dict[str, np.ndarray]:
        """{"tokens": (B, captions_per_image, L) int64}, begin to end, then padding 0; a missing sentence is only padding."""
        count = self.captions_per_image
        known = [self.label_or_none(sample, labels.Captions) for sample in samples]
        rows = [[self._encoded(text) for text in label.texts[:count]] if label else [] for label in known]
        longest = max((len(tokens) for of_image in rows for tokens in of_image), default=2)
        targets = np.zeros((len(samples), count, longest), np.int64)
        for image, of_image in enumerate(rows):
            for place, tokens in enumerate(of_image):
                targets[image, place, : len(tokens)] = tokens
        return {"tokens": targets}

    def for_head(self) -> Mapping[str, Any]:
        """The numbers of the tokens that begin and end a sentence, ``bos`` and ``eos``, and of ``unknown`` words."""
        return {"bos": self._begin, "eos": self._end, "unknown": self._unknown}

    def _encoded(self, text: str) -> list[int]:
        return [self._begin, *numbered(text, self._index), self._end][: self.max_length]

    def example(self, size: Size) -> labels.Captions:  # noqa: ARG002
        """Six words of the vocabulary, and the same in reverse."""
        known = [name for name in self.classes.names if words(name) == [name]] or ["word"]
        some = [known[place % len(known)] for place in range(6)]
        return labels.Captions((" ".join(some), " ".join(reversed(some))))

    def raw_shapes(self, batch: int, size: Size) -> dict[str, tuple[int | None, ...]]:  # noqa: ARG002
        """{"tokens": (B, T), "log_probs": (B,)}, any T."""
        return {"tokens": (batch, None), "log_probs": (batch,)}

    def perfect_raw(self, label: Label, size: Size) -> dict[str, np.ndarray]:  # noqa: ARG002
        """The first sentence with probability 1."""
        assert isinstance(label, labels.Captions)
        tokens = np.array([self._encoded(label.texts[0])[1:]], np.float32)
        return {"tokens": tokens, "log_probs": np.zeros(1, np.float32)}

    def decode(self, raw: Raw, index: int, meta: ImageMeta, *, single: bool) -> Caption:  # noqa: ARG002
        """The sentence up to its end."""
        tokens = np.asarray(raw["tokens"][index]).astype(np.int64).tolist()
        before = tokens[: tokens.index(self._end)] if self._end in tokens else tokens
        text = sentence([self.classes.names[token] for token in before])
        return Caption(text, math.exp(min(float(raw["log_probs"][index]), 0.0)))

    def truth(self, label: Label) -> Caption:
        """The first sentence with score 1."""
        assert isinstance(label, labels.Captions)
        return Caption(label.texts[0], 1.0)

    def new_merge(self) -> Merge[Caption]:
        """A merge that takes the sentence of the view that is surest of its own."""
        return _Surest()

    def new_meter(self) -> Meter[Caption]:
        """A meter of CIDEr-D and BLEU.

        Metrics:
            cider_d: likeness to the true sentences in words that tell images apart, 0 to 10; the primary metric
            bleu1: share of words that a true sentence of the image has too, 0 to 1
            bleu2: of words and of pairs of words, their geometric mean
            bleu3: of those and of three words in a row
            bleu4: of those and of four words in a row
            cider_d_constant: cider_d of the best of the five sentences said most often, for every image: ignores the image
            bleu4_constant: bleu4 of that sentence
            cider_d_shuffled: cider_d of the sentences of other images: says something, but not of this image
            bleu4_shuffled: bleu4 of those
        """
        return _CaptionScores(self)

    def image_score(self, sample: Sample, prediction: Caption, threshold: float) -> float:  # noqa: ARG002
        """The mean of BLEU-1 to 4 of this sentence: CIDEr-D weighs words by all images and is 0 for one."""
        references = [words(text) for text in self.label(sample, labels.Captions).texts]
        return float(np.mean(bleu([words(prediction.text)], [references])))

    def to_json(self, prediction: Caption, *, threshold: float = 0.0) -> dict[str, Any]:  # noqa: ARG002
        """{"caption": text, "score": 0..1}; a threshold does not apply."""
        return {"caption": prediction.text, "score": round(prediction.score, 5)}

    def arrays(self, prediction: Caption, *, threshold: float = 0.0) -> dict[str, Any]:  # noqa: ARG002
        """{"caption": text, "score": 0 to 1}; a threshold does not apply."""
        return {"caption": prediction.text, "score": prediction.score}

    def coco_results(self, prediction: Caption, *, threshold: float = 0.0) -> list[dict[str, Any]]:  # noqa: ARG002
        """The one row {"caption"}; a threshold does not apply."""
        return [{"caption": prediction.text}]

    def from_results(self, stored: Any, size: Size) -> Caption:  # noqa: ARG002
        """The sentence; its score is 1, files do not have it."""
        texts = [row.get("caption") for row in stored]
        if len(texts) != 1 or not isinstance(texts[0], str):
            raise ValueError(f"needs one row with a text 'caption', got {texts}")
        return Caption(texts[0], 1.0)

    def draw(self, canvas: np.ndarray, prediction: Caption, threshold: float) -> np.ndarray:  # noqa: ARG002
        """The sentence and its score on a dark strip along the lower edge, in as many lines as it needs."""
        write_lines(canvas, prediction.text, f"{prediction.score:.2f}")
        return canvas


class _Surest:
    def __init__(self) -> None:
        self._best: Caption | None = None

    def add(self, prediction: Caption) -> None:
        if self._best is None or prediction.score > self._best.score:
            self._best = prediction

    def result(self) -> Caption:
        assert self._best is not None
        return self._best


class _CaptionScores(ListMeter):
    """Keeps the words of the true sentences and of the one found."""

    def __init__(self, task: Captions) -> None:
        super().__init__()
        self._task = task

    def add(self, sample: Sample, prediction: Caption) -> None:
        self._truth.append([words(text) for text in self._task.label(sample, labels.Captions).texts])
        self._found.append(words(prediction.text))

    def result(self) -> Metrics:
        """The scores, and what they would be if the sentences ignored the images: a model has to be far above that.

        ``_constant`` gives every image the same sentence, the best in CIDEr-D of those that were said most often;
        ``_shuffled`` the one of another image (half the data set further on: neighbours may show the same).
        """
        if not self._found:
            return Metrics("cider_d", dict.fromkeys(("cider_d", *_BLEU), math.nan))
        count, half = len(self._found), len(self._found) // 2
        most_often = Counter(map(tuple, self._found)).most_common(_CONSTANTS)
        constants = [self._scores([list(said)] * count) for said, _ in most_often]
        blind = {
            "constant": max(constants, key=lambda scores: scores["cider_d"]),
            "shuffled": self._scores(self._found[half:] + self._found[:half]),
        }
        added = {f"{key}_{name}": of[key] for name, of in blind.items() for key in ("cider_d", "bleu4")}
        return Metrics("cider_d", self._scores(self._found) | added)

    def _scores(self, candidates: Sequence[list[str]]) -> dict[str, float]:
        mean = float(np.mean(cider_d(candidates, self._truth)))
        return {"cider_d": mean, **dict(zip(_BLEU, bleu(candidates, self._truth), strict=True))}
