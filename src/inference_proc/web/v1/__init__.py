"""Decisions and rewards over plain HTTP: two calls, in any language."""
