"""Names for what must be counted once: decisions, partial rewards and requests."""
