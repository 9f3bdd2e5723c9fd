"""`python -m jobqueue`: the command line."""

from jobqueue.cli.main import main

if __name__ == "__main__":
    main()
