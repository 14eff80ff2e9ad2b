"""A projector learns to speak a language model's language; encoder and language model stay as they are.

B batch, F frames, E width of the encoder, S steps, D width of the language model, L positions, N text tokens.
Source of the recipe: SLAM-ASR (arXiv:2402.08846), with norms in the projector.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from audiomill.audio.cutting.segment import Segment
from audiomill.config.stages import ModelConfig
from audiomill.config.text import TranscriptConfig
from audiomill.config.train import TrainConfig
from audiomill.errors import ModelError, UsageError
from audiomill.models.base import VectorRequest
from audiomill.models.causal.activation_trace import Stage
from audiomill.models.causal.language_model import load_language_model
from audiomill.models.causal.speech_llm_model import SpeechLLM
from audiomill.models.checkpoint import checkpoint_fingerprint, find_checkpoint, weights_fingerprint
from audiomill.models.family import has_files
from audiomill.models.learner import (
    Learner,
    Loss,
    Rows,
    decoded_texts,
    frozen_part,
    precision_of_weights,
    weighted_loss,
)
from audiomill.models.locate import local_path
from audiomill.models.seq2seq.decoder_weights import DecoderWeights
from audiomill.models.seq2seq.generation import DecoderAdapter
from audiomill.models.speech_llm.adapter import new_adapter
from audiomill.models.speech_llm.projector import Projected, Projector, loudness_of
from audiomill.models.speech_llm.prompts import prompt_for, prompt_tokens
from audiomill.models.speech_llm.settings import ADAPTER, ENCODER, LM, SpeechLlmSettings, check_prompt
from audiomill.models.speech_llm.speech_llm_loading import PROJECTOR_WEIGHTS, Parts, load_parts
from audiomill.models.vectors.frozen_encoder import FeatureCache, found_encoder, loaded_encoder, most_samples
from audiomill.models.vectors.kept_parts import keep, name_of, place_of
from audiomill.text.normalize import Text

_MAX_TEXT_TOKENS = 400
QUIETEST_DB, LOUDEST_DB = -70.0, -20.0
"""Of the noise that stands for clips in which nobody speaks."""


class Learnt(nn.Module):
    """What learns: the projector, and LoRA weights where there are any."""

    def __init__(self, projector: Projector, lm: Any) -> None:
        super().__init__()
        self.projector = projector
        lora = {name.replace(".", "/"): each for name, each in lm.named_parameters() if "lora_" in name}
        self.lora = nn.ParameterDict(lora)


class Places(NamedTuple):
    """Where the folders of encoder and language model are now."""

    encoder: Path | None
    lm: Path


class ProjectorLearner(Learner):
    """See `audiomill.models.learner.Learner`.

    Args:
        parts: encoder, projector, language model.
        places: of their files.
        config: how it learns.
        most: samples of a clip that the encoder can be shown; None: any.
    """

    def __init__(self, parts: Parts, places: Places, config: TrainConfig, most: int | None) -> None:
        self._most = most
        self._parts, self._places, self._config = parts, places, config
        parts.lm.model.requires_grad_(False)
        self.model: Any = Learnt(parts.projector, parts.lm.model)
        self._prompt = prompt_tokens(parts.tokenizer, parts.settings.prompt)
        self._device = parts.lm.embeddings_VD.device
        self._remembered = FeatureCache(parts.encoder, keeps=not config.speed_augment and config.noise_snr is None)
        self._weights: DecoderWeights | None = None

    def labels(self, texts: Sequence[Text], num_samples: NDArray[np.int64]) -> list[list[int] | str]:
        """Text tokens with the end, or the reason why there are none."""
        results: list[list[int] | str] = []
        slowest = num_samples / (1 - self._config.speed_augment)
        for (text, _), count in zip(texts, slowest.tolist(), strict=True):
            if self._most is not None and count > self._most:
                results.append("longer_than_window")
                continue
            if not any(character.isalnum() for character in text):
                results.append("empty_text")
                continue
            tokens = self._parts.tokenizer(" ".join(text.split()), add_special_tokens=False).input_ids
            results.append("text_too_long" if len(tokens) > _MAX_TEXT_TOKENS else [*tokens, self._parts.lm.ends[0]])
        return results

    def set_trainable(self, update: int, num_updates: int) -> None:
        """The projector and LoRA weights learn from the start, and nothing else ever."""
        self.model.requires_grad_(True)

    def loss(self, rows: Rows, labels: Sequence[list[int]], weights: NDArray[np.float32], seed: int) -> Loss:
        """Negative log-likelihood of text and end. Some clips become noise or silence, behind which the text ends at once."""
        random = np.random.default_rng([seed, 5])
        is_empty = random.random(len(rows)) < self._config.no_speech_augment_prob
        pairs = zip(rows, labels, is_empty.tolist(), strict=True)
        shown = [
            (no_speech_clip(len(row), random), label[-1:]) if empty else (row, label) for row, label, empty in pairs
        ]
        prefixes = self._prefixes([row for row, _ in shown], is_empty, random)
        texts = [label for _, label in shown]
        logprobs = self._logprobs(prefixes, texts)
        return weighted_loss(-torch.stack(logprobs), list(map(len, texts)), weights)

    def _prefixes(self, rows: Rows, is_empty: NDArray[np.bool_], random: np.random.Generator) -> list[Tensor]:
        """prefix_PD of each row, as `inputs_embeds` take them; some frames are hidden. Noise never comes again."""
        text = iter(self._remembered.frames([row for row, empty in zip(rows, is_empty, strict=True) if not empty]))
        noise = [Segment(row, 0, 0, ("", None), 0, None) for row, empty in zip(rows, is_empty, strict=True) if empty]
        unsaid = iter(self._parts.encoder.frames(noise) if noise else ())
        frames = [self._hidden((next(unsaid) if empty else next(text)).float(), random) for empty in is_empty]
        counts = [self._parts.projector.num_steps(len(frame)) for frame in frames]
        steps_BSD = self._parts.projector(nn.utils.rnn.pad_sequence(frames, batch_first=True))
        before, after = (self._parts.lm.embedded(tokens) for tokens in self._prompt)
        steps = [row[:count].to(before.dtype) for row, count in zip(steps_BSD, counts, strict=True)]
        return [torch.cat([before, step, after]) for step in steps]

    def _hidden(self, frames_FE: Tensor, random: np.random.Generator) -> Tensor:
        kept_F1 = torch.from_numpy(random.random((len(frames_FE), 1)) >= self._config.frame_dropout)
        return frames_FE * kept_F1.to(frames_FE.device)

    def _logprobs(self, prefixes: Sequence[Tensor], texts: Sequence[list[int]]) -> list[Tensor]:
        """Log-probability of each text behind its prefix."""
        lm = self._parts.lm
        rows = [torch.cat([a, lm.embedded(text[:-1])]) for a, text in zip(prefixes, texts, strict=True)]
        embedded_BLD = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths_B = torch.tensor([len(row) for row in rows], device=self._device)
        mask_BL = torch.arange(embedded_BLD.shape[1], device=self._device) < lengths_B[:, None]
        hidden_BLD = lm.body(inputs_embeds=embedded_BLD, attention_mask=mask_BL.long(), use_cache=False)[0]
        spoken = [
            hidden_BLD[at, len(row) - len(text) : len(row)]
            for at, (row, text) in enumerate(zip(rows, texts, strict=True))
        ]
        logprobs_NV = (lm.head(torch.cat(spoken)).float() / lm.logits_scaling).log_softmax(-1)
        tokens_N = torch.tensor([token for text in texts for token in text], device=self._device)
        chosen_N = logprobs_NV.gather(1, tokens_N[:, None])[:, 0]
        return [each.sum() for each in chosen_N.split([len(text) for text in texts])]

    def transcripts(self, rows: Rows, languages: Sequence[str | None]) -> list[str]:
        """Greedy text, by the program that will use the checkpoint."""
        parts = self._parts
        text = TranscriptConfig(word_times=False, fallback=False, max_new_tokens=_MAX_TEXT_TOKENS)
        if self._weights is None or parts.settings.has_adapter:  # LoRA weights have changed
            self._weights = parts.lm.weights(precision_of_weights(parts.lm.body))
        writer = DecoderAdapter(
            weights=self._weights,
            tokens=parts.lm.special_tokens(),
            decoded=lambda tokens: parts.tokenizer.batch_decode(tokens, skip_special_tokens=True),
            language=lambda segment: None,
            prompt=lambda language: [],
        )
        listening = CachedFrames(
            self, Projected(parts.encoder, parts.projector, parts.lm, self._prompt, parts.settings.rates)
        )
        model = SpeechLLM(listening, writer, text, 0.5, parts.encoder.parity)
        return decoded_texts(model, rows, [None] * len(rows))

    @torch.inference_mode()
    def remembered_prefixes(self, projected: Projected, rows: Rows) -> list[Tensor]:
        """Of rows that may have been encoded before."""
        return [self._parts.lm.prefix(projected.parts(frames_FE)) for frames_FE in self._remembered.frames(rows)]

    def save(self, folder: Path) -> None:
        """Projector, configuration, LoRA weights; encoder and language model where they are local folders, by hard links."""
        folder.mkdir(parents=True, exist_ok=True)
        settings, projector = self._parts.settings, self._parts.projector
        settings.save(folder)
        tensors = {name: value.detach().cpu().contiguous() for name, value in projector.state_dict().items()}
        made_of = [settings.encoder_fingerprint, settings.lm_fingerprint, settings.prompt]
        # One entry, because the order of several differs from file to file.
        save_file(tensors, folder / PROJECTOR_WEIGHTS, {"made_of": json.dumps(made_of)})
        if settings.has_adapter:
            self._parts.lm.model.save_pretrained(folder / ADAPTER)
        for name, inside, place in (
            (settings.encoder, ENCODER, self._places.encoder),
            (settings.lm, LM, self._places.lm),
        ):
            if place is not None and name.split("/")[0] == inside:
                keep(place, folder / inside)


class CachedFrames:
    """See `audiomill.models.causal.speech_llm_model.AudioPrefixEncoder`: with frames that were encoded before."""

    def __init__(self, learner: ProjectorLearner, projected: Projected) -> None:
        self._learner, self._projected = learner, projected

    def padded_length(self, num_samples: int) -> int:
        return self._projected.padded_length(num_samples)

    def prefixes(self, batch: Sequence[Segment]) -> list[Tensor]:
        return self._learner.remembered_prefixes(self._projected, [segment.pcm_T for segment in batch])

    def stages(self, segment: Segment) -> tuple[Stage, ...]:
        return self._projected.stages(segment)


def no_speech_clip(num_samples: int, random: np.random.Generator) -> NDArray[np.int16]:
    """pcm_T of silence, or of noise of some loudness."""
    if random.random() < 0.5:
        return np.zeros(num_samples, np.int16)
    level = 32768.0 * 10.0 ** (random.uniform(QUIETEST_DB, LOUDEST_DB) / 20)
    return np.clip(np.rint(random.normal(0.0, level, num_samples)), -32768, 32767).astype(np.int16)


def load_projector_learner(
    folder: Path, config: TrainConfig, texts: Sequence[Text], device: torch.device
) -> ProjectorLearner:
    """A speech LLM that learns on.

    Raises:
        ModelError: a part is missing or does not fit.
    """
    parts = load_parts(folder, frozen_part(config, device), device, {}, keeps_adapter=True)
    settings = parts.settings
    inside = Places(
        local_path(place_of(folder, settings.encoder, ENCODER), {}) if has_files(settings.encoder) else None,
        local_path(place_of(folder, settings.lm, LM), {}),
    )
    encoder = find_checkpoint(ModelConfig(model=place_of(folder, settings.encoder, ENCODER)), {})
    return ProjectorLearner(parts, inside, config, most_samples(encoder))


def new_projector_learner(
    folder: Path, config: TrainConfig, texts: Sequence[Text], device: torch.device
) -> ProjectorLearner:
    """A new projector between an encoder and a language model.

    Raises:
        ModelError: one of them cannot be used for it.
        UsageError: no language model was told.
    """
    if config.lm is None:
        raise UsageError("--projector: no language model; add --lm, such as HuggingFaceTB/SmolLM3-3B or a local folder")
    name = str(folder) if has_files(config.model) else config.model
    checkpoint, shape = found_encoder(name, {})
    layer = shape.num_layers if config.encoder_layer is None else config.encoder_layer
    if not 0 <= layer <= shape.num_layers:
        raise UsageError(f"--encoder-layer {layer}: {config.model} has hidden states 0 to {shape.num_layers}")
    lm_folder = local_path(config.lm, {})
    lm, tokenizer = load_language_model(lm_folder, config.lm, device, frozen_part(config, device).precision)
    prompt = prompt_for(tokenizer) if config.lm_prompt is None else config.lm_prompt
    try:
        check_prompt(prompt, "--lm-prompt")
    except ModelError as error:
        raise UsageError(str(error)) from error
    if config.lora_rank:
        lm = new_adapter(lm, config.lora_rank)
    settings = SpeechLlmSettings(
        encoder=name_of(config.model, ENCODER),
        encoder_fingerprint=checkpoint_fingerprint(checkpoint),
        layer=layer,
        encoder_width=shape.width_of(layer),
        hop=int(shape.hops.get(layer, shape.hop)),
        lm=name_of(config.lm, LM),
        lm_fingerprint=weights_fingerprint(lm_folder),
        lm_width=lm.width,
        stack=config.frame_stacking,
        hidden=config.projector_width or lm.width,
        prompt=prompt,
        has_adapter=bool(config.lora_rank),
    )
    encoder = loaded_encoder(name, VectorRequest(layer=layer, dtype="fp32"), frozen_part(config, device), {})
    projector = Projector(
        settings.encoder_width, settings.stack, settings.hidden, settings.lm_width, loudness_of(lm.embeddings_VD)
    )
    parts = Parts(settings, encoder, projector.to(device), lm, tokenizer)
    place = folder if has_files(config.model) else None
    return ProjectorLearner(parts, Places(place, lm_folder), config, most_samples(checkpoint))
