"""wav2vec (2019) and vq-wav2vec (2020), from fairseq's .pt files."""

from __future__ import annotations

from functools import partial

from audiomill.config.defaults import FRAMES_BATCH_S
from audiomill.models.base import SpeechModel
from audiomill.models.family import CODES, VECTORS, Facts, Family, Late, Loading, Objective, always


def _load(loading: Loading) -> SpeechModel:
    from audiomill.models.load import dtype_of
    from audiomill.models.wav2vec1.fairseq import load_fairseq
    from audiomill.models.wav2vec1.model import Wav2VecModel

    model = load_fairseq(loading.path).to(device=loading.device, dtype=dtype_of(loading.task.model.precision))
    return Wav2VecModel(model, loading.task.requested, loading.quantizers)


_SHAPE = Late("audiomill.models.wav2vec1.fairseq:shape_of_fairseq")
_LEARNER = Late("audiomill.models.wav2vec1.predictive_learner:load_wav2vec_pretrainer")

FAMILY = Family(
    name="wav2vec1",
    checkpoints="wav2vec (v1) and vq-wav2vec (fairseq .pt files, and what is trained here)",
    facts=Facts(
        examples=("wav2vec_large.pt", "vq-wav2vec.pt", "vq-wav2vec_kmeans.pt"),
        offers="vectors, codes of its own quantizer; can be trained",
        exact="vectors and codes are those of a second implementation of the paper, alone (a test compares)",
        licence="MIT",
    ),
    recognises=lambda path, settings: path.suffix == ".pt" or settings.get("model_type") == "audiomill_wav2vec",
    gives=always(VECTORS, CODES),
    shape=_SHAPE,
    load=_load,
    batch_seconds=FRAMES_BATCH_S,
    quantizes_itself=True,
    learners={
        "wav2vec": Objective(load=partial(_LEARNER, codes=False), needs_text=False),
        "vq-wav2vec": Objective(load=partial(_LEARNER, codes=True), needs_text=False),
    },
    usual=lambda path: "wav2vec" if _SHAPE(path).quantizer is None else "vq-wav2vec",
)
