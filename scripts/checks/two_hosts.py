#!/usr/bin/env python3
"""Runs over two hosts that lose each other; called by two_hosts.sh, which makes the hosts.

A GReg-1 run over both hosts is made undisturbed; it selects what one process selects. Then runs are disturbed at
random moments of update, stabilizing and fine-tuning: the link is cut, a process is stopped, a host dies. Processes
have to end within 90 seconds, with one line that names the missing rank and host. The run is resumed with the link up,
and counts as survived if it ends with the bits of the undisturbed run. A process that is stopped for 30 seconds is
waited for. Under torchrun --max_restarts a run whose process was killed goes on by itself.
"""

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # run as a file, from anywhere
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.checks.kill_test import PARTS, command, differences, logged, part_of, run_alone, run_dir_in, write_images

LIMIT_SECONDS = 90.0  # for every process to end
RUN_SECONDS = 300.0  # no run takes longer
LOST = re.compile(r"main\.py: error: .*rank (\d) on (host[ab])\b.*(?:--resume_path|repeat the command)")
DISTURBED = ("update", "stabilise", "fine-tuning")


@dataclass
class Host:
    """A network namespace, its address and its host name."""

    space: str
    address: str
    name: str

    def run(self, *words: str) -> None:
        subprocess.run(["ip", "netns", "exec", self.space, *words], check=True)

    def all_processes(self) -> list[int]:
        listed = subprocess.run(["ip", "netns", "pids", self.space], capture_output=True, text=True)
        return [int(pid) for pid in listed.stdout.split()]

    def processes(self) -> list[int]:
        """Return the processes of the run on this host, without torchrun's."""
        found = []
        for pid in self.all_processes():
            with suppress(OSError):  # it has ended
                words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
                if any(word.endswith("main.py") for word in words) and "torch.distributed.run" not in words:
                    found.append(pid)
        return found


class TwoHostRun:
    """A run over both hosts, as two torchruns."""

    def __init__(self, hosts: list[Host], words: list[str], cwd: Path, port: int, restarts: int = 0):
        cwd.mkdir(parents=True, exist_ok=True)
        self.hosts, self.cwd, self.n_logged = hosts, cwd, len(logged(cwd))
        self.outputs = [cwd / f"{host.name}.txt" for host in hosts]
        self.processes = []
        for host, output in zip(hosts, self.outputs, strict=True):
            torchrun = [
                sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1",
                f"--max_restarts={restarts}", "--rdzv_backend=c10d", f"--rdzv_endpoint={hosts[0].address}:{port}",
                f"--rdzv_conf=is_host={'true' if host is hosts[0] else 'false'}", f"--local-addr={host.address}",
                f"--log-dir={cwd}",
            ]  # fmt: skip
            named = ["unshare", "--uts", "sh", "-c", f'hostname {host.name}; exec "$@"', "sh"]
            with output.open("w") as file:
                self.processes.append(
                    subprocess.Popen(
                        ["ip", "netns", "exec", host.space, *named, *torchrun, *words[1:], "--resume_path", "auto"],
                        cwd=cwd, stdout=file, stderr=subprocess.STDOUT, process_group=0,
                        env=os.environ | {"GLOO_SOCKET_IFNAME": "cable", "OMP_NUM_THREADS": "1"},
                    )
                )  # fmt: skip

    def wait(self, seconds: float) -> list[int | None]:
        """Wait for both sides to end; return their exit codes, None where one is still there."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and any(process.poll() is None for process in self.processes):
            time.sleep(0.1)
        return [process.poll() for process in self.processes]

    def wait_for(self, part: str, dice: random.Random) -> None:
        """Wait for a random moment of `part` of the run."""
        end = time.monotonic() + RUN_SECONDS
        while time.monotonic() < end and PARTS.index(part_of(self.lines(), "GReg-1")) < PARTS.index(part):
            time.sleep(0.01)
        time.sleep(dice.uniform(0, 0.4))

    def lines(self) -> list[str]:
        return logged(self.cwd)[self.n_logged :]

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        for host in self.hosts:
            for pid in host.processes():
                os.kill(pid, signal.SIGKILL)
        for process in self.processes:
            process.wait()

    def named(self) -> list[tuple[str, str] | None]:
        """For each host, the rank and the host that its processes name as lost."""
        found = [LOST.findall(output.read_text(errors="replace")) for output in self.outputs]
        return [lost[0] if len(lost) == 1 else None for lost in found]


class Check:
    """Disturbs runs and compares them with the undisturbed one."""

    def __init__(self, hosts: list[Host], work: Path, seed: int):
        self.hosts, self.work, self.dice, self.port = hosts, work, random.Random(seed), 29500
        write_images(work / "arrays")
        self.words = command(work / "arrays", "GReg-1", "filter")
        self.faults: list[str] = []

    def start(self, cwd: Path, restarts: int = 0) -> TwoHostRun:
        self.port += 1
        return TwoHostRun(self.hosts, self.words, cwd, self.port, restarts)

    def undisturbed(self) -> None:
        """Make the run without disturbance, and the same in one process; compare their selections."""
        began = time.monotonic()
        run = self.start(self.work / "undisturbed")
        codes = run.wait(RUN_SECONDS)
        run.end()
        if codes != [0, 0]:
            sys.exit(f"the undisturbed run ended with {codes}: {run.outputs[0].read_text()[-600:]}")
        expected = run_dir_in(run.cwd)
        assert expected is not None
        self.expected = expected
        alone = run_alone(self.words, self.work / "alone")
        kept = [d for d in differences(alone, self.expected) if d.startswith("kept")]
        self.report("undisturbed", time.monotonic() - began, kept or "selections of one process")

    def disturbed(self, kind: str, part: str) -> None:
        """Disturb a run in `part` in the way `kind`; resume it; compare it with the undisturbed one."""
        cwd = self.work / f"{kind.replace(' ', '_')}_{time.monotonic_ns()}"
        run = self.start(cwd)
        run.wait_for(part, self.dice)
        where, began = part_of(run.lines(), "GReg-1"), time.monotonic()
        survivors = self.disturb(kind)
        while time.monotonic() - began < LIMIT_SECONDS and any(host.processes() for host in survivors):
            time.sleep(0.1)
        took = time.monotonic() - began
        if any(host.processes() for host in survivors):
            self.faults.append(f"{kind}: processes are still there after {LIMIT_SECONDS:.0f} s")
        names = [name for host, name in zip(self.hosts, run.named(), strict=True) if host in survivors]
        run.end()
        self.hosts[0].run("ip", "link", "set", "cable", "up")
        for host, name in zip(survivors, names, strict=True):
            if name is None or name[1] == host.name:
                self.faults.append(f"{kind} in {where}: {host.name} does not name who is gone")
        again = self.start(cwd)
        codes = again.wait(RUN_SECONDS)
        again.end()
        self.compare(f"{kind} in {where}", took, cwd, codes)

    def disturb(self, kind: str) -> list[Host]:
        """Return the hosts whose processes have to end by themselves."""
        first, second = self.hosts
        if kind == "link cut":
            first.run("ip", "link", "set", "cable", "down")
            return self.hosts
        lost = self.dice.choice(self.hosts)
        if kind == "process stopped":
            for pid in lost.processes():
                os.kill(pid, signal.SIGSTOP)
        else:  # a host without power answers nothing, not even that a connection is closed
            first.run("ip", "link", "set", "cable", "down")
            for pid in lost.all_processes():
                os.kill(pid, signal.SIGKILL)
        return [second if lost is first else first]

    def slow(self) -> None:
        """Stop a process for 30 seconds: the others wait for it."""
        began = time.monotonic()
        run = self.start(self.work / "slow")
        run.wait_for("update", self.dice)
        pids = self.hosts[1].processes()
        for number, wait in ((signal.SIGSTOP, 30), (signal.SIGCONT, 0)):
            for pid in pids:
                os.kill(pid, number)
            time.sleep(wait)
        codes = run.wait(RUN_SECONDS)
        run.end()
        self.compare("stopped for 30 s, waited for", time.monotonic() - began, run.cwd, codes)

    def restarted(self) -> None:
        """Kill a process under --max_restarts."""
        began = time.monotonic()
        run = self.start(self.work / "restarted", restarts=3)
        run.wait_for("update", self.dice)
        for pid in self.hosts[1].processes():
            os.kill(pid, signal.SIGKILL)
        codes = run.wait(RUN_SECONDS)
        run.end()
        self.compare("process killed, --max_restarts 3", time.monotonic() - began, run.cwd, codes)

    def compare(self, what: str, took: float, cwd: Path, codes: list[int | None]) -> None:
        run_dir = run_dir_in(cwd)
        differing = differences(self.expected, run_dir) if codes == [0, 0] and run_dir else [f"exit codes {codes}"]
        self.report(what, took, differing or "identical")
        if not differing:
            shutil.rmtree(cwd)

    def report(self, what: str, took: float, result: str | list[str]) -> None:
        print(f"{what}: {took:.0f} s, {result}", flush=True)
        if not isinstance(result, str):
            self.faults.append(f"{what}: {result}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hosts", nargs=2, metavar="NAMESPACE=ADDRESS")
    parser.add_argument("--cuts", type=int, default=10, help="times that the link is cut (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments (default: 0)")
    args = parser.parse_args()
    pairs = zip(args.hosts, ("hosta", "hostb"), strict=True)
    hosts = [Host(text.partition("=")[0], text.partition("=")[2], name) for text, name in pairs]
    work = Path(tempfile.mkdtemp(prefix="two_hosts_"))
    check = Check(hosts, work, args.seed)
    check.undisturbed()
    for n in range(args.cuts):
        check.disturbed("link cut", DISTURBED[n % 3])
    for kind in ("process stopped", "host lost"):
        check.disturbed(kind, check.dice.choice(DISTURBED))
    check.slow()
    check.restarted()
    for fault in check.faults:
        print(f"FAULT: {fault}")
    if not check.faults:
        shutil.rmtree(work)
    print(f"{args.cuts} cuts of the link and 4 other disturbances, {len(check.faults)} faults")
    return bool(check.faults)


if __name__ == "__main__":
    sys.exit(main())
