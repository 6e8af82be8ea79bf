"""What ctl runs once the environment exists: it starts, watches and stops the two processes."""
