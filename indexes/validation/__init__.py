"""The gates between a loaded build and live: each a figure against a threshold."""

from indexes.validation.runner import GATES, run

__all__ = ["GATES", "run"]
