"""The documents: links lead somewhere, commands name files that exist, the example of several tasks runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from small_streets import config, write_streets

from ppmtl import build

ROOT = Path(__file__).parents[1]
DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "deploy/serving/README.md", *ROOT.glob("docs/*.md")]
NAMES = [str(doc.relative_to(ROOT)) for doc in DOCS]


def anchors(page: str) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("doc", DOCS, ids=NAMES)
def test_links_and_commands_lead_to_files_and_headings(doc):
    text = doc.read_text(encoding="utf-8")
    for file, heading in re.findall(r"\]\((?!http)([^)#\s]*)(?:#([^)]+))?\)", text):
        target = doc.parent / file if file else doc
        assert target.exists(), file
        assert not heading or heading in anchors(target.read_text(encoding="utf-8")), f"{file}#{heading}"
    for script in re.findall(r"python ((?:tools|deploy)/[\w/]+\.py)", text):
        assert (ROOT / script).is_file(), script


def test_the_example_of_several_tasks_on_the_same_images_runs(tmp_path):
    write_streets(tmp_path)
    text = (ROOT / "docs/data.md").read_text(encoding="utf-8")
    example, partly = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)[:2]  # the others show single keys
    others = yaml.safe_load(config(tmp_path).read_text())
    others["model"]["heads"].pop("cls")  # the example has no such task
    path = tmp_path / "example.yml"
    path.write_text(
        example + yaml.safe_dump({k: v for k, v in others.items() if k not in ("tasks", "sources", "eval")})
    )
    settings = build.load(str(path), [], None).settings
    tasks = build.build_tasks(settings)
    (source,) = build.build_sources(settings, tasks).values()
    of_views = {view: list(batch.targets) for view, batch in source.batches(0).items()}
    assert of_views == {"strong": ["det"], "weak": ["seg"]}
    assert build.build_eval_sets(settings, tasks)["street"].tasks == ("seg", "det")

    (tmp_path / "labels" / "0.png").unlink()
    content = yaml.safe_load(path.read_text()) | yaml.safe_load(partly)
    path.write_text(yaml.safe_dump(content))
    settings = build.load(str(path), [], None).settings
    (source,) = build.build_sources(settings, build.build_tasks(settings)).values()
    assert "6 images with labels for seg (5), det" in source.reader.describe()
