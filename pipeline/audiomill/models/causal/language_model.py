"""A causal language model: as transformers has it for training, as plain functions for writing.

L tokens, D width, V vocabulary, P prefix.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audiomill.errors import ModelError
from audiomill.models.causal.causal_decoder import causal_weights, check_known
from audiomill.models.frames.whole import loaded_whole
from audiomill.models.load import dtype_of
from audiomill.models.precision import is_int8
from audiomill.models.seq2seq.decoder_weights import DecoderWeights, step_precision, tokenizer_in
from audiomill.models.seq2seq.special_tokens import SpecialTokens


class FixedDay(datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> FixedDay:
        return cls(2025, 1, 1, tzinfo=tz)


@contextmanager
def on_a_fixed_day() -> Iterator[None]:
    """Inside, templates tell the same day always: transformers takes it from its own clock and from nobody else."""
    from transformers.utils import chat_template_utils as templates

    before = templates.datetime
    templates.datetime = FixedDay
    try:
        yield
    finally:
        templates.datetime = before


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model on its device.

    Attributes:
        model: of transformers; `body`: its language model without the head; `head`: from its width to logits.
        ends: tokens that end a text, the first one is learnt.
        suppress: tokens that are never chosen.
        name: for people.
        logits_scaling: what logits are divided by.
    """

    model: Any
    body: Any
    head: Any
    ends: tuple[int, ...]
    suppress: tuple[int, ...]
    name: str
    logits_scaling: float = 1.0

    @property
    def width(self) -> int:
        """D."""
        return int(self.body.config.hidden_size)

    @property
    def embeddings_VD(self) -> Tensor:  # noqa: N802
        """Of its tokens."""
        out: Tensor = self.body.embed_tokens.weight
        return out

    def embedded(self, tokens: Sequence[int]) -> Tensor:
        """embedded_LD, as `inputs_embeds` takes them."""
        return self.embeddings_VD.detach()[torch.tensor(list(tokens), dtype=torch.long, device=self.body.device)]

    def prefix(self, parts: Sequence[Tensor]) -> Tensor:
        """prefix_PD of embedded parts, as layers take it."""
        result = torch.cat([part.to(self.body.dtype) for part in parts])
        return result * getattr(self.body.config, "embedding_multiplier", 1.0)

    def weights(self, precision: str, frees: bool = False) -> DecoderWeights:
        """For writing; several tokens that end a text become one. `frees`: transformers' own layers are dropped."""
        device = self.embeddings_VD.device
        result = causal_weights(
            self.body, self.head, step_precision(precision, device), self.name, self.logits_scaling, frees
        )
        first = self.ends[0]
        if len(self.ends) == 1:
            return result
        rest = torch.tensor(
            self.ends[1:], device=device
        )  # here, because a recorded step may copy nothing to the device

        def vocabulary(x: Tensor) -> Tensor:
            logits = result.vocabulary(x).float()
            likeliest = logits.index_select(-1, rest).amax(-1)
            logits[..., first] = torch.maximum(logits[..., first], likeliest)
            return logits.index_fill_(-1, rest, -torch.inf)

        return dataclasses.replace(result, vocabulary=vocabulary)

    def special_tokens(self) -> SpecialTokens:
        """It writes neither timestamps nor that nobody speaks."""
        size = self.head.weight.shape[0]
        return SpecialTokens(
            size=size, start=0, end=self.ends[0], no_speech=None, first_timestamp=size, suppress=self.suppress
        )


def language_model_of(model: Any, body: Any, tokenizer: Any, name: str) -> LanguageModel:
    """Of a model of transformers with a head.

    Args:
        model: has `lm_head`, and a generation config.
        body: its language model without the head.
        tokenizer: its own.
        name: for people.

    Raises:
        ModelError: nothing says how a text ends.
    """
    generation = model.generation_config
    ends: list[int] = []
    for each in (tokenizer.eos_token_id, generation.eos_token_id, body.config.eos_token_id):
        ends += [token for token in (each if isinstance(each, list) else [each]) if token is not None]
    known = tuple(token for token in dict.fromkeys(ends) if token < model.lm_head.weight.shape[0])
    if not known:
        raise ModelError(f"{name}: nothing says how a text ends; expected eos_token_id in its config.json")
    logits_scaling = (
        getattr(body.config, "logits_scaling", 1.0) if model.config is body.config else 1.0
    )  # as its head's owner does
    return LanguageModel(
        model, body, model.lm_head, known, tuple(generation.suppress_tokens or ()), name, logits_scaling
    )


def load_language_model(folder: Path, name: str, device: torch.device, precision: str) -> tuple[LanguageModel, Any]:
    """A language model from a local folder, in evaluation mode, and its tokenizer.

    Raises:
        ModelError: it cannot be loaded, or its layers are of another kind.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        check_known(AutoConfig.from_pretrained(folder), name)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{name}: no language model ({reason}); expected the folder of a causal one") from error
    tokenizer = tokenizer_in(folder)
    on_cpu = device.type == "cpu"  # activations stay in float32 there
    dtype = torch.float32 if on_cpu or is_int8(precision) else dtype_of(precision)
    model = loaded_whole(AutoModelForCausalLM, folder, dtype).to(device).eval()
    return language_model_of(model, model.model, tokenizer, name), tokenizer
