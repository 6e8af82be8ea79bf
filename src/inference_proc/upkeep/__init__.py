"""What an engine looks after between decisions: resets, reloads, its health."""
