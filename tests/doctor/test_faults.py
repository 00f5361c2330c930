"""The data doctor finds every fault that is put into a copy of a data set, names the file, and finds none in the clean copy."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from data_set import CONFIG, copy_some, write_small
from faults import FAULTS, Fault

from ppmtl import build
from ppmtl.doctor.examine import examine_run
from ppmtl.doctor.kinds import KINDS
from ppmtl.doctor.report import Report

ROOT = Path(__file__).resolve().parents[2]
REAL = Path(os.environ.get("PPMTL_TRAFFIC_MINI", ROOT.parent / "shared" / "data" / "traffic_mini"))
needs_real = pytest.mark.skipif(
    not REAL.is_dir(), reason="the traffic_mini data set: set PPMTL_TRAFFIC_MINI to its folder"
)


def look(root: Path, *overrides: str) -> Report:
    settings = build.load(str(CONFIG), [f"data_root={root}", *overrides]).settings
    return examine_run(settings, workers=0)


def found(report: Report, kind: str) -> set[tuple[str, str]]:
    """(place below the data set, problem) of the findings of a kind."""
    examples = [example for entry in report.entries if entry.kind == kind for example in entry.examples]
    return {(place.rpartition("/data/")[2], problem.rpartition("/data/")[2]) for place, problem in examples}


@pytest.fixture(scope="module", params=["small", pytest.param("real", marks=needs_real)])
def clean(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp(request.param) / "data"
    return write_small(root) if request.param == "small" else copy_some(REAL, root)


@pytest.fixture(scope="module")
def of_clean(clean: Path) -> Report:
    return look(clean)


def test_the_clean_copy_has_no_error_and_no_warning(of_clean: Report) -> None:
    assert [entry for entry in of_clean.entries if entry.severity != "note"] == []


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_a_fault_is_found_and_named_with_its_file(fault: Fault, clean: Path, of_clean: Report, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(clean, root)
    named = fault.put(root)
    report = look(root, *fault.overrides)
    new = found(report, fault.kind) - found(of_clean, fault.kind)
    assert any(named in place for place, _ in new), [(e.kind, e.examples[:2]) for e in report.entries]


def test_faults_of_every_kind_are_tried() -> None:
    assert {fault.kind for fault in FAULTS} == KINDS.keys() - {"other"}


def test_every_kind_that_the_code_names_is_listed_with_a_remedy() -> None:
    source = "".join(path.read_text() for room in ("data", "doctor") for path in (ROOT / "ppmtl" / room).rglob("*.py"))
    named = set(re.findall(r'kind="(\w+)"', source)) | set(re.findall(r'FileError\([^"]*"[^"]*", "(\w+)"\)', source))
    named |= set(re.findall(r'"(?:error|warning|note)", "(\w+)"\)', source))
    assert len(named) > 20
    assert named - {"note"} <= KINDS.keys()  # ("error", "warning", "note") looks alike


@pytest.mark.parametrize("kind", ["image_left_out", "no_label", "unknown_word"])
def test_what_the_settings_allow_to_be_missing_is_only_a_note(kind: str, tmp_path: Path) -> None:
    for number, fault in enumerate(fault for fault in FAULTS if fault.kind == kind):
        root = write_small(tmp_path / str(number) / "data")
        fault.put(root)
        report = look(root, *fault.overrides)
        assert {entry.severity for entry in report.entries} == {"note"}, fault.name


def test_a_view_that_makes_captions_untrue_is_an_error_of_its_source(tmp_path: Path) -> None:
    root = write_small(tmp_path / "data")
    (fault,) = (fault for fault in FAULTS if fault.put.__name__ == "image_without_a_caption")
    fault.put(root)
    report = look(root, *fault.overrides, "sources.cap.transforms=[{type: horizontal_flip}]")
    (error,) = (entry for entry in report.entries if entry.severity == "error")
    assert (error.where, "HorizontalFlip turns left into right" in error.examples[0][1]) == ("sources.cap", True)
