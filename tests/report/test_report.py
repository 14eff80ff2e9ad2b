"""report.html: figures that match the tables, the right clips with the right sound, and a page that works in a browser."""

from __future__ import annotations

import asyncio
import base64
import datetime
import io
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from audiomill.html.figures import bars, format_number, histogram, line
from audiomill.report.build import write_report
from audiomill.report.classes import Worst
from audiomill.report.gather import busy_seconds, parts_to_read, reliability_bins, throughput
from audiomill.report.recording_details import SIDE_FILE_ROWS, Index, index_row, part_file, script
from audiomill.storage.fs import Place
from audiomill.storage.part_files import read_table, to_bytes
from audiomill.text.wer import errors_by_piece
from tests.support.browser import CHROMIUM, Browser
from tests.support.jobs_by_hand import rows, run
from tests.support.scale import daily
from tests.support.synth import RATE, encode, nothing_said

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
EVIL = "</script><script>document.title='broken'</script><b>&amp;"


def facts(output: Path) -> Any:
    """What the page's script is given."""
    text = (output / "report.html").read_text()
    return json.loads(re.search(r'<script type="application/json" id="facts">(.*?)</script>', text, re.S)[1])  # type: ignore[index]


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory, voices: Any, whisper: Path) -> Path:
    """Real Whisper on clear, noisy and empty recordings, with references, one of them wrong, and a report."""
    root = tmp_path_factory.mktemp("report")
    made, random = root / "in", np.random.default_rng(0)
    made.mkdir()
    pause = np.zeros(8_000, np.int16)
    for number, level in enumerate(daily((0, 0, 2_500, 7_000), (0, 0, 300, 2_500, 5_000, 7_000))):
        clear = np.concatenate([voices[0][0], pause, voices[1][0]]).astype(np.float64)
        noisy = np.clip(clear + level * random.standard_normal(len(clear)), -32768, 32767).astype(np.int16)
        (made / f"talk{number}.flac").write_bytes(encode(noisy, RATE, "FLAC"))
        (made / f"talk{number}.txt").write_text(
            f"{voices[0][1]} {voices[1][1]}" if number else "something else entirely"
        )
    for name, waveform in nothing_said(6.0).items():
        (made / f"nothing-{name.replace(' ', '-')}.wav").write_bytes(encode(waveform))
    (made / f"name {EVIL.replace('/', '')}.wav").write_bytes(encode(voices[1][0]))
    (made / "broken.mp3").write_bytes(b"nothing")
    run(made, root / "out", model=str(whisper), segment="fixed", part_seconds=40)
    write_report(Place(str(root / "out")), 4, {})
    return root / "out"


def test_the_figures_are_those_of_the_tables(reported: Path) -> None:
    text = (reported / "report.html").read_text()
    assert f"<div>recordings<b>{len(rows(reported, 'recordings'))}</b></div>" in text
    assert "<div>rejected<b>1</b></div>" in text and "not_audio" in text
    hours = sum(row["duration_s"] for row in rows(reported, "recordings")) / 3600
    assert f"<div>audio<b>{hours:.2f} h</b></div>" in text
    assert "http://" not in text and "https://" not in text, "no network"


def test_each_kind_of_failure_has_its_worst_clips_first_with_their_exact_sound(reported: Path, voices: Any) -> None:
    found = facts(reported)
    kinds = {kind["name"]: kind for kind in found["kinds"]}
    assert {"wer", "confidence"} <= kinds.keys()
    segments = {row["id"]: row for row in rows(reported, "segments")}
    low = [segments[clip["id"]]["confidence"] for clip in kinds["confidence"]["clips"]]
    doubtful = sorted(row["confidence"] for row in segments.values() if row["confidence"] < 0.8 and row["text"])
    assert (
        low == doubtful[: len(low)]
        and len(low) == min(4, len(doubtful))
        and kinds["confidence"]["count"] == len(doubtful)
    )
    worst = kinds["wer"]["clips"][0]
    assert worst["name"] == "talk0.flac" and worst["reference"].startswith("something else")
    clip = kinds["wer"]["clips"][0]
    sound = found["sounds"][clip["id"]]
    pcm, rate = soundfile.read(io.BytesIO(base64.b64decode(sound["audio"].split(",")[1])), dtype="int16")
    clear = np.concatenate([voices[0][0], np.zeros(8_000, np.int16), voices[1][0]])
    first, last = round(clip["start"] * RATE), round(clip["stop"] * RATE)
    assert rate == RATE and np.array_equal(pcm, clear[first:last]), "exactly the segment"


def test_what_silence_was_made_of_is_shown_before_and_after(reported: Path) -> None:
    emptied = [row for row in rows(reported, "segments") if row["first_pass_text"] and not row["text"]]
    kinds = {kind["name"]: kind for kind in facts(reported)["kinds"]}
    assert emptied and kinds["silenced"]["count"] == len(emptied)
    assert all(clip["first"] and not clip["text"] for clip in kinds["silenced"]["clips"])


def test_a_retried_text_keeps_what_the_first_attempt_wrote(tmp_path: Path, voices: Any, whisper: Path) -> None:
    (tmp_path / "a.wav").write_bytes(encode(voices[1][0]))
    found = {}
    strict = {"min_avg_logprob": -0.01, "low_confidence": "drop"}  # so that another text is kept on every processor
    for name, options in {"strict": strict, "usual": {}}.items():
        run(tmp_path / "a.wav", tmp_path / name, model=str(whisper), max_new_tokens=20, **options)
        (found[name],) = rows(tmp_path / name, "segments")
    assert found["strict"]["fallback_level"] > 0 and found["usual"]["fallback_level"] == 0
    assert found["strict"]["first_pass_text"] == found["usual"]["text"] and found["usual"]["first_pass_text"] is None
    assert found["strict"]["text"] != found["usual"]["text"]


def test_errors_are_given_to_the_segment_that_made_them() -> None:
    found = errors_by_piece("a b c d e f g", ["a b x", "d", "f g h"], None)
    assert [each.num_edits for each in found] == [1, 0, 2]  # c -> x; e is missing before f; h is too much
    assert " ".join(each.reference for each in found) == "a b c d e f g"
    assert sum(each.num_edits for each in errors_by_piece("", ["a b"], None)) == 2


def test_only_the_worst_are_kept_and_all_are_counted() -> None:
    worst = Worst(2)
    base = {
        "text": "x" * 20,
        "start_s": 0.0,
        "stop_s": 2.0,
        "fallback_level": 0,
        "failed_checks": None,
        "compression_ratio": 1.0,
        "first_pass_text": None,
    }
    for number in range(100):
        worst.add({**base, "id": f"s{number}", "confidence": (number * 37 % 100) / 100})
    assert [row["confidence"] for row in worst.rows("confidence")] == [0.0, 0.01]
    assert worst.counts["confidence"] == 80 and worst.counts["retried"] == worst.counts["repeated"] == 0
    assert "repeated" in worst.add({**base, "id": "r", "confidence": 0.9, "compression_ratio": 9.0})
    assert "rate" in worst.add({**base, "id": "f", "confidence": 0.9, "text": "x" * 200, "stop_s": 4.0})
    assert "silenced" in worst.add(
        {
            **base,
            "id": "z",
            "confidence": 0.9,
            "text": "",
            "first_pass_text": "Thank you.",
            "failed_checks": ["silence"],
        }
    )


def test_charts_say_in_text_what_they_show() -> None:
    chart = bars("Rejected <by>", "recordings", ["not audio", "empty"], [3, 1])
    assert 'aria-label="Rejected &lt;by&gt;, recordings. not audio: 3; empty: 1"' in chart and "<td>3</td>" in chart
    assert histogram("Speech", "share", (0, 0.5, 1), [4, 2], "recordings").count('class="bar"') == 2
    assert 'points="52.0,' in line("T", "h", "x", [(0, 1), (1, 2)])
    assert [format_number(value) for value in (3, 12345.6, 0.1234)] == ["3", "12,346", "0.123"]


def test_the_time_between_two_runs_is_not_drawn_as_standstill() -> None:
    day = 24 * 3600.0
    entries = [
        {"began": start + n + 1e-3, "finished": _stamp(start + n + 1), "duration_s": 100.0}
        for start in (0.0, day)
        for n in range(20)
    ]
    points = throughput(entries)
    assert len(points) >= 20 and points[-1][0] < 41 / 3600
    assert all(speed == pytest.approx(100, rel=0.6) for _, speed in points[:-1])


def _stamp(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat()


def test_reliability_speed_and_throughput_of_known_cases() -> None:
    assert reliability_bins([(0.9, 0.8, 10), (0.9, 1.0, 10)]) == [(0.9, 0.8), (0.9, 1.0)]

    def entry(began: float, stop: int, audio_s: float) -> dict[str, Any]:
        return {
            "began": began,
            "finished": f"1970-01-01T00:{stop // 60:02d}:{stop % 60:02d}+00:00",
            "duration_s": audio_s,
        }

    stack_rows = [entry(600.0, 700, 50.0), entry(600.0, 700, 50.0), entry(650.0, 800, 75.0)]
    assert busy_seconds(stack_rows) == 200.0, "shards that run at once share their time"
    assert busy_seconds([entry(600.0, 700, 1.0), entry(900.0, 950, 1.0)]) == 150.0, (
        "the pause between two runs does not count"
    )
    points = throughput(stack_rows)
    assert len(points) >= 40 and sum(speed for _, speed in points) * 200 / 40 == pytest.approx(175.0, rel=0.05)


def test_a_run_without_text_has_a_report_too(tmp_path: Path, voices: Any) -> None:
    (tmp_path / "a.wav").write_bytes(encode(voices[0][0]))
    run(tmp_path / "a.wav", tmp_path / "out", "embed")
    write_report(Place(str(tmp_path / "out")), 4, {})
    assert (
        facts(tmp_path / "out")["kinds"] == [] and "No segment failed" in (tmp_path / "out" / "report.html").read_text()
    )


def test_a_source_that_has_gone_is_said_where_its_sound_would_be(tmp_path: Path, voices: Any, whisper: Path) -> None:
    source = tmp_path / "a.wav"
    source.write_bytes(encode(voices[1][0]))
    run(source, tmp_path / "out", model=str(whisper), min_avg_logprob=-0.01, low_confidence="drop", max_new_tokens=20)
    source.unlink()
    write_report(Place(str(tmp_path / "out")), 4, {})
    sounds = list(facts(tmp_path / "out")["sounds"].values())
    assert sounds and all(sound["audio"] is None and sound["missing"].startswith("not_found") for sound in sounds)


def test_every_job_ends_with_a_report_unless_told_not_to(audiomill: Any, tmp_path: Path, voices: Any) -> None:
    (tmp_path / "a.wav").write_bytes(encode(voices[0][0]))
    common = ("transcribe", "a.wav", "--model", "fake://", "--engine", "local", "--output")
    assert audiomill(*common, "out").returncode == 0 and (tmp_path / "out" / "report.html").exists()
    assert (
        audiomill(*common, "none", "--no-report").returncode == 0 and not (tmp_path / "none" / "report.html").exists()
    )
    assert audiomill("report", "none").returncode == 0 and (tmp_path / "none" / "report.html").exists()
    missing = audiomill("report", "nowhere")
    assert missing.returncode == 2 and "no finished parts" in missing.stderr


def test_reports_go_to_object_stores(s3_endpoint: str, tmp_path: Path, voices: Any) -> None:
    import fsspec

    fs = fsspec.filesystem("s3", endpoint_url=s3_endpoint)
    if not fs.exists("reports"):
        fs.mkdir("reports")
    (tmp_path / "a.wav").write_bytes(encode(voices[0][0]))
    options = {"endpoint_url": s3_endpoint}
    run(tmp_path / "a.wav", "s3://reports/out", storage_options=options)
    write_report(Place("s3://reports/out", options), 4, options)
    assert fs.exists("reports/out/report.html") and fs.exists("reports/out/report/part-000000.js")


@needs_browser
def test_in_a_browser_it_loads_plays_filters_searches_and_opens_a_recording(reported: Path, tmp_path: Path) -> None:
    async def use() -> None:
        async with Browser() as page:
            await page.open((reported / "report.html").as_uri())
            await page.until("document.querySelectorAll('#hits li').length > 0")
            await page.press("j")
            await page.press(" ")
            await page.until("document.querySelector('.clip.current button').textContent !== '▶'")
            await page.until("document.querySelectorAll('.clip .lit').length === 1")
            await page.press(" ")
            await page.until("document.querySelector('.clip.current button').textContent === '▶'")
            sections = "[...document.querySelectorAll('#worst section')].filter((s) => !s.hidden).length"
            assert await page.run(sections) > 1
            await page.run(
                "const c = document.getElementById('clip-kind'); c.value = 'wer'; c.dispatchEvent(new Event('change'))"
            )
            assert await page.run(sections) == 1
            everything = await page.run("document.querySelectorAll('#hits li').length")
            await page.press("/")
            for letter in "brown fox":
                await page.press(letter)
            await page.until("document.querySelectorAll('#hits mark').length > 0")
            assert 0 < await page.run("document.querySelectorAll('#hits li').length") < everything
            await page.run("document.querySelector('#hits a').click()")
            await page.until("document.querySelectorAll('#recording .segment').length > 0")
            assert await page.run("document.querySelector('#recording canvas').getAttribute('aria-label')")
            await page.run("document.querySelector('#recording .segment button').click()")
            await page.until("document.querySelectorAll('#recording .lit').length === 1")
            await page.press("Escape")
            await page.until("document.getElementById('recording').hidden")
            assert await page.run("document.title") != "broken"
            assert page.errors == []

    asyncio.run(use())


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone_nothing_is_wider_than_the_screen_and_text_is_legible(reported: Path, dark: bool) -> None:
    async def use() -> None:
        async with Browser(390, 844, dark) as page:
            await page.open((reported / "report.html").as_uri())
            await page.until("document.querySelectorAll('#hits li').length > 0")
            assert await page.run("document.documentElement.scrollWidth") <= 390
            colours = await page.run(
                "(() => { const s = getComputedStyle(document.body); return [s.color, s.backgroundColor] })()"
            )
            ink, paper = (sum(map(int, re.findall(r"\d+", colour)[:3])) / 3 for colour in colours)
            assert (ink - paper if dark else paper - ink) > 150
            assert page.errors == []

    asyncio.run(use())


def big_report(folder: Path, num_recordings: int) -> None:
    """A report as a corpus of this size gets it: the page of a small run, the side files of a large one."""
    side = Place(str(folder / "report"))
    side.remove(recursive=True)
    index = Index(side)
    recording = {
        "source": "/corpus/a.flac", "member": "", "span_start_s": 0.0, "duration_s": 60.0, "speech_s": 50.0, "sample_rate": 16_000,
        "num_channels": 1, "language": "en", "error": None, "reference": None, "envelope": bytes(600), "envelope_s": 0.1, "kinds": [],
    }  # fmt: skip
    words = " ".join(f"word{number}" for number in range(100))
    for number in range(num_recordings):
        row = {**recording, "id": f"{number:020x}", "member": f"m{number}.flac", "text": f"{words} needle{number}"}
        index.add(index_row(number // 100, row, []))
        if number % 10_000 == 0:
            side.join(f"part-{number // 100:06d}.js").write(
                script("audiomill.part", [number // 100, part_file([(row, [])])])
            )
    index.flush()
    text = (folder / "report.html").read_text()
    counts = f'"chunks":{index.num_chunks},"detailed":{num_recordings}'
    (folder / "report.html").write_text(re.sub(r'"chunks":\d+,"detailed":\d+', counts, text))


@needs_browser
@pytest.mark.parametrize("count", [8_000, pytest.param(100_000, marks=pytest.mark.nightly)])
def test_with_very_many_recordings_it_opens_at_once_and_finds_any(tmp_path: Path, voices: Any, count: int) -> None:
    (tmp_path / "a.wav").write_bytes(encode(voices[0][0]))
    run(tmp_path / "a.wav", tmp_path / "out")
    write_report(Place(str(tmp_path / "out")), 4, {})
    big_report(tmp_path / "out", count)
    assert len(list((tmp_path / "out" / "report").glob("index-*.js"))) == count // SIDE_FILE_ROWS

    async def use() -> None:
        async with Browser() as page:
            before = time.perf_counter()
            await page.open((tmp_path / "out" / "report.html").as_uri())
            await page.until("document.querySelectorAll('#hits li').length > 0")
            print(f"opened in {time.perf_counter() - before:.2f} s")
            assert await page.run("performance.getEntriesByType('resource').length") < 5, (
                "the rest is loaded when asked for"
            )
            await page.run(
                f"const q = document.getElementById('query'); q.value = 'needle{count - 1}'; q.dispatchEvent(new Event('input'))"
            )
            await page.until(
                "document.querySelectorAll('#hits mark').length === 1 && document.getElementById('found').textContent."
                f"includes('1 of {count:,}')",
                60,
            )
            assert page.errors == []

    asyncio.run(use())


def test_a_report_is_written_without_torch_or_ray() -> None:
    code = "import audiomill.report.build, sys; print('torch' in sys.modules, 'ray' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["False", "False"]


def test_of_a_very_large_output_parts_are_looked_at_evenly_and_kept_in_detail_evenly() -> None:
    entries = [{"part": part, "num_recordings": 1_000, "duration_s": 3600.0 * 5} for part in range(8_000)]
    parts, detailed = parts_to_read(entries)
    assert parts == list(range(0, 8_000, 4)) and detailed <= set(parts)
    assert 90 <= len(detailed) <= 100 and max(detailed) > 7_000, "a hundred thousand recordings, from all of it"
    assert parts_to_read(entries[:3]) == ([0, 1, 2], {0, 1, 2})


def test_nothing_that_is_shared_holds_credentials(tmp_path: Path, voices: Any) -> None:
    (tmp_path / "a.wav").write_bytes(encode(voices[0][0]))
    run(tmp_path / "a.wav", tmp_path / "out")
    for table in ("recordings", "rejections"):
        place = Place(str(tmp_path / "out" / table / "part-000000.parquet"))
        found = read_table(place)
        secret = "https://me:s3cr3t@host/a.wav?X-Amz-Signature=s3cr3t"
        changed = [{**row, "source": secret} for row in found.to_pylist()]
        place.write(to_bytes(pa.Table.from_pylist(changed, schema=found.schema)))
    write_report(Place(str(tmp_path / "out")), 4, {})
    for path in [tmp_path / "out" / "report.html", *(tmp_path / "out" / "report").iterdir()]:
        assert "s3cr3t" not in path.read_text(), path
