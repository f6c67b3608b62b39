"""How many instructions a small object takes, each way: a number that a busy machine does not change.

    cargo build --release --workspace --bins && python3 benches/instructions.py

Runs `brigade-many` against the floor's store under `valgrind --tool=callgrind`, once for few objects and once
for many; the difference, divided by how many more, is one object's share, start-up left out. Writes
docs/performance/instructions.json, and says how it differs from what was there. Needs valgrind.
"""

import json
import os
import pathlib
import re
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
OUT = ROOT / "docs" / "performance" / "instructions.json"
FEW, MANY = 500, 2500


def count(words, env):
    """Instructions of one run."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", *words]
        ran = subprocess.run([str(word) for word in command], env=env, capture_output=True, text=True)
        if ran.returncode != 0:
            raise SystemExit(ran.stderr[-2000:])
        return int(re.search(r"Collected : (\d+)", ran.stderr).group(1))


def main():
    server = subprocess.Popen([TARGET / "brigade-floor", "serve"], stdout=subprocess.PIPE, text=True)
    try:
        endpoint = json.loads(server.stdout.readline())["endpoint_url"]
        env = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
        env |= {
            "AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": endpoint, "AWS_EC2_METADATA_DISABLED": "true",
        }
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            folder, counts = pathlib.Path(folder), {}
            for number in (FEW, MANY):
                files = folder / str(number)
                files.mkdir()
                for index in range(number):
                    (files / f"{index:06}").write_bytes(os.urandom(16 << 10))
                up = [TARGET / "brigade-many", "up", files, "s3://bench/up"]
                back = folder / f"back-{number}"
                back.mkdir()
                down = [TARGET / "brigade-many", "down", f"s3://bench/set/{number}x16KiB", back]
                counts["up", number], counts["down", number] = count(up, env), count(down, env)
    finally:
        server.terminate()
        server.wait()
    found = {
        f"{way}_per_object": round((counts[way, MANY] - counts[way, FEW]) / (MANY - FEW))
        for way in ("up", "down")
    }
    before = json.loads(OUT.read_text()) if OUT.exists() else {}
    for name, value in found.items():
        was = before.get(name)
        change = f", {100 * (value / was - 1):+.1f} % against {was:,}" if was else ""
        print(f"{name}: {value:,}{change}")
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
