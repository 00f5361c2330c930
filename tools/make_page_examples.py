"""Draws the example pictures of the service's page anew: rendered streets, signs and a vehicle, no photographs.

    python tools/make_page_examples.py                    # into deploy/serving/page/examples
    python tools/make_page_examples.py --out DIR

The same files come out on every run. Run it after a change of the drawing, look at the pictures, and commit them.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demo_data import render_signs, render_street, render_vehicle

PAGE_EXAMPLES = Path(__file__).resolve().parents[1] / "deploy/serving/page/examples"
MAX_BYTES = 100_000
_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 86, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
_STREET, _VEHICLE = (432, 768), (384, 576)
_CLASSES = 10  # as in the demo config, so that the demo's model knows every sign and vehicle drawn here


@dataclass(frozen=True)
class Example:
    """One file: its name and what draws it, (H, W, 3) uint8 RGB."""

    name: str
    draw: Callable[[], np.ndarray]


# Seeds chosen by eye for variety; the page's index.html names the same files.
EXAMPLES = (
    Example("street_day.jpg", lambda: render_street(np.random.default_rng(26), _STREET)[0]),
    Example("street_dusk.jpg", lambda: render_street(np.random.default_rng(7), _STREET)[0]),
    Example("street_night.jpg", lambda: render_street(np.random.default_rng(17), _STREET)[0]),
    Example("signs.jpg", lambda: render_signs(np.random.default_rng(130), _STREET, _CLASSES, 0)[0]),
    Example("vehicle.jpg", lambda: render_vehicle(np.random.default_rng(212), 2, _CLASSES, _VEHICLE)),
)


def write_examples(folder: Path) -> list[Path]:
    """Writes every example as JPEG and returns the files.

    Raises:
        ValueError: if a file would be larger than a page should load; nothing of it is written.
        OSError: if the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for example in EXAMPLES:
        data = cv2.imencode(".jpg", cv2.cvtColor(example.draw(), cv2.COLOR_RGB2BGR), _JPEG)[1].tobytes()
        if len(data) > MAX_BYTES:
            raise ValueError(
                f"{example.name} has {len(data)} bytes, allowed are {MAX_BYTES}; draw it smaller or choose another seed"
            )
        (folder / example.name).write_bytes(data)
        written.append(folder / example.name)
    return written


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=PAGE_EXAMPLES, metavar="DIR", help="default: %(default)s")
    arguments = parser.parse_args(argv)
    try:
        written = write_examples(arguments.out)
    except (ValueError, OSError) as error:
        print(f"make_page_examples: {error}", file=sys.stderr)
        return 2
    for path in written:
        print(f"{path.stat().st_size:>7} bytes  {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
