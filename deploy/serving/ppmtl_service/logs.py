"""One JSON object per line. Names, sizes and times are logged; contents of files, file names and keys are not."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone


class JsonFormatter(logging.Formatter):
    """Writes a record, its ``fields`` and its traceback as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        stamp = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        line = {"time": stamp, "level": record.levelname.lower(), "event": record.getMessage()}
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def set_up() -> None:
    """Sends the service's and uvicorn's log to the standard output."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    for name, level in (("ppmtl.serving", logging.INFO), ("uvicorn", logging.WARNING), ("asyncio", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)


def log(event: str, level: int = logging.INFO, *, exc_info: BaseException | None = None, **fields: object) -> None:
    """Writes one line."""
    logging.getLogger("ppmtl.serving").log(level, event, extra={"fields": fields}, exc_info=exc_info)
