"""Whole stores as processes on loopback, for `make cluster`, the tests and the benchmark."""
