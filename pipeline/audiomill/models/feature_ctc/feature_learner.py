"""A head on frozen features learns to write, by CTC.

B batch, F frames, V tokens. Source: SUPERB's recogniser (arXiv:2105.01051): features stay as they are, what reads them is small.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from audiomill.config.stages import ModelConfig
from audiomill.config.train import TrainConfig
from audiomill.errors import UsageError
from audiomill.models.checkpoint import checkpoint_fingerprint, find_checkpoint
from audiomill.models.ctc.labels import (
    LabelForm,
    PieceForm,
    best_path,
    form_of,
    label_vocabulary,
    num_frames_needed,
    piece_form,
    written_form,
)  # fmt: skip
from audiomill.models.ctc.vocabulary import ctc_tokenizer, ctc_vocabulary
from audiomill.models.ctc.word_pieces import learned_pieces
from audiomill.models.family import has_files
from audiomill.models.feature_ctc.feature_head import FeatureHead
from audiomill.models.feature_ctc.feature_loading import HEAD_WEIGHTS, encoder_of, load_head, want_of
from audiomill.models.feature_ctc.feature_settings import ENCODER_FOLDER, FeatureSettings, feature_settings
from audiomill.models.learner import Learner, Loss, Rows, ctc_losses, frozen_part, time_mask, weighted_loss
from audiomill.models.vectors.frozen_encoder import (
    FeatureCache,
    FrozenEncoder,
    found_encoder,
    loaded_encoder,
    most_samples,
)
from audiomill.models.vectors.kept_parts import keep, name_of, place_of
from audiomill.models.vectors.layer_weights import read_layer_weights
from audiomill.text.normalize import Text

_MASK_FRAMES = 10


class FeatureLearner(Learner):
    """See `audiomill.models.learner.Learner`.

    Args:
        encoder: frozen.
        head: on its device.
        settings: of both.
        form: how texts become tokens.
        place: of the encoder's files; None: it has none.
        config: how it learns.
        most: samples of a clip that the encoder can be shown; None: any.
    """

    def __init__(
        self,
        encoder: FrozenEncoder,
        head: FeatureHead,
        settings: FeatureSettings,
        form: LabelForm | PieceForm,
        place: Path | None,
        config: TrainConfig,
        most: int | None,
    ) -> None:
        self._encoder = FeatureCache(encoder, keeps=not config.speed_augment and config.noise_snr is None)
        self.model, self._settings, self._most = head, settings, most
        self._form, self._place, self._config = form, place, config
        self._device = next(head.parameters()).device

    def labels(self, texts: Sequence[Text], num_samples: NDArray[np.int64]) -> list[list[int] | str]:
        """Token numbers, or a reason; audio must have a frame for each token at every speed that it is played at."""
        slowest = num_samples / (1 - self._config.speed_augment)
        frames = (num_samples / (1 + self._config.speed_augment)).astype(np.int64) // self._settings.hop - 1
        results: list[list[int] | str] = []
        for (text, language), most, longest in zip(texts, frames.tolist(), slowest.tolist(), strict=True):
            if self._most is not None and longest > self._most:
                results.append("longer_than_window")
                continue
            tokens = self._form.tokens(text, language)
            is_short = not isinstance(tokens, str) and num_frames_needed(tokens) > most
            results.append("audio_shorter_than_text" if is_short else tokens)
        return results

    def loss(self, rows: Rows, labels: Sequence[list[int]], weights: NDArray[np.float32], seed: int) -> Loss:
        """Negative log-likelihood of the labels; spans of frames are hidden."""
        frames_BFE, frames_B = self._features(rows)
        if self._config.mask_time_prob:
            random = np.random.default_rng([seed, 3])
            shape, share = frames_BFE.shape, self._config.mask_time_prob
            mask_BF = time_mask(frames_B.tolist(), shape[1], share, _MASK_FRAMES, random, self._device)
            frames_BFE = frames_BFE.masked_fill(mask_BF[..., None], 0.0)
        losses_B = ctc_losses(self.model(frames_BFE, frames_B), frames_B, labels, self._form.vocabulary.blank)
        return weighted_loss(losses_B, list(map(len, labels)), weights)

    def _features(self, rows: Rows) -> tuple[Tensor, Tensor]:
        frames = self._encoder.frames(rows)
        frames_B = torch.tensor([len(frame) for frame in frames], device=self._device)
        return nn.utils.rnn.pad_sequence(frames, batch_first=True).to(self._device), frames_B

    @torch.inference_mode()
    def transcripts(self, rows: Rows, languages: Sequence[str | None]) -> list[str]:
        """Best labels, collapsed."""
        frames_BFE, frames_B = self._features(rows)
        labels_BF = self.model(frames_BFE, frames_B).argmax(-1).cpu().numpy()
        counts = frames_B.tolist()
        return [best_path(labels_BF[row, :count], self._form.vocabulary) for row, count in enumerate(counts)]

    def save(self, folder: Path) -> None:
        """Head, configuration, tokens; the encoder too where it is a local folder, by hard links."""
        folder.mkdir(parents=True, exist_ok=True)
        self._settings.save(folder)
        self._form.save(folder)
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.model.state_dict().items()}
        # One entry, because the order of several differs from file to file.
        made_of = json.dumps([self._settings.encoder_fingerprint, self._settings.layer, self._settings.mixture])
        save_file(tensors, folder / HEAD_WEIGHTS, {"made_of": made_of})
        if self._settings.encoder.split("/")[0] == ENCODER_FOLDER and self._place is not None:
            keep(self._place, folder / ENCODER_FOLDER)


def load_feature_learner(
    folder: Path, config: TrainConfig, texts: Sequence[Text], device: torch.device
) -> FeatureLearner:
    """A recogniser on features that learns on, with its tokens.

    Raises:
        ModelError: a part is missing or does not fit.
    """
    settings = feature_settings(folder)
    tokenizer, keeps_form = ctc_tokenizer(folder, None, False), config.text_normalization == "as-is"
    vocabulary = ctc_vocabulary(tokenizer, settings.vocab_size, 0)
    form: LabelForm | PieceForm = form_of(vocabulary, keeps_form)
    if vocabulary.mark:
        form = piece_form(tokenizer, keeps_form)
    encoder = encoder_of(folder, settings, frozen_part(config, device), {})
    name = place_of(folder, settings.encoder, ENCODER_FOLDER)
    place = Path(name) if has_files(settings.encoder) else None
    most = most_samples(find_checkpoint(ModelConfig(model=name), {}))
    return FeatureLearner(encoder, load_head(folder, settings).to(device), settings, form, place, config, most)


def new_feature_learner(
    folder: Path, config: TrainConfig, texts: Sequence[Text], device: torch.device
) -> FeatureLearner:
    """A new head on the features of an encoder, with the tokens of the labels.

    Raises:
        ModelError: the checkpoint gives no frames.
        UsageError: it has no such hidden state, or the labels have no letters.
    """
    name = str(folder) if has_files(config.model) else config.model
    result, shape = found_encoder(name, {})
    layer = shape.num_layers if config.encoder_layer is None else config.encoder_layer
    if not 0 <= layer <= shape.num_layers:
        raise UsageError(f"--encoder-layer {layer}: {config.model} has hidden states 0 to {shape.num_layers}")
    mixture = () if config.layer_weights is None else read_layer_weights(config.layer_weights, shape, config.model, {})
    if mixture and config.encoder_layer is not None:
        raise UsageError(
            "--layer-weights and --encoder-layer: the one is a sum of all hidden states, the other names one; take one of them"
        )
    form = _new_form(texts, config)
    settings = FeatureSettings(
        encoder=name_of(config.model, ENCODER_FOLDER),
        encoder_fingerprint=checkpoint_fingerprint(result),
        layer=layer,
        encoder_width=shape.width_of(layer),
        hop=int(shape.hops.get(layer, shape.hop)),
        hidden=config.head_width,
        vocab_size=len(form.vocabulary.tokens),
        mixture=mixture,
    )
    encoder = loaded_encoder(name, want_of(settings), frozen_part(config, device), {})
    head = FeatureHead(settings.encoder_width, settings.hidden, settings.vocab_size, config.dropout or 0.0)
    place = folder if has_files(config.model) else None
    return FeatureLearner(encoder, head.to(device), settings, form, place, config, most_samples(result))


def _new_form(texts: Sequence[Text], config: TrainConfig) -> LabelForm | PieceForm:
    """Tokens of the labels: letters, what blanks separate, or pieces of words."""
    keeps_form = config.text_normalization == "as-is"
    if config.tokenizer == "pieces":
        forms = [written_form(text, keeps_form, language) for text, language in texts]
        return piece_form(learned_pieces(forms, config.vocab_size), keeps_form)
    vocabulary = label_vocabulary(texts, config.tokenizer == "tokens", keeps_form)
    return form_of(vocabulary, keeps_form)
