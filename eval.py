"""`rmpe eval`, from a checkout."""

from rmpe_jax.cli.evaluate import main
from rmpe_jax.cli.huge_pages import restart_with_huge_pages

if __name__ == "__main__":
    restart_with_huge_pages()
    main()
