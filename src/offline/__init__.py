"""Training on a log of decisions, without a server: as fast as the machine can."""
