"""docs/api.md: its blocks of Python run one after the other, on tiny weights and data that stand for the demo's."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
from small_streets import config, write_streets

PAGE = Path(__file__).resolve().parents[1] / "docs/api.md"


def test_the_pages_python_runs(exported, tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 5
    shutil.copytree(exported / "random", tmp_path / "output/allinone_demo/best_model")
    shutil.copytree(exported / "bundle", tmp_path / "output_inference/allinone_demo")
    shutil.copy(exported / "pictures" / "b.jpg", tmp_path / "street.jpg")
    (tmp_path / "configs").mkdir()
    config(tmp_path / "configs").rename(tmp_path / "configs/allinone_demo.yml")
    write_streets(tmp_path / "demo_data")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)  # as a reader runs the cells of a notebook
    assert {path.name for path in Path("output/api").iterdir()} == {"street.jpg", "street.json", "street_seg.png"}
    assert names["drawn"].shape == names["result"].image.shape
    assert set(names["entries"]) == {"det"}
    assert {"seg", "cls"} <= set(names["table"]["task"])
    assert np.isfinite(names["trained"].metrics["score"])
    assert names["model"].folder == Path("output/try/best_model")
