"""Catalog formats: each module turns a file into numbered rows."""
