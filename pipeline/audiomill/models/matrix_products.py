"""Matrix products in the precision of a run: float, bf16 matrices under float activations, or int8 by dynamic quantization.

N outputs, K inputs, R rows.
Source of int8: a scale for each row of activations and for each output (as LLM.int8(), arXiv:2208.07339, without its
outliers). Sums of integers are exact, so what a row gives depends neither on its neighbours nor on the processor.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own habit)
from torch import Tensor

from audiomill.config.defaults import INT8_WEIGHT7
from audiomill.errors import ModelError
from audiomill.models.precision import cpu_features, is_int8

INT8_MAX, WEIGHT7_MAX = 127.0, 63.0
"""Largest whole numbers of 8 and of 7 bits."""
SMALLEST = 1e-12
"""Keeps rows of zeros from dividing by zero."""
SMOOTH_DEVIATIONS, MOST_SMOOTHED = 2.0, 1000.0
"""Standard deviations that count as what a layer norm's outputs reach, and the largest factor of a channel."""
EXACT_INPUTS = 1024
"""So many products of two 8-bit numbers have sums that float32 holds exactly: 1024 x 127 x 127 < 2^24."""


class Projection(Protocol):
    """x_..K -> x_..N."""

    def __call__(self, x: Tensor) -> Tensor: ...


class FloatProjection:
    """In the type of the weights; activations of another type are turned into it and back."""

    def __init__(self, weight_NK: Tensor, bias_N: Tensor | None) -> None:
        self._weight, self._bias = weight_NK.contiguous(), bias_N

    def __call__(self, x: Tensor) -> Tensor:
        if x.dtype == self._weight.dtype:
            return F.linear(x, self._weight, self._bias)
        out = F.linear(x.to(self._weight.dtype), self._weight).to(x.dtype)
        return out if self._bias is None else out.add_(self._bias)


class Int8Projection:
    """Integers inside, float32 outside.

    Args:
        weight_NK, bias_N: of a linear layer.
        weight_max: largest whole number that a weight becomes.
    """

    def __init__(self, weight_NK: Tensor, bias_N: Tensor | None, weight_max: float) -> None:
        weight = weight_NK.float()
        scale_N1 = weight.abs().amax(1, keepdim=True).clamp(min=SMALLEST) / weight_max
        self._product = integer_product((weight / scale_N1).round(), scale_N1[:, 0].contiguous(), weight_max)
        self._bias_N = torch.zeros_like(scale_N1[:, 0]) if bias_N is None else bias_N.float()

    def __call__(self, x: Tensor) -> Tensor:
        rows_RK = x.reshape(-1, x.shape[-1])
        # Few passes over memory: beside products of this speed they are what costs.
        buffer = rows_RK.new_empty(len(rows_RK) + self._product.spare_rows, rows_RK.shape[1])
        integers_RK = buffer[: len(rows_RK)]
        scale_R1 = torch.abs(rows_RK, out=integers_RK).amax(1, keepdim=True).clamp_(min=SMALLEST).div_(INT8_MAX)
        torch.mul(rows_RK, scale_R1.reciprocal(), out=integers_RK).round_()
        sums_RN = self._product(buffer)[: len(rows_RK)]
        out_RN = torch.addcmul(self._bias_N, sums_RN, scale_R1, out=sums_RN)
        return out_RN.view(*x.shape[:-1], -1)


class IntegerProduct(Protocol):
    """Rows of whole numbers from -127 to 127 in float32 -> exact sums, times a scale for each output, in float32.

    `spare_rows`: that it wants behind the rows, for its own use.
    """

    spare_rows: int

    def __init__(self, weight_NK: Tensor, scale_N: Tensor) -> None: ...

    def __call__(self, buffer_RK: Tensor) -> Tensor: ...


class IntegerUnits:
    """By the processor's instructions for 8-bit numbers."""

    spare_rows = 0

    def __init__(self, weight_NK: Tensor, scale_N: Tensor) -> None:
        self._weight_KN, self._scale_N = weight_NK.to(torch.int8).contiguous().T, scale_N

    def __call__(self, buffer_RK: Tensor) -> Tensor:
        return torch._int_mm(buffer_RK.to(torch.int8), self._weight_KN) * self._scale_N


class PackedUnits:
    """By FBGEMM, on processors whose older instructions add pairs of products in 16 bits: 2 x 255 x 63 < 2^15."""

    spare_rows = 1

    def __init__(self, weight_NK: Tensor, scale_N: Tensor) -> None:
        zeros_N = torch.zeros_like(scale_N, dtype=torch.long)
        with warnings.catch_warnings():  # torch is to lose these tensors; without them `FloatUnits` gives the same sums
            warnings.simplefilter("ignore", UserWarning)
            weight = torch._make_per_channel_quantized_tensor(weight_NK.to(torch.int8), scale_N.double(), zeros_N, 0)
        before, torch.backends.quantized.engine = torch.backends.quantized.engine, "fbgemm"
        self._packed = torch.ops.quantized.linear_prepack(weight, None)
        torch.backends.quantized.engine = before
        # FBGEMM quantises what lies between the smallest and the largest number: with these two, steps of 1 from -128.
        self._edges_K = torch.zeros(weight_NK.shape[1])
        self._edges_K[:2] = torch.tensor([-128.0, 127.0])

    def __call__(self, buffer_RK: Tensor) -> Tensor:
        buffer_RK[-1] = self._edges_K
        out: Tensor = torch.ops.quantized.linear_dynamic(buffer_RK, self._packed, False)
        return out


class FloatUnits:
    """On processors without such instructions: by float products short enough to be exact."""

    spare_rows = 0

    def __init__(self, weight_NK: Tensor, scale_N: Tensor) -> None:
        self._parts = [part.contiguous() for part in torch.split(weight_NK, EXACT_INPUTS, dim=1)]
        self._scale_N = scale_N

    def __call__(self, buffer_RK: Tensor) -> Tensor:
        if len(self._parts) == 1:
            return F.linear(buffer_RK, self._parts[0]) * self._scale_N
        parts = zip(torch.split(buffer_RK, EXACT_INPUTS, dim=1), self._parts, strict=True)
        sums = torch.stack([F.linear(x, weight).to(torch.int32) for x, weight in parts]).sum(0, dtype=torch.int32)
        return sums * self._scale_N


def has_packed_units() -> bool:
    """Whether this torch has what `PackedUnits` needs."""
    is_there = hasattr(torch, "_make_per_channel_quantized_tensor")
    return is_there and "fbgemm" in torch.backends.quantized.supported_engines


def integer_product(weight_NK: Tensor, scale_N: Tensor, weight_max: float) -> IntegerProduct:
    """Products with a matrix of whole numbers up to `weight_max`, exact on every processor.

    Raises:
        ModelError: this installation of torch gets a sum wrong.
    """
    kind: Any = FloatUnits
    if "vnni" in cpu_features():
        kind = IntegerUnits
    elif weight_max <= WEIGHT7_MAX and has_packed_units():
        kind = PackedUnits
    if not _is_exact(kind, weight_max):
        raise ModelError(
            f"--precision int8: torch {torch.__version__} adds integers wrongly here; use --precision fp32"
        )
    result: IntegerProduct = kind(weight_NK, scale_N)
    return result


@cache
def _is_exact(kind: Any, weight_max: float) -> bool:
    """Whether sums of the largest numbers, and of random ones, are right: instructions of older processors saturate."""
    random, most = torch.Generator().manual_seed(0), int(weight_max)
    weight_NK = torch.randint(-most, most + 1, (64, 1536), generator=random).float()
    rows_RK = torch.randint(-127, 128, (48, 1536), generator=random).float()
    weight_NK[0], weight_NK[1], rows_RK[0], rows_RK[1] = weight_max, -weight_max, 127.0, -127.0
    result = kind(weight_NK, torch.ones(64))(torch.cat([rows_RK, torch.zeros(kind.spare_rows, 1536)]))
    return bool((result[:48].double() == rows_RK.double() @ weight_NK.double().T).all())


def projection(weight_NK: Tensor, bias_N: Tensor | None, precision: str) -> Projection:
    """The product of a run's number format: fp32 and fp16 take the weights as they are."""
    weight, bias = weight_NK.detach(), None if bias_N is None else bias_N.detach()
    if is_int8(precision):
        return Int8Projection(weight, bias, WEIGHT7_MAX if precision == INT8_WEIGHT7 else INT8_MAX)
    return FloatProjection(weight.bfloat16() if precision == "bf16" else weight, bias)


def smooth_quant(norm: Any, weight_NK: Tensor) -> tuple[Any, Tensor]:
    """A layer norm and the matrix behind it that give the same in numbers that 8 bits hold better: channels in which the
    norm's outputs are large are divided, the matrix's columns multiplied. Source: SmoothQuant, arXiv:2211.10438, with the
    norm's gain and bias for what its outputs reach."""
    reached_K = SMOOTH_DEVIATIONS * norm.weight.abs() + norm.bias.abs()
    by_K = (reached_K / weight_NK.abs().amax(0).clamp(min=SMALLEST)).sqrt().clamp(1 / MOST_SMOOTHED, MOST_SMOOTHED)
    layer_norm = torch.nn.LayerNorm(len(by_K), norm.eps, device=by_K.device)
    layer_norm.weight.data, layer_norm.bias.data = norm.weight.detach() / by_K, norm.bias.detach() / by_K
    return layer_norm, weight_NK.detach() * by_K


def fused(linears: Sequence[Any], precision: str) -> Projection:
    """Several `nn.Linear` of one input as one product, outputs side by side; a missing bias counts as zeros."""
    weight = torch.cat([each.weight for each in linears])
    if all(each.bias is None for each in linears):
        return projection(weight, None, precision)
    zeros = [torch.zeros_like(linear.weight[:, 0]) if linear.bias is None else linear.bias for linear in linears]
    return projection(weight, torch.cat(zeros), precision)
