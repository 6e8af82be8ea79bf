"""What a model must be so that the server computes what the trainer trained."""
