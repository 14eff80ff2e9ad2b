"""Speech LLMs of others with random weights, laid out as those of the hub."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from tests.support.language_models import LETTERS, save_letters

LM: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 2048,
    "initializer_range": 0.4,
    "eos_token_id": 2,
    "bos_token_id": 1,
    "pad_token_id": 3,
}
TOWER = {"num_mel_bins": 80, "initializer_range": 0.2}
TEMPLATE = (
    "{% for m in messages %}{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'audio' %}AUDIO{% elif c['type'] == 'text' %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}\n{% endfor %}"
)


def _letters(folder: Path, *special: str) -> Any:
    """A tokenizer of letters that knows some special tokens besides."""
    from transformers import AutoTokenizer

    save_letters(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(list(special), special_tokens=True)
    return tokenizer


def _saved(folder: Path, model: Any, ends: Any = 2) -> Path:
    model.generation_config.eos_token_id = ends
    model.eval().save_pretrained(folder)
    return folder


def save_qwen3_asr(folder: Path) -> Path:
    import torch
    from transformers import (
        Qwen3ASRConfig,
        Qwen3ASRFeatureExtractor,
        Qwen3ASRForConditionalGeneration,
        Qwen3ASRProcessor,
    )

    torch.manual_seed(3)
    tokenizer = _letters(folder, "<|audio_pad|>", "<|audio_start|>", "<|audio_end|>", "<asr_text>")
    tokenizer.audio_token, tokenizer.audio_bos_token, tokenizer.audio_eos_token = (
        "<|audio_pad|>",
        "<|audio_start|>",
        "<|audio_end|>",
    )
    tokenizer.init_kwargs |= {
        "audio_token": "<|audio_pad|>",
        "audio_bos_token": "<|audio_start|>",
        "audio_eos_token": "<|audio_end|>",
    }
    template = TEMPLATE.replace("AUDIO", "<|audio_start|><|audio_pad|><|audio_end|>")
    Qwen3ASRProcessor(Qwen3ASRFeatureExtractor(feature_size=80), tokenizer, chat_template=template).save_pretrained(
        folder
    )
    tower = {"encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 48, "d_model": 32, "output_dim": 32,
             "downsample_hidden_size": 16, **TOWER}  # fmt: skip
    text = {**LM, "model_type": "qwen3", "head_dim": 16, "vocab_size": len(tokenizer)}
    config = Qwen3ASRConfig(
        audio_config=tower, text_config=text, audio_token_id=tokenizer.convert_tokens_to_ids("<|audio_pad|>")
    )
    return _saved(folder, Qwen3ASRForConditionalGeneration(config), [2, 5])


def save_glm_asr(folder: Path) -> Path:
    import torch
    from transformers import GlmAsrConfig, GlmAsrForConditionalGeneration, GlmAsrProcessor, WhisperFeatureExtractor

    torch.manual_seed(3)
    tokenizer = _letters(folder, "<|pad|>")
    template = TEMPLATE.replace("AUDIO", "<|pad|>")
    GlmAsrProcessor(WhisperFeatureExtractor(feature_size=80), tokenizer, chat_template=template).save_pretrained(folder)
    tower = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, **TOWER}
    text = {**LM, "model_type": "llama", "vocab_size": len(tokenizer)}
    config = GlmAsrConfig(
        audio_config=tower,
        text_config=text,
        audio_token_id=tokenizer.convert_tokens_to_ids("<|pad|>"),
        tie_word_embeddings=False,
    )
    return _saved(folder, GlmAsrForConditionalGeneration(config))


def save_granite_speech(folder: Path, lora_rank: int = 0) -> Path:
    import torch
    from transformers import (
        GraniteSpeechConfig,
        GraniteSpeechForConditionalGeneration,
    )

    torch.manual_seed(3)
    tokenizer = _letters(folder, "<|audio|>")
    tokenizer.save_pretrained(folder)
    settings = {"feature_extractor_type": "GraniteSpeechFeatureExtractor", "sampling_rate": 16_000, "n_mels": 80}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    encoder = {"num_layers": 2, "hidden_dim": 32, "num_heads": 2, "output_dim": 12}
    projector = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 48, "encoder_hidden_size": 32,
                 "model_type": "blip_2_qformer"}  # fmt: skip
    text = {**LM, "model_type": "granite", "vocab_size": len(tokenizer), "embedding_multiplier": 3.0, "logits_scaling": 2.0,
            "residual_multiplier": 0.7, "attention_multiplier": 0.2}  # fmt: skip
    config = GraniteSpeechConfig(
        encoder_config=encoder,
        projector_config=projector,
        text_config=text,
        audio_token_index=tokenizer.convert_tokens_to_ids("<|audio|>"),
        has_lora_adapter=bool(lora_rank),
        tie_word_embeddings=False,
    )
    _saved(folder, GraniteSpeechForConditionalGeneration(config))
    if lora_rank:
        from safetensors.torch import save_file

        tensors = {}
        for layer in range(2):
            for name, width in (("q_proj", 32), ("v_proj", 16)):
                before = f"base_model.model.model.language_model.layers.{layer}.self_attn.{name}"
                tensors[f"{before}.lora_A.weight"] = torch.randn(lora_rank, 32)
                tensors[f"{before}.lora_B.weight"] = torch.randn(width, lora_rank)
        save_file(tensors, folder / "adapter_model.safetensors")
        settings = {"peft_type": "LORA", "r": lora_rank, "lora_alpha": 3, "target_modules": ["q_proj", "v_proj"]}
        (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


SPECIAL = ("<unk>", "<s>", "</s>", "<pad>", "[INST]", "[/INST]", "[AUDIO]", "[BEGIN_AUDIO]", "[TRANSCRIBE]",
           "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[PREFIX]", "[MIDDLE]",
           "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]")  # fmt: skip


def _save_tekken(folder: Path) -> int:
    """A tokenizer of bytes as mistral-common has it; gives the size of its vocabulary."""
    vocab = [
        {"rank": byte, "token_bytes": base64.b64encode(bytes([byte])).decode(), "token_str": chr(byte)}
        for byte in range(256)
    ]
    audio = {"sampling_rate": 16_000, "frame_rate": 12.5, "chunk_length_s": 30.0,
             "audio_encoding_config": {"num_mel_bins": 80, "hop_length": 160, "window_size": 400}}  # fmt: skip
    config = {"pattern": "[a-z]+|.", "num_vocab_tokens": 256, "default_vocab_size": 256 + len(SPECIAL),
              "default_num_special_tokens": len(SPECIAL), "version": "v7"}  # fmt: skip
    special = [{"rank": at, "token_str": token, "is_control": True} for at, token in enumerate(SPECIAL)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tekken.json").write_text(
        json.dumps({"config": config, "vocab": vocab, "special_tokens": special, "audio": audio})
    )
    return 256 + len(SPECIAL)


def save_voxtral(folder: Path) -> Path:
    import torch
    from transformers import (
        MistralCommonBackend,
        VoxtralConfig,
        VoxtralForConditionalGeneration,
        VoxtralProcessor,
        WhisperFeatureExtractor,
    )

    torch.manual_seed(3)
    size = _save_tekken(folder)
    tokenizer = MistralCommonBackend(str(folder / "tekken.json"))
    VoxtralProcessor(WhisperFeatureExtractor(feature_size=80), tokenizer).save_pretrained(folder)
    tower = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, **TOWER}
    text = {**LM, "model_type": "llama", "vocab_size": size, "head_dim": 8}
    config = VoxtralConfig(audio_config=tower, text_config=text, audio_token_id=SPECIAL.index("[AUDIO]"))
    return _saved(folder, VoxtralForConditionalGeneration(config))


SAVERS = {
    "qwen3_asr": save_qwen3_asr,
    "glm_asr": save_glm_asr,
    "granite_speech": save_granite_speech,
    "voxtral": save_voxtral,
}
__all__ = ["LETTERS", "SAVERS"]
