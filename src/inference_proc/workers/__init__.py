"""Several processes of the bundled server on one address, each with a lane of its own. Imports no torch."""
