"""docs/extending.md: its files and its config train and evaluate as they stand, and no file of the project is edited."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from doc_blocks import ROOT, blocks
from small_streets import write_streets

PAGE = ROOT / "docs/extending.md"


def test_the_five_parts_of_the_page_train_and_evaluate_with_its_config(tmp_path: Path) -> None:
    write_streets(tmp_path)
    boxes = json.loads((tmp_path / "boxes.json").read_text())["annotations"]
    rows = [f"{b['image_id']}.png {b['bbox'][0] + b['bbox'][2] / 2} {b['bbox'][1] + b['bbox'][3] / 2}" for b in boxes]
    (tmp_path / "middles.txt").write_text("\n".join(rows))
    files = [block.text for block in blocks(PAGE, "python")]
    assert len(files) == 5
    for text in files:
        (tmp_path / text.splitlines()[0].removeprefix("# ")).write_text(text)
    (config,) = blocks(PAGE, "yaml")
    (tmp_path / "pointing.yml").write_text(config.text)
    (bash,) = blocks(PAGE, "bash")
    assert "tools/train.py -c pointing.yml --eval" in bash.text
    command = [sys.executable, str(ROOT / "tools/train.py"), "-c", "pointing.yml", "--eval"]
    command += ["-o", f"data_root={tmp_path}", f"save_dir={tmp_path / 'run'}", "device=cpu", "train.num_workers=0"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "point.loss_l1:" in done.stdout
    assert "point hits" in done.stdout
    assert (tmp_path / "run/best_model/model.safetensors").is_file()
