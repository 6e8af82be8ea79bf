"""Weights: the flat model, the slots that carry it from process to process, and checkpoints."""
