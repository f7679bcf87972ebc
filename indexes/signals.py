"""Signals that other packages listen to."""

from django.dispatch import Signal

# Sent with sender IndexDefinition and definition=…, inside the transaction that
# moves the live pointer: what a receiver writes commits or rolls back with it.
live_build_changed = Signal()
