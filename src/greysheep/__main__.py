"""`python -m greysheep` is the command `greysheep`."""

from greysheep.cli import main

if __name__ == "__main__":
    main()
