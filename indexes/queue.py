"""Sending Celery tasks by name, on commit: the tasks import the modules that send them."""

from functools import partial
from typing import Any

from celery import current_app
from django.db import transaction


def enqueue(task: str, *args: Any, delay_s: float = 0) -> None:
    """Send a task of ``indexes.tasks`` when the transaction commits, to be run so much later.

    A broker that is down does not undo the commit: the periodic tasks send it later.
    """
    message = current_app.signature(f"indexes.tasks.{task}", args=args)
    transaction.on_commit(partial(message.apply_async, countdown=delay_s), robust=True)
