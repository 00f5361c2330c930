"""docs/deployment.md: its compose file gives the service flags that exist. Its commands: tests/test_docs_blocks.py."""

from __future__ import annotations

import serve
import yaml
from doc_blocks import ROOT, blocks


def test_the_compose_example_gives_the_service_flags_that_exist():
    (example,) = [yaml.safe_load(block.text) for block in blocks(ROOT / "docs/deployment.md", "yaml") if block.reason]
    (service,) = example["services"].values()
    flags = serve._parser().parse_args(["--model_dir", "/bundle", *service["command"]])
    assert flags.api_key_file == "/run/secrets/key"
