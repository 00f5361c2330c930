"""Light, weather and camera: what lies between a drawn scene and the picture that a camera would store."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from demo_data.classes import VEGETATION
from demo_data.draw import SUPERSAMPLE, Canvas, Color, jitter
from ppmtl.structures import IGNORE_LABEL


@dataclass(frozen=True)
class Conditions:
    """The light and weather of one picture.

    Attributes:
        light: day, dusk or night.
        falling: what falls from the sky: nothing, rain or snow.
        sky_top, sky_bottom: the sky's gradient, before dimming.
        haze: share of contrast lost per metre; fog when large.
        gain: colour of the light, multiplies the picture.
        blur: sigma of the lens blur in pixels.
        noise: sigma of the sensor noise on 0..255.
    """

    light: str
    falling: str
    sky_top: Color
    sky_bottom: Color
    haze: float
    gain: Color
    blur: float
    noise: float

    @property
    def lamps_on(self) -> bool:
        """Returns whether street lamps, head lamps and windows are lit."""
        return self.light != "day"


def draw_conditions(rng: np.random.Generator) -> Conditions:
    """Returns the light and weather of one picture: about 60% day, 20% dusk, 20% night."""
    light = str(rng.choice(["day", "dusk", "night"], p=[0.6, 0.2, 0.2]))
    falling = str(rng.choice(["nothing", "rain", "snow"], p=[0.74, 0.16, 0.10]))
    clear = falling == "nothing" and rng.random() < 0.6
    if light == "day":
        top, bottom = ((88, 146, 214), (198, 220, 238)) if clear else ((168, 178, 190), (214, 219, 224))
        strength = rng.uniform(0.86, 1.08)
        gain = (strength * rng.uniform(0.97, 1.05), strength, strength * rng.uniform(0.94, 1.03))
    elif light == "dusk":
        top, bottom = ((92, 104, 158), (246, 180, 128)) if clear else ((120, 122, 148), (206, 180, 172))
        strength = rng.uniform(0.66, 0.82)
        gain = (strength * 1.12, strength * 0.97, strength * 0.92)
    else:
        top, bottom = (40, 52, 92), (92, 100, 128)
        strength = rng.uniform(0.50, 0.62)
        gain = (strength * 0.95, strength * 0.98, strength * 1.12)
    haze = rng.uniform(0.02, 0.035) if rng.random() < 0.15 else rng.uniform(0.002, 0.008)
    return Conditions(
        light,
        falling,
        jitter(rng, top, 14),
        jitter(rng, bottom, 12),
        haze,
        gain,
        rng.uniform(0, 0.7),
        rng.uniform(1, 5),
    )


def develop(canvas: Canvas, conditions: Conditions, rng: np.random.Generator) -> np.ndarray:
    """Returns the finished (H, W, 3) uint8 picture: averaged down, lit, rained on, blurred, noisy."""
    height, width = canvas.size
    picture = cv2.resize(canvas.image, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    picture *= np.asarray(conditions.gain, np.float32)
    if conditions.lamps_on:
        _add_glows(picture, canvas, 1.0 if conditions.light == "night" else 0.55)
    if conditions.falling != "nothing":
        _add_falling(picture, conditions, rng)
    if conditions.blur > 0.25:
        picture = cv2.GaussianBlur(picture, (0, 0), conditions.blur)
    picture += rng.standard_normal(picture.shape, np.float32) * np.float32(conditions.noise)
    finished: np.ndarray = np.clip(picture + 0.5, 0, 255).astype(np.uint8)
    return finished


def hard_labels(canvas: Canvas) -> np.ndarray:
    """Returns the (H, W) uint8 label map of a canvas: sampled, never mixed.

    The pixels that an edge of leaves runs through become 255, the band that human annotators leave there.
    """
    first, second = canvas.label[::SUPERSAMPLE, ::SUPERSAMPLE], canvas.label[1::SUPERSAMPLE, 1::SUPERSAMPLE]
    leafy_edge = (first != second) & ((first == VEGETATION) | (second == VEGETATION))
    return np.where(leafy_edge, np.uint8(IGNORE_LABEL), first)


def _add_glows(picture: np.ndarray, canvas: Canvas, strength: float) -> None:
    height, width = picture.shape[:2]
    for glow in filter(canvas.uncovered, canvas.glows):
        x, y, radius = glow.x, glow.y, glow.radius
        left, right = max(0, int(x - 2 * radius)), min(width, int(x + 2 * radius) + 2)
        top, bottom = max(0, int(y - 2 * radius)), min(height, int(y + 2 * radius) + 2)
        if left >= right or top >= bottom:
            continue
        across = np.exp(-(((np.arange(left, right) + 0.5 - x) / radius) ** 2) * 1.6)
        down = np.exp(-(((np.arange(top, bottom) + 0.5 - y) / radius) ** 2) * 1.6)
        blob = (np.outer(down, across) * strength).astype(np.float32)
        picture[top:bottom, left:right] += blob[..., None] * np.asarray(glow.color, np.float32)


def _add_falling(picture: np.ndarray, conditions: Conditions, rng: np.random.Generator) -> None:
    height, width = picture.shape[:2]
    layer = np.zeros((height, width), np.uint8)
    rain = conditions.falling == "rain"
    count = round(height * width * (0.0011 if rain else 0.0014) * rng.uniform(0.5, 1.2))
    spots = rng.uniform(0, [width, height], (count, 2))
    slant, length = rng.uniform(-0.3, 0.3), height * 0.05
    for x, y in spots.tolist():
        if rain:
            cv2.line(layer, (int(x), int(y)), (int(x + slant * length), int(y + length)), 255, 1, cv2.LINE_AA)
        else:
            cv2.circle(layer, (int(x * 8), int(y * 8)), 6, 255, -1, cv2.LINE_AA, 3)
    brightness = 225.0 * max(conditions.gain)
    share = layer[..., None].astype(np.float32) * ((0.28 if rain else 0.7) / 255)
    picture += (brightness - picture) * share
