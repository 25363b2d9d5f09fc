"""The benchmark: speed, server CPU and memory of an S3 store, ours or any other."""
