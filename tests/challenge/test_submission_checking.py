"""The check passes a sound file and finds every planted fault, at its place."""

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from perfect_submission import CLASSES, SIZE, write_perfect
from PIL import Image

from ppmtl.challenge.checking import check
from ppmtl.challenge.expected import Expected, image_size
from ppmtl.challenge.reading import SubmissionFile
from tools import submit

TOOL = Path(__file__).resolve().parents[2] / "tools" / "submit.py"


def _found(root, file):
    return [(f.severity, f.place, f.problem) for f in check(file, Expected.from_root(root.path))]


def test_lists_and_image_headers_say_what_is_expected_and_a_sound_file_has_it(root, perfect):
    expected = Expected.from_root(root.path)
    assert expected.seg_sizes == {"a.png": SIZE, "b.png": SIZE, "c.png": SIZE}
    assert expected.cls_names == ("0.jpg", "1.jpg", "2.jpg", "3.jpg")
    assert expected.det_sizes == (SIZE,) * 3
    assert expected.category_ids == CLASSES.ids
    assert check(perfect, expected) == []


def test_the_dict_form_is_accepted_with_a_warning_per_section(root):
    found = _found(root, write_perfect(root, root.out, form="dict"))
    assert [(severity, place) for severity, place, _ in found] == [("warning", "seg"), ("warning", "cls")]
    assert all("list of one-key dicts" in problem for *_, problem in found)


def _set(*path, value):
    def change(content):
        *parents, last = path
        for key in parents:
            content = content[key]
        content[last] = value

    return change


@pytest.mark.parametrize(
    "change, place, problem",
    [
        (_set("seg", 0, "a.png", "3", 0, 0, value=[1, 99]), 'seg[0]["a.png"]["3"][0][0]', "outside the image"),
        (_set("seg", 0, "a.png", "3", 0, 1, value=[1, 2.5]), 'seg[0]["a.png"]["3"][0][1]', "whole pixels, got [1, 2.5]"),
        (_set("seg", 0, "a.png", "3", 0, 1, value=[1]), 'seg[0]["a.png"]["3"][0][1]', "must be [x, y] in whole"),
        (_set("seg", 0, "a.png", "3", 0, value="x"), 'seg[0]["a.png"]["3"][0]', 'list of points, got "x"'),
        (_set("seg", 1, "b.png", "4", value={}), 'seg[1]["b.png"]["4"]', "list of contours"),
        (_set("seg", 1, "b.png", "19", value=[]), 'seg[1]["b.png"]["19"]', "unknown class"),
        (_set("seg", 1, "b.png", value=[]), 'seg[1]["b.png"]', "dict of polygons"),
        (_set("seg", 1, value={"b.png": {}, "c.png": {}}), "seg[1]", "one key"),
        (lambda c: c["seg"][2]["c.png"].pop("7"), 'seg[2]["c.png"]', 'class "7" is missing'),
        (_set("cls", 1, "1.jpg", value=196), 'cls[1]["1.jpg"]', "0..195, got 196"),
        (_set("cls", 1, "1.jpg", value="7"), 'cls[1]["1.jpg"]', "whole number"),
        (_set("cls", 1, "1.jpg", value=True), 'cls[1]["1.jpg"]', "whole number"),
        (lambda c: c["cls"].append({"9.jpg": 1}), 'cls[4]["9.jpg"]', "no such image"),
        (lambda c: c["cls"].append({"2.jpg": 1}), 'cls[4]["2.jpg"]', "there already"),
        (lambda c: c["cls"].pop(), "cls", 'no entry for "3.jpg"'),
        (lambda c: c["seg"].pop(0), "seg", 'no entry for "a.png"'),
        (_set("cls", value=3), "cls", "must be a list"),
        (_set("dec", value={}), "dec", "must be a list"),
        (_set("dec", 0, value=[1]), "dec[0]", "must be a dict with the keys"),
        (_set("dec", 0, "image_id", value=0), 'dec[0]["image_id"]', "from 1 to 3; got 0"),
        (_set("dec", 0, "image_id", value=4), 'dec[0]["image_id"]', "from 1 to 3; got 4"),
        (_set("dec", 0, "image_id", value="z.jpg"), 'dec[0]["image_id"]', 'got "z.jpg"'),
        (_set("dec", 1, "category_id", value=4), 'dec[1]["category_id"]', "3..8"),
        (_set("dec", 1, "bbox", value=[1, 2, 3]), 'dec[1]["bbox"]', "four numbers, [x, y, width, height]; got [1, 2, 3]"),
        (_set("dec", 1, "bbox", value=[1, "2", 3, 4]), 'dec[1]["bbox"]', "four numbers"),
        (_set("dec", 1, "bbox", value=[50, 20, -10, -5]), 'dec[1]["bbox"]', "x1 y1 x2 y2?"),
        (_set("dec", 1, "bbox", value=[90, 20, 10, 5]), 'dec[1]["bbox"]', "lies outside"),
        (_set("dec", 1, "bbox", value=[-20, 20, 10, 5]), 'dec[1]["bbox"]', "lies outside"),
        (_set("dec", 1, "score", value=1.5), 'dec[1]["score"]', "0..1; got 1.5"),
        (lambda c: c["dec"][1].pop("score"), 'dec[1]["score"]', "must be a number 0..1; got nothing"),
        (lambda c: c.pop("dec"), "dec", "is missing"),
    ],
)  # fmt: skip
def test_each_planted_error_is_found_at_its_place(root, edit, change, place, problem):
    found = _found(root, edit(lambda c: change(c) and None))
    errors = [(where, what) for severity, where, what in found if severity == "error"]
    assert any(where == place and problem in what for where, what in errors), errors
    assert len({where for where, _ in errors}) <= 2, errors  # a wrong image may also leave its entry missing


@pytest.mark.parametrize(
    "change, place, problem",
    [
        (_set("extra", value=1), "extra", "unknown section"),
        (_set("extra", value=[{"a.png": 1}]), "extra", "unknown section"),
        (_set("seg", 0, "a.png", "3", value=[[5, 6]]), 'seg[0]["a.png"]["3"][0]', "skips contours below 3"),
        (_set("dec", 0, "bbox", value=[-3, 2, 10, 4]), 'dec[0]["bbox"]', "reaches beyond"),
        (_set("dec", 0, "area", value=3), 'dec[0]["area"]', "does not read it"),
        (lambda c: c.update(dec=c["dec"][2:3]), "dec", "no box for image_id 1"),
        (lambda c: c["seg"][0]["a.png"].update({"0": c["seg"][0]["a.png"].pop("0")}),
         'seg[0]["a.png"]', "rising order"),
    ],
)  # fmt: skip
def test_what_is_unwise_is_a_warning(root, edit, change, place, problem):
    found = _found(root, edit(lambda c: change(c) and None))
    assert {severity for severity, *_ in found} == {"warning"}, found
    assert any(where == place and problem in what for _, where, what in found), found


def test_all_findings_are_returned_not_the_first(root, edit):
    def change(content):
        for row in content["dec"]:
            row["score"] = 2
            row["image_id"] = 77
        content["cls"].clear()

    found = _found(root, edit(change))
    assert sum(severity == "error" for severity, *_ in found) == 4 * 2 + 4


@pytest.mark.parametrize("keep", [0.3, 0.7, 0.999])
def test_a_file_cut_off_anywhere_is_one_finding_that_says_so(root, perfect, keep):
    text = perfect.read_text().rstrip()
    perfect.write_text(text[: int(len(text) * keep)])
    assert any("not valid JSON" in problem for *_, problem in _found(root, perfect))


@pytest.mark.parametrize(
    "text, place",
    [
        ("", "none"), ("[]", "none"), ("3", "none"), ("{} x", "its beginning"), ('{"seg": [1,]}', "seg[0]"),
        ('{"seg" []}', "its beginning"), ("{1: 2}", "its beginning"), ('{"seg": [] "cls": []}', "seg[0]"),
        ('{"dec": [{"bbox": [1]}, {"bbox": [NaN]}]}', "dec[1]"), ('{"cls": [{"1.jpg": 1' + "0" * 30 + "}]}", "cls[0]"),
        ('{"dec": {"\udcff": 1}}', "dec"),
    ],
)  # fmt: skip
def test_text_that_is_no_submission_is_a_finding_with_its_place(root, tmp_path, text, place):
    file = tmp_path / "p.json"
    file.write_text(text, errors="surrogateescape")
    ((_, _, problem),) = [found for found in _found(root, file) if found[1] == "file"]
    assert f"it is {place}" in problem or f"from {place} on" in problem, problem


def test_a_large_file_is_read_in_pieces_that_leave_nothing_out(tmp_path):
    content = {
        "seg": [{f"{i}.png": {"0": [[[1, 2]] * (i % 7 * 300)]}} for i in range(300)],
        "cls": {f"{i}.jpg": i for i in range(100000)},
        "dec": [{"image_id": i, "bbox": [i, 2.5, 1e-3, 4]} for i in range(50000)],
    }
    file = tmp_path / "p.json"
    file.write_text(json.dumps(content))
    read = {"seg": [], "cls": {}, "dec": []}
    for section, place, value in SubmissionFile(file):
        if section.form == "dict":
            read[section.name] |= value
        else:
            assert place == f"{section.name}[{len(read[section.name])}]"
            read[section.name].append(value)
    assert read == content
    tracemalloc.start()
    assert sum(1 for _ in SubmissionFile(file)) == 150300
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5e6 < file.stat().st_size / 4


@pytest.mark.parametrize(
    "twice, problem",
    [
        ('[{"0.jpg": 1}, {"0.jpg": 2}]', "there already"),
        ('{"0.jpg": 1, "1.jpg": 1, "0.jpg": 2}', "there already"),
        ('[], "cls": []', "stands in the file twice"),
    ],
)
def test_names_and_sections_that_stand_twice_are_found_in_both_forms(root, perfect, twice, problem):
    content = json.loads(perfect.read_text())
    perfect.write_text(json.dumps({**content, "cls": "CLS"}).replace('"CLS"', twice))
    assert sum(problem in found for *_, found in _found(root, perfect)) == 1


def test_sizes_follow_the_exif_turn(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "turned.jpg", exif=exif)
    assert image_size(tmp_path / "turned.jpg") == (30, 20)
    (tmp_path / "bad.jpg").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"bad\.jpg: cannot be read"):
        image_size(tmp_path / "bad.jpg")


def _run(capsys, *arguments):
    code = submit.main(["check", *map(str, arguments)])
    return code, capsys.readouterr().out


def test_the_command_scores_a_sound_file_and_exits_with_0(root, perfect, capsys):
    code, out = _run(capsys, perfect, "--gt", root.path)
    assert code == 0
    assert "0 errors, 0 warnings" in out
    assert "not checked" not in out
    assert "| official-2.7.0 | 1.0000 | 1.0000 | 1.0000 | 1.0000 |" in out


def test_the_command_caps_what_it_prints_and_exits_with_1(root, edit, capsys):
    code, out = _run(capsys, edit(lambda c: c.update(cls=[])), "--gt", root.path, "--show", 3)
    assert code == 1
    assert "... and 1 more (--show N)" in out
    assert "4 errors" in out
    assert "official" not in out


def test_without_lists_the_command_checks_what_it_can_and_says_what_it_left_out(perfect, capsys):
    code, out = _run(capsys, perfect)
    assert code == 0
    for said in ("0 errors, 0 warnings", "names and image_ids", "points and boxes", "category_id", "not scored"):
        assert said in out
    content = json.loads(perfect.read_text())
    content["seg"][0]["a.png"].pop("7")
    content["cls"] += [{"0.jpg": 1}, {"9.jpg": 500}]
    content["dec"][0]["bbox"][2] = 0
    perfect.write_text(json.dumps(content))
    code, out = _run(capsys, perfect)
    assert code == 1
    for found in ('class "7" is missing', "there already", "got 500", "must be above 0", "4 errors, 0 warnings"):
        assert found in out


def test_class_counts_come_from_the_config(root, perfect, capsys):
    code, out = _run(
        capsys, perfect, "-c", TOOL.parents[1] / "configs/allinone_demo.yml", "-o", f"data_root={root.path}"
    )
    assert code == 1
    assert 'cls[2]["2.jpg"]: must be a whole number 0..9, got 14' in out


@pytest.mark.parametrize(
    "arguments, said",
    [
        ((), "-c"),
        (("check",), "file"),
        (("check", "none.json"), "none.json: no such file"),
        (("check", str(TOOL), "--gt", "nowhere"), "--gt is the data root"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_what_it_is(arguments, said):
    done = subprocess.run([sys.executable, TOOL, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr
