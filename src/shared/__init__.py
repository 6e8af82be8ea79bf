"""The contract both processes stand on: segments, records, configuration. Imports neither process."""
