"""Converts weights between toolkits: a pretrained ConvNeXt for this project, a checkpoint of this project for Paddle.

    python tools/convert_weights.py convnext_large_22k_1k_384.pth convnext_large.safetensors
    python tools/convert_weights.py https://.../ConvNeXt_large_384_pretrained.pdparams convnext_large.safetensors
    python tools/convert_weights.py output/allinone_demo/best_model model.pdparams            for paddle.load
    python tools/convert_weights.py output/allinone_demo/best_model backbone.pdparams --backbone

IN is a .pth (facebook, timm), .pdparams (PaddleClas) or .safetensors (timm, Hugging Face) file, a checkpoint folder of
this project or a run's (its best_model), or a URL. Neither torch nor Paddle is needed, and nothing in IN is executed.

OUT.safetensors and --backbone take the ConvNeXt alone, under the names of facebook, PaddleClas and PaddleDetection;
heads are dropped. Training reads all of IN's formats directly (model.backbone.pretrained, or weights=); a converted file is
smaller and quicker to read. OUT.pdparams takes every tensor of a checkpoint as it is, under the names of
model.state_dict(); weights= takes it in turn, with -c. There is no .pdopt: Paddle keeps moments under names that it makes up
anew in every program, so that they would fit nothing. To go on training, resume from the checkpoint folder.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppmtl import cli


def main(argv: Sequence[str]) -> int:
    """Returns the exit code."""
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="IN", help="file, checkpoint folder or URL (url#sha256=... to check it)")
    parser.add_argument("target", metavar="OUT", type=Path, help="the .safetensors or .pdparams file to write")
    parser.add_argument("--backbone", "--trunk", action="store_true", help="with OUT.pdparams: the ConvNeXt alone")
    arguments = parser.parse_args(argv)

    from ppmtl.models.backbones._convnext_weights import WEIGHT_NAMES
    from ppmtl.train import checkpoint_folder
    from ppmtl.weights.convert import convert, export_all
    from ppmtl.weights.download import is_url
    from ppmtl.weights.location import find_weights

    if not is_url(arguments.source):
        arguments.source = str(find_weights(arguments.source, "IN"))
    folder = Path(arguments.source)
    if (folder / checkpoint_folder.STATE).is_file() and (wrong := checkpoint_folder.problems(folder)):
        raise ValueError(f"{folder} is damaged: {'; '.join(wrong)}; use another checkpoint")
    if arguments.target.suffix == ".pdparams" and not arguments.backbone:
        print(f"{export_all(arguments.source, arguments.target)} tensors, as they are")
    else:
        print(convert(arguments.source, arguments.target, WEIGHT_NAMES).text())
    print(f"wrote {arguments.target} ({arguments.target.stat().st_size / 2**20:.1f} MiB)")
    return 0


if __name__ == "__main__":
    cli.run(main)
