"""The shared memory itself: segments, the control segment, arrays, whose a lane is. Imports errors only."""
