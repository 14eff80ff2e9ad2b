"""The number format of a run: chosen by a table of what the processor has, never by a stopwatch, and then kept.

| precision asked for | device | the processor has | number format settled |
|---|---|---|---|
| auto, text of a model that prefers int8 | CPU | VNNI and bf16 products | int8-w8a8-smooth-bf16 |
| auto, text of a model that prefers int8 | CPU | VNNI | int8-w8a8-smooth |
| auto, text of a model that prefers int8 | CPU | AVX2 | int8-w7a8-smooth |
| auto, anything else | CPU | | fp32 |
| auto | GPU | | fp16 |
| int8 | CPU | VNNI and bf16 products | int8-w8a8-smooth-bf16 |
| int8 | CPU | VNNI | int8-w8a8-smooth |
| int8 | CPU | neither | int8-w7a8-smooth |
| fp32, bf16, fp16 | any | bf16 on a CPU: bf16 products | as asked |

int8-w8a8-smooth: weights and activations of 8 bits, exact integer sums, attention in fp32; the vocabulary's product behind a
smoothed norm. With -bf16: attention of Whisper, and convolutions of wav2vec2-like models, in bf16.
int8-w7a8-smooth: weights of 7 bits, because the instructions of AVX2 add pairs of products in 16 bits; what weighs little in
time is fp32.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from audiomill.config.defaults import INT8, INT8_BF16, INT8_WEIGHT7
from audiomill.errors import ModelError

_NEEDS = {"fp32": (), "fp16": (), "bf16": ("bf16",), INT8: (), INT8_BF16: ("bf16",), INT8_WEIGHT7: ()}
"""Number formats, and what a CPU must have to compute in them. Sums of int8 are the same on every processor, but `w8a8`
is no faster than fp32 without VNNI."""

_VNNI_ISAS = ("VNNI", "BF16", "FP16", "AMX", "AVX10", "DEFAULT", "ALL")
_BF16_ISAS = ("BF16", "FP16", "AMX", "AVX10", "DEFAULT", "ALL")


def is_int8(precision: str) -> bool:
    return precision.startswith("int8")


def product_kind(precision: str) -> str:
    """`int8-w8a8-smooth-bf16` -> `int8`: what was asked for."""
    return precision.split("-")[0]


def cpu_features() -> frozenset[str]:
    """Some of `avx2`, `vnni` and `bf16`: products that this processor has and that torch and oneDNN may use."""
    return _lowered(_processor(), os.environ)


CPUINFO = Path("/proc/cpuinfo")
FLAGS = {"avx2": ("avx2",), "vnni": ("avx512_vnni", "avx_vnni"), "bf16": ("avx512_bf16",)}


def flagged(cpuinfo: str) -> frozenset[str] | None:
    """What Linux says of an x86 processor; None where it says nothing."""
    match = re.search(r"^flags\s*:(.*)$", cpuinfo, re.M)
    flags = set() if match is None else set(match.group(1).split())
    return frozenset(name for name, any_of in FLAGS.items() if flags & {*any_of}) if flags else None


@cache
def _processor() -> frozenset[str]:
    """Without torch where that is possible: importing it takes seconds of a run that computes in another process."""
    result = flagged(CPUINFO.read_text()) if CPUINFO.exists() else None
    return capabilities_of_torch() if result is None else result


def capabilities_of_torch() -> frozenset[str]:
    """The same, as torch sees it."""
    import torch

    look = {
        "avx2": ("_is_avx2_supported", *FLAGS["avx2"]),
        "vnni": ("_is_vnni_supported", *FLAGS["vnni"]),
        "bf16": ("_is_avx512_bf16_supported", *FLAGS["bf16"]),
    }
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return frozenset(
        name
        for name, (function, *flags) in look.items()
        if any(capabilities.get(flag) for flag in flags) or getattr(torch.cpu, function, bool)()
    )


def _lowered(features: frozenset[str], environment: Mapping[str, str]) -> frozenset[str]:
    """What is left of a processor's features under ONEDNN_MAX_CPU_ISA and ATEN_CPU_CAPABILITY. Products with AVX2 are not
    oneDNN's, so its variable does not lower them."""
    isa = environment.get("ONEDNN_MAX_CPU_ISA", environment.get("DNNL_MAX_CPU_ISA", "DEFAULT")).upper()
    capability = environment.get("ATEN_CPU_CAPABILITY", "avx512")
    if capability == "default":
        return frozenset()
    if capability == "avx2":
        return features & {"avx2"}
    allowed = {"vnni": _VNNI_ISAS, "bf16": _BF16_ISAS}
    return frozenset(name for name in features if name not in allowed or any(part in isa for part in allowed[name]))


def settled_precision(
    asked: str,
    device: str,
    *,
    offers_int8: bool,
    prefers_int8: bool,
    features: frozenset[str],
    before: str | None = None,
) -> str:
    """The number format of a task, see the table above.

    Args:
        asked: `--precision`.
        device: cpu or cuda.
        offers_int8: the family computes in int8 on this device.
        prefers_int8: and `auto` may take it: for text alone, of families that lose no words by it.
        features: of every processor that will compute.
        before: what an earlier run of the same output settled; kept where it is what is asked for.

    Raises:
        ModelError: int8 where there is none, or a format that the processor lacks.
    """
    if asked == "int8" and not offers_int8:
        raise ModelError(
            "--precision int8 is for Whisper and wav2vec2-like models on CPU; use fp32 here, on GPU fp16 or bf16"
        )
    if before in _NEEDS and (asked == "auto" or product_kind(before) == asked):
        result = before
    elif asked == "auto" and device.startswith("cuda"):
        result = "fp16"
    elif asked == "int8" or (asked == "auto" and prefers_int8 and features & {"avx2", "vnni"}):
        result = INT8_WEIGHT7 if "vnni" not in features else INT8_BF16 if "bf16" in features else INT8
    else:
        result = "fp32" if asked == "auto" else asked
    check_precision(result, device, features)
    return result


def check_precision(precision: str, device: str, features: frozenset[str]) -> None:
    """Raises ModelError where a processor cannot compute in a settled number format."""
    lacking = [need for need in _NEEDS[precision] if need not in features]
    if device == "cpu" and lacking:
        raise ModelError(
            f"--precision {precision}: this processor (or a node of the cluster) has no {', '.join(lacking)} products; "
            "use --precision fp32 with another --output, or go on where the output was begun"
        )
