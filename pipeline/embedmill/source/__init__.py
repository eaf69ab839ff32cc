"""Read input: discover files, resolve columns, survey rows, read documents."""

from embedmill.source.columns import ResolvedColumns
from embedmill.source.discover import Discovered, discover
from embedmill.source.ids import SeenIds
from embedmill.source.reader import Reader
from embedmill.source.survey import resolve, survey

__all__ = ["Discovered", "Reader", "ResolvedColumns", "SeenIds", "discover", "resolve", "survey"]
