"""A Transformer on log-mels learns to write from pairs of audio and text.

B batch, F mel frames, M mels, D width, L tokens. Sources: Synnaeve et al. 2020 (arXiv:1911.08460) for the model of
self-training, Wang et al. 2020 (arXiv:2010.05171) for the recipe, Park et al. 2019 (arXiv:1904.08779) for SpecAugment.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiomill.audio.cutting.segment import Segment
from audiomill.config.text import TranscriptConfig
from audiomill.config.train import TrainConfig
from audiomill.errors import ModelError
from audiomill.models.base import no_progress
from audiomill.models.ctc.labels import written_form
from audiomill.models.ctc.word_pieces import learned_pieces
from audiomill.models.frames.masks import span_mask
from audiomill.models.frames.whole import loaded_whole
from audiomill.models.learner import IGNORED, Learner, Loss, Rows, cross_entropy_loss, shifted_pairs
from audiomill.models.seq2seq.decoder_weights import tokenizer_in
from audiomill.models.seq2seq.generation import Generator
from audiomill.models.seq2seq.hypothesis import DecodingOptions
from audiomill.models.speech_to_text.s2t_network import FilterBanks, MaskedConvolutions, filter_banks, writer_of
from audiomill.text.normalize import Text

_SPAN_FRAMES = 20
BANDS, WIDEST_BAND = 2, 27 / 80
"""Bands of mels that are hidden of each clip, and the widest of them as a share of all."""
ROOM = 2
"""Positions of the decoder that are no text."""
MEMORY_FRACTION = 0.5


class Seq2SeqLearner(Learner):
    """See `audiomill.models.learner.Learner`.

    Args:
        model: `Speech2TextForConditionalGeneration` on its device; changed in place.
        tokenizer: of transformers.
        features: of the model.
        folder: it came from.
        config: how it learns.
    """

    def __init__(self, model: Any, tokenizer: Any, features: FilterBanks, folder: Path, config: TrainConfig) -> None:
        self.model, self._tokenizer, self._features = model, tokenizer, features
        self._folder, self._config = folder, config
        encoder = model.model.encoder
        self._convolutions = encoder.conv = MaskedConvolutions(encoder.conv)

    def labels(self, texts: Sequence[Text], num_samples: NDArray[np.int64]) -> list[list[int] | str]:
        """Numbers of pieces, or a reason."""
        results: list[list[int] | str] = []
        unknown, most = self._tokenizer.unk_token_id, self.model.config.max_target_positions - ROOM
        for text in texts:
            form = _form(text, self._config)
            ids = self._tokenizer(form, add_special_tokens=False)["input_ids"] if form else []
            if not any(character.isalnum() for character in form):
                results.append("empty_text")
            elif unknown in ids:
                results.append("unknown_characters")
            else:
                results.append(ids if len(ids) <= most else "text_too_long")
        return results

    def loss(self, rows: Rows, labels: Sequence[list[int]], weights: NDArray[np.float32], seed: int) -> Loss:
        """Negative log-likelihood of text and end, against smoothed labels."""
        inputs, lengths_B = self._features(rows)
        if self._config.mask_time_prob:
            inputs["input_features"] = _masked(inputs["input_features"], lengths_B, self._config.mask_time_prob, seed)
        self._convolutions.lengths_B = lengths_B
        shown_BL, targets_BL = self._pairs(labels)
        logits_BLV = self.model(**inputs, decoder_input_ids=shown_BL, use_cache=False).logits
        right = (logits_BLV.detach().argmax(-1) == targets_BL).sum() / (targets_BL != IGNORED).sum()
        loss = cross_entropy_loss(logits_BLV, targets_BL, weights, self._config.label_smoothing)
        return loss._replace(metrics={"accuracy": float(right)})

    def _pairs(self, labels: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
        """inputs_BL and targets_BL of the decoder."""
        config = self.model.config
        texts = [[*tokens, config.eos_token_id] for tokens in labels]
        prompts = [[config.decoder_start_token_id]] * len(texts)
        return shifted_pairs(prompts, texts, config.pad_token_id, self.model.device)

    @torch.inference_mode()
    def transcripts(self, rows: Rows, languages: Sequence[str | None]) -> list[str]:
        """Greedy text, by the decoder that will use the checkpoint."""
        self._convolutions.lengths_B = None
        wanted = TranscriptConfig(word_times=False, fallback=False)
        writing = Generator(
            writer_of(self.model, self._folder, self._tokenizer, "fp32", wanted), wanted, MEMORY_FRACTION
        )
        hidden = [self.model.model.encoder(**self._features([row])[0]).last_hidden_state[0] for row in rows]
        segments = [Segment(row, 0, 0, (str(at), None), 0) for at, row in enumerate(rows)]
        return [
            transcript.text
            for transcript in writing.transcripts(
                writing.written(segments, hidden, DecodingOptions(stops_repetition=True), no_progress)
            )
        ]

    def save(self, folder: Path) -> None:
        """As transformers has it."""
        from transformers import Speech2TextFeatureExtractor

        self.model.save_pretrained(folder, safe_serialization=True)
        self._tokenizer.save_pretrained(folder)
        mels = self.model.config.input_feat_per_channel
        (_extractor(self._folder) or Speech2TextFeatureExtractor(feature_size=mels, num_mel_bins=mels)).save_pretrained(
            folder
        )


def _form(text: Text, config: TrainConfig) -> str:
    return written_form(text.text, config.text_normalization == "as-is", text.language)


def _masked(features_BFM: Tensor, lengths_B: Tensor, start_share: float, seed: int) -> Tensor:
    """Spans of frames and bands of mels at their mean, which is zero."""
    random = np.random.default_rng([seed, 7])
    frames, mels = features_BFM.shape[1:]
    hidden_BF = span_mask(lengths_B.tolist(), frames, start_share * 10 / _SPAN_FRAMES, _SPAN_FRAMES, random)
    hidden_BM = np.zeros((len(features_BFM), mels), bool)
    for row in hidden_BM:
        for _ in range(BANDS):
            width = int(random.integers(0, int(WIDEST_BAND * mels) + 1))
            start = int(random.integers(0, mels - width + 1))
            row[start : start + width] = True
    hidden_BFM = torch.from_numpy(hidden_BF[..., None] | hidden_BM[:, None])
    return features_BFM.masked_fill(hidden_BFM.to(features_BFM.device), 0.0)


def _extractor(folder: Path) -> Any | None:
    from audiomill.models.preprocessing_files import feature_extractor

    return feature_extractor(folder)


def load_seq2seq_learner(
    folder: Path, config: TrainConfig, texts: Sequence[Text], device: torch.device
) -> Seq2SeqLearner:
    """A learner from a checkpoint with its pieces, or a new one with those of the labels.

    Raises:
        ModelError: no Speech2Text configuration, or weights or tokenizer are missing.
        UsageError: the labels have no letters, or more kinds of them than pieces.
    """
    from transformers import AutoConfig, AutoModelForSpeechSeq2Seq, Speech2TextForConditionalGeneration

    try:
        settings = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}: no configuration to train from ({error}); expected config.json") from error
    if config.from_scratch:
        tokenizer = learned_pieces([_form(text, config) for text in texts], config.vocab_size)
        own_items = {
            "vocab_size": len(tokenizer),
            "bos_token_id": 0,
            "pad_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 2,
        }
        settings.update(own_items)
        model = Speech2TextForConditionalGeneration(settings)
        features = FilterBanks(settings.input_feat_per_channel, (True, True), device)
    else:
        tokenizer = tokenizer_in(folder)
        model = loaded_whole(AutoModelForSpeechSeq2Seq, folder, torch.float32)
        features = filter_banks(folder, settings, device)
    if config.dropout is not None:
        _set_dropout(model, config.dropout)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    return Seq2SeqLearner(model.to(device), tokenizer, features, folder, config)


def _set_dropout(model: Any, share: float) -> None:
    for module in model.modules():
        for name in ("dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, share)
