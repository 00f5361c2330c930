"""The answers as types, for the OpenAPI document. They describe; what is sent is made in ``answers.py``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from ppmtl.tasks.base import Task
from ppmtl_service.options import Options
from ppmtl_service.wanted import MaskEncoding

Share = Field(ge=0, le=1)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ErrorDetail(_Strict):
    """What went wrong: ``code`` for programs, ``message`` for people."""

    code: str
    message: str


class ErrorAnswer(_Strict):
    """Every answer that is not 200."""

    error: ErrorDetail
    request_id: str


class FoundClass(_Strict):
    """One class of the five most probable."""

    class_: str = Field(alias="class")
    class_index: int
    score: float = Share


class Classification(_Strict):
    """What kind of picture it is."""

    top: list[FoundClass]


class Box(FoundClass):
    """One object; ``bbox`` is [x1, y1, x2, y2] in pixels of the picture as shown, EXIF turn applied."""

    bbox: list[float] = Field(min_length=4, max_length=4)
    category_id: int


class Detection(_Strict):
    """The objects found, best first."""

    boxes: list[Box]


class PngMask(_Strict):
    """Base64 of an 8-bit single-channel PNG of class indices, as large as the picture."""

    encoding: Literal["png"]
    data: str


class RleMask(_Strict):
    """Run lengths in row-major order, [class, length, class, length, ...]; ``size`` is [height, width]."""

    encoding: Literal["rle"]
    size: list[int] = Field(min_length=2, max_length=2)
    counts: list[int]


class Segmentation(_Strict):
    """The share of each class that occurs, and the label map unless ``mask`` was "none"."""

    classes: dict[str, float]
    mask: PngMask | RleMask | None = None


class ModelName(_Strict):
    """Which model answered."""

    name: str
    version: str


class Timings(_Strict):
    """Milliseconds; of several pictures the longest of each stage. "queue" is waiting, for a thread and for the network."""

    decode: float
    queue: float
    predict: float
    total: float


class ModelClass(_Strict):
    """One class: its index in masks, its id in the user's files, the RGB colour it is drawn in."""

    index: int
    id: int
    name: str
    colour: list[int] = Field(min_length=3, max_length=3)


class ModelTask(_Strict):
    """One task of the model."""

    type: Literal["segmentation", "detection", "classification"]
    classes: list[ModelClass]


class Limits(_Strict):
    """What a request may hold."""

    max_images: int
    max_bytes: int
    max_pixels: int
    max_pixels_tta: int
    max_side: int
    formats: list[str]


class Defaults(_Strict):
    """What is used where a request does not say. ``size``: network input (height, width); null = each picture's own."""

    threshold: float = Share
    size: list[int] | None


class ModelAnswer(ModelName):
    """GET /v1/model."""

    tasks: dict[str, ModelTask]
    tta: bool
    limits: Limits
    defaults: Defaults


class Health(_Strict):
    """GET /healthz and /readyz."""

    status: str


_OF_TYPE: dict[str, type[BaseModel]] = {
    "segmentation": Segmentation,
    "detection": Detection,
    "classification": Classification,
}


def predict_answer(tasks: Mapping[str, Task]) -> type[BaseModel]:
    """Returns the type of POST /v1/predict's answer: one key per task, called as in the bundle."""
    per_task: dict[str, Any] = {name: (_OF_TYPE[task.task_type] | None, None) for name, task in tasks.items()}
    result = create_model("Result", __base__=_Strict, file=(str, ...), height=(int, ...), width=(int, ...), **per_task)
    return create_model(
        "PredictAnswer",
        __base__=_Strict,
        model=(ModelName, ...),
        results=(list[result], ...),  # type: ignore[valid-type]
        timings_ms=(Timings, ...),
        request_id=(str, ...),
    )


def predict_body(tasks: Mapping[str, Task], options: Options) -> dict[str, Any]:
    """Returns the OpenAPI request body of POST /v1/predict. It is read by hand, under limits, so it is said by hand."""
    name = "(" + "|".join(tasks) + ")"
    images = {
        "type": "array",
        "minItems": 1,
        "maxItems": options.max_images,
        "items": {"type": "string", "format": "binary"},
    }
    properties: dict[str, Any] = {
        "images": images | {"description": "JPEG, PNG, WebP or BMP files"},
        "tasks": {"type": "string", "pattern": f"^{name}$", "description": "comma-separated, e.g. " + ",".join(tasks)},
        "threshold": {"type": "number", "minimum": 0, "maximum": 1, "description": "boxes below it are left out"},
        "tta": {
            "type": "string",
            "enum": ["true", "false"],
            "description": "test-time augmentation: better and slower",
        },
        "mask": {"type": "string", "enum": list(MaskEncoding.__args__), "description": "how label maps are sent"},  # type: ignore[attr-defined]
    }
    schema = {"type": "object", "required": ["images"], "properties": properties, "additionalProperties": False}
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
