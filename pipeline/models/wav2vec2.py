"""wav2vec2, HuBERT, WavLM, data2vec-audio and wav2vec2-BERT with a CTC head, exact in every batch.

B batch, T samples, F frames, V vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.audio.clock import MODEL_SAMPLE_RATE
from pipeline.errors import ModelError
from pipeline.models.base import Transcript, Utterance
from pipeline.models.ctc import CtcVocabulary, FrameLabels, transcripts
from pipeline.models.exact import adapter_frames, frame_mask, make_exact

MIN_SAMPLES = 400
"""25 ms: the receptive field of one frame. Shorter utterances are padded with zeros to it."""
BERT_WINDOW_SAMPLES, BERT_STEP_SAMPLES = 400, 160
BERT_HOP_SAMPLES = 2 * BERT_STEP_SAMPLES
BERT_MIN_SAMPLES = 1_200


class CtcTranscriber:
    """See `pipeline.models.base.Transcriber`.

    Args:
        model: `...ForCTC` in evaluation mode on its device.
        extractor: None for waveform models, else the log-mel extractor of wav2vec2-BERT.
        vocabulary: tokens of the CTC head.
        normalize: zero mean and unit variance per utterance, as the checkpoint was trained.
        language: reported in the rows.
    """

    def __init__(
        self, model: Any, extractor: Any, vocabulary: CtcVocabulary, *, normalize: bool, language: str | None
    ) -> None:
        self._model, self._extractor, self._vocabulary = model, extractor, vocabulary
        self._normalize, self._language = normalize, language
        self._lengths = make_exact(model.base_model)
        config = model.config
        self._num_adapters = config.num_adapter_layers if getattr(config, "add_adapter", False) else 0
        adapter = config.adapter_stride**self._num_adapters if self._num_adapters else 1
        self._hop = (BERT_HOP_SAMPLES if extractor is not None else prod(config.conv_stride)) * adapter

    def padded_length(self, num_samples: int) -> int:
        """Rows are padded to the longest of their batch."""
        return num_samples

    @torch.inference_mode()
    def decode(self, batch: Sequence[Utterance]) -> list[FrameLabels]:
        """Best label of every frame."""
        inputs = self._features(batch) if self._extractor is not None else self._waveforms(batch)
        logits_BFV = self._model(**inputs).logits.float()
        logprobs_BF, labels_BF = logits_BFV.log_softmax(-1).max(-1)
        counts = adapter_frames(self._lengths.frames_B, self._model.config, self._num_adapters).tolist()
        labels, logprobs = labels_BF.int().cpu().numpy(), logprobs_BF.cpu().numpy()
        return [FrameLabels(labels[row, :count], logprobs[row, :count]) for row, count in enumerate(counts)]

    def _waveforms(self, batch: Sequence[Utterance]) -> dict[str, Tensor]:
        device = self._model.device
        lengths = [max(MIN_SAMPLES, len(u.pcm_T)) for u in batch]
        pcm_BT = np.zeros((len(batch), max(lengths)), np.int16)
        for row, utterance in enumerate(batch):
            pcm_BT[row, : len(utterance.pcm_T)] = utterance.pcm_T
        samples_B = torch.tensor(lengths, device=device)
        mask_BT = frame_mask(samples_B, pcm_BT.shape[1])
        waveform_BT = torch.from_numpy(pcm_BT).to(device).float() / 32768.0
        if self._normalize:
            waveform_BT = _normalized(waveform_BT, mask_BT, samples_B)
        self._lengths.samples_B = samples_B
        self._lengths.frames_B = self._base_frames(samples_B)
        return {"input_values": waveform_BT.to(self._model.dtype), "attention_mask": mask_BT.long()}

    def _base_frames(self, lengths_B: Tensor) -> Tensor:
        """Frames before any adapter."""
        config = self._model.config
        for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
            lengths_B = (lengths_B - kernel) // stride + 1
        return lengths_B

    def _features(self, batch: Sequence[Utterance]) -> dict[str, Tensor]:
        waveforms = [u.pcm_T.astype(np.float32) / 32768.0 for u in batch]
        waveforms = [np.pad(w, (0, max(0, BERT_MIN_SAMPLES - len(w)))) for w in waveforms]
        found = self._extractor(waveforms, sampling_rate=MODEL_SAMPLE_RATE, padding=True, return_tensors="pt").to(
            self._model.device
        )
        # The extractor joins frames in pairs. Of an odd number the last pair is half padding: masked, but alone
        # in Hugging Face the adapter's convolution sees it, so it counts as the row's own here.
        num_mel = [1 + (len(w) - BERT_WINDOW_SAMPLES) // BERT_STEP_SAMPLES for w in waveforms]
        self._lengths.frames_B = torch.tensor([(n + 1) // 2 for n in num_mel], device=self._model.device)
        return {
            "input_features": found["input_features"].to(self._model.dtype),
            "attention_mask": found["attention_mask"].long(),
        }

    def finish(self, utterances: Sequence[Utterance], raw: Sequence[FrameLabels]) -> list[Transcript]:
        """Words with times."""
        return transcripts(utterances, raw, self._vocabulary, self._hop, self._language)


def load_ctc(
    folder: Path, device: torch.device, dtype: torch.dtype, language: str | None, trust_remote_code: bool
) -> CtcTranscriber:
    """A CTC checkpoint from a local folder.

    Raises:
        ModelError: tokenizer or preprocessor files are missing or do not fit.
    """
    from transformers import AutoModelForCTC, AutoTokenizer, SeamlessM4TFeatureExtractor

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        model = AutoModelForCTC.from_pretrained(folder, dtype=torch.float32, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{folder}: cannot be loaded as a CTC checkpoint ({error}); expected config.json, weights, vocab.json and preprocessor_config.json"
        ) from error
    if hasattr(tokenizer, "set_target_lang") and getattr(model.config, "adapter_attn_dim", None) and language:
        tokenizer.set_target_lang(language)
        model.load_adapter(language)
    settings_path = folder / "preprocessor_config.json"
    settings = json.loads(settings_path.read_text()) if settings_path.exists() else {}
    is_bert = model.config.model_type == "wav2vec2-bert"
    extractor = SeamlessM4TFeatureExtractor.from_pretrained(folder) if is_bert else None
    vocabulary = _vocabulary(tokenizer, model.config.vocab_size, model.config.pad_token_id)
    normalize = bool(settings.get("do_normalize", True))
    return CtcTranscriber(
        model.to(device=device, dtype=dtype).eval(), extractor, vocabulary, normalize=normalize, language=language
    )


def _vocabulary(tokenizer: Any, size: int, blank: int) -> CtcVocabulary:
    names = {number: token for token, number in tokenizer.get_vocab().items()}
    tokens = tuple(names.get(number, "") for number in range(size))
    delimiter = getattr(tokenizer, "word_delimiter_token", None) or "|"
    return CtcVocabulary(tokens, blank, delimiter, bool(getattr(tokenizer, "do_lower_case", False)))


def _normalized(waveform_BT: Tensor, mask_BT: Tensor, samples_B: Tensor) -> Tensor:
    """Zero mean, unit variance over each row's own samples, zeros behind; sums in double, so that the
    padding's length does not show. Source: transformers `Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm`."""
    count = samples_B[:, None].double()
    mean = waveform_BT.double().sum(-1, keepdim=True) / count
    centred = (waveform_BT.double() - mean) * mask_BT
    variance = centred.square().sum(-1, keepdim=True) / count
    return (centred / torch.sqrt(variance + 1e-7)).float()
