"""YAML to a merged tree to checked objects. Knows nothing of vision; imports no numpy and no paddle."""

from ppmtl.config.bind import Part

__all__ = ["Part"]
