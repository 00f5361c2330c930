"""The service is a folder of scripts, not part of the installed package; its tests find it here."""

import sys
from pathlib import Path

SERVING = Path(__file__).resolve().parents[2] / "deploy" / "serving"
sys.path.insert(0, str(SERVING))
