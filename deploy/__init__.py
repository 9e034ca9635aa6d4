"""How people run it: Python API, command line, HTTP service."""
