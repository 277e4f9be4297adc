"""`python -m rmpe_jax.cli` is `rmpe`."""

import sys

from rmpe_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
