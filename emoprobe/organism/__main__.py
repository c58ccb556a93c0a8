"""`python -m emoprobe.organism`."""

import sys

from emoprobe.organism.make import main

if __name__ == "__main__":
    sys.exit(main())
