"""The processes of a supervisor: started, watched, adopted and stopped, each with its log."""
