"""What the measurements stand on: programs built and installed, servers started, folders made and removed."""

import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
import venv

import peers

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
REQUIREMENTS = ROOT / "benches" / "peers" / "requirements.txt"
GIB = 1 << 30

# Memory that is left alone when the rest is touched: for the system and whoever else works on it.
SPARED_BYTES = 4 * GIB


class Machine:
    """Everything a workload needs, for as long as the `with` block lasts."""

    def __init__(self, asked):
        self.quick = asked.quick
        self.only = [name.strip().lower() for name in asked.clients.split(",")] if asked.clients else []
        self.bin = installed(asked.peers or TARGET / "peers") / "bin"
        build = ["cargo", "build", "--release", "--quiet", "-p", "brigade-floor"]
        self.brigade = asked.brigade or TARGET / "release" / "brigade"
        subprocess.run(build + ([] if asked.brigade else ["-p", "brigade-cli"]), check=True, cwd=ROOT)
        self.floor = TARGET / "release" / "brigade-floor"
        self.memory_parent = asked.memory_folder
        self.disk_parent = asked.disk_folder or TARGET
        self.running = []
        self.stores = {}

    def __enter__(self):
        self.memory = pathlib.Path(tempfile.mkdtemp(prefix="brigade-peers-", dir=self.memory_parent))
        self.disk = pathlib.Path(tempfile.mkdtemp(prefix="brigade-peers-", dir=self.disk_parent))
        try:
            touch_memory(self.memory)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in self.running:
            process.terminate()
        for process in self.running:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.memory, ignore_errors=True)
        shutil.rmtree(self.disk, ignore_errors=True)

    def store(self, tls=False):
        """The floor's store; started on first use."""
        if tls not in self.stores:
            command = [self.floor, "serve"]
            if tls:
                command += ["--tls", "--cert-out", self.memory / "ca.pem"]
            ready = self.started(command)
            self.stores[tls] = self.site(ready["endpoint_url"], ca=ready.get("ca_bundle"))
        return self.stores[tls]

    def started(self, command, env=None, **how):
        """Starts a server that prints one JSON object once it listens; gives that object."""
        process = subprocess.Popen(
            [str(word) for word in command], stdout=subprocess.PIPE, text=True, env=env, **how
        )
        self.running.append(process)
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"{command[0]} did not start")
        return json.loads(line)

    def site(self, endpoint, ca=None, key="bench", secret="bench-secret", bucket="bench"):
        return peers.Site(
            endpoint=endpoint, ca=ca, key=key, secret=secret, bucket=bucket, bin=self.bin,
            brigade=self.brigade, floor=self.floor, home=self.memory / "home",
        )

    def clients(self, site):
        """Every client to be measured, at each of its settings. The floor is always among them."""
        chosen = []
        for client in peers.all_clients(site):
            asked = not self.only or any(name in client.name.lower() for name in self.only)
            if asked or client.name == "floor":
                chosen.append(client)
        return chosen

    def client(self, name, site=None):
        """One client, asked for or not, at its first setting."""
        everybody = peers.all_clients(site or self.store())
        return next(client for client in everybody if client.name == name)

    def empty(self):
        """Removes what the last workload worked on."""
        for folder in (self.memory, self.disk):
            for pattern in ("source-*", "target", "own", "many-*"):
                for path in folder.glob(pattern):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def described(self):
        """What a reader needs to know to compare these numbers with others."""
        return {
            "cores": os.cpu_count(),
            "processor": processor(),
            "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB),
            "kernel": platform.release().split("-")[0],
            "peers": REQUIREMENTS.read_text().split(),
        }


def installed(home):
    """A virtual environment with the peers' programs; made on first use."""
    wanted = REQUIREMENTS.read_text()
    stamp = home / "requirements.txt"
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing the peers into {home}", file=sys.stderr)
        venv.create(home, with_pip=True, clear=True)
        subprocess.run([home / "bin" / "pip", "install", "--quiet", "-r", REQUIREMENTS], check=True)
        stamp.write_text(wanted)
    return home


def touch_memory(folder):
    """Has the kernel touch the memory that files will be in.

    A virtual machine gets most of its memory from its host only when it first uses it, at many times the
    usual cost; whichever client came first would pay for the others.
    """
    free = shutil.disk_usage(folder).free
    length = min(available_bytes() - SPARED_BYTES, free * 3 // 4)
    if length <= 0:
        return
    file = folder / "touched"
    with open(file, "wb") as touched:
        os.posix_fallocate(touched.fileno(), 0, length)
    file.unlink()


def available_bytes():
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()
