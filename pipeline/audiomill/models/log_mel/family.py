"""`--model log-mel://`: 80 mel bands every 10 ms, as Whisper takes them."""

from __future__ import annotations

from audiomill.config.defaults import FRAMES_BATCH_S
from audiomill.models.base import SpeechModel
from audiomill.models.family import CODES, VECTORS, Facts, Family, Loading, always
from audiomill.models.log_mel.mel_bands import HOP, MELS
from audiomill.models.task import Shape

_SCHEME = "log-mel://"


def _load(loading: Loading) -> SpeechModel:
    from audiomill.models.log_mel.log_mel_model import LogMelModel

    return LogMelModel(loading.task.requested, loading.quantizers)


FAMILY = Family(
    name="log_mel",
    checkpoints="the spectrogram itself (log-mel://)",
    facts=Facts(
        examples=(_SCHEME,),
        offers="vectors, codes by k-means",
        exact="each segment is computed alone",
        licence="nothing to license",
    ),
    recognises=lambda path, settings: False,
    gives=always(VECTORS, CODES),
    shape=lambda path: Shape(width=MELS, num_layers=0, hop=HOP),
    load=_load,
    batch_seconds=FRAMES_BATCH_S,
    reads_log_mel=True,
    scheme=_SCHEME,
)
