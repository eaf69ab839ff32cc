"""Entry point of `python -m embedmill`."""

from embedmill.cli.entry import entry_point

if __name__ == "__main__":
    entry_point()
