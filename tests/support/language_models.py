"""Small causal language models with random weights, laid out as `save_pretrained` writes those of the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LETTERS = "etaonihsrdlumwcfgypbvkxjqz' "
LAYERS = {
    "llama": "Llama",
    "qwen3": "Qwen3",
    "smollm3": "SmolLM3",
    "granite": "Granite",
    "mistral": "Mistral",
    "qwen2": "Qwen2",
}
"""Kinds of language models, and how transformers names their classes."""
MORE: dict[str, dict[str, Any]] = {
    "granite": {
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.7,
        "attention_multiplier": 0.2,
        "logits_scaling": 2.0,
    },
    "smollm3": {"no_rope_layers": [1, 0, 1]},
    "qwen3": {"head_dim": 16},
    "mistral": {"sliding_window": None},
}


def save_letters(folder: Path, chat_template: str | None = None) -> int:
    """A tokenizer of letters with `<s>`, `</s>` and `<audio>`; gives the size of its vocabulary."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = ["<unk>", "<s>", "</s>", "<pad>", *LETTERS, "\n", ":", "?", "."]
    tokenizer = Tokenizer(models.WordLevel({token: at for at, token in enumerate(tokens)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    if chat_template is not None:
        fast.chat_template = chat_template
    folder.mkdir(parents=True, exist_ok=True)
    fast.save_pretrained(folder)
    return len(tokens)


def config_of(kind: str, size: int, **other: Any) -> Any:
    """Of a language model of three layers."""
    import transformers

    shape = {
        "vocab_size": size,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 512,
        "initializer_range": 0.4,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 3,
        "tie_word_embeddings": False,
    }
    return getattr(transformers, f"{LAYERS[kind]}Config")(**{**shape, **MORE.get(kind, {}), **other})


def save_language_model(folder: Path, kind: str = "llama", chat_template: str | None = None, **other: Any) -> Path:
    """A language model with random weights, loud enough to say more than one thing."""
    import torch
    import transformers

    size = save_letters(folder, chat_template)
    torch.manual_seed(1)
    model = getattr(transformers, f"{LAYERS[kind]}ForCausalLM")(config_of(kind, size, **other))
    model.generation_config.eos_token_id = 2
    model.save_pretrained(folder)
    return folder


def save_speech_llm(folder: Path, encoder: Path, lm: Path, **options: Any) -> Path:
    """A speech LLM whose projector has learnt nothing."""
    import torch

    from audiomill.config.fields import build
    from audiomill.config.train import TrainConfig
    from audiomill.models.speech_llm.learner import new_projector_learner

    torch.manual_seed(0)
    config = build(TrainConfig, {"model": str(encoder), "lm": str(lm), "device": "cpu", **options})
    learner = new_projector_learner(encoder, config, [], torch.device("cpu"))
    learner.save(folder)
    return folder


def drawled(text: str, random: Any) -> str:
    """A text with letters said several times over, as frames say them."""
    return "".join(letter * int(random.integers(1, 4)) for letter in text)


def train_language_model(folder: Path, texts: list[str], updates: int = 400, **other: Any) -> Path:
    """A small Llama that has learnt from text alone to write clean what stands drawled before a newline."""
    import numpy as np
    import torch
    from transformers import AutoTokenizer, LlamaForCausalLM

    size = save_letters(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128, "initializer_range": 0.1, **other}
    model = LlamaForCausalLM(config_of("llama", size, **shape))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98))
    random = np.random.default_rng(0)
    for update in range(updates):
        rows, labels = [], []
        for text in random.choice(texts, 32).tolist():
            before = tokenizer(f"{drawled(text, random)}\n").input_ids
            after = [*tokenizer(text).input_ids, 2]
            rows.append(torch.tensor(before + after))
            labels.append(torch.tensor([-100] * len(before) + after))
        ids_BL = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=3)
        labels_BL = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100)
        found = model(input_ids=ids_BL, attention_mask=(ids_BL != 3).long(), labels=labels_BL)
        found.loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1.0, (update + 1) / 50, 3 * (1 - update / updates))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.generation_config.eos_token_id = 2
    model.eval().save_pretrained(folder)
    return folder
