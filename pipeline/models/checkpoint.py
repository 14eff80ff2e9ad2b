"""What kind of checkpoint `--model` names, whether it can give what is wanted, its shape and fingerprint. Loads no weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import torch

from pipeline.config import ModelConfig, TranscriptConfig
from pipeline.errors import ModelError
from pipeline.models.fairseq import is_fairseq
from pipeline.models.locate import local_path
from pipeline.models.shape import Shape, shape_of_family, shape_of_whisper

FAKE = "fake://"
WEIGHT_PATTERNS = ("*.safetensors", "pytorch_model*.bin", "model.bin")
WHISPER_WINDOW_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint that was found.

    `name`: what every worker can find it by (absolute where it is a path); `path`: local folder or file here (or the
    fake's name); `kind`: whisper, ctc (wav2vec2 family with a CTC head), encoder (without), fairseq or fake.
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
    path = local_path(config.model, storage_options)
    name = str(path) if Path(config.model).exists() else config.model
    if is_fairseq(path):
        return Checkpoint(name=name, path=str(path), kind="fairseq")
    if not _weights(path):
        raise ModelError(
            f"{config.model}: no weights found; expected a folder with *.safetensors, pytorch_model.bin or a CTranslate2 model.bin"
        )
    return Checkpoint(name=name, path=str(path), kind=_kind(path, config.model))


def check_options(checkpoint: Checkpoint, model: str, text: TranscriptConfig) -> None:
    """Tells options that do not fit a checkpoint that shall transcribe, before anything is started.

    Raises:
        ModelError: no text from this one, a language that it does not know, a translation by an English-only one.
    """
    if checkpoint.kind in ("encoder", "fairseq"):
        raise ModelError(
            f"{model}: a checkpoint without CTC head; transcribing needs a fine-tuned ...ForCTC or Whisper one "
            "(embed and encode can use this one)"
        )
    if checkpoint.kind != "ctc" and (text.decoder.beam_size > 1 or text.decoder.keep_posteriors):
        option = "--beam-size" if text.decoder.beam_size > 1 else "--keep-posteriors"
        raise ModelError(
            f"{option}: {model} is no CTC model; use a wav2vec2-family ...ForCTC checkpoint, or leave it out"
        )
    if checkpoint.kind != "whisper":
        if text.task == "translate":
            raise ModelError(f"--task translate: {model} is no Whisper checkpoint; use a multilingual Whisper")
        return
    from pipeline.models.whisper_tokens import tokens_of

    folder = Path(checkpoint.path)
    languages = tokens_of(whisper_tokenizer(folder), whisper_vocabulary_size(folder), {}).languages
    if text.language is not None:
        _check_language(text.language, model, languages)
    for code in (text.languages or "").split(","):
        if code.strip():
            _check_language(code.strip(), model, languages)
    if text.task == "translate" and not languages:
        raise ModelError(f"--task translate: {model} is an English-only checkpoint; use a multilingual one")


def shape_of(checkpoint: Checkpoint) -> Shape:
    """Width, layers, frame clock and quantizer."""
    from pipeline.models import ctranslate2, fairseq

    folder = Path(checkpoint.path)
    if checkpoint.kind == "fake":
        from pipeline.models.fake import FAKE_SHAPE

        return FAKE_SHAPE
    if checkpoint.kind == "fairseq":
        return fairseq.shape_of_fairseq(folder)
    if checkpoint.kind == "whisper":
        return ctranslate2.shape_of(folder) if ctranslate2.is_ctranslate2(folder) else shape_of_whisper(folder)
    from pipeline.models.codebooks import has_quantizer

    return shape_of_family(folder, has_quantizer(folder))


def whisper_vocabulary_size(folder: Path) -> int:
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


def resolve_precision(precision: str, device: str, kind: str, only_text: bool) -> str:
    """`auto` -> fp16 on GPU; on CPU fp32, or for Whisper's text what suits the CPU.

    Raises:
        ModelError: int8 where there is none.
    """
    if precision == "int8" and (device.startswith("cuda") or kind not in ("whisper", "fake")):
        raise ModelError("--precision int8 is for Whisper on CPU; use fp32 or bf16 here, on GPU fp16 or bf16")
    if precision != "auto":
        return precision
    if device.startswith("cuda"):
        return "fp16"
    if kind == "whisper" and only_text:
        from pipeline.models.pace import fastest_precision

        return fastest_precision()
    return "fp32"


def _check_language(language: str, model: str, languages: dict[str, int]) -> None:
    if languages and language not in languages:
        raise ModelError(f"--language {language}: {model} knows {', '.join(sorted(languages))}")
    if not languages and language != "en":
        raise ModelError(f"--language {language}: {model} is an English-only checkpoint; use a multilingual one")


def whisper_tokenizer(folder: Path) -> Any:
    """The fast tokenizer, made from vocab.json and merges.txt where there is no tokenizer.json."""
    from tokenizers import Tokenizer

    if (folder / "tokenizer.json").exists():
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    from transformers import WhisperTokenizerFast

    return WhisperTokenizerFast.from_pretrained(folder).backend_tokenizer


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
        return "ctc" if any(each.endswith("ForCTC") for each in architectures) else "encoder"
    raise ModelError(f"{name}: model type {kind!r} is not read here; expected whisper, {', '.join(CTC_FAMILIES)}")


def family_of(checkpoint: Checkpoint) -> str:
    """`model_type` of a Hugging Face folder; the kind of anything else."""
    path = Path(checkpoint.path) / "config.json"
    return str(json.loads(path.read_text()).get("model_type", checkpoint.kind)) if path.exists() else checkpoint.kind


def fingerprint(checkpoint: Checkpoint) -> str:
    """Hash of the weight files' contents: the same weights under another path count as the same."""
    if checkpoint.kind == "fake":
        return checkpoint.path
    total = hashlib.sha256()
    path = Path(checkpoint.path)
    for block in (block for path in ([path] if path.is_file() else _weights(path)) for block in _blocks(path)):
        total.update(block)
    return total.hexdigest()[:16]


def _blocks(path: Path) -> Iterator[bytes]:
    with fsspec.open(str(path), "rb") as handle:
        while block := handle.read(1 << 24):
            yield block
