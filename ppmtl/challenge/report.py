"""The command ``tools/submit.py check``: findings, what was not checked, the score."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ppmtl.challenge.checking import check
from ppmtl.challenge.expected import TEST_FOLDER, Expected
from ppmtl.challenge.scoring import score
from ppmtl.config import ConfigError, load_config, target_of
from ppmtl.config import check as check_config
from ppmtl.config.settings import Settings
from ppmtl.data.classes import read_class_file
from ppmtl.data.findings import shorten
from ppmtl.tables import markdown


def check_command(argv: Sequence[str]) -> int:
    """Prints everything about a submission; returns the exit code, 1 if it has errors."""
    parser = argparse.ArgumentParser(
        prog="submit.py check",
        description="Lists everything that is wrong with a submission file; exit code 1 if there are errors. Warnings "
        "are things that are read here but cost points or crash the official scorer.",
    )
    parser.add_argument("file", type=Path, help="the submission (JSON)")
    parser.add_argument("--gt", type=Path, metavar="DIR", help="data root: the test lists under DIR/track1_test_data are "
                        "compared, and if ground_truth is there, the file is scored (default: data_root of -c)")  # fmt: skip
    parser.add_argument("-c", "--config", metavar="YML", help="take class counts and data_root from this config")
    parser.add_argument("-o", "--opt", dest="overrides", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
                        help="override config values")  # fmt: skip
    parser.add_argument("--show", type=int, default=20, metavar="N", help="print at most N findings of each kind")
    arguments = parser.parse_args(argv)
    root, counts = arguments.gt, {}
    if arguments.config:
        settings = check_config(Settings, load_config(arguments.config, arguments.overrides))
        counts, data = _class_counts(settings), Path(settings.data_root)
        root = root or (data if (data / TEST_FOLDER).is_dir() else None)
    if not arguments.file.is_file():
        raise ConfigError([f"{arguments.file}: no such file"])
    if root and not (root / TEST_FOLDER).is_dir():
        raise ConfigError([f"{root / TEST_FOLDER}: no such folder; --gt is the data root, e.g. datasets or demo_data"])
    expected = Expected.from_root(root, **counts)
    return int(not _report(arguments.file, expected, root and root / TEST_FOLDER / "ground_truth", arguments.show))


def _class_counts(settings: Settings) -> dict[str, int]:
    counts = {}
    for task in settings.tasks.values():
        section, wanted = target_of(task.part).section, task.classes
        if section in ("seg", "cls"):
            file = Path(settings.data_root) / wanted.names if isinstance(wanted.names, str) else None
            listed = read_class_file(file) if file and not wanted.count else wanted.names or ()
            counts[f"{section}_classes"] = wanted.count or len(listed)
    return counts


def _report(file: Path, expected: Expected, truth: Path | None, show: int) -> bool:
    """Prints findings and score; returns whether there are no errors."""
    findings = check(file, expected)
    errors, warnings = ([f for f in findings if f.severity == severity] for severity in ("error", "warning"))
    for kind in (errors, warnings):
        if kind:
            print(shorten(kind, show) + (" (--show N)" if len(kind) > show else ""))
    print(f"{file}: {len(errors)} errors, {len(warnings)} warnings")
    for left_out in expected.unchecked():
        print(f"not checked: {left_out}")
    if truth is None:
        print("not scored; all of this needs the data: --gt DIR (the data root) or -c YML")
    elif truth.is_dir() and not errors:
        result = score(file, truth, seg_classes=expected.seg_classes)
        notes, keys = result.pop("notes"), ("miou", "top1", "ap50", "score")
        rows = [[convention, *(f"{figures[key]:.4f}" for key in keys)] for convention, figures in result.items()]
        print(f"\n{markdown(['convention', 'mIoU', 'Top-1', 'AP50', 'score'], rows)}")
        print(*(f"note: {note}" for note in notes), sep="\n")
    return not errors
