"""The inference process: decides, records experiences and serves."""
