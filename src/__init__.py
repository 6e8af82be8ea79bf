"""Tandem: a live decision server that keeps learning from its own decisions."""

__version__ = "0.1.0"
