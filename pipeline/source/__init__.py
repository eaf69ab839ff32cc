"""Reading: input files become a list, then spans of rows, then the documents of each shard."""

from pipeline.source.columns import Resolved
from pipeline.source.discover import discover
from pipeline.source.ids import SeenIds
from pipeline.source.reader import Reader
from pipeline.source.survey import resolve, survey

__all__ = ["Reader", "Resolved", "SeenIds", "discover", "resolve", "survey"]
