"""Watching a run: shards of one output, metrics, logs, traces, and following it from outside."""

from __future__ import annotations

import http.server
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from audiomill.config.run import array_task_of, metrics_target
from audiomill.errors import UsageError
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.tables.outputs import table_names
from audiomill.watch.follow import Done, Follower
from audiomill.watch.journal import json_line, redacted
from audiomill.watch.meter import METRICS, Meter
from audiomill.watch.progress import RunProgress
from tests.support.jobs_by_hand import part_files, rows, run
from tests.support.object_store import free_port
from tests.support.scale import daily
from tests.support.synth import RATE, encode

pytestmark = pytest.mark.timeout(240)


SHARDS = daily(2, 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, voices: Any) -> Path:
    """Sixteen recordings, and one that is none."""
    made = tmp_path_factory.mktemp("watched")
    for number in range(16):
        (made / f"r{number:02d}.flac").write_bytes(encode(np.concatenate([voices[number % 2][0]] * 3), RATE, "FLAC"))
    (made / "broken.wav").write_bytes(b"no audio")
    return made


def started(*args: str) -> subprocess.Popen[str]:
    """The command line, running."""
    command = [sys.executable, "-m", "audiomill", *args]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": os.getcwd()}
    )


def names_in(text: str) -> set[str]:
    """Metrics that have a value."""
    found = set()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.add(sample.name)
    return found


def test_processes_at_once_make_one_output_and_missing_shards_are_found(folder: Path, tmp_path: Path) -> None:
    common = [
        "transcribe",
        str(folder),
        "--model",
        "fake://",
        "--engine",
        "local",
        "--part-seconds",
        "10",
        "--output",
        str(tmp_path / "out"),
        "--quiet",
    ]
    assert ledger.missing_array_tasks(Place(str(tmp_path / "out")), SHARDS) == list(range(SHARDS))
    first = started(*common, "--array-task", f"0/{SHARDS}")
    assert first.wait(120) == 0, first.communicate()
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    assert ledger.missing_array_tasks(Place(str(tmp_path / "out")), SHARDS) == list(range(1, SHARDS))
    every = [started(*common, "--array-task", f"{number}/{SHARDS}") for number in range(SHARDS)]
    for process in every:
        assert process.wait(120) == 0, process.communicate()
    assert (tmp_path / "out" / "_SUCCESS").exists() and (tmp_path / "out" / "report.html").exists()
    assert ledger.missing_array_tasks(Place(str(tmp_path / "out")), SHARDS) == []
    run(folder, tmp_path / "one", part_seconds=10)
    assert part_files(tmp_path / "out") == part_files(tmp_path / "one")


@pytest.mark.nightly  # daily: the laws kill whole runs, and four shards make one output
def test_a_shard_that_dies_leaves_its_parts_to_its_next_run(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    common = [
        "transcribe",
        str(folder),
        "--model",
        "fake://slow",
        "--engine",
        "local",
        "--part-seconds",
        "10",
        "--output",
        str(out),
        "--quiet",
        "--array-task",
    ]
    process = started(*common, "1/2")
    while len(list(out.glob("ledger/part-*.json"))) < 2 and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    done = ledger.done_parts(Place(str(out)))
    assert done and all(part % 2 == 1 for part in done)
    for shard in ("1/2", "0/2"):
        assert started(*common, shard).wait(120) == 0
    run(folder, tmp_path / "one", part_seconds=10)
    assert part_files(out) == part_files(tmp_path / "one")


def test_shards_that_are_no_share_are_refused() -> None:
    assert array_task_of("3/8") == (3, 8)
    for wrong in ("8/8", "a/b", "1", "-1/4", "1/0"):
        with pytest.raises(UsageError, match="--array-task"):
            array_task_of(wrong)
    with pytest.raises(UsageError, match="touch every shard"):
        run("x", "y", array_task="0/2", overwrite=True)


def test_a_live_run_is_scraped_and_every_documented_metric_is_there(folder: Path, tmp_path: Path) -> None:
    port = free_port()
    process = started(
        "transcribe", str(folder), "--model", "fake://slow", "--engine", "local", "--part-seconds", "5", "--output", str(tmp_path / "out"), "--metrics", str(port),
    )  # fmt: skip
    seen: list[str] = []
    while process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as answer:
                seen.append(answer.read().decode())
        except OSError:
            pass
        time.sleep(0.05)
    assert process.returncode == 0, process.communicate()
    done = [
        float(match.group(1)) for text in seen if (match := re.search(r'audiomill_parts{state="done"} (\S+)', text))
    ]
    planned = len(ledger.done_parts(Place(str(tmp_path / "out"))))
    assert any(0 < value < planned for value in done), "it was scraped while it ran"
    assert names_in(seen[-1]) >= {metric.name for metric in METRICS}
    assert 'audiomill_rejections_total{reason="not_audio"}' in seen[-1]


def test_the_text_file_and_the_meter_agree_with_the_ledger(folder: Path, tmp_path: Path) -> None:
    summary = run(folder, tmp_path / "out", part_seconds=10, metrics=str(tmp_path / "run.prom"))
    text = (tmp_path / "run.prom").read_text()
    values = {
        (s.name, *s.labels.values()): s.value for family in text_string_to_metric_families(text) for s in family.samples
    }
    assert {name for name, *_ in values} == {metric.name for metric in METRICS}
    assert (
        values[("audiomill_parts", "done")] == values[("audiomill_parts", "planned")] == summary["num_parts_this_run"]
    )
    assert values[("audiomill_segments_total",)] == summary["num_segments"]
    assert values[("audiomill_rejections_total", "not_audio")] == 1
    assert values[("audiomill_audio_seconds_in_total",)] == pytest.approx(summary["duration_s"])
    assert values[("audiomill_bytes_out_total", "segments")] == summary["bytes"]["segments"]
    sizes = sum(path.stat().st_size for path in folder.iterdir())
    assert values[("audiomill_bytes_in_total",)] == sizes
    assert values[("audiomill_queue_depth", "decode")] == 0


def test_every_metric_has_its_kind_in_its_name() -> None:
    for metric in METRICS:
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric
    assert {name for name, _, _ in Meter({0: 1.0}).values()} | {"audiomill_bytes_out_total"} == {
        m.name for m in METRICS
    }


@pytest.mark.nightly  # daily: test_a_live_run_is_scraped_and_every_documented_metric_is_there
def test_metrics_reach_rays_exporter(ray_session: Any, folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "out", engine="ray", part_seconds=20, metrics="ray", no_progress_timeout=60)
    ports = [node["MetricsExportPort"] for node in ray_session.nodes()]
    wanted = {f"ray_{metric.name}" for metric in METRICS}
    for _ in range(60):
        found: set[str] = set()
        for port in ports:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                found |= set(re.findall(r"^(ray_audiomill_\w+)", answer.read().decode(), re.M))
        if found >= wanted:
            return
        time.sleep(0.5)
    raise AssertionError(f"Ray's exporter lacks {wanted - found}")


def test_what_is_no_place_for_metrics_is_refused(tmp_path: Path) -> None:
    assert metrics_target("9464") == ("127.0.0.1", 9464) and metrics_target("0.0.0.0:80") == ("0.0.0.0", 80)
    for wrong in ("out.txt", "99999", "http://host:80/x"):
        with pytest.raises(UsageError, match="--metrics"):
            metrics_target(wrong)


def test_json_logs_are_one_object_a_line_with_part_and_recording(audiomill: Any, folder: Path, tmp_path: Path) -> None:
    done = audiomill(
        "transcribe",
        str(folder),
        "--model",
        "fake://",
        "--engine",
        "local",
        "--part-seconds",
        "20",
        "--output",
        "out",
        "--log-format",
        "json",
    )
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert all({"time", "level", "event"} <= event.keys() for event in events)
    parts = [event["part"] for event in events if event["event"] == "part_done"]
    assert sorted(parts) == sorted(ledger.done_parts(Place(str(tmp_path / "out"))))
    (rejected,) = [event for event in events if event["event"] == "rejected"]
    assert rejected["recording"] == rows(tmp_path / "out", "rejections")[0]["id"] and rejected["reason"] == "not_audio"
    assert events[-1]["event"] in ("run_finished", "message")


def test_errors_are_json_too(audiomill: Any) -> None:
    done = audiomill(
        "transcribe", "nowhere", "--output", "out", "--log-format", "json", "--engine", "local", "--model", "fake://"
    )
    assert done.returncode == 2 or done.returncode == 1
    event = json.loads(done.stderr.splitlines()[-1])
    assert event["event"] == "failed" and "nowhere" in event["message"]


def test_no_credentials_reach_a_log(audiomill: Any) -> None:
    assert redacted("http://me:hidden@host/a?token=hidden2 x") == "http://host/a x"
    assert "hidden" not in redacted(
        "{'secret': 'hidden', 'aws_secret_access_key': \"hidden\", 'password': 'hidden'} token=hidden"
    )
    assert "hidden" not in json_line("message", "info", {"message": "s3 secret_key=hidden"})
    secret = "s3cr3tvalue"
    source = f"http://user:{secret}@127.0.0.1:9/x.wav?sig={secret}"
    options = json.dumps({"key": "k", "secret": secret, "endpoint_url": "http://127.0.0.1:9"})
    for log_format in ("json", "text"):
        done = audiomill(
            "transcribe",
            source,
            "--output",
            "out",
            "--engine",
            "local",
            "--model",
            "fake://",
            "--log-format",
            log_format,
            "--storage-options",
            options,
        )
        assert secret not in done.stderr + done.stdout


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """An OTLP endpoint that keeps what it is sent."""
    received: list[bytes] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1/traces", received
    server.shutdown()


def test_traces_hold_a_span_for_every_part_and_stage(collector: Any, folder: Path, tmp_path: Path) -> None:
    import gzip

    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    url, received = collector
    summary = run(folder, tmp_path / "out", part_seconds=20, traces=url)
    names: list[str] = []
    for content in received:
        request = ExportTraceServiceRequest()
        request.ParseFromString(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)
        names += [
            span.name for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans
        ]
    num_parts = summary["num_parts_this_run"]
    assert names.count("part") == num_parts and names.count("infer") == num_parts and names.count("decode") == num_parts


def test_a_run_is_followed_by_its_ledger_alone(audiomill: Any, folder: Path, tmp_path: Path) -> None:
    process = started(
        "transcribe",
        str(folder),
        "--model",
        "fake://slow",
        "--engine",
        "local",
        "--part-seconds",
        "5",
        "--output",
        str(tmp_path / "out"),
        "--quiet",
    )
    while not (tmp_path / "out" / "plan.parquet").exists():
        time.sleep(0.02)
    watching = audiomill("watch", "out", "--interval", "0.2")
    assert process.wait() == 0
    assert watching.returncode == 0, watching.stderr
    lines = watching.stdout.splitlines()
    assert "complete" in lines[-1] and "1 rejected" in lines[-1]
    found = Follower(Place(str(tmp_path / "out"))).look(time.time())
    assert found["is_complete"] and found["parts"] == found["parts_done"] and found["eta_s"] is None
    assert found["done_hours"] == pytest.approx(
        sum(row["duration_s"] for row in rows(tmp_path / "out", "recordings")) / 3600
    )
    once = audiomill("watch", "out", "--once")
    assert len(once.stdout.splitlines()) == 1
    nothing = audiomill("watch", "nowhere")
    assert nothing.returncode == 2 and "no plan.parquet" in nothing.stderr and "Traceback" not in nothing.stderr


def test_a_run_tells_its_speed_and_when_it_will_be_done() -> None:
    """A minute of two, heard in ten seconds."""
    said = io.StringIO()
    with RunProgress(Console(file=said, width=200), planned_s=120.0, num_parts=1, quiet=False) as progress:
        progress.part_done(60.0, 60.0, num_rejections=0, began=time.time() - 10)
    speed, eta = re.findall(r"([\d.]+)x real time, ETA 0:00:(\d+)", said.getvalue())[0]
    assert float(speed) == pytest.approx(6, rel=0.1) and int(eta) == pytest.approx(10, abs=1)


def test_speed_of_many_workers_is_that_of_all_of_them(tmp_path: Path) -> None:
    """Sixteen workers, parts of an hour of wall time with ten hours of audio each: 160 times real time."""
    follower = Follower(Place(str(tmp_path)))
    for worker in range(16):
        for hour in range(3):
            began = 225.0 * worker + 3600.0 * hour
            follower.entries[worker * 10 + hour] = Done(began + 3600, began, 36_000.0, {})
    speed, _ = follower._speed()
    assert speed == pytest.approx(160, rel=0.1)


def test_following_survives_an_output_that_is_made_anew(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "out", part_seconds=20)
    follower = Follower(Place(str(tmp_path / "out")))
    assert follower.look(time.time())["is_complete"]
    ledger.clear_output(Place(str(tmp_path / "out")), table_names())
    assert follower.look(time.time())["parts_done"] == 0
    run(folder, tmp_path / "out", part_seconds=20)
    assert follower.look(time.time())["is_complete"]


def test_an_output_that_nobody_closed_is_given_to_a_shard(folder: Path, tmp_path: Path, audiomill: Any) -> None:
    place = Place(str(tmp_path / "out"))
    run(folder, place.url, part_seconds=20)
    place.join("_SUCCESS").remove()
    assert ledger.missing_array_tasks(place, 4) == [0]
    assert "unfinished" in audiomill("inspect", "out").stdout
    run(folder, place.url, part_seconds=20, array_task="0/4")
    assert place.join("_SUCCESS").exists() and ledger.missing_array_tasks(place, 4) == []


def test_a_shard_does_not_declare_done_what_another_has_planned_since(
    folder: Path, tmp_path: Path, voices: Any
) -> None:
    """Shard 0 of 2 has planned; then files are added, and shard 1 plans and works them; then shard 0 works on."""
    source = tmp_path / "in"
    source.mkdir()
    for number in range(4):
        (source / f"r{number}.wav").write_bytes(encode(voices[number % 2][0]))
    from audiomill.runs import job as run_of_a_job
    from audiomill.runs.planning import plan_of

    planned = plan_of
    late: list[int] = []

    def plan_and_wait(*args: Any) -> Any:
        plan = planned(*args)
        if not late:
            late.append(1)
            for number in range(4, 8):
                (source / f"r{number}.wav").write_bytes(encode(voices[number % 2][0]))
            run(source, tmp_path / "out", part_seconds=3, array_task="1/2")
        return plan

    run_of_a_job.plan_of = plan_and_wait
    try:
        summary = run(source, tmp_path / "out", part_seconds=3, array_task="0/2")
    finally:
        run_of_a_job.plan_of = planned
    assert summary["num_parts_left"] > 0 and not (tmp_path / "out" / "_SUCCESS").exists()
    assert ledger.missing_array_tasks(Place(str(tmp_path / "out")), 2) == [0]
    run(source, tmp_path / "out", part_seconds=3, array_task="0/2")
    assert (tmp_path / "out" / "_SUCCESS").exists() and len(rows(tmp_path / "out", "recordings")) == 8


def test_paths_with_brackets_are_paths(audiomill: Any, tmp_path: Path, voices: Any) -> None:
    (tmp_path / "a[b].wav").write_bytes(encode(voices[0][0]))
    done = audiomill("transcribe", "a[b].wav", "--model", "fake://", "--engine", "local", "--output", "o[/b]")
    assert done.returncode == 0, done.stderr
    assert "o[/b]/report.html" in done.stderr
    assert audiomill("watch", "o[/b]", "--once").returncode == 0
    assert audiomill("inspect", "o[/b]").returncode == 0
    assert audiomill("plan", "a[b].wav", "--model", "fake://", "--engine", "local", "--output", "p[/b]").returncode == 0


def test_traces_that_nobody_takes_are_told_and_cost_little(audiomill: Any, folder: Path) -> None:
    common = ("transcribe", str(folder), "--model", "fake://", "--engine", "local", "--output", "out")
    done = audiomill(*common, "--traces", "http://127.0.0.1:1/v1/traces")
    assert done.returncode == 0 and "spans could not be delivered" in done.stderr


def test_the_format_of_logs_in_a_yaml_file_is_that_of_errors_too(audiomill: Any, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(
        "inputs: [nowhere]\noutput: out\nengine: local\nmodel: fake://\nlog_format: json\n"
    )
    done = audiomill("transcribe", "--config", "job.yaml")
    assert done.returncode == 2 and json.loads(done.stderr.splitlines()[-1])["event"] == "failed"


def test_a_retry_adds_its_time_to_that_of_its_part(folder: Path, tmp_path: Path, voices: Any) -> None:
    import shutil

    shutil.copytree(folder, tmp_path / "in")
    run(tmp_path / "in", tmp_path / "out", part_seconds=1000)
    (before,) = ledger.entries(Place(str(tmp_path / "out")))
    (tmp_path / "in" / "broken.wav").write_bytes(encode(voices[0][0]))
    summary = run(tmp_path / "in", tmp_path / "out", part_seconds=1000, retry_rejected=True)
    (after,) = ledger.entries(Place(str(tmp_path / "out")))
    assert after["began"] == before["began"] and after["seconds"]["infer"] > before["seconds"]["infer"]
    assert summary["audio_s_this_run"] == pytest.approx(len(voices[0][0]) / RATE)


def test_the_length_of_what_is_left_follows_what_came_of_the_finished_parts() -> None:
    """Ten videos of 3 s whose size looks like 28 s of sound."""
    console = Console(file=io.StringIO(), width=200)
    with RunProgress(console, 280.0, 10, quiet=False) as progress:
        progress.part_done(3.0, 28.0, 0)
        assert progress._text().startswith("3 s of 30 s, parts 1/10")
        for _ in range(9):
            progress.part_done(3.0, 28.0, 0)
        assert progress._text().startswith("30 s of 30 s, parts 10/10")
