"""`rmpe train`, from a checkout."""

from rmpe_jax.cli.huge_pages import restart_with_huge_pages
from rmpe_jax.cli.train import main

if __name__ == "__main__":
    restart_with_huge_pages()
    main()
