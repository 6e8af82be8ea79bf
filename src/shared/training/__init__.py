"""What whoever trains does about a step, a trainer process or a coupled server: bounds, checks, a watch."""
