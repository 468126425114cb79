"""`python -m ghostclean` is `ghostclean`."""

import sys

from ghostclean.cli import main

if __name__ == "__main__":
    sys.exit(main())
