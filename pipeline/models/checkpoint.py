"""From what `--model` names to a loaded Transcriber: hub id, local folder, fsspec URL, CTranslate2 folder."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import fsspec
import torch
import transformers

from pipeline.config import ModelConfig
from pipeline.errors import ModelError
from pipeline.models.base import Transcriber

FAKE = "fake://"
WEIGHT_PATTERNS = ("*.safetensors", "pytorch_model*.bin", "model.bin")
HUB_PATTERNS = ["*.json", "*.txt", "*.safetensors", "merges.txt", "vocab*", "*.model"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
WHISPER_WINDOW_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint that was found.

    `name`: what every worker can find it by (absolute where it is a path); `path`: local folder here (or the
    fake's name); `kind`: whisper, ctc or fake.
    """

    name: str
    path: str
    kind: str


def find_checkpoint(config: ModelConfig, storage_options: dict[str, Any]) -> Checkpoint:
    """Locates a checkpoint, downloads it if need be, and reads its kind without loading weights.

    Raises:
        ModelError: nothing there, or not a model that transcribes.
    """
    if config.model.startswith(FAKE):
        return Checkpoint(name=config.model, path=config.model, kind="fake")
    folder = _local_folder(config.model, storage_options)
    weights = _weights(folder)
    if not weights:
        raise ModelError(
            f"{config.model}: no weights found; expected a folder with *.safetensors, pytorch_model.bin or a CTranslate2 model.bin"
        )
    name = str(folder) if Path(config.model).is_dir() else config.model
    return Checkpoint(name=name, path=str(folder), kind=_kind(folder, config.model))


def check_options(checkpoint: Checkpoint, config: ModelConfig) -> None:
    """Tells options that do not fit a checkpoint before anything is started.

    Raises:
        ModelError: a language that the model does not know, or a translation by an English-only one.
    """
    if checkpoint.kind != "whisper":
        if config.task == "translate":
            raise ModelError(f"--task translate: {config.model} is no Whisper checkpoint; use a multilingual Whisper")
        return
    from pipeline.models.whisper_tokens import tokens_of

    folder = Path(checkpoint.path)
    languages = tokens_of(_tokenizer(folder), _whisper_vocabulary_size(folder), {}).languages
    if config.language is not None:
        _check_language(config, languages)
    if config.task == "translate" and not languages:
        raise ModelError(f"--task translate: {config.model} is an English-only checkpoint; use a multilingual one")


def _whisper_vocabulary_size(folder: Path) -> int:
    """Tokens of a Whisper folder: by config.json, or by the list that CTranslate2 keeps beside the weights."""
    size = (
        json.loads((folder / "config.json").read_text()).get("vocab_size")
        if (folder / "config.json").exists()
        else None
    )
    if size is not None:
        return int(size)
    listed = folder / "vocabulary.json"
    if listed.exists():
        return len(json.loads(listed.read_text()))
    return (folder / "vocabulary.txt").read_text(encoding="utf-8").count("\n")


def resolve_device(device: str) -> str:
    """`auto` -> `cuda` if there is one, else `cpu`.

    Raises:
        ModelError: CUDA was asked for and is not there.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(
            f"--device {device}: torch {torch.__version__} sees no CUDA device; use --device cpu or install a CUDA build of torch"
        )
    return device


def resolve_precision(precision: str, device: str) -> str:
    """`auto` -> fp32 on CPU, fp16 on GPU."""
    return ("fp16" if device.startswith("cuda") else "fp32") if precision == "auto" else precision


def load_transcriber(checkpoint: Checkpoint, config: ModelConfig) -> Transcriber:
    """The model on its device, ready to use."""
    transformers.utils.logging.disable_progress_bar()
    if checkpoint.kind == "fake":
        from pipeline.models.fake import FakeTranscriber

        return FakeTranscriber(checkpoint.path.removeprefix(FAKE))
    device = resolve_device(config.device)
    dtype = DTYPES[resolve_precision(config.precision, device)]
    folder = Path(checkpoint.path)
    if checkpoint.kind == "ctc":
        from pipeline.models.wav2vec2 import load_ctc

        return load_ctc(folder, torch.device(device), dtype, config.language, config.trust_remote_code)
    return _load_whisper(folder, torch.device(device), dtype, config)


def _load_whisper(folder: Path, device: torch.device, dtype: torch.dtype, config: ModelConfig) -> Transcriber:
    from transformers import WhisperForConditionalGeneration

    from pipeline.models import ctranslate2
    from pipeline.models.whisper import WhisperTranscriber
    from pipeline.models.whisper_tokens import tokens_of

    generation: dict[str, Any]
    if ctranslate2.is_ctranslate2(folder):
        model = ctranslate2.load_whisper(folder)
        settings = ctranslate2.read_settings(folder)
        generation = {
            "suppress_tokens": settings.get("suppress_ids"),
            "begin_suppress_tokens": settings.get("suppress_ids_begin"),
        }
    else:
        model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
        generation = model.generation_config.to_dict()
    tokenizer = _tokenizer(folder)
    tokens = tokens_of(tokenizer, model.config.vocab_size, generation)
    model = model.to(device=device, dtype=dtype).eval()
    return WhisperTranscriber(
        model,
        tokenizer,
        tokens,
        task=config.task,
        language=config.language,
        timestamps=config.timestamps,
        max_new_tokens=config.max_new_tokens,
    )


def _check_language(config: ModelConfig, languages: dict[str, int]) -> None:
    if languages and config.language not in languages:
        raise ModelError(f"--language {config.language}: {config.model} knows {', '.join(sorted(languages))}")
    if not languages and config.language != "en":
        raise ModelError(
            f"--language {config.language}: {config.model} is an English-only checkpoint; use a multilingual one"
        )


def _tokenizer(folder: Path) -> Any:
    """The fast tokenizer, made from vocab.json and merges.txt where there is no tokenizer.json."""
    from tokenizers import Tokenizer

    if (folder / "tokenizer.json").exists():
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    from transformers import WhisperTokenizerFast

    return WhisperTokenizerFast.from_pretrained(folder).backend_tokenizer


def _local_folder(name: str, storage_options: dict[str, Any]) -> Path:
    if "://" in name and not name.startswith("hf://"):
        return _downloaded(name, json.dumps(storage_options))
    path = Path(name)
    if path.is_dir():
        return path.absolute()
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
            found = huggingface_hub.snapshot_download(name, allow_patterns=HUB_PATTERNS)
            if not list(
                Path(found).glob("*.safetensors")
            ):  # older repositories carry only the pickle format, read with weights_only
                found = huggingface_hub.snapshot_download(
                    name, allow_patterns=[*HUB_PATTERNS, "pytorch_model*.bin", "model.bin"]
                )
        except (OSError, RuntimeError) as error:
            if isinstance(error, HfHubHTTPError) and not isinstance(error, LocalEntryNotFoundError):
                raise
            try:
                found = huggingface_hub.snapshot_download(name, allow_patterns=HUB_PATTERNS, local_files_only=True)
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
    return Path(found)


@cache
def _downloaded(url: str, storage_options: str) -> Path:
    """A checkpoint from object storage, copied to a folder that is reused while its files stay the same."""
    from pipeline.storage.fs import Place, retried

    place = Place(url, json.loads(storage_options))
    names = [name for name in place.names() if name]
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
                    retried(lambda name=name: place.fs.get_file(place.join(name).path, str(Path(temporary) / name)))  # type: ignore[misc]
            try:
                Path(temporary).rename(target)
                Path(temporary).mkdir()
            except OSError:  # another process was first
                assert target.exists()
    return target


def _weights(folder: Path) -> list[Path]:
    for pattern in WEIGHT_PATTERNS:
        found = sorted(folder.glob(pattern))
        if found:
            return found
    return []


def _kind(folder: Path, name: str) -> str:
    from pipeline.models import ctranslate2

    if ctranslate2.is_ctranslate2(folder):
        return "whisper"
    path = folder / "config.json"
    if not path.exists():
        raise ModelError(f"{name}: no config.json beside the weights; expected a Hugging Face or CTranslate2 folder")
    config = json.loads(path.read_text())
    architectures, kind = config.get("architectures") or [], config.get("model_type")
    if kind == "whisper":
        return "whisper"
    from pipeline.models.exact import CTC_FAMILIES

    if kind in CTC_FAMILIES:
        if any(each.endswith("ForCTC") for each in architectures):
            return "ctc"
        raise ModelError(
            f"{name}: a {kind} checkpoint without CTC head ({', '.join(architectures) or 'no architecture named'}); transcribing needs a fine-tuned ...ForCTC one"
        )
    raise ModelError(
        f"{name}: model type {kind!r} does not transcribe here; expected whisper, {', '.join(CTC_FAMILIES)}"
    )


def fingerprint(checkpoint: Checkpoint) -> str:
    """Hash of the weight files' contents: the same weights under another path count as the same."""
    if checkpoint.kind == "fake":
        return checkpoint.path
    total = hashlib.sha256()
    for block in (block for path in _weights(Path(checkpoint.path)) for block in _blocks(path)):
        total.update(block)
    return total.hexdigest()[:16]


def _blocks(path: Path) -> Iterator[bytes]:
    with fsspec.open(str(path), "rb") as handle:
        while block := handle.read(1 << 24):
            yield block
