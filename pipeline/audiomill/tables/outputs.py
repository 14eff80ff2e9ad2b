"""Every table that a run may write."""

from __future__ import annotations

from audiomill import schema
from audiomill.tables.codes import CODES
from audiomill.tables.embeddings import EMBEDDINGS
from audiomill.tables.posteriors import POSTERIORS
from audiomill.tables.quality_table import QUALITY
from audiomill.tables.speaker_tables import MADE_LAST
from audiomill.tables.transcripts import TRANSCRIPTS

OUTPUTS = (EMBEDDINGS, CODES, POSTERIORS, TRANSCRIPTS)
"""Beside recordings, segments and rejections, in the order in which they are settled."""
DOCUMENTED = {
    **schema.TABLES,
    **{output.name: output.documented for output in OUTPUTS},
    **MADE_LAST,
    "quality": QUALITY,
}
"""Every table with its schema, by name."""


def table_names() -> list[str]:
    """Folders that an output may have for its tables."""
    return list(DOCUMENTED)
