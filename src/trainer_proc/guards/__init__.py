"""What stands between experiences, a training step and a decision: what is refused, bounded or taken back."""
