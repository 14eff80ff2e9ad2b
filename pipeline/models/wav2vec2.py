"""wav2vec2, HuBERT, WavLM, data2vec-audio and wav2vec2-BERT: text, vectors and codes from one exact forward pass.

B batch, T samples, F frames, V vocabulary, D width.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.errors import ModelError
from pipeline.models.base import (
    CONV,
    Aligner,
    Answer,
    Ladder,
    Packer,
    Readout,
    Transcript,
    Utterance,
    Wants,
    side_by_side,
)
from pipeline.models.ctc import CtcVocabulary, FrameLabels, transcripts
from pipeline.models.ctc_align import word_frames
from pipeline.models.exact import adapter_frames, frame_mask, make_exact, with_plain_weights
from pipeline.models.fbank import KaldiFbank, num_mel_frames
from pipeline.models.readout import CoreFrames, Quantizer, read_out
from pipeline.models.shape import receptive_field
from pipeline.models.taps import LayerTaps, without_layers_above

BERT_HOP_SAMPLES = 320
BERT_MIN_SAMPLES = 1_200
"""Two pairs of mel frames: with fewer, their normalisation divides by zero."""
MAY_BE_MISSING = ("masked_spec_embed", "adapter.")
"""Tensors that checkpoints lack without harm: used in training only, or loaded by language."""


class FrameModel:
    """See `pipeline.models.base.SpeechModel`.

    Args:
        model: base model, or `...ForCTC` where text is wanted; in evaluation mode on its device.
        fbank: None for waveform models, else the features of wav2vec2-BERT.
        vocabulary: tokens of the CTC head; None where no text is wanted.
        wants: what to give.
        quantizers: by name of the want.
        normalize: zero mean and unit variance per utterance, as the checkpoint was trained.
        language: reported in the rows.
    """

    ladder: Ladder | None = None
    packer: Packer | None = None
    aligner: Aligner | None = None
    pads_rows_alone = False

    def __init__(
        self,
        model: Any,
        fbank: KaldiFbank | None,
        vocabulary: CtcVocabulary | None,
        wants: Wants,
        quantizers: Mapping[str, Quantizer],
        *,
        normalize: bool,
        language: str | None,
    ) -> None:
        self._model, self._base, self._fbank, self._vocabulary = model, model.base_model, fbank, vocabulary
        self._wants, self._quantizers = wants, quantizers
        self._normalize, self._language = normalize, language
        self.aligner = self if wants.aligns else None
        config = model.config
        self._stack = wants.layers - {CONV}
        if vocabulary is None:
            without_layers_above(self._base.encoder, max(self._stack, default=0))
        self._taps = LayerTaps(self._base.encoder.layers, self._stack)
        if CONV in wants.layers:
            self._base.feature_projection.register_forward_pre_hook(self._keep_conv)
        self._lengths = make_exact(self._base)
        self._num_adapters = config.num_adapter_layers if getattr(config, "add_adapter", False) else 0
        self._hop = BERT_HOP_SAMPLES if fbank is not None else prod(config.conv_stride)
        self._min_samples = BERT_MIN_SAMPLES if fbank is not None else receptive_field(config)

    def padded_length(self, num_samples: int) -> int:
        """Rows are padded to the longest of their batch."""
        return num_samples

    def spare_memory(self) -> None:
        """Nothing is kept between batches."""

    @torch.inference_mode()
    def forward(self, batch: Sequence[Utterance]) -> list[Answer]:
        """Best label of every frame, vectors and codes, whichever are wanted."""
        inputs = self._bert_inputs(batch) if self._fbank is not None else self._waveforms(batch)
        texts: Sequence[FrameLabels | None] = [None] * len(batch)
        if self._vocabulary is not None:
            texts = self._labels(self._model(**inputs).logits)
        elif self._stack:
            self._base(**inputs)
        else:  # only codes of the convolutions: the transformer, most of the work, is not run
            self._base.feature_projection(self._base.feature_extractor(inputs["input_values"]).transpose(1, 2))
        readouts: Sequence[Readout] = [Readout()] * len(batch)
        if self._wants.layers:
            device, frames = self._model.device, self._lengths.frames_B.tolist()
            core = CoreFrames(batch, frames, self._hop, device)
            readouts = read_out(self._wants, self._taps.taken(), None, self._quantizers, core)
        return [Answer(text, readout) for text, readout in zip(texts, readouts, strict=True)]

    def transcripts(self, utterances: Sequence[Utterance], texts: Sequence[FrameLabels]) -> list[Transcript]:
        """Words with times."""
        assert self._vocabulary is not None, "text is wanted"
        return transcripts(utterances, texts, self._vocabulary, self.text_hop, self._language)

    @property
    def text_hop(self) -> int:
        """Samples from one letter's frame to the next: adapters make them fewer."""
        return self._hop * self._model.config.adapter_stride**self._num_adapters if self._num_adapters else self._hop

    @torch.inference_mode()
    def posteriors(self, utterance: Utterance) -> tuple[NDArray[np.float32], tuple[str, ...]]:
        """posteriors_FV of one utterance, and the tokens, for pictures."""
        assert self._vocabulary is not None, "text is wanted"
        inputs = self._bert_inputs([utterance]) if self._fbank is not None else self._waveforms([utterance])
        found = self._model(**inputs).logits[0].float().softmax(-1).cpu().numpy()
        self._taps.taken()
        return found, self._vocabulary.tokens

    def _labels(self, logits_BFV: Tensor) -> list[FrameLabels]:
        logprobs_BF, labels_BF = logits_BFV.float().log_softmax(-1).max(-1)
        counts = adapter_frames(self._lengths.frames_B, self._model.config, self._num_adapters).tolist()
        labels, logprobs = labels_BF.int().cpu().numpy(), logprobs_BF.cpu().numpy()
        found = [FrameLabels(labels[row, :count], logprobs[row, :count]) for row, count in enumerate(counts)]
        if not self._wants.aligns:
            return found
        all_BFV = logits_BFV.float().log_softmax(-1).cpu().numpy()
        return [each._replace(emitted_FV=all_BFV[row, : counts[row]]) for row, each in enumerate(found)]

    def edges(
        self, utterances: Sequence[Utterance], texts: Sequence[FrameLabels], words: Sequence[Sequence[str]]
    ) -> list[list[tuple[int, int]] | None]:
        """See `pipeline.models.base.Aligner`."""
        assert self._vocabulary is not None, "a model with a CTC head"
        found: list[list[tuple[int, int]] | None] = []
        for utterance, text, said in zip(utterances, texts, words, strict=True):
            assert text.emitted_FV is not None, "alignment was wanted"
            spans = word_frames(said, text.emitted_FV, self._vocabulary)
            hop, left = self.text_hop, utterance.left
            found.append(spans and [(max(0, hop * a - left), max(0, hop * b - left)) for a, b in spans])
        return found

    def _keep_conv(self, _module: nn.Module, args: tuple[Any, ...]) -> None:
        self._taps.hidden[CONV] = args[0]

    def _waveforms(self, batch: Sequence[Utterance]) -> dict[str, Tensor]:
        waveform_BT, samples_B = self._padded(batch)
        mask_BT = frame_mask(samples_B, waveform_BT.shape[1])
        waveform_BT = waveform_BT.float() / 32768.0
        if self._normalize:
            waveform_BT = _normalized(waveform_BT, mask_BT, samples_B)
        self._lengths.samples_B = samples_B
        self._lengths.frames_B = self._base_frames(samples_B)
        return {"input_values": waveform_BT.to(self._model.dtype), "attention_mask": mask_BT.long()}

    def _bert_inputs(self, batch: Sequence[Utterance]) -> dict[str, Tensor]:
        """Mel frames joined in pairs.

        Of an odd number the last pair is half padding: masked, but alone in Hugging Face the convolutions see it, so
        it counts as the row's own here.
        """
        assert self._fbank is not None, "wav2vec2-BERT"
        pcm_BT, samples_B = self._padded(batch)
        mel_BFM = self._fbank(pcm_BT, samples_B)
        mel_BFM = nn.functional.pad(mel_BFM, (0, 0, 0, mel_BFM.shape[1] % 2), value=self._fbank.padding)
        pairs_BFM = mel_BFM.reshape(len(batch), -1, 2 * mel_BFM.shape[-1])
        num_mel_B = num_mel_frames(samples_B)
        self._lengths.frames_B = (num_mel_B + 1) // 2
        mask_BF = frame_mask(num_mel_B // 2, pairs_BFM.shape[1])
        return {"input_features": pairs_BFM.to(self._model.dtype), "attention_mask": mask_BF.long()}

    def _padded(self, batch: Sequence[Utterance]) -> tuple[Tensor, Tensor]:
        """pcm_BT on the device, zeros behind, and the length of each row."""
        lengths = [max(self._min_samples, len(u.pcm_T)) for u in batch]
        pcm_BT = side_by_side(batch, max(lengths))
        device = self._model.device
        return torch.from_numpy(pcm_BT).to(device), torch.tensor(lengths, device=device)

    def _base_frames(self, lengths_B: Tensor) -> Tensor:
        """Frames before any adapter."""
        config = self._model.config
        for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
            lengths_B = (lengths_B - kernel) // stride + 1
        return lengths_B


def load_frame_model(
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    wants: Wants,
    quantizers: Mapping[str, Quantizer],
    trust_remote_code: bool,
) -> FrameModel:
    """A wav2vec2-family checkpoint from a local folder; with its CTC head where text is wanted.

    Raises:
        ModelError: weights, tokenizer or preprocessor files are missing or do not fit.
    """
    from transformers import AutoModel, AutoModelForCTC, SeamlessM4TFeatureExtractor

    kind = AutoModel if wants.transcripts is None and not wants.aligns else AutoModelForCTC
    language = None if wants.transcripts is None else wants.transcripts.language
    try:
        model, loading = kind.from_pretrained(
            folder, dtype=torch.float32, trust_remote_code=trust_remote_code, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"{folder}: cannot be loaded ({error}); expected config.json and weights that fit it"
        ) from error
    missing = sorted(name for name in loading["missing_keys"] if not any(part in name for part in MAY_BE_MISSING))
    if missing:
        raise ModelError(
            f"{folder}: the weights lack {len(missing)} tensors, the first is {missing[0]}; expected a whole checkpoint"
        )
    vocabulary = None
    if wants.transcripts is not None or wants.aligns:
        tokenizer = _tokenizer(folder, trust_remote_code)
        if hasattr(tokenizer, "set_target_lang") and getattr(model.config, "adapter_attn_dim", None) and language:
            tokenizer.set_target_lang(language)
            model.load_adapter(language)
        vocabulary = _vocabulary(tokenizer, model.config.vocab_size, model.config.pad_token_id)
    fbank = None
    if model.config.model_type == "wav2vec2-bert":
        has_settings = (folder / "preprocessor_config.json").exists()
        extractor = (
            SeamlessM4TFeatureExtractor.from_pretrained(folder) if has_settings else SeamlessM4TFeatureExtractor()
        )
        fbank = KaldiFbank(extractor.num_mel_bins, extractor.padding_value, device)
    settings_path = folder / "preprocessor_config.json"
    settings = json.loads(settings_path.read_text()) if settings_path.exists() else {}
    normalize = bool(settings.get("do_normalize", True))
    with_plain_weights(model)
    model = model.to(device=device, dtype=dtype).eval()
    return FrameModel(model, fbank, vocabulary, wants, quantizers, normalize=normalize, language=language)


def _tokenizer(folder: Path, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{folder}: no tokenizer for its CTC head ({error}); expected vocab.json beside the weights"
        ) from error


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
