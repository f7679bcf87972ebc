"""The embedded stack: the real servers that the demo and the tests run on, from PyPI wheels.

For development and tests only. Nothing here imports Django.
"""
