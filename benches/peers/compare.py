"""brigade beside other S3 clients: one large object up and down, interleaved, medians.

    cargo build --release && python3 benches/peers/compare.py [--size 1GiB] [--rounds 5]

Every client talks to the same embedded store (`brigade serve --synthetic`: uploads are verified and
discarded, downloads generated), so the store costs the same for all and no disk hides the difference.
Files are in memory (/dev/shm). The peers are installed from requirements.txt into target/peers. Store and
client share the machine's cores, so throughput is that of both together; the client's CPU time is its own.

Writes docs/benchmarks/peers.json, peers.md and peers.svg.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import venv

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = ROOT / "benches" / "peers"
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
OUT = ROOT / "docs" / "benchmarks"
BRIGADE = TARGET / "release" / "brigade"
GIB = 1 << 30


def peers_installed():
    """The folder with the peers' programs; made on first use."""
    home = TARGET / "peers"
    wanted = (HERE / "requirements.txt").read_text()
    stamp = home / "requirements.txt"
    if not stamp.exists() or stamp.read_text() != wanted:
        venv.create(home, with_pip=True, clear=True)
        pip = [home / "bin" / "pip", "install", "--quiet", "-r", HERE / "requirements.txt"]
        subprocess.run(pip, check=True)
        stamp.write_text(wanted)
    return home / "bin"


def clients(bin):
    """Name → (upload, download): functions from file, bucket and key to a command line."""

    def script(name):
        def command(direction):
            def line(file, bucket, key):
                return [bin / "python", HERE / "clients.py", name, direction, file, bucket, key]

            return line

        return command("up"), command("down")

    endpoint = ["--endpoint-url", os.environ["AWS_ENDPOINT_URL"]]
    rclone = [bin / "rclone", "--config", os.devnull, "copyto", "--s3-no-check-bucket"]
    remote = ":s3,provider=Other,env_auth=true:"
    return {
        "brigade": (
            lambda f, b, k: [BRIGADE, "cp", "--quiet", f, f"s3://{b}/{k}"],
            lambda f, b, k: [BRIGADE, "cp", "--quiet", f"s3://{b}/{k}", f],
        ),
        "s5cmd": (
            lambda f, b, k: [bin / "s5cmd", *endpoint, "cp", f, f"s3://{b}/{k}"],
            lambda f, b, k: [bin / "s5cmd", *endpoint, "cp", f"s3://{b}/{k}", f],
        ),
        "rclone": (
            lambda f, b, k: [*rclone, f, f"{remote}{b}/{k}"],
            lambda f, b, k: [*rclone, f"{remote}{b}/{k}", f],
        ),
        "aws s3": (
            lambda f, b, k: [bin / "aws", "s3", "cp", "--quiet", f, f"s3://{b}/{k}"],
            lambda f, b, k: [bin / "aws", "s3", "cp", "--quiet", f"s3://{b}/{k}", f],
        ),
        "AWS CRT": script("awscrt"),
        "obstore": script("obstore"),
        "boto3": script("boto3"),
    }


def timed(command):
    """Wall seconds, the process's own CPU seconds and its peak memory in MiB."""
    begun = time.monotonic()
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - begun
    if status != 0:
        raise RuntimeError(f"{command} ended with {os.waitstatus_to_exitcode(status)}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def serve(folder):
    """Starts the store; gives the process once it listens."""
    store = subprocess.Popen(
        [BRIGADE, "serve", "--synthetic", "--port", "0", "--json", "--bucket", "bench",
         "--access-key", "bench", "--region", "us-east-1"],
        env={**os.environ, "BRIGADE_SECRET_KEY": "bench-secret"},
        stdout=subprocess.PIPE, text=True, cwd=folder,
    )
    ready = json.loads(store.stdout.readline())
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ.update(
        AWS_ACCESS_KEY_ID="bench", AWS_SECRET_ACCESS_KEY="bench-secret", AWS_REGION="us-east-1",
        AWS_DEFAULT_REGION="us-east-1", AWS_ENDPOINT_URL=ready["endpoint_url"],
        AWS_EC2_METADATA_DISABLED="true", AWS_CONFIG_FILE=os.devnull,
    )
    return store


def measure(size_text, size_bytes, rounds):
    bin = peers_installed()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        store = serve(folder)
        try:
            source, target = os.path.join(folder, "source"), os.path.join(folder, "target")
            key = f"bench/{size_text}"
            runs = {}
            fetch = [BRIGADE, "cp", "--quiet", f"s3://bench/{key}", source]
            timed(fetch)
            for round in range(rounds + 1):
                for name, (up, down) in clients(bin).items():
                    for direction, command in (
                        ("upload", up(source, "bench", "uploaded")),
                        ("download", down(target, "bench", key)),
                    ):
                        # A new file each time: its pages have to be found by everyone alike.
                        pathlib.Path(target).unlink(missing_ok=True)
                        try:
                            result = timed(command)
                        except RuntimeError as failure:
                            print(failure, file=sys.stderr)
                            continue
                        # The first round warms up.
                        if round:
                            runs.setdefault((name, direction), []).append(result)
                print(f"round {round} of {rounds} done", file=sys.stderr)
        finally:
            store.terminate()
            store.wait()
    rows = []
    for (name, direction), results in runs.items():
        wall, cpu, memory = (statistics.median(column) for column in zip(*results))
        rows.append({
            "client": name, "direction": direction, "runs": len(results),
            "gib_per_s": size_bytes / GIB / wall, "cpu_s_per_gib": cpu / (size_bytes / GIB),
            "peak_mib": memory, "wall_s": wall,
        })
    return rows


def table(rows):
    by = {(row["client"], row["direction"]): row for row in rows}
    names = list(dict.fromkeys(row["client"] for row in rows))
    lines = [
        "| client | up GiB/s | up CPU-s/GiB | down GiB/s | down CPU-s/GiB | peak memory MiB |",
        "|---|---|---|---|---|---|",
    ]
    for name in names:
        up, down = by.get((name, "upload")), by.get((name, "download"))

        def cell(row, field):
            return f"{row[field]:.2f}" if row else "failed"

        memory = max(row["peak_mib"] for row in (up, down) if row)
        lines.append(
            f"| {name} | {cell(up, 'gib_per_s')} | {cell(up, 'cpu_s_per_gib')} "
            f"| {cell(down, 'gib_per_s')} | {cell(down, 'cpu_s_per_gib')} | {memory:.0f} |"
        )
    return "\n".join(lines) + "\n"


def chart(data):
    """Drawn by the peers' own Python, which has the library for it."""
    code = (
        "import json, sys\n"
        "import matplotlib\n"
        "matplotlib.use('svg')\n"
        "matplotlib.rcParams['svg.hashsalt'] = 'brigade'\n"
        "import matplotlib.pyplot as plt\n"
        "data = json.load(open(sys.argv[1]))\n"
        "rows = data['rows']\n"
        "figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True)\n"
        "for axis, direction in zip(axes, ('upload', 'download')):\n"
        "    chosen = [row for row in rows if row['direction'] == direction][::-1]\n"
        "    names = [row['client'] for row in chosen]\n"
        "    values = [row['gib_per_s'] for row in chosen]\n"
        "    colors = ['#c2410c' if name == 'brigade' else '#94a3b8' for name in names]\n"
        "    bars = axis.barh(names, values, color=colors)\n"
        "    axis.bar_label(bars, fmt='%.2f', padding=3)\n"
        "    axis.set_xlim(0, max(values) * 1.18)\n"
        "    axis.set_title(f'{direction}, GiB/s')\n"
        "    axis.spines[['top', 'right']].set_visible(False)\n"
        "figure.tight_layout()\n"
        "figure.savefig(sys.argv[2], metadata={'Date': None})\n"
    )
    python = TARGET / "peers" / "bin" / "python"
    subprocess.run([python, "-c", code, OUT / "peers.json", OUT / "peers.svg"], check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", default="1GiB", choices=["256MiB", "1GiB", "2GiB", "4GiB"])
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    size_bytes = int(asked.size[:-3]) * (GIB if asked.size.endswith("GiB") else 1 << 20)
    rows = measure(asked.size, size_bytes, asked.rounds)
    OUT.mkdir(parents=True, exist_ok=True)
    data = {"size": asked.size, "rounds": asked.rounds, "cores": os.cpu_count(), "rows": rows}
    (OUT / "peers.json").write_text(json.dumps(data, indent=1) + "\n")
    (OUT / "peers.md").write_text(table(rows))
    print(table(rows))
    chart(data)


if __name__ == "__main__":
    main()
