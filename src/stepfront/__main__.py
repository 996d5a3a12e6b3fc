"""Run the command line as `python -m stepfront`."""

from stepfront.search.cli.main import main

if __name__ == "__main__":
    main()
