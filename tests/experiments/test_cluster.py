"""The cluster files, read by what will read them, as far as that needs no cloud."""

import json
import os
import re
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import ray
import yaml
from ray.autoscaler._private import util

from experiments.cluster import render
from experiments.recipes import imagenet_cluster, launch
from nas import search
from nas.execution import resources
from tests.nas.search_process import TINY, assert_all_accounted_for

ROOT = Path(render.__file__).parents[2]
SCHEMA = Path(__file__).with_name("rayjob_schema.json")
KINDS = ["gpu", "tpu"]


@pytest.fixture(scope="module")
def files():
    return render.render(render.SETTINGS)


@pytest.mark.parametrize("kind", KINDS)
def test_ray_up_files_pass_ray_s_schema(files, kind):
    """Ray's own validation, of what `ray up` makes of the file as it loads it."""
    config = yaml.safe_load(files[f"{kind}.yaml"])
    prepared = util.prepare_config(config)
    util.validate_config(prepared)
    workers = prepared["available_node_types"][kind]
    assert workers["min_workers"] == workers["max_workers"] == config["max_workers"]


@pytest.mark.parametrize("kind", KINDS)
def test_rayjobs_pass_a_strict_schema_and_their_pods_kubernetes_own(files, kind):
    job = yaml.safe_load(files[f"{kind}-rayjob.yaml"])
    jsonschema.validate(job, json.loads(SCHEMA.read_text()))
    cluster = job["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "pod", **group["template"].get("metadata", {})},
            "spec": group["template"]["spec"],
        }
        kubernetes_validate.validate(pod, "1.30", strict=True)
    assert set(yaml.safe_load(job["spec"]["runtimeEnvYAML"])) == {"env_vars"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_fits_the_machines(files, kind, monkeypatch):
    """The workers asked for fit into what `ray up` and KubeRay would start."""
    commands = []
    monkeypatch.setattr(
        launch.search,
        "main",
        lambda arguments: commands.append(search.parse(arguments)),
    )
    job = yaml.safe_load(files[f"{kind}-rayjob.yaml"])["spec"]
    words = shlex.split(job["entrypoint"])
    assert words[:3] == ["python", "-m", imagenet_cluster.__name__]
    imagenet_cluster.main(words[3:])
    options = commands[0].workers
    nodes = yaml.safe_load(files[f"{kind}.yaml"])["available_node_types"][kind]
    (group,) = job["rayClusterSpec"]["workerGroupSpecs"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    device = {"gpu": "nvidia.com/gpu", "tpu": "google.com/tpu"}[kind]
    pod = {"CPU": float(limits["cpu"]), kind.upper(): float(limits[device])}
    for count, node in (
        (nodes["max_workers"], nodes["resources"]),
        (group["replicas"], pod),
    ):
        available = {name: count * amount for name, amount in node.items()}
        worker_resources = resources.resolve(options, available)
        resources.check_batch(commands[0].definition.child.batch_size, worker_resources)
        fitting = resources.count_workers(options, worker_resources, available)
        assert fitting == options.workers
        # No device is left idle.
        assert fitting * options.devices_per_child == available[kind.upper()]


def test_versions_agree_with_what_is_installed(files):
    """The image's Ray is the one these files were checked with."""
    version = re.search(r"rayproject/ray:([0-9.]+)-py311", files["Containerfile"])[1]
    assert version == ray.__version__
    for kind in KINDS:
        job = yaml.safe_load(files[f"{kind}-rayjob.yaml"])
        assert job["spec"]["rayClusterSpec"]["rayVersion"] == version


def test_the_containerfile_has_known_instructions_alone(files):
    lines = [
        line for line in files["Containerfile"].splitlines() if line[:1] not in "#"
    ]
    assert [line.split()[0] for line in lines] == [
        "FROM", "ARG", "COPY", "RUN", "WORKDIR"
    ]  # fmt: skip


def test_render_writes_every_file_and_refuses_other_settings(tmp_path, capsys):
    out = tmp_path / "cluster"
    assert render.main(["--output", str(out)]) == 0
    said = capsys.readouterr().out
    assert "edit " in said  # the settings name no project
    assert f"ray up {out / 'gpu.yaml'}" in said
    assert {path.name for path in out.iterdir()} == {
        "Containerfile", "gpu.yaml", "tpu.yaml", "gpu-rayjob.yaml", "tpu-rayjob.yaml"
    }  # fmt: skip
    own = tmp_path / "own.toml"
    text = render.SETTINGS.read_text()
    own.write_text(text.replace("PROJECT", "mine"))
    assert render.main(["--settings", str(own), "--output", str(out)]) == 0
    assert "edit " not in capsys.readouterr().out
    own.write_text(text.replace("zone = ", "zones = "))
    capsys.readouterr()
    assert render.main(["--settings", str(own)]) == 2
    said = capsys.readouterr().err
    assert "lacks zone" in said
    assert "has besides zones" in said


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture
def head(tmp_path):
    """A Ray head with a dashboard on localhost and token authentication."""
    pytest.importorskip("aiohttp_cors", reason="ray job submit needs ray[default]")
    port = free_port()
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{port}",
        # Without it Ray takes 127.0.0.1 for the address by which others know us.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
    command = [
        "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=1",
        "--node-ip-address=127.0.0.1", f"--port={free_port()}",
        f"--dashboard-port={port}", "--dashboard-host=127.0.0.1",
        f"--ray-client-server-port={free_port()}",
        f"--dashboard-agent-listen-port={free_port()}",
        "--disable-usage-stats",
    ]  # fmt: skip
    log = tmp_path / "head.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, *command], env=environment, stdout=file, stderr=file
        )
    try:
        deadline = time.monotonic() + 120
        while "--block" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield environment
    finally:
        process.send_signal(signal.SIGTERM)  # stops the processes that it started
        process.wait(60)


def submit(environment, runtime_env, *entrypoint):
    return subprocess.run(
        [
            *(sys.executable, "-m", "ray.scripts.scripts", "job", "submit"),
            *("--working-dir", ROOT, "--runtime-env-json", json.dumps(runtime_env)),
            *("--", *map(str, entrypoint)),
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_search_runs_and_is_resumed_by_ray_job_submit(head, tmp_path):
    """Real children; code travels with the job, cache and run are on the storage."""
    storage = tmp_path / "storage"
    run, told = storage / "run", tmp_path / "told"
    (tmp_path / "no-troubles").mkdir()
    shared = {
        "env_vars": {"MBCONV_NAS_CACHE": str(storage / "xla"), "OVERHEARD": str(told)}
    }
    script = [sys.executable, "tests/nas/real_search.py", tmp_path / "no-troubles"]
    first = submit(
        head, shared, *script, "--output", run, *TINY, "--children", "3",
        "--workers", "1",
    )  # fmt: skip
    assert first.returncode == 0, first.stdout + first.stderr
    more = [*TINY[:2], "--resume", run, "--children", "6", "--workers", "1"]
    again = submit(head, shared, *script, *more)
    assert again.returncode == 0, again.stdout + again.stderr
    assert_all_accounted_for(run, 6, told=told, batch_size=5)
    assert any((storage / "xla").rglob("*-cache")), "the workers did not share a cache"

    stranger = {**head, "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    refused = submit(stranger, {}, "true")
    assert refused.returncode != 0
    assert "oken" in refused.stdout + refused.stderr
