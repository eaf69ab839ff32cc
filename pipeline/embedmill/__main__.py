"""`python -m embedmill` is the `embedmill` command."""

from embedmill.cli.main import entry_point

if __name__ == "__main__":
    entry_point()
