"""Matrix products in the precision of a run: float, bf16 matrices under float activations, or int8.

N outputs, K inputs, R rows.
Source of int8: a scale for each row of activations and for each output (as LLM.int8(), arXiv:2208.07339, without its
outliers). Sums of integers are exact, so what a row gives does not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own habit)
from torch import Tensor

INT8_MAX = 127.0
SMALLEST = 1e-12
"""Keeps rows of zeros from dividing by zero."""


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
        self._weight_KN = (weight / scale_N1).round().to(torch.int8).contiguous().T
        self._scale_N = scale_N1[:, 0].contiguous()
        self._bias_N = torch.zeros_like(self._scale_N) if bias_N is None else bias_N.float()

    def __call__(self, x: Tensor) -> Tensor:
        rows_RK = x.reshape(-1, x.shape[-1])
        scale_R1 = rows_RK.abs().amax(1, keepdim=True).clamp_(min=SMALLEST).div_(INT8_MAX)
        integers_RK = (rows_RK * scale_R1.reciprocal()).round_().to(torch.int8)
        sums_RN = torch._int_mm(integers_RK, self._weight_KN) * self._scale_N
        out_RN = torch.addcmul(self._bias_N, sums_RN, scale_R1, out=sums_RN)
        return out_RN.view(*x.shape[:-1], -1)


def projection(weight_NK: Tensor, bias_N: Tensor | None, precision: str) -> Projection:
    """The product of a run's `--precision`: fp32 and fp16 take the weights as they are."""
    weight, bias = weight_NK.detach(), None if bias_N is None else bias_N.detach()
    if precision == "int8":
        return Int8Projection(weight, bias)
    return FloatProjection(weight.bfloat16() if precision == "bf16" else weight, bias)


def fused(linears: Sequence[Any], precision: str) -> Projection:
    """Several `nn.Linear` of one input as one product, outputs side by side; a missing bias counts as zeros."""
    weight = torch.cat([each.weight for each in linears])
    if all(each.bias is None for each in linears):
        return projection(weight, None, precision)
    zeros = [torch.zeros_like(each.weight[:, 0]) if each.bias is None else each.bias for each in linears]
    return projection(weight, torch.cat(zeros), precision)
