"""audiomill: the batch pipeline that turns audio corpora into transcripts, embeddings and codes in Parquet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from audiomill.tables.reader import OutputDataset


def open_output(url: str, table: str | None = None, **options: Any) -> OutputDataset:
    """Embeddings or codes of an output as a torch dataset; see `audiomill.tables.reader.open_output`."""
    from audiomill.tables.reader import open_output as opened  # only here: torch takes seconds to import

    return opened(url, table, **options)
