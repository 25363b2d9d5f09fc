"""SDKs and command lines that are not Python's: `make clients` runs them, `make test` does not,
for they need node, Go and a JDK, and registries to download from."""

import os

collect_ignore_glob = [] if "CLIENTS" in os.environ else ["test_*.py"]
