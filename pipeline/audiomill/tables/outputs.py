"""Every table that a run may write."""

from __future__ import annotations

from audiomill import schema
from audiomill.tables.codes import CODES
from audiomill.tables.embeddings import EMBEDDINGS
from audiomill.tables.posteriors import POSTERIORS
from audiomill.tables.quality_table import QUALITY
from audiomill.tables.speaker_tables import SPEAKERS
from audiomill.tables.transcripts import TRANSCRIPTS

OUTPUTS = (EMBEDDINGS, CODES, POSTERIORS, SPEAKERS, TRANSCRIPTS, QUALITY)
"""Other than recordings, segments and rejections, in the order in which a part gets them."""
DOCUMENTED = {
    **schema.TABLES,
    **{name: kind for output in OUTPUTS for name, kind in output.documented.items()},
}
"""Every table with its schema, by name."""


def table_names() -> list[str]:
    """Folders that an output may have for its tables."""
    return list(DOCUMENTED)
