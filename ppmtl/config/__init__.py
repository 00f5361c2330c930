"""YAML to a merged tree (``tree``) to checked objects (``bind``). Knows nothing of vision; imports no numpy, no paddle.

tree = load_config("configs/x.yml", ["train.epochs=3"])
settings = check(Settings, tree)
"""

from ppmtl.config.bind import check
from ppmtl.config.errors import ConfigError, nearest, suggestion
from ppmtl.config.parts import Part, resolve_part, target_of
from ppmtl.config.tree import ConfigTree, load_config, stored_config

__all__ = [
    "ConfigError",
    "ConfigTree",
    "Part",
    "check",
    "load_config",
    "nearest",
    "resolve_part",
    "stored_config",
    "suggestion",
    "target_of",
]
