"""The processes that a supervisor keeps: started, watched, adopted and stopped, each with its log."""
