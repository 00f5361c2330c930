"""A contact sheet of a data set with its labels drawn in, read back from the files as any reader would."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from demo_data.classes import SEG_COLORS

_COLUMNS, _TILE_WIDTH, _GAP = 3, 448, 6


def write_preview(out: Path, signs: Sequence[str], vehicles: Sequence[str]) -> None:
    """Writes ``out``/preview.png: streets, their labels, signs with boxes, vehicles with their bodies' names."""
    train = out / "track1_train_data"
    streets = _first(train / "seg/images/train", _COLUMNS)
    overlays = [_overlay(path, train / "seg/label/train" / f"{path.stem}.png") for path in streets]
    rows = [[_read(path) for path in streets], overlays, _signs(train, signs), *_vehicles(train, vehicles)]
    sheet = [_row(pictures) for pictures in rows if pictures]
    _, data = cv2.imencode(".png", cv2.cvtColor(np.concatenate(sheet), cv2.COLOR_RGB2BGR))
    (out / "preview.png").write_bytes(data.tobytes())


def _first(folder: Path, count: int) -> list[Path]:
    return sorted(folder.glob("*.jpg"))[:count]


def _read(path: Path, flags: int = cv2.IMREAD_COLOR_RGB) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), flags)
    if image is None:
        raise ValueError(f"{path} was written a moment ago and cannot be decoded")
    return np.asarray(image)


def _overlay(path: Path, label_path: Path) -> np.ndarray:
    palette = np.full((256, 3), 255, np.uint8)
    palette[: len(SEG_COLORS)] = SEG_COLORS
    colors = palette[_read(label_path, cv2.IMREAD_GRAYSCALE)]
    return np.asarray(cv2.addWeighted(_read(path), 0.3, colors, 0.7, 0))


def _signs(train: Path, names: Sequence[str]) -> list[np.ndarray]:
    coco = json.loads((train / "dec/train.json").read_text(encoding="utf-8"))
    by_image: dict[int, list[tuple[list[float], int]]] = {}
    for row in coco["annotations"]:
        by_image.setdefault(row["image_id"], []).append((row["bbox"], row["category_id"] - 1))
    pictures = []
    for entry in [image for image in coco["images"] if image["id"] in by_image][:_COLUMNS]:
        picture = _read(train / "dec/train" / entry["file_name"])
        scale = _TILE_WIDTH / picture.shape[1]
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        for (x, y, wide, tall), label in by_image[entry["id"]]:
            first, second = (
                (round(x * scale) - 1, round(y * scale) - 1),
                (round((x + wide) * scale), round((y + tall) * scale)),
            )
            cv2.rectangle(picture, first, second, (64, 255, 64), 1)
            _text(picture, names[label], (first[0], first[1] - 3))
        pictures.append(picture)
    return pictures


def _vehicles(train: Path, names: Sequence[str]) -> list[list[np.ndarray]]:
    lines = (train / "cls/train.txt").read_text(encoding="utf-8").splitlines()
    tiles = []
    for line in lines[: 4 * _COLUMNS]:
        name, label = line.split()
        picture = cv2.resize(_read(train / "cls/train" / name), (222, 148), interpolation=cv2.INTER_AREA)
        _text(picture, names[int(label)], (4, 142))
        tiles.append(picture)
    pairs = [np.concatenate(tiles[i : i + 2], axis=1) for i in range(0, len(tiles) - 1, 2)]
    return [pairs[i : i + _COLUMNS] for i in range(0, len(pairs), _COLUMNS)]


def _text(picture: np.ndarray, text: str, corner: tuple[int, int]) -> None:
    for color, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(picture, text, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.42, color, thickness, cv2.LINE_AA)


def _row(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Returns one row of the sheet: equal tiles on white, short rows filled up."""
    height = round(_TILE_WIDTH * pictures[0].shape[0] / pictures[0].shape[1])
    row = np.full((height + _GAP, _COLUMNS * (_TILE_WIDTH + _GAP), 3), 255, np.uint8)
    for index, picture in enumerate(pictures[:_COLUMNS]):
        left = index * (_TILE_WIDTH + _GAP)
        shrinks = picture.shape[1] > _TILE_WIDTH
        tile = cv2.resize(picture, (_TILE_WIDTH, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        row[:height, left : left + _TILE_WIDTH] = tile
    return row
