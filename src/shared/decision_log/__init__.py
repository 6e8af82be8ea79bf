"""The decision log: every completed decision on disk, in segments of the ring's own records."""
