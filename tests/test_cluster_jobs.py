"""docs/scaling.md and docs/cluster: torchrun and fastuda take every command, and the jobs do what they say of stops.

The scripts run with stand-ins for Slurm's commands and torchrun, so what is looked at is what bash makes of them.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from torch.distributed.run import get_args_parser

from fastuda.runtime.stop import EXIT_STOPPED, SIGNALS
from fastuda_cli.main import app

ROOT = Path(__file__).resolve().parents[1]
SLURM, KUBERNETES = ROOT / "docs/cluster/slurm.sh", ROOT / "docs/cluster/kubernetes.yaml"
PAGE = (ROOT / "docs/scaling.md").read_text()
SBATCH_OPTIONS = {
    *("job-name", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "mem", "time"),
    *("signal", "requeue", "output", "open-mode"),
}
"""Of sbatch's manual page, those with one meaning in every version since 19.05."""
STAND_IN = (
    f"#!{sys.executable}\n"
    + """
import json, os, pathlib, signal, sys, time
name, here = pathlib.Path(sys.argv[0]).name, pathlib.Path(os.environ["STAND_INS"])
if name == "srun":
    command = sys.argv[1:]
    while command[0].startswith("--"):
        command.pop(0)
    os.execvp(command[0], command)
if name == "scontrol" and sys.argv[1] == "show":
    print("node7\\nnode8\\nnode9\\nnode12")
    sys.exit()
told = {"arguments": sys.argv[1:], "ignores": signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN}
told |= {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "FASTUDA_CACHE")}
if os.environ.get("WAITS"):
    def asked(*_):
        time.sleep(0.3)  # ranks save
        sys.exit(int(os.environ["ENDS"]))
    signal.signal(signal.SIGTERM, asked)
(here / "new.json").write_text(json.dumps(told))
(here / "new.json").rename(here / f"{name}.json")
if os.environ.get("WAITS"):
    time.sleep(60)
sys.exit(int(os.environ["ENDS"]) if name == "torchrun" else 0)
"""
)


class Machine:
    """A folder of stand-ins that scripts find first, and what they were told."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run = folder, folder / "run"
        self.run.mkdir()
        for name in ("srun", "scontrol", "torchrun"):
            (folder / name).write_text(STAND_IN)
            (folder / name).chmod(0o755)

    def start(self, script: str, *, ends: int = 0, waits: bool = False, **more: str) -> subprocess.Popen[str]:
        """The script of a job, its run in this folder, whose torchrun ends with a code, or waits to be told to."""
        script = re.sub(r"^(\s*run=)/\S+", rf"\g<1>{self.run}", script, flags=re.MULTILINE)
        own = {"PATH": f"{self.folder}:{os.environ['PATH']}", "STAND_INS": str(self.folder), "ENDS": str(ends)}
        environment = os.environ | own | {"USER": "me", "WAITS": "yes" if waits else ""} | more
        return subprocess.Popen(["bash", "-c", script], env=environment, text=True, stderr=subprocess.PIPE)

    def ended(self, script: str, **more: Any) -> int:
        """The exit code of a script that nobody stops."""
        process = self.start(script, **more)
        _, said = process.communicate(timeout=60)
        assert said == ""
        return process.returncode

    def told(self, name: str) -> dict[str, Any]:
        """What a stand-in was called with."""
        content: dict[str, Any] = json.loads((self.folder / f"{name}.json").read_text())
        return content

    def was_called(self, name: str) -> bool:
        return (self.folder / f"{name}.json").exists()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


SLURM_SAYS = {
    "SLURM_JOB_ID": "123456",
    "SLURM_JOB_NODELIST": "node[7-9,12]",
    "SLURM_NNODES": "4",
    "SLURM_GPUS_ON_NODE": "8",
    "SLURM_CPUS_PER_TASK": "96",
}


def parsed(arguments: list[str]) -> tuple[Any, dict[str, Any]]:
    """torchrun's options and `fastuda train`'s, by their own parsers; an error for one that they do not know."""
    options = get_args_parser().parse_args(arguments)
    assert options.module
    assert options.training_script == "fastuda_cli"
    given = list(options.training_script_args)
    return options, fastuda_options(given[1:] if given[:1] == ["--"] else given)


def fastuda_options(arguments: list[str]) -> dict[str, Any]:
    """What the parameters of a command of fastuda's come to; a click error for one that it has not."""
    group: Any = typer.main.get_command(app)
    context = group.make_context("fastuda", list(arguments))
    name, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
    found: dict[str, Any] = command.make_context(name, rest, parent=context).params
    return found


def container() -> dict[str, Any]:
    (one,) = job()["spec"]["template"]["spec"]["containers"]
    return dict(one)


def job() -> dict[str, Any]:
    (found,) = (part for part in yaml.safe_load_all(KUBERNETES.read_text()) if part["kind"] == "Job")
    return dict(found)


def script_of(one: dict[str, Any]) -> str:
    assert one["command"] == ["bash", "-c"]
    (script,) = one["args"]
    return str(script)


def test_the_parsers_refuse_what_they_do_not_know() -> None:
    train = ["-m", "fastuda_cli", "--", "train", "gta2cs"]
    assert parsed(["--nnodes=2", *train, "--run", "r", "--resume"])[1]["resume"] is True
    with pytest.raises(SystemExit):
        parsed(["--nodes-that-are-not=2", *train])
    for wrong in ("--ressume", "--no-such-option"):
        with pytest.raises(Exception, match="No such option"):
            parsed([*train, wrong])


def test_every_command_of_the_page_is_taken() -> None:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    commands = [shlex.split(line) for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    assert {name for name, *_ in commands} == {"fastuda", "torchrun"}
    for name, *arguments in commands:
        if name == "fastuda":
            assert fastuda_options(arguments)["gpus"] == 8
        else:
            options, own = parsed(arguments)
            assert options.nproc_per_node == "8"
            assert own["recipe"] == "gta2cs"
            assert own["run"] is not None


def test_both_jobs_are_linked_and_are_bash() -> None:
    assert f"](cluster/{SLURM.name})" in PAGE
    assert f"](cluster/{KUBERNETES.name})" in PAGE
    for script in (SLURM.read_text(), script_of(container())):
        checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
        assert (checked.returncode, checked.stderr) == (0, "")


def test_sbatch_knows_the_scripts_options_and_the_ranks_its_signal() -> None:
    lines = re.findall(r"^#SBATCH (.*)$", SLURM.read_text(), re.MULTILINE)
    options = {}
    for line in lines:
        match = re.fullmatch(r"--([a-z-]+)(?:=(\S+))?", line)
        assert match is not None, line
        options[match[1]] = match[2]
    assert options.keys() <= SBATCH_OPTIONS
    assert len(options) == len(lines)
    name, _, seconds = options["signal"].partition("@")
    assert getattr(signal, f"SIG{name}") in SIGNALS
    assert int(seconds) >= 120
    assert options["ntasks-per-node"] == "1"  # torchrun starts the ranks
    assert re.fullmatch(r"(\d+-)?\d+:\d\d:\d\d", options["time"])


def test_slurms_torchrun_gets_the_jobs_machines_and_a_resuming_run(machine: Machine) -> None:
    machine.ended(SLURM.read_text(), **SLURM_SAYS)
    told = machine.told("torchrun")
    options, own = parsed(told["arguments"])
    assert (options.nnodes, options.nproc_per_node, options.rdzv_backend) == ("4", "8", "c10d")
    assert (options.rdzv_endpoint, options.rdzv_id) == ("node7:23456", "123456")
    assert own["run"] == machine.run
    assert own["resume"]
    assert not own["max_restarts"]
    assert told["OMP_NUM_THREADS"] == "12"
    assert told["ignores"]  # USR1 reaches it as it does the ranks


@pytest.mark.parametrize(
    ("ends", "finished", "code", "again"), [(0, False, 0, True), (0, True, 0, False), (1, False, 1, False)]
)
def test_a_slurm_job_is_queued_again_where_its_run_was_stopped(
    machine: Machine, ends: int, finished: bool, code: int, again: bool
) -> None:
    if finished:
        (machine.run / "results.json").touch()
    assert machine.ended(SLURM.read_text(), ends=ends, **SLURM_SAYS) == code
    assert machine.was_called("scontrol") is again
    if again:
        assert machine.told("scontrol")["arguments"] == ["requeue", "123456"]


def test_the_kubernetes_parts_name_one_another() -> None:
    service, claim, _ = yaml.safe_load_all(KUBERNETES.read_text())
    spec, pod = job()["spec"], job()["spec"]["template"]["spec"]
    name = job()["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"].items() <= job()["spec"]["template"]["metadata"]["labels"].items()
    assert service["spec"]["selector"] == {"job-name": name}
    assert pod["subdomain"] == service["metadata"]["name"]
    assert (spec["completionMode"], spec["completions"]) == ("Indexed", spec["parallelism"])
    assert pod["restartPolicy"] == "Never"  # or there is no failure policy
    stopped = spec["podFailurePolicy"]["rules"][0]
    assert (stopped["action"], stopped["onExitCodes"]["values"]) == ("Ignore", [EXIT_STOPPED])
    assert stopped["onExitCodes"]["containerName"] == container()["name"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert {mount["name"] for mount in container()["volumeMounts"]} == volumes.keys()
    assert volumes["shared"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert volumes["shm"]["emptyDir"]["medium"] == "Memory"
    saved = next(one["value"] for one in container()["env"] if one["name"] == "TORCH_ELASTIC_SHUTDOWN_TIMEOUT")
    assert int(saved) < pod["terminationGracePeriodSeconds"]


@pytest.mark.parametrize(("index", "host"), [("0", "true"), ("3", "false")])
def test_each_pods_torchrun_gets_the_jobs_numbers(machine: Machine, index: str, host: str) -> None:
    machine.ended(script_of(container()), JOB_COMPLETION_INDEX=index)
    options, own = parsed(machine.told("torchrun")["arguments"])
    spec, name = job()["spec"], job()["metadata"]["name"]
    assert options.nnodes == str(spec["completions"])
    assert options.nproc_per_node == container()["resources"]["limits"]["nvidia.com/gpu"]
    port = container()["ports"][0]["containerPort"]
    assert options.rdzv_endpoint == f"{name}-0.{spec['template']['spec']['subdomain']}:{port}"
    assert options.rdzv_conf == f"is_host={host},join_timeout=3600"
    assert own["resume"]
    assert own["run"] == machine.run
    mounts = [mount["mountPath"] for mount in container()["volumeMounts"]]
    paths = [own["source"], own["target"], re.search(r"run=(/\S+)", script_of(container()))[1]]  # type: ignore[index]
    cache = next(one["value"] for one in container()["env"] if one["name"] == "FASTUDA_CACHE")
    assert all(any(str(path).startswith(mount) for mount in mounts) for path in [*paths, cache])


@pytest.mark.parametrize(
    ("ends", "finished", "code"), [(0, True, 0), (0, False, EXIT_STOPPED), (1, False, 1), (1, True, 1)]
)
def test_a_pod_is_complete_where_its_run_is(machine: Machine, ends: int, finished: bool, code: int) -> None:
    if finished:
        (machine.run / "results.json").touch()
    assert machine.ended(script_of(container()), ends=ends, JOB_COMPLETION_INDEX="1") == code


def test_a_drained_pod_hands_the_signal_on_and_waits_for_torchrun(machine: Machine) -> None:
    process = machine.start(script_of(container()), ends=1, waits=True, JOB_COMPLETION_INDEX="1")
    give_up = time.monotonic() + 60
    while not machine.was_called("torchrun") and time.monotonic() < give_up:
        time.sleep(0.05)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == EXIT_STOPPED
    assert 0.3 <= time.monotonic() - began < 30
