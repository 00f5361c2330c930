"""Converts a pretrained ConvNeXt of another toolkit into a .safetensors file with this project's names and layout.

    python tools/convert_weights.py convnext_large_22k_1k_384.pth convnext_large.safetensors
    python tools/convert_weights.py https://.../ConvNeXt_large_384_pretrained.pdparams convnext_large.safetensors

IN is a .pth (facebook, timm), .pdparams (PaddleClas) or .safetensors (timm, Hugging Face) file, a checkpoint folder of
this project, or a URL. Heads are dropped. Tensors go through one by one, torch is not needed, and nothing in IN is
executed. Training reads all of these directly (model.backbone.pretrained); a converted file is smaller and quicker to
read.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppmtl import cli


def main(argv: Sequence[str]) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="IN", help="file, checkpoint folder or URL (url#sha256=... to check it)")
    parser.add_argument("target", metavar="OUT", type=Path, help="the .safetensors file to write")
    arguments = parser.parse_args(argv)

    from ppmtl.models.convert import convert

    print(convert(arguments.source, arguments.target).text())
    print(f"wrote {arguments.target} ({arguments.target.stat().st_size / 2**20:.1f} MiB)")
    return 0


if __name__ == "__main__":
    cli.run(main)
