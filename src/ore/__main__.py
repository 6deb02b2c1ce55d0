"""`python -m ore` is the command `ore`."""

from ore.cli import main

if __name__ == "__main__":
    main()
