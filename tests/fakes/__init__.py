"""In-memory stand-ins at the seams of the pipeline, held honest by ``tests.suites``."""
