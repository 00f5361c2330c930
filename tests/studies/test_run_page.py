"""The page of a run: everything that was logged and measured, in one file that needs no network."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
from browser import chromium, requested

from ppmtl.predict import report
from ppmtl.predict.evaluate import Evaluation
from ppmtl.predict.extremes import Extremes, ScoredImage
from ppmtl.studies.run_page import run_page
from ppmtl.tasks.base import Metrics
from ppmtl.train.log_file import LogFile

ROOT = Path(__file__).resolve().parents[2]


def write_log(folder: Path) -> None:
    log = LogFile(folder, 0)
    for step in range(10, 50, 10):
        terms = {"seg.loss_ce": 3 / step, "seg.loss_aux": 1 / step, "det.loss_box": 2 / step}
        log.add(step, {"epoch": 1, "loss": 6 / step, "loss_seg": 4 / step, "loss_det": 2 / step, **terms, "grad_norm": step,
                       "learning_rate": 1e-3, "batch_cost": 0.5, "data_cost": 0.1, "ips": 8.0, "max_mem": 512.0})  # fmt: skip
        log.add(step, {"evaluation": {"score": step / 100, "seg.miou": step / 100, "det.ap50": float("nan")}})


def write_evaluation(folder: Path) -> None:
    pair = ScoredImage(0.125, 3, "images/<7>.jpg", np.zeros((20, 44, 3), np.uint8))
    seg = Metrics("miou", {"miou": 0.5}, {"class": ["road & rail", "车"], "iou": [0.5, float("nan")], "pixels": [9.0, 0.0]},
                  confusion=np.eye(2, dtype=np.int64))  # fmt: skip
    result = Evaluation({"seg": seg}, {"seg": 0.1}, {}, {"seg": Extremes((pair,), (pair,))})
    report.write(result, folder, {"weights": "best_model", "legends": {"seg": {"road & rail": "#804080"}}})


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    write_log(folder)
    write_evaluation(folder / "eval")
    (folder / "environment.json").write_text(json.dumps({"python": "3.11"}))
    (folder / "config.yml").write_text("seed: 42  # <b>\n")
    return folder


def charts(page: str) -> list[str]:
    return re.findall(r'data:image/svg\+xml;base64,[^"]+" alt="([^"]+)"', page)


def test_the_page_shows_what_was_logged_and_measured(run):
    page = run_page(run, run / "eval")
    training = ["loss", "terms of seg", "terms of det", "learning rate", "gradient norm", "seconds per step"]
    assert charts(page) == [*training, "score", "seg", "det"]
    assert "<td>best score in training</td><td>0.4000 at step 40</td>" in page
    assert "<td>road &amp; rail</td><td>0.5000</td><td>9</td>" in page
    assert "<td>车</td><td>n/a</td><td>0</td>" in page
    assert page.count("data:image/jpeg;base64,") == 2
    assert "score 0.125: &lt;7&gt;.jpg" in page
    assert '<i style="background:#804080"></i>road &amp; rail' in page
    assert "seed: 42  # &lt;b&gt;" in page
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_a_task_of_several_sources_and_missing_labels_have_their_charts(tmp_path):
    line = {"epoch": 1, "loss": 1.0, "seg.loss_ce@a": 1.0, "loss_seg@a": 1.0, "seg.loss_ce@b": 2.0, "loss_seg@b": 2.0,
            "labelled_seg": 0.5, "batch_cost": 0.5, "data_cost": 0.1, "ips": 8.0, "max_mem": 512.0}  # fmt: skip
    LogFile(tmp_path, 0).add(1, line)
    shown = charts(run_page(tmp_path, tmp_path / "eval"))
    assert shown[:3] == ["loss", "terms of seg", "share of labelled images, where some are not"]


def test_a_run_without_evaluation_says_how_to_get_one_and_an_older_one_without_log_has_no_curves(run, tmp_path):
    assert "python tools/eval.py -c" in run_page(run, tmp_path / "none")
    (run / "log.jsonl").unlink()
    page = run_page(run, run / "eval")
    assert charts(page) == []
    assert "No log.jsonl" in page
    with pytest.raises(ValueError, match=r"neither log\.jsonl.*name the save_dir of a run"):
        run_page(tmp_path, tmp_path / "eval")


def test_a_damaged_file_is_named(run):
    (run / "eval" / "metrics.json").write_text("{")
    with pytest.raises(ValueError, match=r"metrics\.json: not a JSON object"):
        run_page(run, run / "eval")


def test_the_written_page_opens_in_a_browser_at_the_width_of_a_phone_and_asks_for_nothing(run, tmp_path):
    spec = importlib.util.spec_from_file_location("report_script", ROOT / "tools" / "report.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.main([str(run)]) == 0
    address = (run / "report.html").as_uri()
    with chromium(tmp_path) as driver:
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                               {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True})  # fmt: skip
        driver.get_log("performance")
        driver.get(address)
        assert requested(driver) == [address]
        assert driver.get_log("browser") == []
        assert driver.execute_script("return document.documentElement.scrollWidth") == 390
        widths = driver.execute_script("return [...document.images].map(i => i.complete && i.naturalWidth)")
        assert len(widths) == 9 + 1 + 2  # curves, confusion matrix, best and worst
        assert min(widths) > 0  # every image could be read
