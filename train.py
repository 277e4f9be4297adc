"""`rmpe train`, from a checkout."""

from rmpe_jax.cli.train import main

if __name__ == "__main__":
    main()
