"""Config trees to checked objects: the keys of a mapping are the keyword arguments of one callable."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """Marks a parameter as an open part, to be named by ``type:`` in a config.

    Used as ``Annotated[Callable[..., X], Part("ppmtl.models.necks")]``; the parameter then receives a functools.partial
    of the chosen class with its checked keyword arguments.

    Attributes:
        package: where short names live. A folder: ``type: upernet`` is the one public class of ``<package>/upernet.py``.
            A single module: ``type: random_crop`` (or ``RandomCrop``) is the class of that name in it.
    """

    package: str
