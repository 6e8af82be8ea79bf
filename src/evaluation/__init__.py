"""What a policy would have earned, told from decisions that another one made: off-policy evaluation."""
