"""Speech LLMs in the layout of transformers: their own processor and audio tower, our decoding.

L tokens of a request, P prefix, N audio steps, D width of the language model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.audio.cutting.segment import Segment
from audiomill.errors import ModelError
from audiomill.models.base import Parity, SpeechModel
from audiomill.models.causal.activation_trace import Stage
from audiomill.models.causal.language_model import LanguageModel, language_model_of
from audiomill.models.causal.lora_files import add_lora, without_lora_files
from audiomill.models.causal.speech_llm_model import SpeechLLM
from audiomill.models.family import Loading
from audiomill.models.frames.whole import loaded_whole
from audiomill.models.load import dtype_of
from audiomill.models.precision import is_int8
from audiomill.models.preprocessing_files import MAX_COMPARED_PARAMETERS, relative
from audiomill.models.seq2seq.generation import DecoderAdapter
from audiomill.text.scripts import base_language

_MIN_SAMPLES = 1600
"""Shorter segments are filled up with silence: processors want a whole window of their spectrogram."""
Wave = NDArray[np.float32]
_NOT_COMPARED = f"forward pass: more than {MAX_COMPARED_PARAMETERS // 1_000_000} M parameters"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What differs between them.

    Attributes:
        kind: class of transformers.
        request: processor, waveform and language -> what the model is given of one segment.
        audio_features: model and what it is given -> heard_ND, audio as the language model reads it.
        parse_reply: text as it is written -> text, and the language that it names.
        processor: from a folder; None: transformers' own.
        languages: codes that may be told; others, from manifests, are left to the model. None: none is told.
        needs: what to install where its tokenizer cannot be loaded otherwise.
    """

    kind: str
    request: Callable[[Any, Wave, str | None], Mapping[str, Tensor]]
    audio_features: Callable[[Any, Mapping[str, Tensor]], Tensor]
    parse_reply: Callable[[str], tuple[str, str | None]] = lambda text: (text, None)
    languages: Callable[[], frozenset[str]] | None = None
    processor: Callable[[Path], Any] | None = None
    needs: str = ""


def audio_features(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """heard_ND of a model that takes all features that its processor gives."""
    features = {name: each for name, each in inputs.items() if name.startswith("input_features")}
    out: Tensor = model.get_audio_features(**features, return_dict=True).pooler_output
    return out.reshape(-1, out.shape[-1])


class HfAudioPrefixEncoder:
    """See `audiomill.models.causal.speech_llm_model.AudioPrefixEncoder`. Segments are encoded alone, as these towers know padding only
    in part.

    Args:
        layout: of the checkpoint.
        model: of transformers, on its device.
        processor: its own.
        lm: its language model.
        language: of a segment.
    """

    def __init__(
        self,
        layout: Layout,
        model: Any,
        processor: Any,
        lm: LanguageModel,
        language: Callable[[Segment], str | None],
    ) -> None:
        self._layout, self._model, self._processor = layout, model, processor
        self._lm, self._language = lm, language

    def padded_length(self, num_samples: int) -> int:
        return num_samples

    def prefixes(self, batch: Sequence[Segment]) -> list[Tensor]:
        """prefix_PD of each segment."""
        return [self._lm.prefix([self.embedded(segment)]) for segment in batch]

    def inputs(self, segment: Segment) -> dict[str, Tensor]:
        """What the model is given of one segment."""
        wave = segment.pcm_T.astype(np.float32) / 32768.0
        wave = np.pad(wave, (0, max(0, _MIN_SAMPLES - len(wave))))
        request = self._layout.request(self._processor, wave, self._language(segment))
        device, dtype = self._model.device, self._model.dtype
        return {name: each.to(device, dtype if each.is_floating_point() else None) for name, each in request.items()}

    @torch.inference_mode()
    def embedded(self, segment: Segment) -> Tensor:
        """embedded_PD: tokens of the request, audio in its places."""
        inputs = self.inputs(segment)
        tokens_L = inputs["input_ids"][0]
        audio_ND = self._layout.audio_features(self._model, inputs)
        is_audio_L = tokens_L == self._model.config.audio_token_id
        embedded_LD = self._lm.embeddings_VD.detach()[torch.where(is_audio_L, 0, tokens_L)].clone()
        if int(is_audio_L.sum()) != len(audio_ND):
            raise ModelError(
                f"{self._lm.name}: its processor leaves {int(is_audio_L.sum())} places for audio, its encoder fills {len(audio_ND)}; "
                "expected a processor of the same checkpoint"
            )
        embedded_LD[is_audio_L] = audio_ND.to(embedded_LD.dtype)
        return embedded_LD

    def stages(self, segment: Segment) -> tuple[Stage, ...]:
        """What its own tower and projector make of the audio."""
        is_audio_L = self.inputs(segment)["input_ids"][0] == self._model.config.audio_token_id
        steps_ND = self.embedded(segment)[is_audio_L].float().cpu().numpy()
        seconds = max(_MIN_SAMPLES, len(segment.pcm_T)) / MODEL_SAMPLE_RATE
        meaning = "What stands in the places for audio, as wide as the language model's own tokens (some of them pad the segment)."
        return (Stage("projector output", steps_ND.T, len(steps_ND) / seconds, meaning),)


def load_hf_speech_llm(loading: Loading, layout: Layout) -> SpeechModel:
    """A checkpoint from a local folder.

    Raises:
        ModelError: files are missing, or its language model is of another kind.
    """
    import transformers

    folder, wanted, config = loading.path, loading.task.requested.transcripts, loading.task.model
    assert wanted is not None, "it gives text alone"
    processor = _processor(folder, layout)
    on_cpu = loading.device.type == "cpu"  # activations stay in float32 there
    dtype = torch.float32 if on_cpu or is_int8(config.precision) else dtype_of(config.precision)
    with without_lora_files(folder) as plain:
        model = loaded_whole(getattr(transformers, layout.kind), plain, dtype).to(loading.device).eval()
    add_lora(folder, model.model.language_model)
    lm = language_model_of(model, model.model.language_model, processor.tokenizer, str(folder))
    is_large = _is_large(model)
    known = layout.languages() if layout.languages is not None else frozenset()

    def name_of_language(segment: Segment) -> str | None:
        code = base_language(segment.language or wanted.language)
        return code if code in known else None

    listening = HfAudioPrefixEncoder(layout, model, processor, lm, name_of_language)
    writer = DecoderAdapter(
        weights=lm.weights(config.precision, frees=is_large),
        tokens=lm.special_tokens(),
        decoded=lambda rows: [processor.tokenizer.decode(row, skip_special_tokens=True) for row in rows],
        language=lambda segment: segment.language or wanted.language,
        prompt=lambda language: [],
        parse_reply=layout.parse_reply,
    )
    return SpeechLLM(
        listening,
        writer,
        wanted,
        config.memory_fraction,
        lambda segment: Parity(note=_NOT_COMPARED) if is_large else _parity(listening, lm, segment),
    )


def _is_large(model: Any) -> bool:
    """Too large to compare with, and to be in memory twice."""
    return bool(sum(parameter.numel() for parameter in model.parameters()) > MAX_COMPARED_PARAMETERS)


def _parity(listening: HfAudioPrefixEncoder, lm: LanguageModel, segment: Segment) -> Parity:
    """Logits behind the request, by our layers and by transformers' own."""
    from audiomill.models.seq2seq.kv_cache import KVCache

    weights = lm.weights("fp32")
    with torch.inference_mode():
        inputs = listening.inputs(segment)
        theirs = lm.model(**inputs, use_cache=False).logits[:, -1]
        prefix_PD = listening.prefixes([segment])[0]
        ours = weights.logits(KVCache(weights, 1, len(prefix_PD)).admit_prefixes(prefix_PD[None])[:, -1])
        others = [token for token in range(ours.shape[-1]) if token not in lm.ends]  # ends are counted as one here
        return Parity(0.0, relative(ours[:, others], theirs[:, others]))


def _processor(folder: Path, layout: Layout) -> Any:
    """transformers' own, which writes the request.

    Raises:
        ModelError: files or a library are missing.
    """
    from transformers import AutoProcessor

    if layout.processor is not None:
        return layout.processor(folder)
    try:
        processor = AutoProcessor.from_pretrained(folder)
    except (OSError, ValueError, KeyError, TypeError, ImportError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        needs = f"; it may need pip install '{layout.needs}'" if layout.needs else ""
        raise ModelError(
            f"{folder}: no processor ({reason}); expected processor_config.json and the tokenizer beside the weights{needs}"
        ) from error
    if not hasattr(processor, "tokenizer"):
        raise ModelError(f"{folder}: a processor without a tokenizer; expected tokenizer.json beside the weights")
    return processor


def encoding_tensors(result: Mapping[str, Any]) -> dict[str, Tensor]:
    """Of a processor's answer."""
    return {name: each for name, each in result.items() if isinstance(each, Tensor)}
