"""How transducers are loaded, and compared with transformers' own."""

from __future__ import annotations

import torch

from audiomill.models.ctc.vocabulary import ctc_tokenizer, ctc_vocabulary
from audiomill.models.family import Loading
from audiomill.models.fastconformer.fast_conformer import encoder
from audiomill.models.fastconformer.frame_clock import fastconformer_shape
from audiomill.models.frames.encoders import encoder_network
from audiomill.models.frames.whole import loaded_whole
from audiomill.models.load import dtype_of
from audiomill.models.precision import is_int8
from audiomill.models.transducer.model import TransducerModel


def load_transducer(loading: Loading) -> TransducerModel:
    """A checkpoint from a local folder.

    Raises:
        ModelError: weights, tokenizer or feature-extractor files are missing or do not fit.
    """
    from transformers import AutoModel

    folder, precision, requested = loading.path, loading.task.model.precision, loading.task.requested
    is_integers = is_int8(precision)
    model = loaded_whole(AutoModel, folder, torch.float32 if is_integers else dtype_of(precision))
    model = model.to(loading.device).eval()
    vocabulary, settings = None, model.config
    if requested.transcripts is not None:
        tokenizer = ctc_tokenizer(folder, None, False)
        vocabulary = ctc_vocabulary(tokenizer, settings.vocab_size, settings.pad_token_id, settings.blank_token_id)
    return TransducerModel(
        encoder_network(loading, model, encoder(fastconformer_shape(folder).hop)),
        vocabulary,
        requested,
        loading.quantizers,
        language=None if requested.transcripts is None else requested.transcripts.language,
        one_by_one=is_integers,
    )
