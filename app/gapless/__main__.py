"""`python -m gapless`: the program where its console script is not on the path."""

from gapless.cli import main

if __name__ == "__main__":
    main()
