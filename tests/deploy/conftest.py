"""Deployment is folders of scripts, not part of the installed package; their tests find them here."""

import sys
from pathlib import Path

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
sys.path[:0] = [str(DEPLOY / "serving"), str(DEPLOY / "python")]
