"""Whisper learns from pairs of audio and text.

B batch, T samples, M mels, F frames, D width, L tokens. Source: Radford et al. 2022 (arXiv:2212.04356), section 2.2.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.config.text import TranscriptConfig
from audiomill.config.train import TrainConfig
from audiomill.errors import UsageError
from audiomill.models.base import RequestedOutputs
from audiomill.models.frames.mel import LogMel
from audiomill.models.learner import (
    Learner,
    Loss,
    Rows,
    cross_entropy_loss,
    decoded_texts,
    precision_of_weights,
    shifted_pairs,
    time_mask,
)
from audiomill.models.whisper.folder import tokenizer_of
from audiomill.models.whisper.model import WINDOW_SAMPLES, WhisperCheckpoint, WhisperModel, context_samples
from audiomill.models.whisper.parts import transformers_parts
from audiomill.models.whisper.tokens import BEFORE, TIMESTAMP_STEP_S, WhisperTokens, tokens_of
from audiomill.text.normalize import Text

_MAX_TEXT_TOKENS = 440
"""Of 448 positions, with room for the prompt and two timestamps."""
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "normalizer.json", "added_tokens.json",
    "special_tokens_map.json", "preprocessor_config.json",
)  # fmt: skip
_SPAN_FRAMES = 10


class WhisperLabel(NamedTuple):
    """Text tokens of a clip, its length in timestamp steps, and the token of its language, where the model knows several."""

    tokens: tuple[int, ...]
    steps: int
    language: int | None = None


class WhisperLearner(Learner):
    """See `audiomill.models.learner.Learner`.

    Args:
        model: `WhisperForConditionalGeneration` on its device.
        folder: it came from.
        generation: settings of the checkpoint, see `audiomill.models.whisper.loading.transformers_parts`.
        config: what learns when.
    """

    def __init__(self, model: Any, folder: Path, generation: dict[str, Any], config: TrainConfig) -> None:
        self.model, self._folder, self._generation, self._config = model, folder, generation, config
        self._tokenizer = tokenizer_of(folder)
        self._tokens: WhisperTokens = tokens_of(self._tokenizer, model.config.vocab_size, generation)
        self._mel = LogMel(model.config.num_mel_bins, model.device)

    def labels(self, texts: Sequence[Text], num_samples: NDArray[np.int64]) -> list[WhisperLabel | str]:
        """Text tokens and language, or the reason why there are none.

        Raises:
            UsageError: the model knows several languages, and no text says its own.
        """
        languages = self._tokens.languages
        if languages and texts and not any(each.language for each in texts):
            raise UsageError(
                "--language is missing: multilingual Whisper learns by language; expected a language column in the manifest, or one "
                f"for all clips of {', '.join(sorted(languages))}"
            )
        results: list[WhisperLabel | str] = []
        for (text, language), count in zip(texts, num_samples.tolist(), strict=True):
            code = self._tokens.code(language)
            if not any(character.isalnum() for character in text):
                results.append("empty_text")
                continue
            if languages and code is None:
                results.append("unknown_language" if language else "no_language")
                continue
            ids = self._tokenizer.encode(" " + " ".join(text.split()), add_special_tokens=False).ids
            steps = round(count / MODEL_SAMPLE_RATE / TIMESTAMP_STEP_S)
            results.append(
                "text_too_long"
                if len(ids) > _MAX_TEXT_TOKENS
                else WhisperLabel(tuple(ids), steps, languages.get(code or ""))
            )
        return results

    def set_trainable(self, update: int, num_updates: int) -> None:
        """The decoder, and the encoder unless it is frozen."""
        whisper = self.model.model
        awake = update >= self._config.freeze_encoder_updates
        whisper.decoder.requires_grad_(True)
        whisper.encoder.requires_grad_(awake and not self._config.freeze_encoder)
        whisper.encoder.embed_positions.requires_grad_(False)

    def loss(self, rows: Rows, labels: Sequence[WhisperLabel], weights: NDArray[np.float32], seed: int) -> Loss:
        """Negative log-likelihood of text and end; half of the clips have timestamps around their text.

        Some clips are shown in a full window, as other programs show all of them: their windows have as many samples
        as the others' together, so that a batch never needs more than twice its memory.
        """
        random = np.random.default_rng([seed, 4])
        context = context_samples(max(len(row) for row in rows), "short", self.model.device.type)
        num_full = int(len(rows) * context / WINDOW_SAMPLES + random.random())
        order = random.permutation(len(rows)).tolist()
        total, size = torch.zeros((), device=self.model.device), 0.0
        for chosen, samples in ((order[:num_full], WINDOW_SAMPLES), (order[num_full:], context)):
            if chosen:
                clips, texts = [rows[at] for at in chosen], [labels[at] for at in chosen]
                part = self._loss(clips, texts, weights[chosen], samples, random)
                total, size = total + part.total, size + part.size
        return Loss(total, size, {})

    def _loss(
        self,
        rows: Rows,
        labels: Sequence[WhisperLabel],
        weights: NDArray[np.float32],
        context: int,
        random: np.random.Generator,
    ) -> Loss:
        with torch.set_grad_enabled(not self._config.freeze_encoder):
            hidden_BFD = self._encoded(rows, context, random)
        inputs_BL, targets_BL = self._pairs(labels, random.random(len(labels)) < 0.5)
        decoded_BLD = self.model.model.decoder(input_ids=inputs_BL, encoder_hidden_states=hidden_BFD).last_hidden_state
        return cross_entropy_loss(self.model.proj_out(decoded_BLD), targets_BL, weights)

    def _encoded(self, rows: Rows, context: int, random: np.random.Generator) -> Tensor:
        """hidden_BFD of a context that holds every row; mel bands and times masked."""
        pcm_BT = np.zeros((len(rows), context), np.int16)
        for number, row in enumerate(rows):
            pcm_BT[number, : len(row)] = row[:context]
        mel_BMF = self._mel(torch.from_numpy(pcm_BT).to(self.model.device).float() / 32768.0)
        if self._config.mask_time_prob:
            frames = [min(context, len(row)) // 160 for row in rows]
            share = self._config.mask_time_prob / 2
            mask_BF = time_mask(frames, mel_BMF.shape[-1], share, _SPAN_FRAMES, random, mel_BMF.device)
            mel_BMF = mel_BMF.masked_fill(mask_BF[:, None], 0.0)
        return encoded(self.model.model.encoder, mel_BMF.to(self.model.dtype))

    def _pairs(self, labels: Sequence[WhisperLabel], timed: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
        """inputs_BL and targets_BL; the prompt is not learnt."""
        tokens, prompts, texts = self._tokens, [], []
        for label, is_timed in zip(labels, timed.tolist(), strict=True):
            prompts.append(tokens.prompt(label.language, "transcribe", is_timed))
            text = list(label.tokens)
            if is_timed:
                text = [tokens.first_timestamp, *text, tokens.first_timestamp + min(1500, label.steps)]
            texts.append([*text, tokens.end])
        return shifted_pairs(prompts, texts, tokens.end, self.model.device)

    def transcripts(self, rows: Rows, languages: Sequence[str | None]) -> list[str]:
        """Greedy text, by the program that will use the checkpoint."""
        text = TranscriptConfig(word_times=False, fallback=False)
        model = WhisperModel(
            WhisperCheckpoint(self.model, self._tokenizer, self._tokens, ()),
            RequestedOutputs(transcripts=text),
            {},
            precision_of_weights(self.model),
        )
        return decoded_texts(model, rows, languages)

    def save(self, folder: Path) -> None:
        """As Hugging Face has it, whatever it came from."""
        from transformers import GenerationConfig, WhisperFeatureExtractor

        tokens = self._tokens
        self.model.generation_config = GenerationConfig(
            **{
                "suppress_tokens": list(tokens.suppress),
                "begin_suppress_tokens": list(tokens.begin_suppress),
                "alignment_heads": self._generation.get("alignment_heads"),
                "no_timestamps_token_id": tokens.no_timestamps,
                "max_initial_timestamp_index": tokens.max_initial_timestamp,
                "prev_sot_token_id": self._tokenizer.token_to_id(BEFORE),
                "decoder_start_token_id": tokens.start,
                "eos_token_id": tokens.end,
                "pad_token_id": tokens.end,
                "max_length": 448,
                "is_multilingual": bool(tokens.languages),
                **_languages_of(tokens),
            }
        )
        self.model.save_pretrained(folder, safe_serialization=True)
        for name in TOKENIZER_FILES:
            if (self._folder / name).exists():
                shutil.copyfile(self._folder / name, folder / name)
        if not (folder / "tokenizer.json").exists():
            self._tokenizer.save(str(folder / "tokenizer.json"))
        if not (folder / "tokenizer_config.json").exists():
            _save_tokenizer_settings(folder)
        if not (folder / "preprocessor_config.json").exists():
            WhisperFeatureExtractor(feature_size=self.model.config.num_mel_bins).save_pretrained(folder)


def _languages_of(tokens: WhisperTokens) -> dict[str, Any]:
    """Of English-only checkpoints nothing: an empty table makes `generate` write timestamps without a text."""
    if not tokens.languages:
        return {}
    return {
        "lang_to_id": {f"<|{code}|>": token for code, token in tokens.languages.items()},
        "task_to_id": {"transcribe": tokens.transcribe, "translate": tokens.translate},
    }


def encoded(encoder: Any, mel_BMF: Tensor) -> Tensor:
    """hidden_BFD of any even number of mel frames up to the window: Hugging Face's encoder takes full windows only."""
    hidden = nn.functional.gelu(encoder.conv1(mel_BMF))
    hidden = nn.functional.gelu(encoder.conv2(hidden)).transpose(1, 2)
    hidden = hidden + encoder.embed_positions.weight[: hidden.shape[1]]
    for layer in encoder.layers:
        if encoder.gradient_checkpointing and encoder.training:
            checkpoint = torch.utils.checkpoint.checkpoint(layer, hidden, None, use_reentrant=False)
        else:
            checkpoint = layer(hidden, None)
        hidden = checkpoint[0] if isinstance(checkpoint, tuple) else checkpoint
    normed: Tensor = encoder.layer_norm(hidden)
    return normed


def _save_tokenizer_settings(folder: Path) -> None:
    """Of the class that transformers' pipeline asks for times."""
    from transformers import WhisperTokenizerFast

    end = "<|endoftext|>"
    tokenizer = WhisperTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), bos_token=end, eos_token=end, unk_token=end, pad_token=end
    )
    tokenizer.save_pretrained(folder)


def load_whisper_learner(
    folder: Path, config: TrainConfig, texts: Sequence[Text], device: torch.device
) -> WhisperLearner:
    """A learner from a Hugging Face or CTranslate2 folder."""
    from transformers import AutoConfig, WhisperForConditionalGeneration

    if config.from_scratch:
        generation: dict[str, Any] = {}
        model = WhisperForConditionalGeneration(AutoConfig.from_pretrained(folder))
    else:
        model, generation = transformers_parts(folder)
    if config.dropout is not None:
        for module in model.modules():
            if hasattr(module, "dropout") and isinstance(module.dropout, float):
                module.dropout = config.dropout
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    return WhisperLearner(model.to(device), folder, generation, config)
