"""The trainer process: samples, trains and publishes the next version of the weights."""
