"""The HTTP API: authenticate, parse, call the pipeline, render. No rule about surfaces lives here."""
