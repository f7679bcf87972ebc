"""recplatform wires: settings, URLs, Celery, health and the embedded stack."""

from recplatform.celery import app as celery_app

__all__ = ["celery_app"]
