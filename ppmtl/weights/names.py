"""How other toolkits name the tensors of a ConvNeXt, as data. Source: reference/model.md section 1."""

from __future__ import annotations

import re
from dataclasses import dataclass

_BLOCK_WORDS = {
    "conv_dw": "dwconv",
    "mlp.fc1": "pwconv1",
    "mlp.fc2": "pwconv2",
    "layernorm": "norm",
    "layer_scale_parameter": "gamma",
}


@dataclass(frozen=True)
class Naming:
    """One toolkit's names.

    Attributes:
        stem: the stem convolution's weight; whatever a file has in front of it is the prefix of the whole trunk.
        trunk: first words of a trunk tensor's name. One with such a name must find its place; any other is dropped.
        rules: (pattern of a name, our name); words inside a block are then translated one by one.
    """

    title: str
    stem: str
    trunk: str
    rules: tuple[tuple[str, str], ...]

    def is_trunk(self, name: str) -> bool:
        """Returns whether a tensor of this name (without prefix) belongs to the trunk."""
        return re.match(self.trunk, name) is not None

    def translate(self, name: str) -> str | None:
        """Returns our name of a trunk tensor, or None if it has none."""
        for pattern, ours in self.rules:
            if found := re.fullmatch(pattern, name):
                translated = found.expand(ours)
                for word, our_word in _BLOCK_WORDS.items():
                    translated = re.sub(rf"(?<=\.){re.escape(word)}(?=\.|\Z)", our_word, translated)
                return translated
        return None


def _timm(title: str, dot: str) -> Naming:
    d = re.escape(dot)
    return Naming(
        title,
        f"stem{dot}0.weight",
        rf"(stem|stages){d}",
        (
            (rf"stem{d}(\d)\.(\w+)", r"downsample_layers.0.\1.\2"),
            (rf"stages{d}(\d)\.downsample\.(\d)\.(\w+)", r"downsample_layers.\1.\2.\3"),
            (rf"stages{d}(\d)\.blocks\.(\d+)\.(.+)", r"stages.\1.\2.\3"),
        ),
    )


NAMINGS = (
    Naming(
        "facebook / PaddleClas",
        "downsample_layers.0.0.weight",
        r"(downsample_layers|stages|norm\d)\.",
        ((r"(.+)", r"\1"),),
    ),
    _timm("timm", "."),
    _timm("timm features_only", "_"),
    Naming(
        "Hugging Face transformers",
        "embeddings.patch_embeddings.weight",
        r"(embeddings|encoder|hidden_states_norms)\.",
        (
            (r"embeddings\.patch_embeddings\.(\w+)", r"downsample_layers.0.0.\1"),
            (r"embeddings\.layernorm\.(\w+)", r"downsample_layers.0.1.\1"),
            (r"encoder\.stages\.(\d)\.downsampling_layer\.(\d)\.(\w+)", r"downsample_layers.\1.\2.\3"),
            (r"encoder\.stages\.(\d)\.layers\.(\d+)\.(.+)", r"stages.\1.\2.\3"),
            *((rf"hidden_states_norms\.stage{i + 1}\.(\w+)", rf"norm{i}.\1") for i in range(4)),
        ),
    ),
)
