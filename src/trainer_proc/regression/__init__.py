"""The learner for one head: a network and linear paths that foretell rewards, weighed by how well each did so far."""
