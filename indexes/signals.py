"""Signals that other packages listen to."""

from django.dispatch import Signal

# Sent with sender IndexDefinition, definition=… and moved=…, inside the transaction that
# moves a pointer: what a receiver writes commits or rolls back with it. ``moved`` says
# whether it is that of the live build, or only that of a canary.
live_build_changed = Signal()

# Sent with sender IndexBuild and build=…: each receiver returns a list of sentences, one for
# each way in which something published would not work on the build although it does now.
surfaces_asked = Signal()
