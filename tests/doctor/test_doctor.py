"""The tool: exit code, page and JSON; the cache; the short form before training."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from data_set import CONFIG, write_small
from small_streets import config, write_streets

from ppmtl import build
from ppmtl.data.findings import DataError, Finding
from ppmtl.doctor import samples
from ppmtl.doctor.cache import Cache
from ppmtl.doctor.examine import examine_run
from ppmtl.doctor.images import ImageFacts, examine_image, fingerprint
from ppmtl.doctor.page import page
from ppmtl.doctor.report import Report, Table, group
from ppmtl.start import TrainOptions, start_training
from ppmtl.train.log_file import read

ROOT = Path(__file__).resolve().parents[2]


def spoil(label: Path) -> None:
    cv2.imwrite(str(label), np.full(cv2.imread(str(label), 0).shape, 99, np.uint8))


# ---- the tool --------------------------------------------------------------------------------------------------------


def test_the_tool_ends_with_1_and_writes_page_and_json_that_name_the_file(tmp_path: Path) -> None:
    root = write_small(tmp_path / "data")
    (root / "seg/images/train/2.jpg").write_bytes(b"")
    outputs = ["--html", str(tmp_path / "r.html"), "--json", str(tmp_path / "r.json")]
    command = [sys.executable, str(ROOT / "tools/doctor.py"), "-c", str(CONFIG), "-o", f"data_root={root}", *outputs]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "error empty_file, sources.seg: 1 x." in done.stdout
    assert "1 error, 0 warnings" in done.stdout
    assert "2.jpg" in (tmp_path / "r.html").read_text()
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["errors"] == 1
    assert [entry["kind"] for entry in found["findings"] if entry["severity"] == "error"] == ["empty_file"]


def test_the_page_loads_nothing_and_a_file_name_stays_text() -> None:
    finding = Finding("<script>alert(1)</script>&.jpg", 'is "<b>odd</b>"', "warning", "exif_rotated")
    html = page(
        Report(group([("<i>seg</i>", finding)]), (Table("T", ("a", "n"), [("<u>x</u>", 3)], bars=(1,)),)), "c.yml"
    )
    tags: set[str] = set()

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.add(tag)
            loaded = [value or "" for name, value in attrs if name in ("src", "href")]
            assert all(value.startswith("data:") for value in loaded)

    Tags().feed(html)
    assert not {"script", "b", "i", "u", "img"} & tags
    assert {"table", "details"} <= tags
    assert "\u2586 3</td>" in html
    assert "http" not in re.sub(r"<!DOCTYPE[^>]*>", "", html)


# ---- the cache -------------------------------------------------------------------------------------------------------


def test_a_second_look_reads_no_file_and_a_changed_one_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_small(tmp_path / "data")
    settings = build.load(str(CONFIG), [f"data_root={root}"]).settings
    read: list[str] = []

    def counted(path: str, *, decode: bool) -> ImageFacts:
        read.append(Path(path).name)
        return examine_image(path, decode=decode)

    monkeypatch.setattr(samples, "examine_image", counted)
    monkeypatch.setattr("ppmtl.doctor.examine.Cache", lambda: Cache(tmp_path / "cache.sqlite"))
    monkeypatch.setattr("ppmtl.doctor.examine._all_sides", lambda *_: {})
    first = examine_run(settings, workers=0)
    assert len(read) == 30
    read.clear()
    monkeypatch.setattr("ppmtl.data.readers.label_png.read_label_map", lambda path: pytest.fail(f"{path} is read"))
    assert examine_run(settings, workers=0) == first
    assert read == []
    monkeypatch.undo()
    monkeypatch.setattr(samples, "examine_image", counted)
    monkeypatch.setattr("ppmtl.doctor.examine.Cache", lambda: Cache(tmp_path / "cache.sqlite"))
    spoil(root / "seg/labels/val/1.png")
    (root / "cls/train/2.jpg").write_bytes(b"")
    report = examine_run(settings, workers=0)
    assert read == ["2.jpg"]
    assert {entry.kind for entry in report.entries if entry.severity == "error"} == {"label_value", "empty_file"}


def test_labels_are_looked_at_again_when_their_readers_settings_change(tmp_path: Path) -> None:
    root, cache = write_small(tmp_path / "data"), Cache(tmp_path / "cache.sqlite")
    counts = []
    for values in ("{road: [0], square: [1]}", "{road: [1], square: [0]}"):
        settings = build.load(str(CONFIG), [f"data_root={root}", f"sources.seg.dataset.values={values}"]).settings
        (of_set,) = samples.examine([d for d in samples_of(settings) if d.name == "sources.seg"], cache, workers=0)
        counts.append([facts.counts["seg"] for facts in of_set.labels if facts is not None])
    assert [of_image[::-1] for of_image in counts[0]] == counts[1]


def test_headers_alone_do_not_count_as_decoded(tmp_path: Path) -> None:
    root, cache = write_small(tmp_path / "data"), Cache(tmp_path / "cache.sqlite")
    settings = build.load(str(CONFIG), [f"data_root={root}"]).settings
    sets = [d for d in samples_of(settings) if d.name == "sources.cls"]
    assert {facts.fingerprint for facts in samples.examine(sets, cache, decode=False, workers=0)[0].images} == {None}
    assert all(facts.fingerprint for facts in samples.examine(sets, cache, workers=0)[0].images)


def samples_of(settings: object) -> list[samples.DataSet]:
    from ppmtl.doctor.datasets import open_datasets

    return list(open_datasets(settings, build.build_tasks(settings)))  # type: ignore[arg-type]


def test_a_damaged_cache_is_only_slow(tmp_path: Path) -> None:
    (tmp_path / "cache.sqlite").write_bytes(b"no database" * 100)
    cache = Cache(tmp_path / "cache.sqlite")
    cache.store({"a": "1"}, {"a": [1]})
    assert cache.load({"a": "1"}) == {}


def test_several_processes_find_what_one_does(tmp_path: Path) -> None:
    for index in range(70):
        cv2.imwrite(
            str(tmp_path / f"{index}.png"), np.random.default_rng(index).integers(0, 255, (32, 32, 3), np.uint8)
        )
    (tmp_path / "7.png").write_bytes(b"")
    files = [str(tmp_path / f"{index}.png") for index in range(70)]
    alone = samples._images(files, Cache(tmp_path / "a.sqlite"), decode=True, workers=0)
    assert samples._images(files, Cache(tmp_path / "b.sqlite"), decode=True, workers=2) == alone
    assert alone[files[7]].problem is not None


def test_its_processes_start_without_paddle() -> None:
    code = "import sys, ppmtl.doctor.samples; sys.exit('paddle' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# ---- fingerprints ----------------------------------------------------------------------------------------------------


def test_a_smaller_darker_recompressed_image_has_nearly_the_same_fingerprint_and_another_one_has_not() -> None:
    rng = np.random.default_rng(0)
    one, other = (cv2.resize(rng.integers(0, 255, (9, 12, 3), np.uint8), (640, 480)) for _ in range(2))
    data = cv2.imencode(".jpg", (cv2.resize(one, (320, 240)) * 0.9).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 60])[1]

    def bits(image: np.ndarray) -> int:
        return int(fingerprint(image), 16)

    assert (bits(one) ^ bits(cv2.imdecode(data, 1))).bit_count() <= 8
    assert (bits(one) ^ bits(other)).bit_count() > 60
    assert fingerprint(np.full((50, 60, 3), 7, np.uint8)) == ""


# ---- before training -------------------------------------------------------------------------------------------------


@pytest.fixture
def streets(tmp_path: Path) -> Path:
    write_streets(tmp_path)
    return tmp_path


def start(folder: Path, *, skip_check: bool = False, **changes: object) -> str:
    path = config(folder, **changes)
    run = build.load(str(path), [])
    return start_training(run, TrainOptions(evaluate=True, skip_check=skip_check))


def steps_saved(folder: Path) -> list[Path]:
    return sorted((folder / "run").glob("step_*"))


def test_a_label_99_ends_the_run_before_its_first_step(streets: Path) -> None:
    spoil(streets / "labels/5.png")
    with pytest.raises(DataError, match=r"5\.png: labels \[99\] are no classes"):
        start(streets)
    assert steps_saved(streets) == []


def test_an_image_that_cannot_be_read_ends_the_run_before_its_first_step(streets: Path) -> None:
    image = streets / "images/5.png"
    image.write_bytes(image.read_bytes()[:200])
    with pytest.raises(DataError, match=r"5\.png: .*cannot be read as an image"):
        start(streets)
    assert steps_saved(streets) == []


def test_a_wrong_best_metric_ends_the_run_before_its_first_step(streets: Path) -> None:
    with pytest.raises(
        DataError, match=r"train\.best_metric: got 'det\.ap5O', the evaluation measures score, seg\.miou"
    ):
        start(streets, train={"epochs": 1, "steps_per_epoch": 1, "num_workers": 0, "best_metric": "det.ap5O"})
    assert steps_saved(streets) == []


def test_unreadable_samples_are_skipped_and_counted_in_the_log(streets: Path) -> None:
    spoil(streets / "labels/5.png")
    schedule = {"epochs": 2, "steps_per_epoch": 3, "log_every": 1, "save_every": None, "num_workers": 0}
    path = config(streets, train={**schedule, "unreadable": "skip"})
    assert start_training(build.load(str(path), []), TrainOptions()) == ""
    log = (streets / "run/train.log").read_text()
    counts = [int(n) for n in re.findall(r"unreadable: (\d+) eta", log)]
    assert len(counts) == 6
    assert counts[-1] >= 2  # two passes over six images
    assert counts == sorted(counts)
    assert log.count("another sample was taken") == 1
    assert [line["unreadable"] for line in read(streets / "run")] == counts
    assert "WARNING: data check: warning label_value" in log


def test_the_check_can_be_left_out(streets: Path, caplog: pytest.LogCaptureFixture) -> None:
    spoil(streets / "labels/5.png")
    with caplog.at_level(logging.INFO), pytest.raises(ValueError, match=r"labels \[99\]") as caught:
        start(streets, skip_check=True)
    assert not isinstance(caught.value, DataError)
