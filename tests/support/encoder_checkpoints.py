"""Small checkpoints with random weights, laid out as `save_pretrained` writes those of the hub: encoders with a CTC head."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

LETTERS = "etaonihsrdlumwcfgypbvkxjqz'"
PIECES = [*LETTERS, "▁", *(f"▁{letter}" for letter in LETTERS), "▁the", "ing", "▁wor", "ld", "er", ",", "."]
CONFORMER = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}
SHARPER = 40.0
"""Random heads are nearly flat: sharper ones make words instead of one long token."""


def save_pieces(folder: Path, special: list[str], kind: str = "ParakeetTokenizer", **named: str) -> int:
    """A SentencePiece-like tokenizer as the hub has them; gives the size of its vocabulary.

    Args:
        folder: to write to.
        special: tokens before the pieces.
        kind: transformers' class.
        named: which of them is what, such as pad_token.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    scores = [(token, 0.0) for token in special] + [(piece, -len(PIECES) / (1 + len(piece))) for piece in PIECES]
    if "pad_token" in named and named["pad_token"] not in special:  # the last one, as NeMo's blank is
        scores.append((named["pad_token"], 0.0))
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=special.index("<unk>")))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([*special, *named.values()])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind, **named}))
    return len(scores)


def _save(model: Any, folder: Path, head: Any, body: Any, inputs: Any) -> None:
    """As `save_pretrained` does, normalisations not the identity, the head sharp and turned to what changes from frame to
    frame: of random weights most is the same in all."""
    import torch

    model.eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2.0)
        head.weight *= SHARPER
        for _ in range(3):  # the head may be fed back
            mean_D = body(inputs).last_hidden_state.mean((0, 1))
            head.bias.copy_(-(head.weight.reshape(len(head.bias), -1) @ mean_D))
    model.save_pretrained(folder)


def save_parakeet(folder: Path, seed: int = 0, **other: Any) -> Path:
    import torch
    from transformers import ParakeetCTCConfig, ParakeetFeatureExtractor, ParakeetForCTC

    size = save_pieces(folder, ["<unk>"], unk_token="<unk>", pad_token="<pad>")
    torch.manual_seed(seed)
    encoder = {**CONFORMER, "num_mel_bins": 80, "subsampling_conv_channels": 16, "initializer_range": 0.15, **other}
    config = ParakeetCTCConfig(vocab_size=size, pad_token_id=size - 1, encoder_config=encoder)
    model = ParakeetForCTC(config)
    _save(model, folder, model.ctc_head, model.encoder, torch.randn(1, 400, 80))
    ParakeetFeatureExtractor(feature_size=80).save_pretrained(folder)
    return folder


def save_granite(folder: Path, seed: int = 0, **other: Any) -> Path:
    import torch
    from transformers import GraniteSpeech5CTCConfig, GraniteSpeech5ForCTC

    size = save_pieces(folder, ["<pad>", "<unk>"], unk_token="<unk>", pad_token="<pad>")
    torch.manual_seed(seed)
    encoder = {**CONFORMER, "vocab_size": size, "context_size": 16, "max_position_embeddings": 32, **other}
    config = GraniteSpeech5CTCConfig(vocab_size=size, encoder_config={"initializer_range": 0.15, **encoder})
    model = GraniteSpeech5ForCTC(config)
    with torch.no_grad():  # what is fed back in the middle would drown the rest
        model.encoder.out_mid.weight *= 0.1
    like_noise = 0.1 * torch.randn(1, 400, 320) + torch.tensor([0.6, 0.0] * 2).repeat_interleave(80)
    _save(model, folder, model.ctc_head, model.encoder, like_noise)
    told = {"num_mel_bins": 80, "sampling_rate": 16_000, "n_fft": 512, "win_length": 400, "hop_length": 160}
    extractor = {
        "feature_extractor_type": "GraniteSpeech5FeatureExtractor",
        **told,
        "delta_win_length": 3,
        "logmel_floor_db": 8.0,
    }
    processor = {"processor_class": "GraniteSpeech5Processor", "feature_extractor": extractor}
    (folder / "processor_config.json").write_text(json.dumps(processor))
    return folder


def save_lasr(folder: Path, seed: int = 0, **other: Any) -> Path:
    import torch
    from transformers import LasrCTCConfig, LasrFeatureExtractor, LasrForCTC

    size = save_pieces(
        folder, ["<pad>", "</s>", "<unk>"], "LasrTokenizer", unk_token="<unk>", pad_token="<pad>", eos_token="</s>"
    )
    torch.manual_seed(seed)
    encoder = {**CONFORMER, "num_mel_bins": 80, "subsampling_conv_channels": 16, "conv_kernel_size": 8, **other}
    model = LasrForCTC(LasrCTCConfig(vocab_size=size, encoder_config={"initializer_range": 0.15, **encoder}))
    _save(model, folder, model.ctc_head, model.encoder, torch.randn(1, 400, 80))
    LasrFeatureExtractor(feature_size=80).save_pretrained(folder)
    return folder


def save_omniasr(folder: Path, seed: int = 0, **other: Any) -> Path:
    import torch
    from transformers import OmniASRCTCConfig, OmniASRFeatureExtractor, OmniASRForCTC

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    names = {"unk_token": "<unk>", "pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    size = save_pieces(folder, special, **names)
    torch.manual_seed(seed)
    audio = {
        **CONFORMER,
        "conv_dim": (32,) * 7,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
        **other,
    }
    config = OmniASRCTCConfig(vocab_size=size, audio_config={"model_type": "omniasr_audio", **audio})
    model = OmniASRForCTC(config)
    _save(model, folder, model.ctc_head, model.model.audio_tower, torch.randn(1, 1, 64_000))
    OmniASRFeatureExtractor().save_pretrained(folder)
    return folder


ENCODERS: dict[str, Callable[..., Path]] = {
    "parakeet": save_parakeet,
    "granite": save_granite,
    "lasr": save_lasr,
    "omniasr": save_omniasr,
}


def save_transducer(
    folder: Path, seed: int = 0, durations: tuple[int, ...] | None = (0, 1, 2, 3, 4), **other: Any
) -> Path:
    """With durations a TDT, without an RNN-T. Frames and labels weigh the same, and blanks
    are frequent enough to go on."""
    import torch
    from transformers import (
        ParakeetFeatureExtractor,
        ParakeetForRNNT,
        ParakeetForTDT,
        ParakeetRNNTConfig,
        ParakeetTDTConfig,
    )

    size = save_pieces(folder, ["<unk>", "<pad>"], unk_token="<unk>", pad_token="<pad>") + 1
    torch.manual_seed(seed)
    encoder = {**CONFORMER, "num_mel_bins": 80, "subsampling_conv_channels": 16, "initializer_range": 0.15, **other}
    common = {"vocab_size": size, "blank_token_id": size - 1, "pad_token_id": 1, "encoder_config": encoder}
    more = {"decoder_hidden_size": 24, "num_decoder_layers": 2, "decoder_start_token_id": size - 1}
    if durations is None:
        model: Any = ParakeetForRNNT(ParakeetRNNTConfig(**common, **more))
    else:
        model = ParakeetForTDT(ParakeetTDTConfig(**common, **more, durations=durations))
    model.eval()
    with torch.no_grad():
        model.joint.head.weight.normal_(0, 0.6)
        model.joint.head.bias.zero_()
        model.decoder.embedding.weight.normal_(0, 2.0)
        frames = model.encoder(torch.randn(1, 2000, 80)).last_hidden_state
        said = model.decoder.lstm(model.decoder.embedding(torch.randint(0, size, (1, 250))))[0]
        for layer, given in ((model.encoder_projector, frames), (model.decoder.decoder_projector, said)):
            spread = layer(given).std((0, 1)).mean()
            layer.weight *= 2 / spread
            layer.bias.copy_(-(given.mean((0, 1)) @ layer.weight.T))
        pairs = model.joint(model.decoder.decoder_projector(said), model.encoder_projector(frames)[:, :250])[
            0, :, :size
        ]
        needed = pairs[:, : size - 1].amax(-1) - pairs[:, size - 1]
        model.joint.head.bias[size - 1] = needed.quantile(0.3 if durations else 0.8)
    model.generation_config.decoder_start_token_id = size - 1
    model.generation_config.suppress_tokens = list(range(size, size + len(durations or ())))  # durations are no tokens
    model.save_pretrained(folder)
    ParakeetFeatureExtractor(feature_size=80).save_pretrained(folder)
    return folder


SAID = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
CANARY_TOKENS = [
    "<unk>",
    "<|nospeech|>",
    "<pad>",
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|pnc|>",
    "<|nopnc|>",
    "<|startofcontext|>",
    "<|noitn|>",
]
CANARY_TOKENS += ["<|notimestamp|>", "<|nodiarize|>", "<|emo:undefined|>", "<|en|>", "<|de|>", "<|fr|>", "<|ca|>"]
CANARY_PROMPT = (
    "{%- for message in messages -%}{%- for part in message['content'] if part['type'] == 'text' -%}"
    "<|startofcontext|><|startoftranscript|><|emo:undefined|><|{{ part['source_language'] }}|><|{{ part['target_language'] }}|>"
    "{{ '<|pnc|>' if part['punctuation'] else '<|nopnc|>' }}<|noitn|><|notimestamp|><|nodiarize|>"
    "{%- endfor -%}{%- endfor -%}"
)


def _livelier(model: Any) -> None:
    """Random decoders repeat their last token for ever, because the matrix that reads it writes the next one: with some
    signs turned each token leads to another, by what is looked at."""
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "decoder.embed_tokens" in name:
                weight.normal_(0, 1.0)
            elif name.endswith("decoder.norm.weight"):
                weight.copy_((torch.rand_like(weight) + 0.5) * torch.randn_like(weight).sign())
            elif weight.ndim == 2 and "coder." in name:
                is_query = "decoder" in name and "o_proj" not in name and "fc2" not in name
                weight.normal_(0, (1.5 if is_query else 1.0) * weight.shape[1] ** -0.5)
            elif name == "proj_out.bias":
                weight.zero_()


def save_moonshine(folder: Path, seed: int = 2, **other: Any) -> Path:
    import torch
    from transformers import MoonshineConfig, MoonshineForConditionalGeneration, Wav2Vec2FeatureExtractor

    size = save_pieces(folder, ["<unk>", "<s>", "</s>", "<pad>"], "PreTrainedTokenizerFast", **SAID)
    torch.manual_seed(seed)
    shape = {"hidden_size": 72, "intermediate_size": 96, "encoder_num_hidden_layers": 3, "decoder_num_hidden_layers": 2}
    heads = {"encoder_num_attention_heads": 2, "decoder_num_attention_heads": 2, "max_position_embeddings": 194}
    model = MoonshineForConditionalGeneration(MoonshineConfig(vocab_size=size, **{**shape, **heads, **other})).eval()
    _livelier(model)
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True).save_pretrained(folder)
    return folder


def save_canary(folder: Path, seed: int = 2, **other: Any) -> Path:
    import torch
    from transformers import CanaryConfig, CanaryForConditionalGeneration, ParakeetFeatureExtractor

    names = {
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "eos_token": "<|endoftext|>",
        "bos_token": "<|startofcontext|>",
    }
    size = save_pieces(folder, CANARY_TOKENS, **names)
    torch.manual_seed(seed)
    encoder = {**CONFORMER, "num_mel_bins": 80, "subsampling_conv_channels": 16, "initializer_range": 0.15, **other}
    decoder = {
        "vocab_size": size,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 128,
    }
    config = CanaryConfig(
        vocab_size=size, encoder_config={"model_type": "parakeet_encoder", **encoder}, decoder_config=decoder
    )
    model = CanaryForConditionalGeneration(config).eval()
    _livelier(model)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2.0)
    model.save_pretrained(folder)
    extractor = ParakeetFeatureExtractor(feature_size=80).to_dict()
    processor = {"processor_class": "CanaryProcessor", "feature_extractor": extractor}
    (folder / "processor_config.json").write_text(json.dumps(processor))
    (folder / "chat_template.jinja").write_text(CANARY_PROMPT)
    return folder
