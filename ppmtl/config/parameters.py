"""The parameters of a callable that a config may set: name, hint, default."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

from ppmtl.config import hints as h

REQUIRED: Any = inspect.Parameter.empty


class Parameter(NamedTuple):
    """One key: ``hint`` says what it allows; ``default`` is ``REQUIRED`` where a config has to give it."""

    hint: Any
    default: Any


def settable(target: Callable[..., Any]) -> list[str]:
    """The names that a config may set: the keyword-only parameters; of a dataclass without any, all."""
    parameters = inspect.signature(target).parameters
    keyword_only = [name for name, parameter in parameters.items() if parameter.kind is parameter.KEYWORD_ONLY]
    return keyword_only or (list(parameters) if h.is_settings(target) else [])


def type_hints(target: Callable[..., Any]) -> dict[str, Any]:
    """{parameter: hint}; hints are text in the source (from __future__ import annotations) until resolved here."""
    is_plain_class = isinstance(target, type) and not h.is_settings(target)
    return typing.get_type_hints(target.__init__ if is_plain_class else target, include_extras=True)


def parameters_of(target: Callable[..., Any]) -> dict[str, Parameter]:
    """{key: parameter} in the order of declaration.

    Raises:
        NameError, ValueError: if its signature or a hint cannot be read.
    """
    types, parameters = type_hints(target), inspect.signature(target).parameters
    return {name: Parameter(types.get(name, Any), _default(target, parameters[name])) for name in settable(target)}


def _default(target: Any, parameter: inspect.Parameter) -> Any:
    if h.is_settings(target):
        factory: Any = next(
            field.default_factory for field in dataclasses.fields(target) if field.name == parameter.name
        )
        return parameter.default if factory is dataclasses.MISSING else factory()
    return parameter.default
