"""audiomill plan: samples, rates, sizes, the simulation against what can be computed by hand, and forecast against outcome."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from audiomill.config.forecast import ForecastConfig, numbers, prices
from audiomill.errors import UsageError
from audiomill.forecast.plan_job import compare_with_outcome, plan_job, saved_forecast
from audiomill.forecast.rates import BatchSize, Point, best, seconds_for
from audiomill.forecast.simulate import Cluster, Work, simulate
from audiomill.forecast.sizes import bytes_of_file, growth
from audiomill.forecast.strata import MAX_SPAN_S, draw, strata_of
from audiomill.storage.fs import Place
from audiomill.storage.part_files import to_bytes
from benchmarks.spot import Chance, simulate_spot
from tests.support.jobs_by_hand import job, run
from tests.support.scale import daily
from tests.support.synth import RATE, encode

pytestmark = pytest.mark.timeout(240)


def plan_row(number: int, seconds: float, folder: str = "a", reason: str | None = None) -> dict[str, Any]:
    row = {
        "id": f"id{number}",
        "source": f"/{folder}/{number}.wav",
        "member": "",
        "kind": "file",
        "planned_s": seconds,
        "reason": reason,
    }
    return {**row, "duration_s": seconds, "span_duration_s": None, "span_start_s": None}


@given(st.lists(st.floats(0.5, 4000), min_size=1, max_size=60), st.floats(10, 3000), st.integers(0, 5))
def test_a_sample_is_of_every_stratum_and_about_as_long_as_asked(
    durations: list[float], wanted: float, seed: int
) -> None:
    rows = [plan_row(n, seconds, "ab"[n % 2]) for n, seconds in enumerate(durations)]
    strata = strata_of([*rows, plan_row(999, 5.0, reason="not_found")])
    drawn = draw(strata, wanted, seed)
    assert {each.stratum for each in drawn} == strata.keys()
    assert len({each.row["id"] for each in drawn}) == len(drawn) and "id999" not in {each.row["id"] for each in drawn}
    assert drawn == draw(strata, wanted, seed), "the same seed, the same sample"
    for each in drawn:
        if each.seconds is not None and each.start_s is not None:
            assert (
                each.start_s >= 0
                and each.start_s + each.seconds <= each.row["duration_s"] + 0.02
                and each.seconds <= max(MAX_SPAN_S, wanted) + 1e-6
            )
    taken = sum(each.row["planned_s"] if each.seconds is None else each.seconds for each in drawn)
    assert taken <= 1.5 * wanted + len(strata) * 1.5 * MAX_SPAN_S
    assert taken >= min(wanted, sum(durations)) * 0.3 or len(drawn) == len(rows)


def test_other_seeds_draw_other_recordings() -> None:
    strata = strata_of([plan_row(n, 60.0) for n in range(200)])
    first, second = ({each.row["id"] for each in draw(strata, 600, seed)} for seed in (0, 1))
    assert first != second and 18 <= len(first) <= 22


def test_time_for_an_amount_lies_on_the_measured_line() -> None:
    points = [Point(10, 2.0), Point(30, 4.0), Point(90, 10.0)]
    assert [seconds_for(points, amount) for amount in (10, 20, 30, 60, 190)] == pytest.approx([2, 3, 4, 7, 20])
    assert seconds_for([Point(10, 2.0)], 30) == 6.0 and seconds_for(points, 0.0) == 0.0


def test_the_default_batch_stays_unless_another_is_clearly_faster() -> None:
    def tried(*seconds: float | None) -> list[BatchSize]:
        return [BatchSize(size, each, None, None) for size, each in zip((5.0, 10.0, 20.0), seconds, strict=True)]

    assert best(tried(1.0, 1.0, 0.99), 10.0) == 10.0
    assert best(tried(1.0, 1.0, 0.8), 10.0) == 20.0
    assert best(tried(1.0, None, None), 10.0) == 5.0, "what memory does not hold is not the best"


def test_prices_and_numbers_are_read_or_refused() -> None:
    assert prices("gpu=2.5/h,cpu=0.04/h") == {"gpu": 2.5, "cpu": 0.04} and prices(None) == {}
    assert numbers("8, 1", "gpus") == (1, 8)
    for wrong in ("tpu=1/h", "gpu=x", "gpu"):
        with pytest.raises(UsageError, match="--price"):
            prices(wrong)
    with pytest.raises(UsageError, match="--gpus"):
        ForecastConfig(gpus="many")


def test_bytes_of_files_are_forecast_from_a_part_of_the_rows() -> None:
    random = np.random.default_rng(0)
    words = [f"word{number}" for number in range(500)]

    def rows(count: int) -> pa.Table:
        texts = [" ".join(random.choice(words, 12)) for _ in range(count)]
        return pa.table(
            {
                "id": [f"{n:020x}" for n in range(count)],
                "start_s": np.cumsum(random.random(count)).round(3),
                "text": texts,
            }
        )

    sample = rows(300)
    found = growth(sample, "id", sample.column("id").to_pylist())
    for times in (5, 20):
        assert bytes_of_file(found, times) == pytest.approx(len(to_bytes(rows(300 * times))), rel=0.12)
    assert bytes_of_file(found, 0) == pytest.approx(len(to_bytes(sample.slice(0, 0))), abs=1)


def calm(**fields: Any) -> Cluster:
    options = {"startup_s": 0.0, "start_s": 0.0, "dispatch_s": 0.0, "decoders": 4}
    return Cluster(**{**options, **fields})


def test_a_simulation_without_chance_is_what_arithmetic_says() -> None:
    parts = [Work(100.0, 0.0, 1.0, 10.0)] * 12
    one = simulate(parts, calm())
    assert (
        one.wall_s == pytest.approx(1 + 12 * 10)
        and one.bottleneck == "models"
        and one.x_real_time == pytest.approx(1200 / 121)
    )
    assert simulate(parts, calm(nodes=3)).wall_s == pytest.approx(1 + 4 * 10)
    assert simulate(parts, calm(actors=2)).wall_s == pytest.approx(1 + 6 * 10)
    slow_decoding = [Work(100.0, 0.0, 8.0, 1.0)] * 12
    decoded = simulate(slow_decoding, calm(decoders=2))
    assert decoded.wall_s == pytest.approx(6 * 8 + 1, abs=1.1) and decoded.bottleneck == "decode cores"
    fetched = simulate([Work(100.0, 1e9, 0.0, 1.0)] * 12, calm(node_bytes_s=1e8, store_bytes_s=1e8, decoders=1))
    assert fetched.bottleneck == "network" and fetched.wall_s >= 119
    driven = simulate([Work(1.0, 0.0, 0.0, 0.01)] * 100, calm(dispatch_s=1.0))
    assert driven.bottleneck == "driver" and driven.wall_s == pytest.approx(100, abs=1.1)


def test_a_simulation_repeats_itself_and_more_machines_are_not_slower() -> None:
    parts = [Work(1800.0, 5e7, 5.0, 40.0)] * 200
    walls = [simulate(parts, Cluster(nodes=nodes)).wall_s for nodes in (1, 2, 4, 8, 16)]
    assert walls == sorted(walls, reverse=True)
    assert simulate(parts, Cluster(nodes=4)) == simulate(parts, Cluster(nodes=4))


@given(st.integers(0, 20), st.integers(1, 5))
def test_nodes_that_go_away_lose_work_but_no_part(seed: int, nodes: int) -> None:
    parts = [Work(1800.0, 5e7, 5.0, 40.0)] * 60
    stable, nothing = simulate_spot(parts, Cluster(nodes=nodes), Chance(seed=seed))
    spot, loss = simulate_spot(parts, Cluster(nodes=nodes), Chance(seed=seed, mean_life_s=300.0, replace_s=60.0))
    assert spot.audio_s == stable.audio_s == 60 * 1800.0
    assert spot.wall_s >= stable.wall_s * 0.9 and nothing.lost_s == nothing.num_preemptions == 0
    if loss.num_preemptions:
        assert loss.lost_s <= loss.num_preemptions * 40.0 * 1.6, "at most the part under way"


NUM_GOOD = daily(20, 40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, voices: Any) -> Path:
    """Forty recordings of two kinds, and broken ones."""
    made, random = tmp_path_factory.mktemp("forecast"), np.random.default_rng(0)
    for number in range(NUM_GOOD):
        kind = "calls" if number % 2 else "radio"
        (made / kind).mkdir(exist_ok=True)
        pause = np.zeros(int(random.uniform(0.5, 6) * RATE), np.int16)
        waveform = np.concatenate([voices[0][0], pause, voices[1][0], pause] * int(random.integers(1, 5)))
        (made / kind / f"r{number:02d}.flac").write_bytes(encode(waveform, RATE, "FLAC"))
    for number in range(4):
        (made / "radio" / f"broken{number}.wav").write_bytes(b"no audio at all" * 500)
    return made


def test_the_forecast_of_a_corpus_is_what_comes_out(folder: Path, tmp_path: Path) -> None:
    config = job(folder, tmp_path / "out", model="fake://slow", part_seconds=60)
    found = plan_job(config, ForecastConfig(sample_minutes=4, price="cpu=0.04/h"), Console(quiet=True))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["forecast.html", "forecast.json"]
    assert saved_forecast(Place(str(tmp_path / "out"))) == json.loads(json.dumps(found))
    summary = run(folder, tmp_path / "out", model="fake://slow", part_seconds=60)
    rows = {name: (said, came) for name, said, came in compare_with_outcome(found, summary)}
    for name, tolerance in {"hours of audio": 0.01, "speech share": 0.25, "bytes in all": 0.2}.items():
        said, came = rows[name]
        assert said == pytest.approx(came, rel=tolerance), name
    assert found["parts"] == summary["num_parts_this_run"] and found["recordings"] == NUM_GOOD + 4
    assert found["rejections"].keys() <= {"not_audio"} and sum(found["rejections"].values()) <= 12
    assert found["machines"] and all(row["money"] > 0 for row in found["machines"])
    page = (tmp_path / "out" / "forecast.html").read_text()
    assert "How long, and what it costs" in page and "Size of a batch" in page
    assert "http:" not in page and "https:" not in page


def test_the_plan_command_prints_saves_and_the_run_compares(audiomill: Any, folder: Path, tmp_path: Path) -> None:
    common = (str(folder), "--model", "fake://slow", "--engine", "local", "--output", "out", "--part-seconds", "60")
    told = audiomill(
        "plan", *common, "--sample-minutes", "1", "--price", "cpu=0.04/h", "--price", "gpu=2/h", "--no-search"
    )
    assert told.returncode == 0, told.stderr
    assert "seconds an hour of audio" in told.stdout and "money" in told.stdout
    found = json.loads((tmp_path / "out" / "forecast.json").read_text())
    assert found["prices"] == {"cpu": 0.04, "gpu": 2.0} and "nothing is known about GPUs" in told.stdout
    ran = audiomill("transcribe", *common)
    assert ran.returncode == 0 and "forecast against outcome: hours of audio" in ran.stdout
    wrong = audiomill("plan", *common, "--price", "gold=1/h")
    assert wrong.returncode == 2 and len(wrong.stderr.splitlines()) == 1 and "--price" in wrong.stderr
    nothing = audiomill("plan", "nowhere", "--model", "fake://", "--engine", "local")
    assert nothing.returncode == 2 and "nowhere" in nothing.stderr


def test_a_job_of_several_models_is_planned_by_its_yaml(audiomill: Any, folder: Path, tmp_path: Path) -> None:
    lines = [
        f"inputs: ['{folder}/calls']",
        "output: out",
        "engine: local",
        "models:",
        "  - model: fake://",
        "    transcripts: true",
        "    codes: quantizer",
    ]
    (tmp_path / "job.yaml").write_text("\n".join(lines))
    told = audiomill("plan", "--config", "job.yaml", "--sample-minutes", "1")
    assert told.returncode == 0, told.stderr
    assert json.loads((tmp_path / "out" / "forecast.json").read_text())["bytes"].keys() >= {"segments", "codes"}


def test_a_corpus_of_nothing_is_said_so(audiomill: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").write_bytes(b"nothing")
    told = audiomill("plan", "in", "--model", "fake://", "--engine", "local", "--output", "out")
    assert told.returncode == 0 and "1 not_audio" in told.stdout and "Traceback" not in told.stderr


def test_the_simulation_needs_neither_torch_nor_ray() -> None:
    code = "import audiomill.forecast.simulate, sys; print('torch' in sys.modules, 'ray' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["False", "False"]


def test_a_forecast_for_something_else_is_not_compared(audiomill: Any, folder: Path, tmp_path: Path) -> None:
    common = ("--model", "fake://", "--engine", "local", "--output", "out")
    assert audiomill("plan", str(folder / "calls"), *common, "--sample-minutes", "1", "--no-search").returncode == 0
    ran = audiomill("transcribe", str(folder / "radio"), *common)
    assert ran.returncode == 0 and "not compared" in ran.stdout
    (tmp_path / "out" / "forecast.json").write_text('{"x": 1}')
    again = audiomill("transcribe", str(folder / "radio"), *common)
    assert again.returncode == 0 and "forecast" not in again.stdout


def test_a_forecast_holds_no_credentials() -> None:
    row = {**plan_row(0, 60.0), "source": "https://me:hidden@host/a/b.wav?sig=hidden"}
    assert "hidden" not in " ".join(strata_of([row]))
