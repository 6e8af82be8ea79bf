"""What can be chosen: the heads of an action, and which of their choices a request allows."""
