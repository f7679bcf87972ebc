"""The console: surfaces, rerankers and keys, with users and schedules beside them."""

from surfaces.admin import accounts, api_keys, rerankers, revisions, schedules, surfaces

__all__ = ["accounts", "api_keys", "rerankers", "revisions", "schedules", "surfaces"]
