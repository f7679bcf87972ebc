"""Signals that other packages listen to."""

from django.dispatch import Signal

# Sent with sender IndexDefinition and definition=…, inside the transaction that
# moves the live pointer: what a receiver writes commits or rolls back with it.
live_build_changed = Signal()

# Sent with sender IndexBuild and build=…: each receiver returns a list of sentences, one for
# each way in which something published would not work on the build although it does now.
surfaces_asked = Signal()
