"""An S3-compatible object store with an erasure-coded backend."""

__version__ = "0.1.0"
