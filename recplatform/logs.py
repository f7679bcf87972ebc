"""Logging: one line an event on stderr, JSON unless DEBUG, from the platform and its libraries alike."""

import logging
import sys
from typing import Any, Final

import orjson
import structlog
from django.core.exceptions import ImproperlyConfigured

LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def configure(*, debug: bool, level: str) -> dict[str, Any]:
    """Set structlog up and return Django's LOGGING for the same output."""
    if level not in LEVELS:
        raise ImproperlyConfigured(f"LOG_LEVEL={level}: write one of {', '.join(LEVELS)}.")
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        # A debug call below the level then costs no more than the call.
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": [*shared, structlog.stdlib.ExtraAdder()],
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    *_rendering(debug=debug),
                ],
            }
        },
        "filters": {"not_calls": {"()": NotCalls}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            # Its own handlers would write each line a second time, in another shape.
            "django": {"handlers": [], "level": "INFO", "propagate": True},
            "django.request": {"filters": ["not_calls"]},
            "django.server": {"handlers": [], "level": "INFO", "propagate": True},
            # They log each call of a client at INFO or DEBUG.
            "botocore": {"level": "WARNING"},
            "urllib3": {"level": "WARNING"},
        },
    }


class NotCalls(logging.Filter):
    """Drops Django's line on a refused call of the API, which has a line of its own."""

    def filter(self, record: logging.LogRecord) -> bool:
        path = getattr(getattr(record, "request", None), "path", "")
        return not (path.startswith("/api/") and getattr(record, "status_code", 500) < 500)


def _rendering(*, debug: bool) -> list[Any]:
    if debug:
        return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    # Without local variables: they hold passwords and keys, and whole pages of context.
    traces = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return [
        structlog.processors.ExceptionRenderer(traces),
        structlog.processors.JSONRenderer(_json),
    ]


def _json(event: Any, **options: Any) -> str:
    return orjson.dumps(event, default=options.get("default", str)).decode()
