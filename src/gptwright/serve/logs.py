"""The server's log: a line for each request and each answer. Text of people is in it only if that was asked for."""

import json
import logging
import time
from typing import Any


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, event, and what is known of the request or the answer."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        told: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
        }
        for name in ("http", "answer"):
            if isinstance(found := getattr(record, name, None), dict):
                told |= {"event": "request" if name == "http" else name, **found}
        if "event" not in told:
            told |= {"event": "message", "message": record.getMessage()}
        if record.exc_info:
            told["error"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """One line for people; answers are told of only where their text is wanted."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        line = super().format(record)
        answer = getattr(record, "answer", None)
        if not isinstance(answer, dict):
            return line
        return (
            line + " " + " ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in answer.items())
        )


def log_to_stderr(form: str) -> None:
    """Set up the log, unless whoever runs us has done so already.

    Args:
        form: ``text`` or ``json``.
    """
    log = logging.getLogger("gptwright.serve")
    if log.handlers or logging.getLogger().handlers:
        return
    handler = logging.StreamHandler()
    text = TextFormatter("%(asctime)s %(message)s", "%H:%M:%S")
    handler.setFormatter(JsonFormatter() if form == "json" else text)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
