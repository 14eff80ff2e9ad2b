"""wav2vec2-family models learn to write, by CTC.

B batch, F frames, V vocabulary. Source: Graves et al. 2006; recipe of wav2vec 2.0 (arXiv:2006.11477), section 4.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from audiomill.config.train import TrainConfig
from audiomill.errors import ModelError, UsageError
from audiomill.models.beside import feature_extractor
from audiomill.models.ctc.greedy import CtcVocabulary
from audiomill.models.ctc.labels import LabelForm, best_path, form_of, num_frames_needed, save_tokenizer, vocabulary_of
from audiomill.models.ctc.vocabulary import ctc_tokenizer, ctc_vocabulary
from audiomill.models.frames.inputs import FrameInputs, fbank_of, normalizes
from audiomill.models.frames.masks import numpy_seeded, span_mask
from audiomill.models.frames.renamed import with_real_names
from audiomill.models.frames.wav2vec2_like import load_adapter
from audiomill.models.learner import Loss, Rows

MASK_FRAMES = 10


class CtcLearner:
    """See `audiomill.models.learner.Learner`.

    Args:
        model: `...ForCTC`, on its device.
        folder: it came from.
        form: how texts become tokens.
        config: what learns when.
        is_new: the tokens are those of the labels, not the checkpoint's.
    """

    notes: tuple[str, ...] = ()

    def __init__(self, model: Any, folder: Path, form: LabelForm, config: TrainConfig, is_new: bool) -> None:
        self.model, self._folder, self._form, self._config, self._is_new = model, folder, form, config, is_new
        self._inputs = FrameInputs(model, fbank_of(folder, model), normalizes(folder))
        self._fastest = 1 + config.speed_augment

    def labels(self, texts: Sequence[str], num_samples: NDArray[np.int64]) -> list[list[int] | str]:
        """Token numbers, or a reason; audio must have a frame for each token at every speed that it is played at."""
        frames = self._inputs.text_frames_of((num_samples / self._fastest).astype(np.int64) - 1)
        found: list[list[int] | str] = []
        for text, most in zip(texts, frames.tolist(), strict=True):
            tokens = self._form.tokens(text)
            is_short = not isinstance(tokens, str) and num_frames_needed(tokens) > most
            found.append("audio_shorter_than_text" if is_short else tokens)
        return found

    def thaw(self, update: int, num_updates: int) -> None:
        """First the head alone, then the transformer, the convolutions only if asked for."""
        config, base = self._config, self.model.base_model
        base.requires_grad_(update >= config.freeze_updates)
        extractor = getattr(base, "feature_extractor", None)
        if extractor is not None:
            learns = config.from_scratch or not config.freeze_feature_encoder
            extractor.requires_grad_(learns and update >= config.freeze_updates)

    def loss(self, rows: Rows, labels: Sequence[list[int]], weights: NDArray[np.float32], seed: int) -> Loss:
        """Negative log-likelihood of the labels."""
        device = self.model.device
        with numpy_seeded(seed):
            hidden_BFD = self._hidden(rows, seed)
        logits_BFV = self.model.lm_head(self.model.dropout(hidden_BFD))
        logprobs_FBV = logits_BFV.float().log_softmax(-1).transpose(0, 1)
        lengths = torch.tensor([len(tokens) for tokens in labels], device=device)
        losses_B = torch.nn.functional.ctc_loss(
            logprobs_FBV,
            torch.tensor([token for tokens in labels for token in tokens], device=device),
            self._inputs.text_frames_B().to(device),
            lengths,
            blank=self._form.vocabulary.blank,
            reduction="none",
        )
        weights_B = torch.from_numpy(weights).to(device)
        return Loss((losses_B * weights_B).sum(), float((lengths * weights_B).sum()), {})

    def _hidden(self, rows: Rows, seed: int) -> Tensor:
        inputs = self._inputs(rows)
        return self.model.base_model(**inputs, mask_time_indices=self._mask(seed))[0]  # type: ignore[no-any-return]

    def _mask(self, seed: int) -> Tensor | None:
        """Frames hidden by SpecAugment; known only once the inputs are there."""
        if not self._config.mask_time:
            return None
        frames = self._inputs.frames_B()
        random = np.random.default_rng([seed, 3])
        mask_BF = span_mask(frames.tolist(), int(frames.max()), self._config.mask_time, MASK_FRAMES, random)
        return torch.from_numpy(mask_BF).to(self.model.device)

    @torch.inference_mode()
    def transcripts(self, rows: Rows) -> list[str]:
        """Best labels, collapsed."""
        labels_BF = self.model(**self._inputs(rows)).logits.argmax(-1).cpu().numpy()
        counts = self._inputs.text_frames_B().tolist()
        return [best_path(labels_BF[row, :count], self._form.vocabulary) for row, count in enumerate(counts)]

    def save(self, folder: Path) -> None:
        """Weights, configuration, tokens, and how audio is prepared."""
        if self._is_new:
            save_tokenizer(self._form.vocabulary, folder)
        else:
            adapted = _adapted(self.model.config, self._config)
            ctc_tokenizer(self._folder, adapted, self._config.trust_remote_code).save_pretrained(folder)
            if adapted:
                adapter = {name: tensor.detach().contiguous() for name, tensor in self.model._get_adapters().items()}
                save_file(adapter, folder / f"adapter.{adapted}.safetensors", {"format": "pt"})
        self.model.save_pretrained(folder, safe_serialization=True)
        save_preparation(self._folder, folder)


def save_preparation(source: Path, folder: Path) -> None:
    """How the checkpoint takes audio: as before, or normalised where it does not say."""
    from transformers import Wav2Vec2FeatureExtractor

    found = feature_extractor(source) or Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    found.save_pretrained(folder)


def load_ctc(folder: Path, config: TrainConfig, texts: Sequence[str], device: torch.device) -> CtcLearner:
    """A learner from a checkpoint's folder, with its tokens or those of the labels.

    Raises:
        ModelError: no wav2vec2-family configuration, or tokens were asked of a checkpoint that has none.
        UsageError: the labels have no letters.
    """
    from transformers import AutoConfig, AutoModelForCTC

    try:
        settings = AutoConfig.from_pretrained(folder, trust_remote_code=config.trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder}: no configuration to train from ({error}); expected config.json") from error
    has_tokens = any((folder / name).exists() for name in ("vocab.json", "tokenizer.json"))
    if config.vocabulary == "checkpoint" and not has_tokens:
        raise ModelError(f"--vocabulary checkpoint: {config.model} has no vocab.json; use --vocabulary labels")
    if config.units == "pieces":
        raise UsageError(
            "--units pieces: heads on frozen features and seq2seq models write pieces; add --features, or leave it out"
        )
    keeps_form = config.text_form == "as-is"
    is_own = has_tokens and config.vocabulary != "labels"
    if is_own:
        tokenizer = ctc_tokenizer(folder, _adapted(settings, config), config.trust_remote_code)
        # tokens beyond a trained head (<s>, </s>) are no letters: the head stays as it is
        vocabulary = ctc_vocabulary(tokenizer, _head_size(settings, config), settings.pad_token_id)
    else:
        vocabulary = vocabulary_of(texts, config.units == "tokens", keeps_form, config.language)
    num_before = settings.vocab_size
    settings.update(_changed(settings, config, vocabulary))
    if config.from_scratch:
        model = AutoModelForCTC.from_config(settings, trust_remote_code=config.trust_remote_code)
    else:
        try:
            model = AutoModelForCTC.from_pretrained(
                with_real_names(folder),
                config=settings,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                trust_remote_code=config.trust_remote_code,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(
                f"--model {config.model}: cannot be loaded ({error}); expected weights, or --from-scratch for a configuration alone"
            ) from error
        adapted = _adapted(settings, config)
        if is_own and adapted:
            load_adapter(model, adapted, folder)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    learner = CtcLearner(
        model.to(device), folder, form_of(vocabulary, keeps_form, config.language), config, is_new=not is_own
    )
    if _has_head(settings) and not is_own and not config.from_scratch:
        learner.notes = (
            f"the checkpoint's head of {num_before} tokens is replaced by a new one of {len(vocabulary.tokens)}, made of the "
            "labels; --vocabulary checkpoint keeps it",
        )
    return learner


def _adapted(settings: Any, config: TrainConfig) -> str | None:
    """The language whose adapter learns (MMS)."""
    return config.language if getattr(settings, "adapter_attn_dim", None) else None


def _head_size(settings: Any, config: TrainConfig) -> int | None:
    """Tokens of the trained head; None where there is none, or an adapter brings its own."""
    return settings.vocab_size if _has_head(settings) and not _adapted(settings, config) else None


def _has_head(settings: Any) -> bool:
    return any(str(each).endswith("ForCTC") for each in settings.architectures or ())


def _changed(settings: Any, config: TrainConfig, vocabulary: CtcVocabulary) -> dict[str, Any]:
    """Settings of the checkpoint that training changes."""
    changed: dict[str, Any] = {
        "vocab_size": len(vocabulary.tokens),
        "pad_token_id": vocabulary.blank,
        "apply_spec_augment": config.mask_time > 0 or config.mask_feature > 0,
        "mask_time_prob": config.mask_time * MASK_FRAMES,
        "mask_time_length": MASK_FRAMES,
        "mask_feature_prob": config.mask_feature * MASK_FRAMES,
        "mask_feature_length": MASK_FRAMES,
        "mask_time_min_masks": 0,
        "layerdrop": 0.0,
    }
    if config.dropout is not None:
        names = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "final_dropout")
        changed |= {name: config.dropout for name in names if hasattr(settings, name)}
    if changed["mask_time_prob"] >= 1 or changed["mask_feature_prob"] >= 1:
        raise UsageError("--mask-time and --mask-feature: expected shares below 0.1 (each starts a mask of 10)")
    return changed
