"""Five sentences about a drawn street: how many of what, in which colour, where, in what weather; each worded differently."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from demo_data.classes import BUILDING, TERRAIN, VEGETATION
from demo_data.draw import Color
from demo_data.objects import OBJECT_CLASSES, SeenObject
from demo_data.weather import Conditions

PER_IMAGE = 5
_COLORS: dict[str, Color] = {
    "red": (196, 40, 44), "blue": (40, 84, 165), "white": (230, 228, 222), "black": (54, 54, 60), "grey": (140, 146, 154),
    "yellow": (236, 186, 48), "green": (60, 124, 84), "brown": (126, 74, 48), "purple": (120, 60, 116),
    "orange": (228, 126, 40), "beige": (206, 190, 150), "light blue": (110, 185, 214),
}  # fmt: skip
_NUMBERS = ("no", "one", "two", "three", "four", "five")
_NAMES: dict[str, tuple[tuple[str, str], ...]] = {
    "person": (("person", "people"), ("pedestrian", "pedestrians")),
    "bicycle": (("bicycle", "bicycles"), ("bike", "bikes")),
    "motorcycle": (("motorcycle", "motorcycles"), ("motorbike", "motorbikes")),
    "car": (("car", "cars"),),
    "truck": (("truck", "trucks"), ("lorry", "lorries")),
    "bus": (("bus", "buses"),),
    "tram": (("tram", "trams"),),
}
_SPOKEN_SHARE = 0.0025  # of the image: what is smaller is not worth a word
_TIMES = {"day": ("day", "in daylight", "during the day"), "dusk": ("evening", "at dusk", "in the evening"),
          "night": ("night", "at night", "in the dark")}  # fmt: skip
_FOG = 0.015  # haze beyond which one would speak of fog


@dataclass(frozen=True)
class _Group:
    """Objects of one kind: how many, where they are, and the colour of the largest."""

    kind: str
    count: int
    color: str
    where: str


def describe(
    rng: np.random.Generator, objects: Sequence[SeenObject], label_map: np.ndarray, conditions: Conditions
) -> list[str]:
    """Returns five sentences about a scene; ``rng`` chooses the words, never the facts."""
    groups, speaker = _groups(objects, label_map.shape), _Speaker(rng, label_map, conditions)
    forms = _EMPTY if not groups else _ALONE if len(groups) == 1 else _TOGETHER
    chosen = rng.permutation(len(forms))[:PER_IMAGE]
    return [_sentence(forms[number](speaker, *groups)) for number in chosen.tolist()]


def _groups(objects: Sequence[SeenObject], size: tuple[int, ...]) -> list[_Group]:
    """The two kinds that cover most of the image; signs and lights are in every street and not spoken of."""
    spoken: dict[str, list[SeenObject]] = {}
    for thing in objects:
        if (kind := OBJECT_CLASSES[thing.index]) in _NAMES and thing.area >= _SPOKEN_SHARE * size[0] * size[1]:
            spoken.setdefault(kind, []).append(thing)
    ranked = sorted(spoken.items(), key=lambda item: -sum(thing.area for thing in item[1]))
    groups = []
    for kind, things in ranked[:2]:
        largest = max(things, key=lambda thing: thing.area)
        places = {_place(thing, size[1]) for thing in things}
        where = "on both sides" if {"on the left", "on the right"} <= places else _place(largest, size[1])
        groups.append(_Group(kind, len(things), _color_name(largest.color), where))
    return groups


def _place(thing: SeenObject, width: int) -> str:
    middle = (thing.box[0] + thing.box[2] / 2) / width
    return "on the left" if middle < 0.4 else "on the right" if middle > 0.6 else "in the middle"


def _color_name(color: Color) -> str:
    distances = {name: sum((a - b) ** 2 for a, b in zip(color, value, strict=True)) for name, value in _COLORS.items()}
    return min(distances, key=lambda name: distances[name])


def coco_captions(images: list[dict[str, Any]], texts: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Returns a COCO dictionary of the sentences of every image."""
    rows = [(image["id"], text) for image, own in zip(images, texts, strict=True) for text in own]
    annotations = [{"id": number, "image_id": image, "caption": text} for number, (image, text) in enumerate(rows, 1)]
    return {"images": images, "annotations": annotations}


class _Speaker:
    """Chooses among words that say the same."""

    def __init__(self, rng: np.random.Generator, label_map: np.ndarray, conditions: Conditions) -> None:
        self._rng = rng
        self._shares = np.bincount(label_map.ravel(), minlength=256) / label_map.size
        self._light = conditions.light
        fog = "fog" if conditions.haze > _FOG else ""
        self._weather = {"rain": "rain", "snow": "snow"}.get(conditions.falling, fog)

    def pick(self, *words: str) -> str:
        return words[int(self._rng.integers(len(words)))]

    def subject(self, group: _Group) -> str:
        singular, plural = _NAMES[group.kind][int(self._rng.integers(len(_NAMES[group.kind])))]
        if group.count > 1:
            return f"{_NUMBERS[group.count] if group.count < len(_NUMBERS) else 'several'} {plural}"
        if group.kind == "person":
            return _with_article(f"{singular} in {group.color}" if self._rng.random() < 0.5 else singular)
        return _with_article(f"{group.color} {singular}" if self._rng.random() < 0.8 else singular)

    def street(self) -> str:
        """What kind of street it is, by what lines it."""
        if self._shares[BUILDING] > 0.16:
            return self.pick("city street", "street between houses")
        if self._shares[VEGETATION] + self._shares[TERRAIN] > 0.2:
            return self.pick("green street", "street with trees")
        return self.pick("street", "road")

    def when(self) -> str:
        """Weather and time of day as the end of a sentence."""
        time, *phrases = _TIMES[self._light]
        if not self._weather:
            return self.pick(*phrases)
        adjective = {"rain": "rainy", "snow": "snowy", "fog": "foggy"}[self._weather]
        return self.pick(f"on a {adjective} {time}", f"in the {self._weather} {phrases[0]}")

    def scene(self) -> str:
        """The street with weather and time of day before it; a dry day needs no word."""
        weather = {"rain": "rainy ", "snow": "snowy ", "fog": "foggy "}.get(self._weather, "")
        return _with_article(weather + {"day": "", "dusk": "dusky ", "night": "dark "}[self._light] + self.street())


def _with_article(text: str) -> str:
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _be(group: _Group) -> str:
    return "is" if group.count == 1 else "are"


def _moves(group: _Group) -> str:
    verb = {"person": "walk", "bicycle": "stand", "motorcycle": "stand"}.get(group.kind, "drive")
    return verb + "s" * (group.count == 1)


_Form = Callable[..., str]  # of a speaker and as many groups as there are
_EMPTY: tuple[_Form, ...] = (
    lambda s: f"an empty {s.street()} {s.when()}",
    lambda s: f"{s.scene()} without any traffic",
    lambda s: f"there is nobody on the {s.street()} {s.when()}",
    lambda s: f"no cars are on the {s.street()} {s.when()}",
    lambda s: f"a quiet {s.street()} {s.when()}",
)
_ALONE: tuple[_Form, ...] = (
    lambda s, a: f"{s.subject(a)} on a {s.street()} {s.when()}",
    lambda s, a: f"{s.scene()} with {s.subject(a)} {a.where}",
    lambda s, a: f"there {_be(a)} {s.subject(a)} {a.where} of the {s.street()} {s.when()}",
    lambda s, a: f"{s.subject(a)} {_moves(a)} {s.pick('along', 'on')} a {s.street()} {s.when()}",
    lambda s, a: f"{s.subject(a)} {a.where} of {s.scene()}",
    lambda s, a: f"{s.subject(a)} can be seen {a.where} {s.when()}",
)
_TOGETHER: tuple[_Form, ...] = (
    lambda s, a, b: f"{s.subject(a)} and {s.subject(b)} on a {s.street()} {s.when()}",
    lambda s, a, b: f"{s.scene()} with {s.subject(a)} and {s.subject(b)}",
    lambda s, a, b: f"there {_be(a)} {s.subject(a)} {a.where} and {s.subject(b)} {b.where}",
    lambda s, a, _b: f"{s.subject(a)} {_moves(a)} {s.pick('along', 'on')} a {s.street()} {s.when()}",
    lambda s, a, b: f"{s.subject(a)} {s.pick('near', 'close to')} {s.subject(b)} {s.when()}",
    lambda s, a, b: f"{s.subject(a)} {a.where} of {s.scene()} with {s.subject(b)}",
)
