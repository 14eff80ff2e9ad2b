"""Embeddings and codes as users find them: against Hugging Face alone, in every form, stitched, on every path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from audiomill.audio.vad import voiced_frames
from audiomill.config.run import size_in_bytes
from audiomill.errors import UsageError
from audiomill.models.codes.codebooks import Codebook, write_codebook
from audiomill.storage.fs import Place
from audiomill.tables.codes import run_lengths, usage
from tests.support.jobs_by_hand import check_accounts, part_files, rows, run
from tests.support.synth import CTC_FAMILIES, RATE, encode, noise, save_ctc_checkpoint

LENGTHS = [400, 3_000, 16_000, 40_123, 160_017]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One recording of each length, named so that the plan keeps their order."""
    folder = tmp_path_factory.mktemp("frames")
    for number, length in enumerate(LENGTHS):
        (folder / f"{number}.wav").write_bytes(encode(noise(length, seed=length)))
    return folder


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small `Wav2Vec2ForPreTraining` checkpoint, 2 codebooks of 20 entries."""
    settings = {**CTC_FAMILIES["wav2vec2-group"][1], "num_codevectors_per_group": 20, "codevector_dim": 16}
    torch.manual_seed(3)
    model = transformers.Wav2Vec2ForPreTraining(transformers.Wav2Vec2Config(**settings, proj_codevector_dim=16)).eval()
    folder = tmp_path_factory.mktemp("pretrained")
    model.save_pretrained(folder)
    return folder


def hidden_states(folder: Path) -> list[list[Any]]:
    """Hugging Face at batch size 1, by recording and layer."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    found = []
    for length in LENGTHS:
        inputs = extractor(
            noise(length, seed=length).astype(np.float32) / 32768, sampling_rate=16_000, return_tensors="pt"
        )
        with torch.inference_mode():
            found.append([h[0].numpy() for h in model(**inputs, output_hidden_states=True).hidden_states])
    return found


def embed(corpus: Path | list[Path], output: Path, model: Path, **options: Any) -> list[dict[str, Any]]:
    run(corpus, output, "embed", model=model, **options)
    check_accounts(output)
    return rows(output, "embeddings")


# --------------------------------------------------------------------------------------------------------- embeddings


def test_every_layer_of_every_frame_is_hugging_faces(tmp_path: Path, corpus: Path, wav2vec2_folder: Path) -> None:
    found = embed(corpus, tmp_path / "out", wav2vec2_folder, layers="all", dtype="fp32")
    theirs = hidden_states(wav2vec2_folder)
    assert [row["layer"] for row in found] == [0, 1, 2] * len(LENGTHS)
    for number, row in enumerate(found):
        expected = theirs[number // 3][row["layer"]]
        assert row["num_frames"] == len(expected) and row["frame_rate_hz"] == 50.0 and row["first_frame_s"] == 0.0
        assert np.linalg.norm(np.array(row["values"]) - expected) / np.linalg.norm(expected) < 1e-4
    schema = pq.read_schema(tmp_path / "out" / "embeddings" / "part-000000.parquet")
    assert str(schema.field("values").type) == "list<element: fixed_size_list<element: float>[32]>"


POOLS: dict[str, Any] = {
    "mean": lambda x: x.mean(0),
    "mean+std": lambda x: np.concatenate([x.mean(0), x.std(0)]),
    "max": lambda x: x.max(0),
}


TOLERANCE = {"fp32": 1e-4, "fp16": 1e-3, "int8": 2e-2}
POOLED = [
    pytest.param(pool, dtype, marks=() if (number + at) % 3 == 0 else pytest.mark.nightly)  # each of either once a day
    for number, pool in enumerate(POOLS)
    for at, dtype in enumerate(TOLERANCE)
]


@pytest.mark.parametrize(("pool", "dtype"), POOLED)
def test_pooled_vectors_are_those_of_the_frames(
    tmp_path: Path, corpus: Path, wav2vec2_folder: Path, pool: str, dtype: str
) -> None:
    tolerance = TOLERANCE[dtype]
    found = embed(
        corpus, tmp_path / "out", wav2vec2_folder, layers="-1", pool=pool, dtype=dtype, l2_normalize=dtype == "fp16"
    )
    for row, theirs in zip(found, hidden_states(wav2vec2_folder), strict=True):
        expected = POOLS[pool](theirs[2])
        expected = expected / np.linalg.norm(expected) if dtype == "fp16" else expected
        ours = np.array(row["values"], np.float64) * (row["scale"][0] if row["scale"] else 1.0)
        assert row["num_frames"] == len(theirs[2]) and (row["scale"] is not None) == (dtype == "int8")
        assert np.linalg.norm(ours - expected) / np.linalg.norm(expected) < tolerance


@pytest.mark.parametrize("segment", ["none", "fixed"])
def test_pooling_over_speech_leaves_silence_out(
    tmp_path: Path, wav2vec2_folder: Path, voices: list[Any], segment: str
) -> None:
    """The frames that are pooled are those of the same run without pooling whose middle has voice activity."""
    (tmp_path / "in").mkdir()
    silence = np.zeros(3 * RATE, np.int16)
    sounds = {"a": np.concatenate([silence, voices[0][0], silence]), "silent": noise(2 * RATE, 3) // 50}
    for name, pcm in sounds.items():
        (tmp_path / "in" / f"{name}.wav").write_bytes(encode(pcm))
    options: dict[str, Any] = {
        "layers": "2",
        "dtype": "fp32",
        "segment": segment,
        "max_segment_seconds": 4.0,
        "chunk_overlap_seconds": 0.5,
    }
    frames = {row["segment_id"]: row for row in embed(tmp_path / "in", tmp_path / "frames", wav2vec2_folder, **options)}
    pooled = embed(tmp_path / "in", tmp_path / "pooled", wav2vec2_folder, pool="mean", pool_speech=True, **options)
    cuts = {row["id"]: row for row in rows(tmp_path / "frames", "segments")}
    source = {row["id"]: Path(row["source"]).stem for row in rows(tmp_path / "frames", "recordings")}
    fewer = 0
    for row in pooled:
        values = np.array(frames[row["segment_id"]]["values"])
        cut, pcm = cuts[row["segment_id"]], sounds[source[row["recording_id"]]]
        assert row["pool"] == "mean/speech"
        if len(pcm) / RATE <= 4.0 or segment == "none":
            vad_mask = voiced_frames(pcm, 0.5)
            middle = ((np.arange(len(values)) + 0.5) * 320).astype(int)
            spoken = vad_mask[np.minimum(middle // 512, len(vad_mask) - 1)]
            spoken = spoken if spoken.any() else np.ones(len(values), bool)
            assert row["num_frames"] == spoken.sum()
            assert np.allclose(row["values"], values[spoken].mean(0), atol=1e-5)
        fewer += row["num_frames"] < len(values)
        assert 0 < row["num_frames"] <= len(values) and cut["stop_s"] > cut["start_s"]
    assert fewer


def test_a_frame_stride_gives_means_of_so_many_frames(tmp_path: Path, corpus: Path, wav2vec2_folder: Path) -> None:
    found = embed(corpus, tmp_path / "out", wav2vec2_folder, layers="1", frame_stride=3, dtype="fp32")
    for row, theirs in zip(found, hidden_states(wav2vec2_folder), strict=True):
        expected = [theirs[1][at : at + 3].mean(0) for at in range(0, len(theirs[1]), 3)]
        assert row["frame_rate_hz"] == pytest.approx(50 / 3) and row["num_frames"] == len(expected)
        assert np.allclose(row["values"], expected, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 7])
def test_long_recordings_are_stitched_so_that_every_frame_comes_once(
    tmp_path: Path, wav2vec2_folder: Path, stride: int
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "long.wav").write_bytes(encode(noise(16_000 * 70 + 123)))
    run(
        tmp_path / "in", tmp_path / "out", "embed", model=wav2vec2_folder, frame_stride=stride,
        max_segment_seconds=12, chunk_overlap_seconds=2, part_seconds=20,
    )  # fmt: skip
    check_accounts(tmp_path / "out")
    found = rows(tmp_path / "out", "embeddings")
    starts = [row["first_frame_s"] + i / row["frame_rate_hz"] for row in found for i in range(row["num_frames"])]
    num_frames = (16_000 * 70 + 123 - 400) // 320 + 1
    assert len(found) > 5 and np.allclose(starts, np.arange(-(-num_frames // stride)) * stride / 50)
    assert [row["segment_id"] for row in found] == [row["id"] for row in rows(tmp_path / "out", "segments")]


def test_whisper_gives_its_encoders_frames_without_the_padding(tmp_path: Path, corpus: Path, whisper: Path) -> None:
    from audiomill.models.whisper.parts import transformers_parts

    lengths = LENGTHS[0], LENGTHS[3]  # each is looked at in a window of 30 s
    chosen = [corpus / f"{LENGTHS.index(length)}.wav" for length in lengths]
    found = embed(chosen, tmp_path / "out", whisper, layers="2,-1", dtype="fp32")
    (model, _), extractor = transformers_parts(whisper), transformers.WhisperFeatureExtractor()
    for number, length in enumerate(lengths):
        pcm = noise(length, seed=length).astype(np.float32) / 32768
        with torch.inference_mode():
            features = extractor(pcm, sampling_rate=16_000, return_tensors="pt").input_features
            theirs = model.model.encoder(features, output_hidden_states=True).hidden_states
        for row, layer in zip(found[2 * number : 2 * number + 2], (2, 4), strict=True):
            expected = theirs[layer][0, : -(-length // 320)].numpy()
            assert row["layer"] == layer and row["num_frames"] == len(expected)
            assert np.linalg.norm(np.array(row["values"]) - expected) / np.linalg.norm(expected) < 1e-3


# -------------------------------------------------------------------------------------------------------------- codes


def test_quantizer_codes_are_the_hard_argmax_of_hugging_faces_logits(
    tmp_path: Path, corpus: Path, pretrained: Path
) -> None:
    summary = run(corpus, tmp_path / "out", "encode", model=pretrained)
    model = transformers.Wav2Vec2ForPreTraining.from_pretrained(pretrained).eval()
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    found, all_codes = rows(tmp_path / "out", "codes"), []
    for number, length in enumerate(LENGTHS):
        inputs = extractor(
            noise(length, seed=length).astype(np.float32) / 32768, sampling_rate=16_000, return_tensors="pt"
        )
        with torch.inference_mode():
            features = model.wav2vec2(**inputs).extract_features
            logits = model.quantizer.weight_proj(features)[0].view(-1, 2, 20)
        pair = found[2 * number : 2 * number + 2]
        assert [row["codebook"] for row in pair] == [0, 1] and {row["num_entries"] for row in pair} == {20}
        assert [row["codes"] for row in pair] == logits.argmax(-1).T.tolist()
        all_codes.append(logits.argmax(-1).T.numpy())
    counts = np.bincount(np.concatenate(all_codes, 1)[1], minlength=20)
    share = counts[counts > 0] / counts.sum()
    assert summary["codes_usage"][1]["num_used"] == (counts > 0).sum()
    assert summary["codes_usage"][1]["perplexity"] == pytest.approx(np.exp(-(share * np.log(share)).sum()), abs=1e-2)


def nearest(theirs: list[list[Any]], layer: int, centroids: Any) -> list[list[int]]:
    return [((h[layer][:, None] - centroids) ** 2).sum(-1).argmin(-1).tolist() for h in theirs]


@pytest.mark.parametrize("suffix", ["safetensors", "npy"])
def test_kmeans_codes_are_the_nearest_entries(tmp_path: Path, corpus: Path, wav2vec2_folder: Path, suffix: str) -> None:
    theirs = hidden_states(wav2vec2_folder)
    centroids = np.concatenate([h[1] for h in theirs])[::17][:30].astype(np.float32)
    path = tmp_path / f"km.{suffix}"
    if suffix == "npy":
        np.save(path, centroids)
    else:
        write_codebook(Place(str(path)), Codebook(centroids_VD=centroids, layer=1, model="m", fingerprint=None))
    run(corpus, tmp_path / "out", "encode", model=wav2vec2_folder, codebook=path, codebook_layer=1)
    found = rows(tmp_path / "out", "codes")
    assert [row["codes"] for row in found] == nearest(theirs, 1, centroids)
    assert {row["quantizer"] for row in found} == {"km"} and {row["durations"] is None for row in found} == {True}
    run(corpus, tmp_path / "runs", "encode", model=wav2vec2_folder, codebook=path, codebook_layer=1, deduplicate=True)
    for row, full in zip(rows(tmp_path / "runs", "codes"), found, strict=True):
        assert np.repeat(row["codes"], row["durations"]).tolist() == full["codes"]
        assert all(a != b for a, b in zip(row["codes"], row["codes"][1:], strict=False))


@given(st.lists(st.integers(0, 3), max_size=60))
def test_run_lengths_can_be_undone_and_leave_no_repeat(codes: list[int]) -> None:
    kept, lasting = run_lengths(np.array(codes, np.uint16))
    assert np.repeat(kept, lasting).tolist() == codes and (np.diff(kept.astype(int)) != 0).all()


def test_usage_of_even_codes_has_the_perplexity_of_their_number() -> None:
    entry = {
        "codes_usage": [
            {"model": "m", "quantizer": "q", "codebook": 0, "num_entries": 8, "counts": [5, 5, 5, 5, 0, 0, 0, 0]}
        ]
    }
    (found,) = usage(iter([entry, entry]))
    assert (found["num_used"], found["perplexity"], found["bits_a_frame"], found["num_frames"]) == (4, 4.0, 2.0, 40)


def test_a_borrowed_quantizer_reads_the_same_convolutions(tmp_path: Path, corpus: Path, pretrained: Path) -> None:
    """Text and quantizer codes from one forward pass of a fine-tuned checkpoint."""
    tuned = save_ctc_checkpoint(tmp_path / "tuned", "wav2vec2-group", seed=9)
    tensors, other = load_file(tuned / "model.safetensors"), load_file(pretrained / "model.safetensors")
    before = {**tensors}
    tensors |= {name: tensor for name, tensor in other.items() if ".feature_extractor." in name}
    save_file(tensors, tuned / "model.safetensors", metadata={"format": "pt"})
    run(corpus, tmp_path / "own", "encode", model=pretrained)
    run(corpus, tmp_path / "borrowed", "encode", model=tuned, codebook=f"quantizer={pretrained}")
    assert [r["codes"] for r in rows(tmp_path / "own", "codes")] == [
        r["codes"] for r in rows(tmp_path / "borrowed", "codes")
    ]
    save_file(before, tuned / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match="its convolutions differ"):
        run(corpus, tmp_path / "no", "encode", model=tuned, codebook=f"quantizer={pretrained}")


# ------------------------------------------------------------------------------------------------------- laws 2 and 3


def test_vectors_and_codes_do_not_depend_on_batches_and_parts(tmp_path: Path, corpus: Path, pretrained: Path) -> None:
    found = []
    for number, options in enumerate([{"batch_seconds": 0.1}, {"batch_seconds": 60}, {"part_seconds": 2}]):
        run(corpus, tmp_path / f"e{number}", "embed", model=pretrained, dtype="fp32", layers="0,2", **options)
        run(corpus, tmp_path / f"c{number}", "encode", model=pretrained, **options)
        found.append((rows(tmp_path / f"e{number}", "embeddings"), rows(tmp_path / f"c{number}", "codes")))
    for vectors, codes in found[1:]:
        assert codes == found[0][1]
        for ours, first in zip(vectors, found[0][0], strict=True):
            a, b = np.array(ours.pop("values")), np.array(first["values"])
            assert ours == {name: value for name, value in first.items() if name != "values"}
            assert np.linalg.norm(a - b) / np.linalg.norm(b) < 1e-4


def test_interrupted_parts_are_made_again_with_the_same_bytes(tmp_path: Path, corpus: Path, pretrained: Path) -> None:
    options = {"model": pretrained, "part_seconds": 2, "dtype": "fp16", "layers": "all"}
    run(corpus, tmp_path / "out", "embed", **options)
    before = part_files(tmp_path / "out")
    assert len(before) == 1 + 4 * len(list((tmp_path / "out" / "ledger").glob("part-*")))
    (tmp_path / "out" / "ledger" / "part-000001.json").unlink()
    (tmp_path / "out" / "embeddings" / "part-000001.parquet").unlink()
    run(corpus, tmp_path / "out", "embed", **options)
    assert part_files(tmp_path / "out") == before


def test_retried_recordings_get_their_place_in_every_table(tmp_path: Path, corpus: Path) -> None:
    for path in corpus.iterdir():
        (tmp_path / "in" / path.name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / path.name).write_bytes(path.read_bytes())
    run(tmp_path / "in", tmp_path / "whole", "embed")
    good = (tmp_path / "in" / "2.wav").read_bytes()
    (tmp_path / "in" / "2.wav").write_bytes(b"no audio")
    run(tmp_path / "in", tmp_path / "out", "embed")
    (tmp_path / "in" / "2.wav").write_bytes(good)
    run(tmp_path / "in", tmp_path / "out", "embed", retry_rejected=True)
    assert rows(tmp_path / "out", "embeddings") == rows(tmp_path / "whole", "embeddings")


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("embed", {"layers": "7"}, "hidden states 0 to 2"),
        ("embed", {"layers": "x"}, "hidden states 0 to 2"),
        ("embed", {"layers": ","}, "expected numbers"),
        ("encode", {"codebook": "{tmp}/layer.safetensors", "codebook_layer": 2}, "it is for layer 1"),
        ("encode", {}, "fine-tuning drops it"),
        ("encode", {"codebook": "gone.safetensors"}, "no such file"),
        ("encode", {"codebook": "old.km"}, "audiomill codebook"),
        ("encode", {"codebook": "{tmp}/wide.npy", "codebook_layer": 1}, "its entries have 64 values"),
        ("encode", {"codebook": "{tmp}/fit.npy"}, "--codebook-layer"),
        ("encode", {"codebook": "{tmp}/other.safetensors"}, "fitted on other weights"),
        ("encode", {"codebook": "{tmp}/nan.npy", "codebook_layer": 1}, "finite"),
        ("encode", {"codebook": "{tmp}/objects.npy", "codebook_layer": 1}, "cannot be read"),
    ],
)  # fmt: skip
def test_what_cannot_be_given_is_said_in_one_line(
    tmp_path: Path, corpus: Path, wav2vec2_folder: Path, kind: str, options: dict[str, Any], words: str
) -> None:
    np.save(tmp_path / "wide.npy", np.zeros((5, 64), np.float32))
    np.save(tmp_path / "fit.npy", np.zeros((5, 32), np.float32))
    np.save(tmp_path / "nan.npy", np.full((5, 32), np.nan, np.float32))
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    other = Codebook(centroids_VD=np.zeros((5, 32), np.float32), layer=1, model="m", fingerprint="feed")
    write_codebook(Place(str(tmp_path / "other.safetensors")), other)
    mine = Codebook(centroids_VD=np.zeros((5, 32), np.float32), layer=1, model="m", fingerprint=None)
    write_codebook(Place(str(tmp_path / "layer.safetensors")), mine)
    filled = {name: str(value).replace("{tmp}", str(tmp_path)) for name, value in options.items()}
    filled = {name: int(value) if name == "codebook_layer" else value for name, value in filled.items()}
    with pytest.raises(UsageError, match=words):
        run(corpus, tmp_path / "out", kind, model=wav2vec2_folder, **filled)
    assert not (tmp_path / "out").exists()


def test_int8_takes_about_a_byte_a_value(tmp_path: Path, corpus: Path, wav2vec2_folder: Path) -> None:
    sizes = {}
    for dtype in ("int8", "fp16"):
        summary = run(corpus, tmp_path / dtype, "embed", model=wav2vec2_folder, dtype=dtype, layers="all")
        sizes[dtype] = summary["bytes"]["embeddings"]
    assert sizes["int8"] < 0.75 * sizes["fp16"]  # a scale a vector, which at this width is an eighth


def test_sizes_are_read_with_their_units() -> None:
    assert [size_in_bytes(text) for text in ("5", "2kB", "1.5 GB", "3T")] == [5, 2_000, 1_500_000_000, 3 * 10**12]
    with pytest.raises(UsageError, match="100GB"):
        size_in_bytes("many")


def test_the_size_of_frames_is_forecast_and_warned_of(tmp_path: Path, wav2vec2_folder: Path, audiomill: Any) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").write_bytes(encode(noise(16_000 * 60)))
    done = audiomill(
        "embed", "in", "--model", str(wav2vec2_folder), "--layers", "all", "--output", "out", "--engine", "local", "--max-output-bytes", "500kB"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "embeddings: 34.6 MB an hour of audio, 576.0 kB in all" in done.stderr and "warning:" in done.stderr
    size = (tmp_path / "out" / "embeddings" / "part-000000.parquet").stat().st_size
    assert 576_000 < size < 640_000 and "verification: 1 segment computed" in done.stdout
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["verification"]["num_segments"] == 1 and record["verification"]["relative_l2"] < 1e-4


def test_each_codes_entry_decides_for_itself_whether_runs_are_joined(tmp_path: Path) -> None:
    from audiomill.config.representations import CodesConfig
    from audiomill.config.stages import ModelConfig
    from audiomill.models.checkpoint import find_checkpoint, shape_of
    from audiomill.models.vectors.requested_outputs import settled_codes

    np.save(tmp_path / "km.npy", np.zeros((5, 8), np.float32))
    checkpoint = find_checkpoint(ModelConfig(model="fake://"), {})
    plain, joined = CodesConfig(), CodesConfig(codebook=str(tmp_path / "km.npy"), codebook_layer=1, deduplicate=True)
    for order in ([plain, joined], [joined, plain]):
        requested, _ = settled_codes(order, checkpoint, shape_of(checkpoint), {})
        assert {want.name: want.deduplicate for want in requested} == {"quantizer": False, "km": True}


def test_the_first_codebooks_of_a_quantizer_are_those_of_all(pretrained: Path, tmp_path: Path) -> None:
    """Its logits are cut into as many codebooks as it has, not as many as are kept."""
    (tmp_path / "a.wav").write_bytes(encode(noise(32_000, 0)))
    run(tmp_path / "a.wav", tmp_path / "all", "encode", model=pretrained)
    run(tmp_path / "a.wav", tmp_path / "one", "encode", model=pretrained, codebooks=1)
    first, _ = rows(tmp_path / "all", "codes")
    assert [row["codes"] for row in rows(tmp_path / "one", "codes")] == [first["codes"]]


@pytest.mark.parametrize("told", ["uniform", [0.5, 0.0, 2.0], {"weights": [0, 1, 0]}])
def test_a_mixture_is_the_weighted_sum_of_hugging_face_s_hidden_states(
    corpus: Path, wav2vec2_folder: Path, tmp_path: Path, told: Any
) -> None:
    theirs = hidden_states(wav2vec2_folder)
    count = len(theirs[0])
    mixture, weights = "uniform", [1 / count] * count
    if told != "uniform":
        (tmp_path / "weights.json").write_text(json.dumps(told))
        mixture, weights = str(tmp_path / "weights.json"), told["weights"] if isinstance(told, dict) else told
    run(corpus, tmp_path / "out", "embed", model=wav2vec2_folder, layer_weights=mixture, dtype="fp32")
    found = rows(tmp_path / "out", "embeddings")
    assert len(found) == len(theirs) and {row["layer"] for row in found} == {-1}
    for row, states in zip(found, theirs, strict=True):
        expected = sum(weight * state for weight, state in zip(weights, states, strict=True))
        assert np.abs(np.array(row["values"]) - expected).max() < 1e-4 * np.abs(expected).max()


def test_a_mixture_that_does_not_fit_is_one_line(corpus: Path, wav2vec2_folder: Path, tmp_path: Path) -> None:
    for content, told in (
        ("[1, 2]", "2 weights; .* has 3 hidden states, 0 to 2"),
        ("[0, 0, 0]", "no weight is above 0"),
        ("[1, 2, NaN]", "a weight that is no number"),
        ("no list", "expected uniform, or a JSON file"),
        (None, "no such file"),
    ):
        (tmp_path / "w.json").unlink(missing_ok=True)
        if content is not None:
            (tmp_path / "w.json").write_text(content)
        with pytest.raises(UsageError, match=told):
            run(corpus, tmp_path / "out", "embed", model=wav2vec2_folder, layer_weights=tmp_path / "w.json")


def test_another_mixture_is_another_run(corpus: Path, wav2vec2_folder: Path, tmp_path: Path) -> None:
    """The file's name stays: what it says is compared."""
    (tmp_path / "w.json").write_text("[1, 0, 0]")
    options: dict[str, Any] = {"model": wav2vec2_folder, "layer_weights": tmp_path / "w.json"}
    run(corpus, tmp_path / "out", "embed", **options)
    (tmp_path / "w.json").write_text("[0, 1, 0]")
    with pytest.raises(UsageError, match="mixture"):
        run(corpus, tmp_path / "out", "embed", **options)
