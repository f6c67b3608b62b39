"""What is measured: each workload makes its files and gives its cases, one by one."""

import dataclasses
import math
import os
import pathlib
import random
import shutil
import socket
import subprocess
import time

import checks
from machine import available_bytes
from measure import Case, Line

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def upload(here):
    """One object up, from a file in memory, over HTTP"""
    made = one_up(here, "upload", size(here, 2 * GIB))
    floor = made.lines[0]

    def summed():
        sent = floor.command()
        return dataclasses.replace(sent, words=[*sent.words, "--sum"])

    # What it costs to know the bytes' checksum before they leave, and nothing else.
    made.lines.insert(1, Line(floor.client, f"{floor.setting}, parts summed first", summed, "CRC32 of every part"))
    yield made


def download(here):
    """One object down, into a new file in memory, over HTTP"""
    yield one_down(here, "download", size(here, 2 * GIB))


def existing(here):
    """The same over a file that is there already"""
    yield one_down(here, "existing", size(here, 2 * GIB), existing=True)


def stdout(here):
    """One object down, to standard output"""
    bytes = size(here, 2 * GIB)
    made = case(
        here, "stdout", f"{text(bytes)} to standard output",
        "Standard output is a pipe; who reads it moves everything to `/dev/null` with `splice`, unseen. "
        "The floor receives into a buffer and drops it, or writes it as it has to be written.",
        lambda client: lambda: client.cat(f"bench/{text(bytes)}"),
        bytes=bytes, stdout="pipe", check=checks.piped(bytes),
    )
    floor = made.lines[0]
    floor.unchecked = True

    def in_order():
        received = floor.command()
        words = [word if word != "nothing" else "stdout" for word in received.words]
        return dataclasses.replace(received, words=[*words, "--part-size", "4MiB"])

    # What it costs to hand it over, and nothing else.
    made.lines.insert(1, Line(floor.client, f"{floor.setting}, written in order", in_order, floor.work))
    yield made


def https(here):
    """One object up and one down over HTTPS"""
    yield one_up(here, "https-upload", size(here, 2 * GIB), tls=True)
    yield one_down(here, "https-download", size(here, 2 * GIB), tls=True)


def small(here):
    """Ten thousand objects of 16 KiB, up and down, in memory"""
    yield from many(here, "small", 1000 if here.quick else 10_000, 16 * KIB, here.memory)


def small_disk(here):
    """The same from and to a real disk, synced"""
    yield from many(here, "small-disk", 1000 if here.quick else 10_000, 16 * KIB, here.disk, synced=True)


def medium(here):
    """A thousand objects of 1 MiB, up and down, in memory"""
    yield from many(here, "medium", 100 if here.quick else 1000, MIB, here.memory)


def mixed(here):
    """Objects of 1 KiB to 2 GiB, most of them small, up and down, in memory"""
    source, target = here.memory / "many-source", here.memory / "many-target"
    sizes = log_normal(100 if here.quick else 1500, 64 * MIB if here.quick else 2 * GIB)
    source.mkdir()
    block = os.urandom(MIB)
    for number, size in enumerate(sizes):
        with open(source / f"{number:06}", "wb") as file:
            for start in range(0, size, MIB):
                file.write(block[: size - start])
    uploads = checks.Fresh("uploaded/mixed-upload-", "/")
    about = (
        f"Their sizes are log-normal around 256 KiB, the largest {text(max(sizes))}; {sum(sizes) / GIB:.1f} GiB together. "
        "The floor's client moves nothing of the kind."
    )
    more = {"bytes": sum(sizes), "objects": len(sizes), "base": ""}
    up = case(
        here, "mixed-upload", f"{len(sizes):,} objects of many sizes up", about,
        lambda client: lambda: client.up_many(source, uploads.next()),
        check=checks.uploaded_many(here.store(), uploads, len(sizes)), **more,
    )
    up.lines = [line for line in up.lines if line.client != "floor"]
    yield up
    shutil.rmtree(source)

    def emptied():
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()

    # Of what was uploaded the store remembers the sizes.
    prefix = uploads.last()
    down = case(
        here, "mixed-download", f"{len(sizes):,} objects of many sizes down", about,
        lambda client: lambda: client.down_many(prefix, target, len(sizes)), prepare=emptied,
        check=checks.folder_of(here.store(), prefix, target, sizes), **more,
    )
    down.lines = [line for line in down.lines if line.client != "floor"]
    yield down
    shutil.rmtree(target, ignore_errors=True)


def log_normal(count, most):
    """Sizes that are the same every time, the largest of them `most`."""
    draw = random.Random(1)
    sizes = [min(max(int(draw.lognormvariate(math.log(256 * KIB), 2.2)), KIB), most) for _ in range(count)]
    sizes[count // 2] = most
    return sizes


def disk(here):
    """One large object down to a real disk, synced, and up from it, nothing cached"""
    bytes = size(here, 8 * GIB)
    own, target = here.disk / "own", here.disk / "target"

    def settle():
        own.unlink(missing_ok=True)
        target.unlink(missing_ok=True)
        os.sync()

    down = one_down(here, "disk-download", bytes, folder=here.disk, synced=True)
    down.lines.insert(0, disk_itself(here, "direct write", "disk-write", own, "--size", f"{bytes >> 20}MiB"))
    down.base, down.prepare = "disk", settle
    down.about += " The disk itself: written directly by one to four threads, preallocated, synced; the best counts."
    yield down
    settle()

    up = one_up(here, "disk-upload", bytes, folder=here.disk)
    source = filled(here, here.disk, bytes)
    up.lines[:0] = [
        disk_itself(here, "direct read", "disk-read", source),
        disk_itself(here, "buffered read", "disk-read", source, "--buffered"),
    ]
    up.base, up.prepare = "disk", lambda: forget(source)
    up.about += (
        " Before every run the page cache is emptied of it. The disk itself: read directly by one to four threads, "
        "of which the best counts; and in order through the page cache."
    )
    yield up


def startup(here):
    """What it costs to start, and to move a single byte"""
    yield case(
        here, "start", "Starting",
        "`--version` or its like; a library is imported and a client made.",
        lambda client: client.start, per="run",
    )
    yield one_down(here, "byte-download", 1, per="run")
    yield one_up(here, "byte-upload", 1, per="run")


def aws(here):
    """The workloads that AWS's own benchmarks of its clients name"""
    # A client may hold as much again as the file.
    most = max(available_bytes() // 2 // GIB, 1) * GIB
    for whole in (5 * GIB, 30 * GIB):
        bytes = size(here, min(whole, most))
        scaled = "" if bytes == whole else f" Scaled down to {text(bytes)}, which this machine's memory has room for."
        for way, make in (("upload", one_up), ("download", one_down)):
            made = make(here, f"{way}-{text(whole)}-1x-ram", bytes)
            made.title = made.name
            made.about += scaled
            yield made
        here.empty()
    for count, each in ((10_000, 256 * KIB), (1000, 64 * KIB)):
        yield from many(
            here, "aws", count // 10 if here.quick else count, each, here.memory,
            names=[f"{way}-{text(each)}-{count:_}x-ram" for way in ("upload", "download")],
        )


def sizes(here):
    """brigade alone: downloads of growing size"""
    points = [MIB << step for step in (range(0, 11, 2) if here.quick else range(0, 17, 2))]
    yield curve(
        here, "sizes", "Object size", "Downloads to `/dev/null`, by size of the object.", "bytes",
        [(bytes, bytes, ["cp", "--quiet", f"s3://bench/bench/{text(bytes)}", "-"]) for bytes in points],
    )


def concurrency(here):
    """brigade alone: downloads with more and more parts in flight"""
    bytes = size(here, 4 * GIB)
    yield curve(
        here, "concurrency", "Parts in flight",
        f"Downloads of {text(bytes)} to `/dev/null`, in parts of 5 MiB, by `--concurrency`.", "parts in flight",
        [
            (step, bytes, ["cp", "--quiet", f"s3://bench/bench/{text(bytes)}", "-", "--part-size", "5MiB",
                           "--concurrency", step])
            for step in (1 << power for power in range(10))
        ],
    )


def cores(here):
    """brigade alone, on one core, on two ..."""
    bytes = size(here, 2 * GIB)
    source = filled(here, here.memory, bytes)
    counts = sorted({count for count in (1, 2, 4, 8, 16, 32, 64) if count < os.cpu_count()} | {os.cpu_count()})
    for way, words in (
        ("download", ["cp", "--quiet", f"s3://bench/bench/{text(bytes)}", "-"]),
        ("upload", ["cp", "--quiet", source, "s3://bench/cores"]),
    ):
        yield curve(
            here, f"cores-{way}", f"Cores, {way}",
            f"{way.capitalize()}s of {text(bytes)} by a process that may run on so many cores; the store may run "
            "on all of them.", "cores",
            [(count, bytes, words) for count in counts],
            before=lambda count: ["taskset", "--cpu-list", f"0-{count - 1}"],
        )


def stores(here):
    """brigade against the embedded store and, where it is installed, SeaweedFS"""
    bytes = size(here, GIB)
    source = filled(here, here.memory, bytes)
    target = here.memory / "target"
    sites = {"floor": here.store(), "brigade serve --synthetic": synthetic(here)}
    weed = seaweedfs(here)
    if weed:
        sites["SeaweedFS"] = weed
    about = (
        f"brigade alone, {text(bytes)}, against several stores. SeaweedFS keeps what it gets, on disk; the others "
        "keep nothing. No comparison of clients."
    )

    def copy(site, source, target):
        return lambda: here.client("brigade", site).cp(source, target)

    def lines(source_and_target):
        return [Line(name, "", copy(site, *source_and_target(site))) for name, site in sites.items()]

    def fetched(site):
        # What was uploaded just before, where that is kept.
        key = "uploaded/stores.bin" if site is weed else f"bench/{text(bytes)}"
        return site.url(key), target

    more = {"bytes": bytes, "base": ""}
    up = lines(lambda site: (source, site.url("uploaded/stores.bin")))
    yield Case("stores-upload", "Stores, upload", about, here.floor, up, **more)
    down = lines(fetched)
    more["prepare"] = lambda: target.unlink(missing_ok=True)
    yield Case("stores-download", "Stores, download", about, here.floor, down, **more)


ALL = {
    "upload": upload, "download": download, "existing": existing, "stdout": stdout, "https": https,
    "small": small, "small-disk": small_disk, "medium": medium, "mixed": mixed, "disk": disk, "startup": startup, "aws": aws, "sizes": sizes,
    "concurrency": concurrency, "cores": cores, "stores": stores,
}


def case(here, name, title, about, command, tls=False, **more):
    """A case in which every client does the same; `command` gives a function from a client."""
    lines = [
        Line(client.name, client.setting, command(client), client.work) for client in here.clients(here.store(tls))
    ]
    return Case(name, title, about, here.floor, lines, **more)


def one_up(here, name, bytes, folder=None, tls=False, **more):
    folder = folder or here.memory
    source = filled(here, folder, bytes)
    keys = checks.Fresh(f"uploaded/{name}-", ".bin")
    title = f"{text(bytes)} up" + (" from disk" if folder == here.disk else "") + (" over HTTPS" if tls else "")
    return case(
        here, name, title,
        f"From a file {where(here, folder)}." + (trusted() if tls else ""),
        lambda client: lambda: client.up(source, keys.next()), tls=tls, bytes=bytes,
        check=checks.uploaded(here.store(tls), keys, bytes), **more,
    )


def one_down(here, name, bytes, folder=None, existing=False, synced=False, tls=False, **more):
    target, key = (folder or here.memory) / "target", f"bench/{text(bytes)}"

    def prepare():
        # Each finds the same there: nothing, or a file of the same size.
        if not existing:
            target.unlink(missing_ok=True)
        elif not target.exists() or target.stat().st_size != bytes:
            shutil.copyfile(filled(here, here.memory, bytes), target)

    about = f"Into a new file {where(here, folder or here.memory)}."
    if existing:
        about = (
            "Over a file of the same size, in memory. brigade, s5cmd and rclone write another file beside it and "
            "rename that; who writes into it spares the kernel the search for new pages."
        )
    if synced:
        about += " It is synced within the time, whether the client does so itself or not."
    title = f"{text(bytes)} down" + (" to disk" if folder == here.disk else "") + (" over HTTPS" if tls else "")
    if existing:
        title += " over a file that is there"
    return case(
        here, name, title, about + (trusted() if tls else ""),
        lambda client: lambda: client.down(key, target), tls=tls, bytes=bytes, prepare=prepare,
        sync=[target] if synced else [], check=checks.file(here.store(tls), key, target, bytes), **more,
    )


def many(here, name, count, each, folder, synced=False, names=None):
    """Many small objects up, then down."""
    up_name, down_name = names or [f"{name}-upload", f"{name}-download"]
    title = f"{count:,} objects of {text(each)}"
    source, target = folder / "many-source", folder / "many-target"
    key = f"set/{count}x{text(each)}/"
    source.mkdir()
    fill = here.client("floor").down_many(key, source, count)
    subprocess.run(fill.words, check=True, stdout=subprocess.DEVNULL)
    # No client finds what another has left.
    prefixes = checks.Fresh(f"uploaded/{up_name}-", "/")

    def emptied():
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        if synced:
            os.sync()

    def cold():
        if synced:
            for file in source.iterdir():
                forget(file)

    about = f"A folder {where(here, folder)}, under names that the store does not have yet."
    more = {"bytes": count * each, "objects": count, "per": "object"}
    yield case(
        here, up_name, f"{title} up", about + (" Nothing of it is in the page cache." if synced else ""),
        lambda client: lambda: client.up_many(source, prefixes.next()), prepare=cold,
        check=checks.uploaded_many(here.store(), prefixes, count), **more,
    )
    shutil.rmtree(source)
    about = f"Into an empty folder {where(here, folder)}."
    if synced:
        about += " Its file system is synced within the time."
    yield case(
        here, down_name, f"{title} down", about,
        lambda client: lambda: client.down_many(key, target, count),
        prepare=emptied, sync=[folder] if synced else [],
        check=checks.folder(here.store(), key, target, count, each), **more,
    )
    shutil.rmtree(target, ignore_errors=True)


def curve(here, name, title, about, axis, points, before=lambda point: []):
    """brigade's own course; a point is where it is on the axis, bytes and words."""
    client = here.client("brigade")

    def line(x, bytes, words):
        command = client.command(*before(x), here.brigade, *words)
        label = text(x) if axis == "bytes" else str(x)
        return Line("brigade", label, lambda: command, bytes=bytes, x=x)

    lines = [line(*point) for point in points]
    return Case(name, title, about, here.floor, lines, base="", axis=axis, stdout="null")


def synthetic(here):
    """The embedded store, as it comes."""
    site = here.site("")
    ready = here.started(
        [here.brigade, "serve", "--synthetic", "--port", 0, "--json", "--bucket", site.bucket,
         "--access-key", site.key, "--region", "us-east-1"],
        env=site.env(BRIGADE_SECRET_KEY=site.secret),
    )
    return here.site(ready["endpoint_url"])


def seaweedfs(here):
    """SeaweedFS with its data on the disk, where its program is found; else nothing."""
    folders = [here.bin, here.bin.parents[1] / "test-peers" / "venv" / "bin"]
    program = shutil.which("weed", path=os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")]))
    if not program:
        return None
    data = here.disk / "seaweedfs"
    data.mkdir()
    names = ["master", "volume", "filer", "s3"]
    ports = free_ports(2 * len(names))
    flags = [f"-{name}.port={ports.pop()}" for name in names] + [f"-{name}.port.grpc={ports.pop()}" for name in names]
    port = next(flag for flag in flags if flag.startswith("-s3.port=")).split("=")[1]
    site = here.site(f"http://127.0.0.1:{port}")
    keys = f'{{"accessKey": "{site.key}", "secretKey": "{site.secret}"}}'
    config = data / "s3.json"
    config.write_text(f'{{"identities": [{{"name": "bench", "credentials": [{keys}], "actions": ["Admin"]}}]}}')
    server = subprocess.Popen(
        [program, "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={data}", "-filer", "-s3", *flags,
         "-master.volumeSizeLimitMB=1024", "-master.telemetry=false", "-volume.max=40", "-s3.iam=false",
         "-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={config}",
         f"-filer.localSocket={data / 'filer.sock'}", f"-s3.localSocket={data / 's3.sock'}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=data,
    )
    here.running.append(server)
    # A bucket can be made once all its servers have found each other.
    make = ["s3", "mb", site.url("").rstrip("/")]
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        command = [here.bin / "aws", *make]
        if subprocess.run(command, env=site.env(), capture_output=True).returncode == 0:
            return site
        time.sleep(1)
    return None


def free_ports(count):
    """Ports that were free a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    for bound in sockets:
        bound.bind(("127.0.0.1", 0))
    ports = [bound.getsockname()[1] for bound in sockets]
    for bound in sockets:
        bound.close()
    return ports


def filled(here, folder, bytes):
    """A file of the store's own pattern; made on first use, so that it can be asked for in every case."""
    file = folder / f"source-{text(bytes)}"
    if not file.exists():
        command = here.client("floor").down(f"bench/{text(bytes)}", file)
        subprocess.run(command.words, check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["sync", file], check=True)
    return file


def disk_itself(here, how, *words):
    """A line that measures the disk, and measures that by itself."""
    command = here.client("floor").command(here.floor, *words)
    return Line("disk", how, lambda: command, own=True)


def forget(file):
    """Empties the page cache of a file that is on disk already."""
    with open(file, "rb") as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def size(here, bytes):
    """Quick runs move an eighth, in whole mebibytes, which the names of objects are made of."""
    return max(bytes // 8, MIB) if here.quick else bytes


def text(bytes):
    """As the store's keys have it."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if bytes >= unit and bytes % unit == 0:
            return f"{bytes // unit}{name}"
    return f"{bytes}B"


def where(here, folder):
    return "in memory" if pathlib.Path(folder) == here.memory else "on disk"


def trusted():
    return " Every client verifies the certificate, of which it is told the authority."
