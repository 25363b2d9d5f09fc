"""`python -m s3gw`."""

import sys

from s3gw.cli import main

sys.exit(main())
