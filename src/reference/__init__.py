"""Generators of documentation pages: settings, shared memory, metrics."""
