"""What requests and answers look like, as types: requests are checked by them, and the OpenAPI document is made of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model
from starlette.datastructures import FormData, UploadFile
from typing_extensions import NotRequired, TypedDict, get_type_hints

from ppmtl.ops.drawing import class_colors
from ppmtl.tasks.base import Task
from ppmtl_service.errors import ServiceError
from ppmtl_service.intake import FORMATS
from ppmtl_service.model import Model
from ppmtl_service.options import Options

MaskEncoding = Literal["png", "rle", "none"]
_typed: Any = TypedDict  # mypy would read only literal calls


class Wanted(BaseModel):
    """The text fields of a request; :func:`form_type` adds what depends on the model."""

    model_config = ConfigDict(extra="forbid")

    tasks: str
    threshold: float
    tta: bool
    mask: MaskEncoding = Field("png", description="how masks are sent")


def form_type(model: Model) -> type[Wanted]:
    """The fields of a request to this model, with its tasks and its threshold as defaults."""

    def known(text: str) -> str:
        if not set(text.split(",")) <= set(model.tasks):
            raise ValueError(f"allowed is a comma-separated list of {', '.join(model.tasks)}")
        return text

    def possible(tta: bool) -> bool:
        if tta and not model.tta:
            raise ValueError("this model was exported for one input size; leave tta out")
        return tta

    score = Field(model.threshold, ge=0, le=1, allow_inf_nan=False, description="boxes below it are left out")
    views = Field(False, description="test-time augmentation: better and slower")
    fields: dict[str, Any] = {
        "tasks": (Annotated[str, AfterValidator(known)], Field(",".join(model.tasks), description="comma-separated")),
        "threshold": (float, score),
        "tta": (Annotated[bool, AfterValidator(possible)], views),
    }
    return create_model("Wanted", __base__=Wanted, **fields)


def read_fields(form: FormData, wanted: type[Wanted]) -> Wanted:
    """What the form asks for beside its images.

    Raises:
        ServiceError: 400 naming the field, what it got and what is allowed.
    """
    try:
        return wanted.model_validate({name: value for name, value in form.multi_items() if name != "images"})
    except ValidationError as error:
        problem = error.errors()[0]
        name, given = str(problem["loc"][0])[:40], problem["input"]
        if problem["type"] == "extra_forbidden":
            known = ", ".join(["images", *wanted.model_fields])
            raise ServiceError(400, "unknown_field", f"unknown field {name!r}; known are {known}") from error
        got = "a file" if isinstance(given, UploadFile) else repr(given[:80])
        reason = problem["msg"].removeprefix("Value error, ")
        raise ServiceError(400, "bad_field", f"{name}: got {got}; {reason}") from error


def predict_body(wanted: type[Wanted], max_images: int) -> dict[str, Any]:
    """The OpenAPI request body of POST /v1/predict."""
    schema = wanted.model_json_schema()
    file = {"type": "string", "format": "binary", "description": "a JPEG, PNG, WebP or BMP file"}
    schema["properties"]["images"] = {"type": "array", "minItems": 1, "maxItems": max_images, "items": file}
    schema["required"] = ["images"]
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}


class ErrorAnswer(TypedDict):
    """Every answer that is not 200; ``error`` has a "code" for programs and a "message" for people."""

    error: dict[Literal["code", "message"], str]
    request_id: str


class PngMask(TypedDict):
    """Base64 of an 8-bit single-channel PNG of class indices, as large as the image."""

    encoding: Literal["png"]
    data: str


class RleMask(TypedDict):
    """Run lengths in row-major order, [class, length, class, length, ...]; ``size`` is [height, width]."""

    encoding: Literal["rle"]
    size: list[int]
    counts: list[int]


class ModelName(TypedDict):
    """Which model answered."""

    name: str
    version: str


class Timings(TypedDict):
    """Milliseconds; of several images the longest of each stage. "queue" is waiting, for a thread and for the network."""

    decode: float
    queue: float
    predict: float
    total: float


class ModelClass(TypedDict):
    """One class: its index in masks, its id in the user's files, the RGB colour it is drawn in."""

    index: int
    id: int
    name: str
    colour: list[int]


class ModelTask(TypedDict):
    """One task of the model; ``type`` is what the project calls this kind of task. A sentence has no classes."""

    type: str
    classes: list[ModelClass]


class ModelAnswer(ModelName):
    """GET /v1/model. ``defaults`` has the threshold and the network input's size; null = every task's own."""

    tasks: dict[str, ModelTask]
    tta: bool
    limits: dict[str, int | list[str]]
    defaults: dict[str, float | list[int] | None]


def describe(model: Model, options: Options) -> ModelAnswer:
    """The answer to GET /v1/model."""
    tasks: dict[str, ModelTask] = {}
    for name, task in model.tasks.items():
        rows = zip(task.classes.ids, task.classes.names, class_colors(task.classes).tolist(), strict=True)
        classes = [ModelClass(index=i, id=own, name=title, colour=rgb) for i, (own, title, rgb) in enumerate(rows)]
        tasks[name] = {"type": task.task_type, "classes": classes if task.names_classes else []}
    names = ("max_images", "max_bytes", "max_pixels", "max_pixels_tta", "max_side")
    size = list(model.shared_size) if isinstance(model.shared_size, tuple) else None
    return {
        "name": model.name,
        "version": model.version,
        "tasks": tasks,
        "tta": model.tta,
        "limits": {name: getattr(options, name) for name in names} | {"formats": [name.lower() for name in FORMATS]},
        "defaults": {"threshold": model.threshold, "size": size},
    }


def predict_answer(model: Model) -> Any:
    """The type of POST /v1/predict's answer: one key per task, called as in the bundle."""
    per_task = {name: NotRequired[_task_answer(task)] for name, task in model.tasks.items()}
    result: Any = _typed("Result", {"file": str, "height": int, "width": int, **per_task})
    rest = {"model": ModelName, "timings_ms": Timings, "request_id": str}
    return _typed("PredictAnswer", {**rest, "results": list[result]})


def _task_answer(task: Task[Any]) -> Any:
    """The task's own type, with "mask" if the task has masks."""
    if type(task).mask is Task.mask:
        return task.json_type
    fields = get_type_hints(task.json_type, include_extras=True)
    return _typed(f"{task.json_type.__name__}AndMask", {**fields, "mask": NotRequired[PngMask | RleMask]})
