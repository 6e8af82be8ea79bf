"""What must be there before an instance can start: environment, memory, everything that `ctl doctor` looks at."""
