"""`rmpe eval`, from a checkout."""

from rmpe_jax.cli.evaluate import main

if __name__ == "__main__":
    main()
