"""The log of a program: lines for people with dates and levels, or JSON for machines."""

import io
import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal, TextIO

LogFormat = Literal["text", "json"]
LOG_FORMATS: tuple[LogFormat, ...] = ("text", "json")
LOG_LEVELS = ("debug", "info", "warning", "error")
"""From the most talkative on."""
_TEXT = "%(asctime)s %(levelname)s %(message)s"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time` (ISO 8601, UTC), `level`, `logger`, `message`."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record; a traceback goes into `trace`."""
        fields = {
            "time": _iso(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["trace"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


class JsonLines(io.TextIOBase):
    """A stream that writes each line it is given as a JSON object of the same form."""

    def __init__(self, stream: TextIO, *, logger: str) -> None:
        self._stream = stream
        self._logger = logger
        self._begun = ""

    def write(self, text: str) -> int:
        """Take text in; what has ended in a line break goes out."""
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            if line.strip():
                now_s = datetime.now(UTC).timestamp()
                fields = {"time": _iso(now_s), "level": "info", "logger": self._logger}
                fields["message"] = line.rstrip()
                self._stream.write(f"{json.dumps(fields, ensure_ascii=False)}\n")
        return len(text)

    def flush(self) -> None:
        """Flush what it writes to."""
        self._stream.flush()


def log_handler(log_format: LogFormat) -> logging.Handler:
    """Make a handler that writes the log to standard error in that form."""
    handler = logging.StreamHandler(sys.stderr)
    is_json = log_format == "json"
    handler.setFormatter(JsonFormatter() if is_json else logging.Formatter(_TEXT))
    return handler


def set_log_level(level: str) -> None:
    """Log from this one of `LOG_LEVELS` on."""
    logging.getLogger().setLevel(level.upper())


def _iso(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds")
