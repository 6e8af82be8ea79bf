"""Logged decisions: the folder they are read from, and the arrays they become."""
