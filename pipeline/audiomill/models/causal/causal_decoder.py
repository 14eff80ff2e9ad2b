"""Causal language models of transformers as `audiomill.models.seq2seq` wants them: layers of Llama's kind.

B batch, H heads, L positions, E width of a head, D width, P positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from audiomill.errors import ModelError
from audiomill.models.matrix_products import Projection, fused, projection
from audiomill.models.seq2seq.decoder_weights import ApplyRotary, DecoderLayer, DecoderWeights, Function

_KNOWN = ("llama", "mistral", "qwen2", "qwen3", "smollm3", "granite")
"""Whose layers are a norm, attention with turned queries and keys, a norm, and a gated product, in this order."""
MOST_POSITIONS = 4096
"""That are kept at hand: a segment and its text need fewer."""


def causal_weights(
    body: Any, head: Any, precision: str, name: str, logits_scaling: float = 1.0, frees: bool = False
) -> DecoderWeights:
    """Of a causal language model.

    Args:
        body: without its head, such as `LlamaModel`.
        head: from its width to logits.
        precision: number format of the products.
        name: for people.
        logits_scaling: what logits are divided by.
        frees: each layer of `body` is dropped once it is read, so that a large model is not in memory twice.

    Raises:
        ModelError: its layers are of another kind.
    """
    config = body.config
    check_known(config, name)
    heads = config.num_attention_heads
    positions = min(MOST_POSITIONS, config.max_position_embeddings)
    tokens_VD = body.embed_tokens.weight.detach()
    embedding_multiplier = getattr(config, "embedding_multiplier", 1.0)
    turn = _rotary_tables(body.rotary_emb, positions, tokens_VD)
    scale = body.layers[0].self_attn.scaling
    product = projection(head.weight, head.bias, precision)
    return DecoderWeights(
        embed=lambda tokens, places: tokens_VD[tokens] * embedding_multiplier,
        layers=list(_layers(body, turn, precision, frees)),
        norm=body.norm,
        vocabulary=product if logits_scaling == 1.0 else lambda x: product(x) / logits_scaling,
        num_heads=heads,
        width=config.hidden_size,
        max_positions=positions,
        device=tokens_VD.device,
        dtype=tokens_VD.dtype,
        gqa_group_size=heads // config.num_key_value_heads,
        head_width=getattr(config, "head_dim", None) or config.hidden_size // heads,
        scale=scale,
    )


def check_known(config: Any, name: str) -> None:
    """Raises ModelError where the layers of a language model are of another kind."""
    if config.model_type not in _KNOWN:
        raise ModelError(f"{name}: a language model of kind {config.model_type}; expected one of {', '.join(_KNOWN)}")
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    slides = window is not None and (kinds is None or "sliding_attention" in kinds)
    if slides and window < min(MOST_POSITIONS, config.max_position_embeddings):
        raise ModelError(
            f"{name}: its layers look back {window} tokens; expected a language model that looks back to the start"
        )


def _layers(body: Any, turn: ApplyRotary, precision: str, frees: bool) -> Iterator[DecoderLayer]:
    for number in range(len(body.layers)):
        layer = _layer(body.layers[number], number, body.config, turn, precision)
        if frees:
            body.layers[number] = torch.nn.Identity()
        yield layer


def _layer(layer: Any, number: int, config: Any, turn: ApplyRotary, precision: str) -> DecoderLayer:
    self_attention, embedding_multiplier = layer.self_attn, getattr(config, "residual_multiplier", 1.0)
    turns = getattr(config, "no_rope_layers", None)
    has_turn = turns is None or bool(turns[number])
    return DecoderLayer(
        attention_norm=layer.input_layernorm,
        qkv=_fused([self_attention.q_proj, self_attention.k_proj, self_attention.v_proj], precision),
        out=_times(_fused([self_attention.o_proj], precision), embedding_multiplier),
        norm=layer.post_attention_layernorm,
        feed_forward=_times(_gated(layer.mlp, precision), embedding_multiplier),
        apply_rotary=_rotary_embedding(self_attention, turn if has_turn else None),
    )


def _fused(linears: Sequence[Any], precision: str) -> Projection:
    """One product of several linear layers; LoRA weights are added to a copy, never to the weights themselves."""
    return fused([_with_lora(linear) for linear in linears], precision)


def _with_lora(linear: Any) -> Any:
    if not hasattr(linear, "lora_A"):
        return linear
    weight = linear.weight.detach().clone()
    for name in linear.active_adapters:
        if name in linear.lora_A:
            weight += linear.get_delta_weight(name).detach().to(weight.dtype)
    return SimpleNamespace(weight=weight, bias=linear.bias)


def _gated(mlp: Any, precision: str) -> Function:
    inner, outer, act = _fused([mlp.gate_proj, mlp.up_proj], precision), _fused([mlp.down_proj], precision), mlp.act_fn

    def run(x_BLD: Tensor) -> Tensor:
        failed_checks, values = inner(x_BLD).chunk(2, dim=-1)
        return outer(act(failed_checks) * values)

    return run


def _times(function: Function, by: float) -> Function:
    return function if by == 1.0 else lambda x: function(x) * by


def _rotary_embedding(attention: Any, turn: ApplyRotary | None) -> ApplyRotary | None:
    """Norms of queries and keys, where there are any, and turns."""
    if not hasattr(attention, "q_norm"):
        return turn
    q_norm, k_norm = attention.q_norm, attention.k_norm

    def apply_rotary(q: Tensor, k: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        q, k = q_norm(q), k_norm(k)
        return (q, k) if turn is None else turn(q, k, places)

    return apply_rotary


def _rotary_tables(rotary: Any, max_positions: int, like: Tensor) -> ApplyRotary:
    """Rotary positions: the first half of a head's width is turned with the second."""
    cos, sin = rotary(like, torch.arange(max_positions, device=like.device)[None])
    cos_PE, sin_PE = cos[0], sin[0]

    def rotate(x_BHLE: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        first, second = x_BHLE.chunk(2, dim=-1)
        return x_BHLE * cosine + torch.cat((-second, first), dim=-1) * sine

    def turn(q: Tensor, k: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        cosine, sine = cos_PE[places], sin_PE[places]
        if places.ndim == 2:  # each row stands at its own
            cosine, sine = cosine[:, None], sine[:, None]
        return rotate(q, cosine, sine), rotate(k, cosine, sine)

    return turn
