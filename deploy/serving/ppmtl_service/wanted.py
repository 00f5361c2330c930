"""The text fields of a request -> what is wanted of its pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from ppmtl_service.errors import ServiceError

MaskEncoding = Literal["png", "rle", "none"]


@dataclass(frozen=True)
class Wanted:
    """What a request asks of each of its pictures.

    Attributes:
        tasks: in the bundle's order, whatever order they were named in.
        threshold: boxes below this score are left out.
        tta: show the picture in several views.
        mask: how label maps are sent.
    """

    tasks: tuple[str, ...]
    threshold: float
    tta: bool = False
    mask: MaskEncoding = "png"


def read_wanted(fields: Mapping[str, str], tasks: Sequence[str], threshold: float, *, tta: bool) -> Wanted:
    """Returns what the fields ask for.

    Args:
        fields: {name: text}.
        tasks: that the service has.
        threshold: where the request names none.
        tta: whether the model can do it.

    Raises:
        ServiceError: 400 naming the field, what it got and what is allowed.
    """
    asked_tta = _one_of("tta", fields.get("tta", "false"), ("true", "false")) == "true"
    if asked_tta and not tta:
        raise ServiceError(400, "bad_field", "tta: this model was exported for one input size; leave tta out")
    return Wanted(
        _tasks(fields["tasks"], tasks) if "tasks" in fields else tuple(tasks),
        _threshold(fields["threshold"]) if "threshold" in fields else threshold,
        asked_tta,
        cast(MaskEncoding, _one_of("mask", fields.get("mask", "png"), get_args(MaskEncoding))),
    )


def _tasks(text: str, known: Sequence[str]) -> tuple[str, ...]:
    named = [name.strip() for name in text.split(",")]
    if not set(named) <= set(known) or len(set(named)) != len(named):
        raise _bad("tasks", text, f"a comma-separated list, without repetition, of {', '.join(known)}")
    return tuple(name for name in known if name in named)


def _threshold(text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise _bad("threshold", text, "a number from 0 to 1") from error
    if not 0 <= value <= 1:  # refuses NaN too
        raise _bad("threshold", text, "a number from 0 to 1")
    return value


def _one_of(name: str, text: str, allowed: Sequence[str]) -> str:
    if text not in allowed:
        raise _bad(name, text, " or ".join(allowed))
    return text


def _bad(name: str, text: str, allowed: str) -> ServiceError:
    return ServiceError(400, "bad_field", f"{name}: got {text[:80]!r}, allowed is {allowed}")
