"""What an operator is shown of an instance."""
