"""Matrix products in the precision of a run: float, bf16 matrices under float activations, or int8.

N outputs, K inputs, R rows.
Source of int8: a scale for each row of activations and for each output (as LLM.int8(), arXiv:2208.07339, without its
outliers). Sums of integers are exact, so what a row gives depends neither on its neighbours nor on the processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own habit)
from torch import Tensor

from audiomill.errors import ModelError
from audiomill.models.precision import cpu_features, is_int8

INT8_MAX = 127.0
SMALLEST = 1e-12
"""Keeps rows of zeros from dividing by zero."""
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
    """Integers inside, float32 outside."""

    def __init__(self, weight_NK: Tensor, bias_N: Tensor | None) -> None:
        weight = weight_NK.float()
        scale_N1 = weight.abs().amax(1, keepdim=True).clamp(min=SMALLEST) / INT8_MAX
        self._product = integer_product((weight / scale_N1).round())
        self._scale_N = scale_N1[:, 0].contiguous()
        self._bias_N = torch.zeros_like(self._scale_N) if bias_N is None else bias_N.float()

    def __call__(self, x: Tensor) -> Tensor:
        rows_RK = x.reshape(-1, x.shape[-1])
        scale_R1 = rows_RK.abs().amax(1, keepdim=True).clamp_(min=SMALLEST).div_(INT8_MAX)
        integers_RK = (rows_RK * scale_R1.reciprocal()).round_()
        sums_RN = self._product(integers_RK) * self._scale_N
        out_RN = torch.addcmul(self._bias_N, sums_RN, scale_R1, out=sums_RN)
        return out_RN.view(*x.shape[:-1], -1)


class IntegerUnits:
    """Whole numbers in float32 -> exact sums in int32, by the processor's instructions for 8-bit numbers."""

    def __init__(self, weight_NK: Tensor) -> None:
        self._weight_KN = weight_NK.to(torch.int8).contiguous().T

    def __call__(self, integers_RK: Tensor) -> Tensor:
        return torch._int_mm(integers_RK.to(torch.int8), self._weight_KN)


class FloatUnits:
    """The same sums on processors without such instructions: by float products short enough to be exact."""

    def __init__(self, weight_NK: Tensor) -> None:
        self._parts = [part.contiguous() for part in torch.split(weight_NK, EXACT_INPUTS, dim=1)]

    def __call__(self, integers_RK: Tensor) -> Tensor:
        if len(self._parts) == 1:
            return F.linear(integers_RK, self._parts[0])
        parts = zip(torch.split(integers_RK, EXACT_INPUTS, dim=1), self._parts, strict=True)
        return torch.stack([F.linear(x, weight).to(torch.int32) for x, weight in parts]).sum(0, dtype=torch.int32)


def integer_product(weight_NK: Tensor) -> IntegerUnits | FloatUnits:
    """Products with a matrix of whole numbers from -127 to 127, exact on every processor.

    Raises:
        ModelError: this installation of torch gets a sum wrong.
    """
    kind = IntegerUnits if "vnni" in cpu_features() else FloatUnits
    if not _is_exact(kind):
        raise ModelError(
            f"--precision int8: torch {torch.__version__} adds integers wrongly here; use --precision fp32"
        )
    return kind(weight_NK)


@cache
def _is_exact(kind: type[IntegerUnits] | type[FloatUnits]) -> bool:
    """Whether sums of the largest numbers, and of random ones, are right: instructions of older processors saturate."""
    random = torch.Generator().manual_seed(0)
    weight_NK = torch.randint(-127, 128, (64, 1536), generator=random).float()
    rows_RK = torch.randint(-127, 128, (48, 1536), generator=random).float()
    weight_NK[0], rows_RK[0], rows_RK[1] = 127.0, 127.0, -127.0
    return bool((kind(weight_NK)(rows_RK).double() == rows_RK.double() @ weight_NK.double().T).all())


def projection(weight_NK: Tensor, bias_N: Tensor | None, precision: str) -> Projection:
    """The product of a run's number format: fp32 and fp16 take the weights as they are."""
    weight, bias = weight_NK.detach(), None if bias_N is None else bias_N.detach()
    if is_int8(precision):
        return Int8Projection(weight, bias)
    return FloatProjection(weight.bfloat16() if precision == "bf16" else weight, bias)


def fused(linears: Sequence[Any], precision: str) -> Projection:
    """Several `nn.Linear` of one input as one product, outputs side by side; a missing bias counts as zeros."""
    weight = torch.cat([each.weight for each in linears])
    if all(each.bias is None for each in linears):
        return projection(weight, None, precision)
    zeros = [torch.zeros_like(each.weight[:, 0]) if each.bias is None else each.bias for each in linears]
    return projection(weight, torch.cat(zeros), precision)
