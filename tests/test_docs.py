"""The documents: links lead somewhere, commands name files that exist, the example of several tasks runs."""

from __future__ import annotations

import re

import pytest
import yaml
from doc_blocks import PAGES, ROOT, blocks
from small_streets import config, write_streets

from ppmtl import build


def anchors(page: str) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("doc", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
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
    examples = [block.text for block in blocks(ROOT / "docs/data.md", "yaml")]
    example, partly = [text for text in examples if "type: joined" in text]
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
