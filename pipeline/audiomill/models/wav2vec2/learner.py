"""wav2vec2-family models learn to write, by CTC.

B batch, F frames, V vocabulary. Source: Graves et al. 2006; recipe of wav2vec 2.0 (arXiv:2006.11477), section 4.3.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from audiomill.config.train import TrainConfig
from audiomill.errors import ModelError, UsageError
from audiomill.models.ctc.greedy_decoding import CtcVocabulary
from audiomill.models.ctc.labels import (
    LabelForm,
    best_path,
    form_of,
    label_vocabulary,
    num_frames_needed,
    save_tokenizer,
)
from audiomill.models.ctc.vocabulary import ctc_tokenizer, ctc_vocabulary
from audiomill.models.frames.inputs import FrameInputs, fbank_of, normalizes
from audiomill.models.frames.masks import numpy_seeded
from audiomill.models.frames.wav2vec2_loading import load_adapter
from audiomill.models.frames.whole import with_real_names
from audiomill.models.learner import Learner, Loss, Rows, ctc_losses, time_mask, weighted_loss
from audiomill.models.preprocessing_files import feature_extractor
from audiomill.models.wav2vec2.language_heads import (
    ByLanguage,
    LanguageHead,
    RowLanguages,
    add_language_heads,
    forms_of,
    language_of,
    rows_by_language,
    save_language_heads,
)
from audiomill.text.normalize import Text

_MASK_FRAMES = 10
ALL = "all"
"""The one tongue of a model that keeps no languages apart."""


class _Label(NamedTuple):
    """Token numbers of a clip, in one of the learner's tongues."""

    tokens: list[int]
    language_head: str


class CtcLearner(Learner):
    """See `audiomill.models.learner.Learner`.

    Args:
        model: `...ForCTC`, on its device.
        folder: it came from.
        form: how texts become tokens.
        config: what learns when.
        is_new: the tokens are those of the labels, not the checkpoint's.
        language_heads: by language, what belongs to it alone; None: all share the form and the head.
        row_languages: tells the network which languages it hears.
    """

    def __init__(
        self,
        model: Any,
        folder: Path,
        form: LabelForm,
        config: TrainConfig,
        is_new: bool,
        language_heads: dict[str, LanguageHead] | None = None,
        row_languages: RowLanguages | None = None,
    ) -> None:
        self.model, self._folder, self._config, self._is_new = model, folder, config, is_new
        self._by_language, self._spoken = language_heads is not None, row_languages or RowLanguages()
        self._tongues = {ALL: LanguageHead(form, model.lm_head)} if language_heads is None else language_heads
        self._inputs = FrameInputs(model, fbank_of(folder, model), normalizes(folder))
        self._fastest = 1 + config.speed_augment

    def labels(self, texts: Sequence[Text], num_samples: NDArray[np.int64]) -> list[_Label | str]:
        """Token numbers, or a reason; audio must have a frame for each token at every speed that it is played at."""
        frames = self._inputs.text_frames_of((num_samples / self._fastest).astype(np.int64) - 1)
        return [self._label(*each, most) for each, most in zip(texts, frames.tolist(), strict=True)]

    def _label(self, text: str, language: str | None, num_frames: int) -> _Label | str:
        language_head = language_of(language, self._tongues) if self._by_language else ALL
        if language_head is None:
            return "unknown_language" if language else "no_language"
        tokens = self._tongues[language_head].form.tokens(text, language)
        if isinstance(tokens, str):
            return tokens
        return "audio_shorter_than_text" if num_frames_needed(tokens) > num_frames else _Label(tokens, language_head)

    def set_trainable(self, update: int, num_updates: int) -> None:
        """First the heads alone, then the transformer, the convolutions only if asked for."""
        config, base = self._config, self.model.base_model
        awake = update >= config.freeze_encoder_updates and not (self._by_language and config.freeze_encoder)
        base.requires_grad_(awake)
        extractor = getattr(base, "feature_extractor", None)
        if extractor is not None:
            extractor.requires_grad_(awake and (config.from_scratch or not config.freeze_feature_encoder))
        for module in base.modules():
            if isinstance(module, ByLanguage):
                module.requires_grad_(True)

    def loss(self, rows: Rows, labels: Sequence[_Label], weights: NDArray[np.float32], seed: int) -> Loss:
        """Negative log-likelihood of the labels."""
        with numpy_seeded(seed):
            hidden_BFD = self._hidden(rows, [label.language_head for label in labels], seed)
        hidden_BFD = self.model.dropout(hidden_BFD)
        frames_B = self._inputs.text_frames_B()
        total, size = torch.zeros((), device=self.model.device), 0.0
        for name, at in rows_by_language([label.language_head for label in labels]).items():
            language_head, tokens = self._tongues[name], [labels[row].tokens for row in at]
            logits_BFV, blank = language_head.head(hidden_BFD[at]), language_head.form.vocabulary.blank
            part = weighted_loss(
                ctc_losses(logits_BFV, frames_B[at], tokens, blank), list(map(len, tokens)), weights[at]
            )
            total, size = total + part.total, size + part.size
        return Loss(total, size, {})

    def _hidden(self, rows: Rows, language_heads: Sequence[str], seed: int) -> Tensor:
        self._spoken.languages = language_heads
        inputs = self._inputs(rows)
        return self.model.base_model(**inputs, mask_time_indices=self._mask(seed))[0]  # type: ignore[no-any-return]

    def _mask(self, seed: int) -> Tensor | None:
        """Frames hidden by SpecAugment; known only once the inputs are there."""
        if not self._config.mask_time_prob:
            return None
        frames = self._inputs.frames_B()
        random, share = np.random.default_rng([seed, 3]), self._config.mask_time_prob
        return time_mask(frames.tolist(), int(frames.max()), share, _MASK_FRAMES, random, self.model.device)

    @torch.inference_mode()
    def transcripts(self, rows: Rows, languages: Sequence[str | None]) -> list[str]:
        """Best labels, collapsed."""
        language_heads = [
            (language_of(language, self._tongues) if self._by_language else ALL) or next(iter(self._tongues))
            for language in languages
        ]
        self._spoken.languages = language_heads
        hidden_BFD = self.model.base_model(**self._inputs(rows))[0]
        counts, texts = self._inputs.text_frames_B().tolist(), [""] * len(rows)
        for name, at in rows_by_language(language_heads).items():
            language_head = self._tongues[name]
            labels_BF = language_head.head(hidden_BFD[at]).argmax(-1).cpu().numpy()
            for row, labels_F in zip(at, labels_BF, strict=True):
                texts[row] = best_path(labels_F[: counts[row]], language_head.form.vocabulary)
        return texts

    def save(self, folder: Path) -> None:
        """Weights, configuration, tokens, and how audio is prepared."""
        if self._by_language:
            save_language_heads(self.model, self._tongues, folder)
        else:
            self._save_tokens(folder)
            self.model.save_pretrained(folder, safe_serialization=True)
        save_preparation(self._folder, folder)

    def _save_tokens(self, folder: Path) -> None:
        if self._is_new:
            save_tokenizer(self._tongues[ALL].form.vocabulary, folder)
            return
        adapted = _adapted(self.model.config, self._config)
        ctc_tokenizer(self._folder, adapted, self._config.trust_remote_code).save_pretrained(folder)
        if adapted:
            adapter = {name: tensor.detach().contiguous() for name, tensor in self.model._get_adapters().items()}
            save_file(adapter, folder / f"adapter.{adapted}.safetensors", {"format": "pt"})


def save_preparation(source: Path, folder: Path) -> None:
    """How the checkpoint takes audio: as before, or normalised where it does not say."""
    from transformers import Wav2Vec2FeatureExtractor

    result = feature_extractor(source) or Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    result.save_pretrained(folder)


def _check_tokens(config: TrainConfig, has_tokens: bool) -> None:
    if config.vocabulary == "checkpoint" and not has_tokens:
        raise ModelError(f"--vocabulary checkpoint: {config.model} has no vocab.json; use --vocabulary labels")
    if config.tokenizer == "pieces":
        raise UsageError(
            "--tokenizer pieces: heads on frozen features and seq2seq models write pieces; add --features, or leave it out"
        )
    if config.language_adapters and config.tokenizer != "characters":
        raise UsageError("--language-adapters: languages have letters of their own; leave out --tokenizer")


def load_ctc(folder: Path, config: TrainConfig, texts: Sequence[Text], device: torch.device) -> CtcLearner:
    """A learner from a checkpoint's folder, with its tokens or those of the labels.

    Raises:
        ModelError: no wav2vec2-family configuration, or tokens were asked of a checkpoint that has none.
        UsageError: the labels have no letters, or, with `language_adapters`, no languages.
    """
    from transformers import AutoConfig

    try:
        settings = AutoConfig.from_pretrained(folder, trust_remote_code=config.trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder}: no configuration to train from ({error}); expected config.json") from error
    has_tokens = any((folder / name).exists() for name in ("vocab.json", "tokenizer.json"))
    _check_tokens(config, has_tokens)
    is_own = has_tokens and config.vocabulary != "labels"
    num_before = settings.vocab_size
    if config.language_adapters:
        forms = forms_of(folder, config, texts)
        settings.update({"adapter_attn_dim": getattr(settings, "adapter_attn_dim", None) or config.adapter_width})
    else:
        forms = {ALL: _form(folder, settings, config, texts if not is_own else None)}
    vocabulary = next(iter(forms.values())).vocabulary
    settings.update(_changed(settings, config, vocabulary))
    model = _model(folder, settings, config)
    row_languages, language_heads = RowLanguages(), None
    if config.language_adapters:
        language_heads = add_language_heads(model, folder, forms, row_languages)
    elif is_own and not config.from_scratch and (adapted := _adapted(settings, config)):
        load_adapter(model, adapted, folder)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    form = next(iter(forms.values()))
    learner = CtcLearner(model.to(device), folder, form, config, not is_own, language_heads, row_languages)
    if config.language_adapters:
        counts = Counter(text.language for text in texts)
        missing_names = ", ".join(
            f"{name} ({counts[name]} clips, {len(form.vocabulary.tokens)} tokens)" for name, form in forms.items()
        )
        learner.notes = (f"languages: {missing_names}",)
    elif _has_head(settings) and not is_own and not config.from_scratch:
        learner.notes = (
            f"the checkpoint's head of {num_before} tokens is replaced by a new one of {len(vocabulary.tokens)}, made of the "
            "labels; --vocabulary checkpoint keeps it",
        )
    return learner


def _form(folder: Path, settings: Any, config: TrainConfig, texts: Sequence[Text] | None) -> LabelForm:
    """Of all languages together; `texts`: None where the checkpoint's own tokens are meant."""
    if texts is None:
        tokenizer = ctc_tokenizer(folder, _adapted(settings, config), config.trust_remote_code)
        # tokens beyond a trained head (<s>, </s>) are no letters: the head stays as it is
        vocabulary = ctc_vocabulary(tokenizer, _head_size(settings, config), settings.pad_token_id)
    else:
        vocabulary = label_vocabulary(texts, config.tokenizer == "tokens", config.text_normalization == "as-is")
    return form_of(vocabulary, config.text_normalization == "as-is")


def _model(folder: Path, settings: Any, config: TrainConfig) -> Any:
    from transformers import AutoModelForCTC

    if config.from_scratch:
        return AutoModelForCTC.from_config(settings, trust_remote_code=config.trust_remote_code)
    try:
        return AutoModelForCTC.from_pretrained(
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
        "apply_spec_augment": config.mask_time_prob > 0 or config.mask_feature_prob > 0,
        "mask_time_prob": config.mask_time_prob * _MASK_FRAMES,
        "mask_time_length": _MASK_FRAMES,
        "mask_feature_prob": config.mask_feature_prob * _MASK_FRAMES,
        "mask_feature_length": _MASK_FRAMES,
        "mask_time_min_masks": 0,
        "layerdrop": 0.0,
    }
    if config.dropout is not None:
        names = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "final_dropout")
        changed |= {name: config.dropout for name in names if hasattr(settings, name)}
    if changed["mask_time_prob"] >= 1 or changed["mask_feature_prob"] >= 1:
        raise UsageError(
            "--mask-time-prob and --mask-feature-prob: expected shares below 0.1 (each starts a mask of 10)"
        )
    return changed
