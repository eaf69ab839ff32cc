"""`python -m pipeline` is the `embedmill` command."""

from pipeline.cli import entry_point

if __name__ == "__main__":
    entry_point()
