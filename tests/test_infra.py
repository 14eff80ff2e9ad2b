"""Files for clusters: every name in them exists, every number fits the others, every command parses with our own CLI."""

from __future__ import annotations

import copy
import json
import os
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from audiomill.config.jobs import RunConfig
from audiomill.watch.meter import METRICS
from audiomill_jobs.options import checked_values
from audiomill_jobs.process.run import tasks_of
from tests.support.command_line import JOB_NAMES, command_of

ROOT = Path(__file__).parent.parent
INFRA = ROOT / "infra"
PROJECT = (ROOT / "pyproject.toml").read_text()
RAY = re.search(r"ray\[data,default\]==(\d+\.\d+)\.\*", PROJECT)
assert RAY is not None
LOCK = dict(
    line.split("==") for line in (INFRA / "requirements.lock").read_text().splitlines() if not line.startswith("#")
)
RAY_VERSION = LOCK["ray"]
OVERLAYS = ("gke", "eks", "on-premises")


def load(path: str) -> Any:
    return yaml.safe_load((INFRA / path).read_text())


def patched(base: Any, operations: list[dict[str, Any]]) -> Any:
    """JSON patches as kustomize applies them: a path that is not there is an error."""
    found = copy.deepcopy(base)
    for each in operations:
        *path, last = [part.replace("~1", "/") for part in each["path"].strip("/").split("/")]
        at = found
        for part in path:
            at = at[int(part)] if isinstance(at, list) else at[part]
        key: Any = int(last) if isinstance(at, list) else last
        assert each["op"] == "add" or key in at or (isinstance(at, list) and key < len(at)), each["path"]
        at[key] = each["value"]
    return found


def rayjobs() -> dict[str, Any]:
    """Specs of the base, of every overlay as kustomize would make it, and of the nightly job."""
    base = load("kuberay/base/rayjob.yaml")
    found = {"base": base["spec"], "nightly": load("kuberay/nightly/raycronjob.yaml")["spec"]["jobTemplate"]}
    for name in OVERLAYS:
        overlay = load(f"kuberay/overlays/{name}/kustomization.yaml")
        spec = base
        for patch in overlay["patches"]:
            assert patch["target"] == {"kind": base["kind"], "name": base["metadata"]["name"]}
            spec = patched(spec, yaml.safe_load(patch["patch"]))
        found[name] = spec["spec"]
    return found


def groups(spec: Any) -> list[Any]:
    cluster = spec["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


# ---- images


def test_the_lock_pins_what_the_project_asks_for_once() -> None:
    from packaging.requirements import Requirement

    text = PROJECT[PROJECT.index("dependencies = [") : PROJECT.index("]\n\n[project.optional")]
    for line in re.findall(r'"([^"]+)"', text):
        asked = Requirement(line)
        name = asked.name.lower().replace("_", "-")
        assert name in LOCK, f"{name} is not in infra/requirements.lock: run `make lock`"
        assert asked.specifier.contains(LOCK[name]), f"{name} {LOCK[name]} does not fit {asked}"
    for extra in ("s3fs", "gcsfs", "adlfs", "kenlm", "opentelemetry-sdk"):
        assert extra in LOCK
    for line in (INFRA / "constraints.txt").read_text().splitlines():
        name, _, version = line.partition("==")
        assert not version or LOCK.get(name, version) == version, f"{name} differs from infra/constraints.txt"


def test_the_images_copy_what_exists_and_run_as_nobody_special() -> None:
    text = (INFRA / "Dockerfile").read_text()
    stages = re.split(r"^FROM ", text, flags=re.M)[1:]
    names = [stage.split("\n")[0].rsplit(" AS ", 1)[1] for stage in stages]
    assert names == ["wheel", "cpu", "cuda"]
    for stage in stages:
        for line in re.findall(r"^COPY (.+)$", stage, re.M):
            *sources, _ = [word for word in line.split() if not word.startswith("--")]
            for source in sources:
                assert "--from=" in line or (ROOT / source).exists(), f"COPY {source}"
    for stage in stages[1:]:
        assert f"rayproject/ray:{RAY_VERSION}-py311-" in stage.split("\n")[0], "image, lock and driver run one Ray"
        assert re.search(r"^USER 1000$", stage, re.M) and "HEALTHCHECK" in stage and "requirements.lock" in stage
        check = re.search(r"HEALTHCHECK .*CMD (\[.+\])", stage)
        assert check is not None and json.loads(check.group(1))[1] in JOB_NAMES
    assert not re.search(r"(?i)(secret|password|token|access_key)\s*=", text) and "--shm-size" in text


def test_the_builder_is_sent_only_what_the_images_copy() -> None:
    allowed = [
        line[1:].rstrip("/") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    ]
    copied = {
        word
        for line in re.findall(r"^COPY (.+)$", (INFRA / "Dockerfile").read_text(), re.M)
        if "--from=" not in line
        for word in line.split()[:-1]
        if not word.startswith("--")
    }
    assert copied == set(allowed) and (ROOT / ".dockerignore").read_text().splitlines()[1] == "*"


# ---- Kubernetes


@pytest.mark.parametrize("name", ["base", "nightly", *OVERLAYS])
def test_every_group_asks_for_what_it_is_limited_to_and_runs_the_pinned_ray(name: str) -> None:
    spec = rayjobs()[name]
    cluster = spec["rayClusterSpec"]
    assert cluster["rayVersion"] == RAY_VERSION and cluster["authOptions"] == {"mode": "token"}
    assert cluster["autoscalerOptions"]["version"] == "v2"
    for group in groups(spec):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values()), "KubeRay takes strings"
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        tag = container["image"].split(":")[1]
        assert tag in (f"{RAY_VERSION}-cpu", f"{RAY_VERSION}-cuda")
        assert ("nvidia.com/gpu" in container["resources"]["limits"]) == tag.endswith("cuda")
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        assert {"secretRef": {"name": "audiomill-object-store"}} in container["envFrom"]
        assert any(port["name"] == "metrics" for port in container["ports"])
    for group in cluster["workerGroupSpecs"]:
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        assert all(type(group[key]) is int for key in ("replicas", "minReplicas", "maxReplicas"))
    for key in ("backoffLimit", "activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        assert type(spec[key]) is int and spec[key] > 0
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0", "no work on the head"


@pytest.mark.parametrize("name", ["base", "nightly", *OVERLAYS])
def test_gpu_workers_tolerate_gpu_nodes_and_the_job_file_fits_the_groups(name: str) -> None:
    spec = rayjobs()[name]
    models = spec["rayClusterSpec"]["workerGroupSpecs"][1]
    pod = models["template"]["spec"]
    assert any(each["key"] == "nvidia.com/gpu" for each in pod["tolerations"])
    if name == "gke":
        assert any(each["key"] == "cloud.google.com/gke-spot" for each in pod["tolerations"])
        assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    head = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    assert "spot" not in json.dumps(head.get("nodeSelector", {})) and "tolerations" not in head, "the head stays"
    job = load("kuberay/nightly/job.yaml" if name == "nightly" else "kuberay/base/job.yaml")
    gpus = int(pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
    assert job["actors"] * job["gpus_per_actor"] <= models["maxReplicas"] * gpus
    assert job["actors"] <= models["replicas"] * gpus, "a pool does not grow by itself"


@pytest.mark.parametrize("name", ["base", "nightly"])
def test_the_entrypoint_and_the_job_file_parse_with_our_own_command_line(name: str) -> None:
    spec = rayjobs()[name]
    program, job, *arguments = shlex.split(spec["entrypoint"])
    assert program == "audiomill" and job in JOB_NAMES
    command_of(job).make_context(job, [*arguments])
    folder = f"kuberay/{'nightly' if name == 'nightly' else 'base'}"
    mounted = [m for m in groups(spec)[0]["template"]["spec"]["containers"][0]["volumeMounts"] if m["name"] == "job"]
    assert arguments[0] == f"{mounted[0]['mountPath']}/job.yaml" and arguments[1:] == ["--ray-address", "auto"]
    values = load(f"{folder}/job.yaml")
    tasks = tasks_of(values.pop("models"), "job.yaml")
    assert tasks and checked_values(values, RunConfig, "job.yaml")["output"].startswith("s3://")


def test_kustomizations_name_files_that_exist_and_the_nightly_cluster_is_that_of_the_base() -> None:
    for path in INFRA.glob("kuberay/**/kustomization.yaml"):
        found = yaml.safe_load(path.read_text())
        for resource in found["resources"]:
            assert (path.parent / resource).exists(), f"{path}: {resource}"
        for generator in found.get("configMapGenerator", []):
            assert all((path.parent / name).exists() for name in generator["files"])
            assert generator["name"] in ("audiomill-job", "audiomill-nightly-job")
    found = rayjobs()
    nightly = json.dumps(found["nightly"]["rayClusterSpec"]).replace("audiomill-nightly-job", "audiomill-job")
    assert json.loads(nightly) == found["base"]["rayClusterSpec"]
    cron = load("kuberay/nightly/raycronjob.yaml")
    assert cron["kind"] == "RayCronJob" and len(cron["spec"]["schedule"].split()) == 5
    assert "shutdownAfterJobFinishes" not in found["nightly"], "excludes deletionStrategy"
    assert {rule["policy"] for rule in found["nightly"]["deletionStrategy"]["deletionRules"]} <= {
        "DeleteCluster",
        "DeleteSelf",
    }


def closed(schema: Any) -> Any:
    """A CRD's schema that takes no unknown names, and numbers or strings where Kubernetes does."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: closed(value) for name, value in schema.items()}
    if found.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    if (
        isinstance(found.get("properties"), dict)
        and "additionalProperties" not in found
        and not found.get("x-kubernetes-preserve-unknown-fields")
    ):
        found["additionalProperties"] = False
    return found


@pytest.mark.skipif("KUBERAY_CRDS" not in os.environ, reason="KUBERAY_CRDS names no folder with ray.io_rayjobs.yaml")
@pytest.mark.parametrize("name", ["base", "nightly", *OVERLAYS])
def test_the_jobs_are_valid_by_kuberays_own_definition(name: str) -> None:
    import jsonschema

    crd = yaml.safe_load((Path(os.environ["KUBERAY_CRDS"]) / "ray.io_rayjobs.yaml").read_text())
    (version,) = [each for each in crd["spec"]["versions"] if each["name"] == "v1"]
    schema = closed(version["schema"]["openAPIV3Schema"]["properties"]["spec"])
    jsonschema.validate(rayjobs()[name], schema)


# ---- ray up, compose, Grafana


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_cluster_files_are_valid_by_rays_own_schema(name: str) -> None:
    import jsonschema
    import ray.autoscaler

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    found = load(f"cluster/{name}.yaml")
    jsonschema.validate(found, schema)
    assert found["head_node_type"] in found["available_node_types"]
    images = [
        found["docker"]["image"],
        *(t["docker"]["worker_image"] for t in found["available_node_types"].values() if "docker" in t),
    ]
    assert all(image.startswith(f"audiomill:{RAY_VERSION}-") for image in images)
    assert found["available_node_types"]["head"]["resources"] == {"CPU": 0}
    spot = ("InstanceMarketOptions", "scheduling")
    assert not any(key in found["available_node_types"]["head"]["node_config"] for key in spot), "the head stays"


def test_the_workstation_mounts_files_that_exist_and_waits_for_what_it_needs() -> None:
    found = load("compose.yaml")
    for name, service in found["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in found["volumes"] or (INFRA / source).exists(), f"{name}: {source}"
        depends = service.get("depends_on", {})
        assert set(depends) <= set(found["services"])
        for each, how in depends.items() if isinstance(depends, dict) else ():
            assert how["condition"] != "service_healthy" or "healthcheck" in found["services"][each]
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", [])), "for this machine only"
    assert (
        found["services"]["head"]["image"] == f"audiomill:{RAY_VERSION}-cpu" and found["services"]["head"]["shm_size"]
    )
    targets = load("compose/prometheus.yaml")["scrape_configs"][0]["dns_sd_configs"][0]
    assert set(targets["names"]) <= set(found["services"])
    for name in targets["names"]:
        assert f"--metrics-export-port={targets['port']}" in found["services"][name]["command"]


def test_every_query_of_the_dashboard_names_a_metric_that_exists_and_none_is_forgotten() -> None:
    dashboard = json.loads((INFRA / "grafana" / "audiomill.json").read_text())
    known, used = {metric.name: metric for metric in METRICS}, set()
    cells: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        assert panel["title"] and panel["description"] and panel["targets"]
        assert panel["datasource"]["uid"] == "${datasource}"
        box = panel["gridPos"]
        mine = {(x, y) for x in range(box["x"], box["x"] + box["w"]) for y in range(box["y"], box["y"] + box["h"])}
        assert not mine & cells and box["x"] + box["w"] <= 24, f"{panel['title']} lies on another"
        cells |= mine
        for target in panel["targets"]:
            names = re.findall(r"audiomill_\w+", target["expr"])
            assert names and target["expr"].count("(") == target["expr"].count(")")
            for name in names:
                assert name in known, f"{panel['title']}: no metric {name}"
                assert ("rate(" not in target["expr"]) or known[name].kind == "counter", "rates are of counters"
            for label in re.findall(r"by \((\w+)\)", target["expr"]):
                assert all(known[name].label == label for name in names)
            used |= set(names)
    assert used == known.keys()
    assert dashboard["templating"]["list"][0]["type"] == "datasource"
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


# ---- Slurm


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """A queue of one machine: `sbatch` runs the tasks of an array at once, `audiomill` is this program."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "audiomill").write_text(f'#!/bin/bash\nexec {sys.executable} -m audiomill "$@"\n')
    (folder / "sbatch").write_text(
        '#!/bin/bash\necho "$@" >> "$SBATCH_LOG"\n'
        'while [[ "$1" == --* ]]; do case "$1" in --array=*) ARRAY="${1#--array=}";; esac; shift; done\n'
        'if [[ "$ARRAY" == *-* ]]; then TASKS=$(seq ${ARRAY%-*} ${ARRAY#*-}); else TASKS=${ARRAY//,/ }; fi\n'
        "COUNT=$(echo $TASKS | wc -w)\n"
        'for task in $TASKS; do SLURM_ARRAY_TASK_ID=$task SLURM_ARRAY_TASK_COUNT=$COUNT bash "$@" & done\nwait\n'
    )
    for path in folder.iterdir():
        path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return {
        **os.environ,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "SBATCH_LOG": str(tmp_path / "log"),
    }


@pytest.mark.nightly  # daily: test_processes_at_once_make_one_output_and_missing_shards_are_found
def test_an_array_of_four_makes_one_output_and_lost_tasks_are_submitted_again(
    slurm: dict[str, str], tmp_path: Path, voices: Any
) -> None:
    from tests.support.synth import encode

    (tmp_path / "in").mkdir()
    for number in range(12):
        (tmp_path / "in" / f"r{number:02d}.wav").write_bytes(encode(voices[number % 2][0]))
    scripts, out = INFRA / "slurm", str(tmp_path / "out")
    extra = ["--model", "fake://", "--part-seconds", "4", "--quiet"]
    first = ["sbatch", "--array=0-3", str(scripts / "array.sbatch"), str(tmp_path / "in"), out, *extra]
    subprocess.run(first, env=slurm, check=True, timeout=120, capture_output=True)
    assert (tmp_path / "out" / "_SUCCESS").exists()
    for path in (tmp_path / "out" / "ledger").glob("part-*.json"):
        if int(path.stem[5:]) % 4 in (1, 3):
            path.unlink()
    (tmp_path / "out" / "_SUCCESS").unlink()
    again = [str(scripts / "resubmit.sh"), "4", str(tmp_path / "in"), out, *extra]
    told = subprocess.run(again, env=slurm, check=True, timeout=120, capture_output=True, text=True)
    assert "shards to do: 1,3" in told.stdout and (tmp_path / "out" / "_SUCCESS").exists()
    assert "--array=1,3" in (tmp_path / "log").read_text().splitlines()[-1]
    done = subprocess.run(again, env=slurm, check=True, timeout=120, capture_output=True, text=True)
    assert "all 4 shards are done" in done.stdout


# ---- the project's own papers


def test_the_papers_agree_with_the_project() -> None:
    import audiomill

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == audiomill.__version__ and citation["license"] == "Apache-2.0"
    assert f"## {audiomill.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    for command in re.findall(r"^make (\w+)", (ROOT / "CONTRIBUTING.md").read_text(), re.M):
        assert re.search(rf"^{command}:", (ROOT / "Makefile").read_text(), re.M)


GUIDES = (INFRA / "README.md", ROOT / "docs" / "forecasts.md")


def test_the_metrics_that_are_documented_are_those_of_the_program() -> None:
    (shown,) = re.findall(r"<!-- metrics.*?-->\n(.*?)\n<!-- /metrics -->", GUIDES[0].read_text(), re.S)
    rows = [f"| `{m.name}` | {m.kind} | {m.label} | {m.meaning} |" for m in METRICS]
    assert shown.splitlines()[2:] == rows


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.parent.name)
def test_guides_name_files_that_exist_and_commands_that_parse(guide: Path) -> None:
    text = guide.read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (guide.parent / target).exists(), target
    for module in re.findall(r"python -m (benchmarks\.\w+)", text):
        assert (ROOT / f"{module.replace('.', '/')}.py").exists(), module
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            for path in (word for word in words if word.startswith("infra/")):
                assert (ROOT / path).exists(), path
            if "audiomill" in words:
                job, *arguments = words[words.index("audiomill") + 1 :]
                command_of(job).make_context(job, arguments)
