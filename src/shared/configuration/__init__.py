"""The configuration of an instance: declaring, reading and checking settings."""
