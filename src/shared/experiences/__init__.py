"""Experiences: their records, the rings and pending tables that hold them, and how they are sampled."""
