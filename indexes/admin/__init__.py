"""The admin of endpoints, catalogs, indexes and builds: one module per model."""

from indexes.admin import builds, definitions, endpoints, refreshes, sources

__all__ = ["builds", "definitions", "endpoints", "refreshes", "sources"]
