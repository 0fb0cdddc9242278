"""`portico`, or `python -m portico_gateway`: the command line."""

from portico_gateway.cli.main import main

if __name__ == "__main__":
    main()
