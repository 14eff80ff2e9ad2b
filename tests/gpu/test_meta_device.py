"""What runs on a GPU, on torch's meta device: shapes, types and a device, but no values. No GPU is needed to see that no step
beside the CPU's own mixes devices or types; what waits for values (which rows are done) is tested on CPUs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audiomill.models.codes.codebooks import NearestCentroid
from audiomill.models.frames.exact import RowLengths, make_exact, with_plain_weights
from audiomill.models.frames.mel import LogMel
from audiomill.models.seq2seq.cross_attention_cache import StaticCrossCache, cross_kv
from audiomill.models.seq2seq.decode_slots import DecodeSlots, Search
from audiomill.models.seq2seq.kv_cache import KVCache
from audiomill.models.whisper.encode_decode import weights_of
from audiomill.models.whisper.network.encoder import run_encoder
from audiomill.models.whisper.timing import token_costs
from tests.models.test_whisper_tokens import TOKENS

GPU = torch.device("meta")
HEADS = ((0, 0), (1, 1))


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def on_gpu(model: Any, dtype: torch.dtype) -> Any:
    """The model with weights that have no values, on the GPU."""
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None:
                    kind = dtype if tensor.is_floating_point() else tensor.dtype
                    bare = torch.empty(tensor.shape, dtype=kind, device=GPU)
                    held[name] = torch.nn.Parameter(bare, requires_grad=False) if held is module._parameters else bare
    return model


def whisper_model(dtype: torch.dtype) -> Any:
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    width: dict[str, Any] = {"encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "d_model": 32, "vocab_size": 140}
    ids = {"pad_token_id": 0, "bos_token_id": 20, "eos_token_id": 20, "decoder_start_token_id": 21}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_layers": 2, "decoder_layers": 2}
    return on_gpu(WhisperForConditionalGeneration(WhisperConfig(**width, **heads, **ids)).eval(), dtype)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
def test_whisper_s_encoder_and_decoder_stay_on_the_gpu_in_their_type(precision: str) -> None:
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    weights = weights_of(whisper_model(dtype), precision)
    mel = weights.mel(torch.zeros(3, 160_000, device=GPU)).to(dtype)
    assert mel.shape == (3, 80, 1000) and mel.device.type == "meta"
    hidden = run_encoder(weights.encoder, mel)[2]
    assert hidden.shape == (3, 500, 32) and hidden.dtype == dtype and hidden.device.type == "meta"
    group = cross_kv(weights.decoder, hidden)
    slab = StaticCrossCache(weights.decoder, 8, 1500)
    state = KVCache(weights.decoder, 8, 64, cross=slab)
    logits = weights.decoder.logits(state.admit(group, torch.zeros(3, 4, dtype=torch.long, device=GPU)))
    assert logits.shape == (3, 4, 140) and logits.dtype == torch.float32
    for _ in range(3):
        assert state.step(torch.zeros(3, dtype=torch.long, device=GPU)).shape == (3, 1, 32)
    state.keep(state.kept_order([0, 2]))  # a row leaves, another one comes
    state.admit(cross_kv(weights.decoder, hidden[:1]), torch.zeros(1, 4, dtype=torch.long, device=GPU))
    assert len(state) == 3 and state.frames == 500


def test_a_recorded_step_of_the_table_asks_the_gpu_nothing() -> None:
    weights = weights_of(whisper_model(torch.float16), "fp16").decoder
    search = Search(tokens=TOKENS, timestamps=True, max_new_tokens=32, stops_repetition=True)
    table = DecodeSlots(weights, search, 8, 4, 1500)
    group = cross_kv(weights, torch.zeros(3, 500, 32, device=GPU, dtype=torch.float16))
    table._state.admit(group, torch.zeros(3, 4, dtype=torch.long, device=GPU))
    table._compute(8, table._state.longest)  # slots without a row are computed along
    assert table._latest_B.device.type == "meta" and table._chosen_BN.shape == (8, 32)


def test_word_times_are_looked_for_on_the_gpu() -> None:
    weights = weights_of(whisper_model(torch.float16), "fp16").decoder
    hidden = torch.zeros(2, 500, 32, device=GPU, dtype=torch.float16)
    costs = token_costs(weights, hidden, [[1, 2, 3]] * 2, [[5, 6], [7]], [400, 90], 9, HEADS)
    assert [tuple(cost.shape) for cost in costs] == [(3, 400), (2, 90)]
    assert {cost.device.type for cost in costs} == {"meta"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_frame_models_and_codes_stay_on_the_gpu(dtype: torch.dtype) -> None:
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    config = Wav2Vec2Config(
        hidden_size=32, intermediate_size=64, num_attention_heads=2, num_hidden_layers=2, feat_extract_norm="layer"
    )
    model = Wav2Vec2ForCTC(config).eval()
    with_plain_weights(model)
    on_gpu(model, dtype)
    lengths: RowLengths = make_exact(model.wav2vec2)
    lengths.samples_B = torch.tensor([16_000, 9_000], device=GPU)
    lengths.frames_B = torch.tensor([49, 27], device=GPU)
    out = model.wav2vec2(torch.zeros(2, 16_000, device=GPU, dtype=dtype)).last_hidden_state
    assert out.shape == (2, 49, 32) and out.device.type == "meta"
    codes = NearestCentroid(np.zeros((10, 32), np.float32), GPU)(out.reshape(-1, 32))
    assert codes.shape == (98, 1) and codes.device.type == "meta"


def random_decoder(kind: str) -> Any:
    import transformers

    if kind == "moonshine":
        shape = {
            "hidden_size": 32,
            "intermediate_size": 48,
            "encoder_num_hidden_layers": 2,
            "decoder_num_hidden_layers": 2,
        }
        heads = {"encoder_num_attention_heads": 2, "decoder_num_attention_heads": 2, "vocab_size": 140}
        return transformers.MoonshineForConditionalGeneration(transformers.MoonshineConfig(**shape, **heads)).eval()
    width = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    decoder = {**width, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 140, "max_position_embeddings": 64}
    config = transformers.CanaryConfig(
        vocab_size=140, encoder_config={"model_type": "parakeet_encoder", **width}, decoder_config=decoder
    )
    return transformers.CanaryForConditionalGeneration(config).eval()


@pytest.mark.parametrize("kind", ["moonshine", "nemo_canary"])
@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
def test_other_decoders_stay_on_the_gpu_in_their_type(kind: str, precision: str) -> None:
    from audiomill.models.moonshine.moonshine_network import moonshine_decoder as of_moonshine
    from audiomill.models.nemo_canary.canary_loading import canary_decoder as of_canary

    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    model = on_gpu(random_decoder(kind), dtype)
    weights = (of_moonshine if kind == "moonshine" else of_canary)(model, Path("folder"), precision)
    state = KVCache(weights, 4, 64)
    group = cross_kv(weights, torch.zeros(3, 50, 32, device=GPU, dtype=dtype))
    logits = weights.logits(state.admit(group, torch.zeros(3, 9, dtype=torch.long, device=GPU)))
    assert logits.shape == (3, 9, 140) and logits.dtype == torch.float32
    hidden = state.step(torch.zeros(3, dtype=torch.long, device=GPU))
    assert hidden.shape == (3, 1, 32) and hidden.dtype == dtype and hidden.device.type == "meta"


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
def test_language_models_behind_audio_stay_on_the_gpu(precision: str) -> None:
    from transformers import Qwen3ForCausalLM

    from audiomill.models.causal.causal_decoder import causal_weights
    from audiomill.models.seq2seq.special_tokens import SpecialTokens
    from audiomill.models.speech_llm.projector import Projector
    from tests.support.language_models import config_of

    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    model = on_gpu(Qwen3ForCausalLM(config_of("qwen3", 40)).eval(), dtype)
    weights = causal_weights(model.model, model.lm_head, precision, "folder", frees=True)
    assert not any(hasattr(each, "self_attn") for each in model.model.layers), "it is not in memory twice"
    projector = on_gpu(Projector(16, 5, 24, 32), dtype)
    prefix_BPD = projector(torch.zeros(3, 33, 16, device=GPU, dtype=dtype))
    tokens = SpecialTokens(size=40, start=0, end=2, no_speech=None, first_timestamp=40)
    table = DecodeSlots(weights, Search(tokens=tokens, timestamps=False, max_new_tokens=32), 8, 7)
    table._state.admit_prefixes(prefix_BPD)
    table._compute(8, table._state.longest)  # slots without a row are computed along, as a recorded step does
    assert prefix_BPD.shape == (3, 7, 32) and table._latest_B.device.type == "meta"


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_log_mels_and_a_conformer_over_them_stay_on_the_gpu(dtype: torch.dtype) -> None:
    from transformers import ParakeetEncoder, ParakeetEncoderConfig, ParakeetFeatureExtractor

    from audiomill.models.fastconformer.fast_conformer import nemo_log_mels

    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    config = ParakeetEncoderConfig(**shape, num_mel_bins=80, subsampling_conv_channels=16)
    encoder = on_gpu(ParakeetEncoder(config).eval(), dtype)
    inputs, lengths_B = nemo_log_mels(ParakeetFeatureExtractor(feature_size=80), GPU)(
        [np.zeros(n, np.int16) for n in (16_000, 9_000)]
    )
    assert {each.device.type for each in inputs.values()} == {"meta"} and lengths_B.device.type == "meta"
    inputs["input_features"] = inputs["input_features"].to(dtype)
    hidden = encoder(**inputs).last_hidden_state
    assert hidden.shape[0] == 2 and hidden.dtype == dtype and hidden.device.type == "meta"


def test_a_step_that_forgets_the_device_is_noticed() -> None:
    mel = LogMel(80, GPU)
    with pytest.raises(RuntimeError, match=r"device|cuda"):
        mel(torch.zeros(1, 16_000))
