"""The clients: what each is told for each job, at its own defaults and at the settings its documentation advises."""

import os
import pathlib
from dataclasses import dataclass, field

HERE = pathlib.Path(__file__).resolve().parent


@dataclass
class Command:
    """A program's words and its whole environment."""

    words: list
    env: dict


@dataclass
class Site:
    """A store, how to reach it, and the programs that do."""

    endpoint: str
    ca: str | None
    key: str
    secret: str
    bucket: str
    bin: pathlib.Path
    brigade: pathlib.Path
    floor: pathlib.Path
    home: pathlib.Path

    def url(self, key):
        return f"s3://{self.bucket}/{key}"

    def env(self, **more):
        """Nothing of the caller's but the path to programs: no configuration of theirs, no proxies."""
        self.home.mkdir(exist_ok=True)
        env = {
            "PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.home), "LC_ALL": "C.UTF-8",
            "AWS_ACCESS_KEY_ID": self.key, "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint, "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull, "BUCKET": self.bucket,
        }
        if self.ca:
            env["AWS_CA_BUNDLE"] = str(self.ca)
        return {**env, **more}


@dataclass
class Client:
    """One client at one setting. A job it can't do is `None`."""

    site: Site
    name: str
    setting: str = "defaults"
    work: str = ""  # what it computes over the bytes, up and down
    options: list = field(default_factory=list)
    many_options: list = field(default_factory=list)

    def command(self, *words, **env):
        return Command([str(word) for word in words], self.site.env(**env))

    def start(self):
        return None

    def up(self, file, key):
        return None

    def down(self, key, file):
        return None

    def cat(self, key):
        return None

    def up_many(self, folder, prefix):
        return None

    def down_many(self, prefix, folder, count):
        return None


class Floor(Client):
    """Raw sockets: nobody moves bytes with less."""

    def run(self, job, key, *rest):
        ca = ["--ca", self.site.ca] if self.site.ca else []
        url = f"{self.site.endpoint}/{self.site.bucket}/{key}"
        return self.command(self.site.floor, job, url, *rest, *self.options, *ca)

    def start(self):
        return self.command(self.site.floor, "--help")

    def up(self, file, key):
        return self.run("up", key, file)

    def down(self, key, file):
        return self.run("down", key, file, "--to", "existing" if os.path.exists(file) else "new")

    def cat(self, key):
        return self.run("down", key, "-", "--to", "nothing")

    def up_many(self, folder, prefix):
        return self.run("up-many", prefix, folder)

    def down_many(self, prefix, folder, count):
        return self.run("down-many", prefix, folder)


class Brigade(Client):
    def start(self):
        return self.command(self.site.brigade, "--version")

    def cp(self, *words):
        return self.command(self.site.brigade, "cp", "--quiet", *self.options, *words)

    def up(self, file, key):
        return self.cp(file, self.site.url(key))

    def down(self, key, file):
        return self.cp(self.site.url(key), file)

    def cat(self, key):
        return self.cp(self.site.url(key), "-")

    def up_many(self, folder, prefix):
        return self.cp("-r", folder, self.site.url(prefix))

    def down_many(self, prefix, folder, count):
        return self.cp("-r", self.site.url(prefix), folder)


class S5cmd(Client):
    def run(self, *words):
        return self.command(
            self.site.bin / "s5cmd", "--log", "error", *self.many_options,
            "--endpoint-url", self.site.endpoint, *words,
        )

    def start(self):
        return self.command(self.site.bin / "s5cmd", "version")

    def up(self, file, key):
        return self.run("cp", *self.options, file, self.site.url(key))

    def down(self, key, file):
        return self.run("cp", *self.options, self.site.url(key), file)

    def cat(self, key):
        return self.run("cat", *self.options, self.site.url(key))

    def up_many(self, folder, prefix):
        return self.run("cp", f"{folder}/", self.site.url(prefix))

    def down_many(self, prefix, folder, count):
        return self.run("cp", self.site.url(prefix) + "*", f"{folder}/")


class Rclone(Client):
    def run(self, *words):
        ca = ["--ca-cert", self.site.ca] if self.site.ca else []
        return self.command(
            self.site.bin / "rclone", "--config", os.devnull, "--s3-no-check-bucket", *ca,
            *self.options, *words,
        )

    def remote(self, key):
        return f":s3,provider=Other,env_auth=true:{self.site.bucket}/{key}"

    def start(self):
        return self.command(self.site.bin / "rclone", "version")

    def up(self, file, key):
        return self.run("copyto", file, self.remote(key))

    def down(self, key, file):
        return self.run("copyto", "--ignore-times", self.remote(key), file)

    def cat(self, key):
        return self.run("cat", self.remote(key))

    def up_many(self, folder, prefix):
        return self.run("copy", *self.many_options, folder, self.remote(prefix))

    def down_many(self, prefix, folder, count):
        return self.run("copy", *self.many_options, self.remote(prefix), folder)


class Aws(Client):
    """Its settings are a file's; `options` are the lines."""

    def run(self, *words):
        env = {}
        if self.options:
            config = self.site.home / "aws-config"
            env = {"AWS_CONFIG_FILE": str(config)}
            self.site.home.mkdir(exist_ok=True)
            config.write_text("[default]\ns3 =\n" + "".join(f"  {line}\n" for line in self.options))
        return self.command(self.site.bin / "aws", *words, **env)

    def start(self):
        return self.command(self.site.bin / "aws", "--version")

    def up(self, file, key):
        return self.run("s3", "cp", "--only-show-errors", file, self.site.url(key))

    def down(self, key, file):
        return self.run("s3", "cp", "--only-show-errors", self.site.url(key), file)

    def cat(self, key):
        return self.run("s3", "cp", "--only-show-errors", self.site.url(key), "-")

    def up_many(self, folder, prefix):
        return self.run("s3", "cp", "--only-show-errors", "--recursive", folder, self.site.url(prefix))

    def down_many(self, prefix, folder, count):
        return self.run("s3", "cp", "--only-show-errors", "--recursive", self.site.url(prefix), folder)


@dataclass
class Python(Client):
    """A library, run by clients.py."""

    script: str = ""

    def run(self, *words):
        return self.command(
            self.site.bin / "python", "-B", HERE / "clients.py", self.script, *words, *self.options
        )

    def start(self):
        return self.run("start")

    def up(self, file, key):
        return self.run("up", file, key)

    def down(self, key, file):
        return self.run("down", key, file)

    def cat(self, key):
        return self.run("cat", key)

    def up_many(self, folder, prefix):
        return self.run("up-many", folder, prefix)

    def down_many(self, prefix, folder, count):
        return self.run("down-many", prefix, folder, count)


def all_clients(site):
    """The floor, brigade, and every peer at its defaults and at its best."""
    mib = 1 << 20
    crc_both = "up CRC32 of every part and the object, down CRC32 of the object, compared with the store's"
    md5_sha = "up MD5 and SHA-256 of every part; down nothing"
    crc_sha = "up CRC32 of every part, over http SHA-256 too; down nothing"
    return [
        Floor(site, "floor", "raw sockets, 4 connections", "nothing"),
        Brigade(site, "brigade", "defaults", crc_both),
        S5cmd(site, "s5cmd", "defaults", md5_sha),
        S5cmd(
            site, "s5cmd", "16 parts of 16 MiB, 64 workers", md5_sha,
            options=["--concurrency", 16, "--part-size", 16], many_options=["--numworkers", 64],
        ),
        Rclone(
            site, "rclone", "defaults",
            "up MD5 of the file, MD5 and SHA-256 of every part, MD5 of small files; down nothing",
        ),
        Rclone(
            site, "rclone", "16 streams, 64 MiB up, 16 MiB down, 64 files at once",
            "up MD5 and SHA-256 of every part, MD5 of small files; down nothing",
            options=[
                "--s3-upload-concurrency", 16, "--s3-chunk-size", "64M", "--s3-disable-checksum",
                "--s3-use-unsigned-payload", "true", "--multi-thread-streams", 16,
                "--multi-thread-chunk-size", "16M", "--multi-thread-cutoff", "32M",
            ],
            many_options=[
                "--transfers", 64, "--checkers", 64, "--no-traverse", "--no-check-dest", "--s3-no-head",
            ],
        ),
        Aws(site, "aws s3", "defaults", crc_sha),
        Aws(
            site, "aws s3", "20 requests, 16 MiB", crc_sha,
            options=["max_concurrent_requests = 20", "multipart_chunksize = 16MB"],
        ),
        Python(site, "boto3", "defaults", crc_sha, script="boto3"),
        # Its use of AWS CRT always encrypts, with authorities of the system's: there is no way to a store like this.
        Python(
            site, "boto3", "20 threads, 16 MiB", crc_sha, script="boto3",
            options=["max_concurrency=20", f"multipart_chunksize={16 * mib}", f"io_chunksize={mib}"],
        ),
        Python(site, "AWS CRT", "defaults", "nothing", script="awscrt"),
        Python(
            site, "AWS CRT", "100 Gb/s, 16 MiB", "nothing", script="awscrt",
            options=["throughput_target_gbps=100.0", f"part_size={16 * mib}"],
        ),
        Python(
            site, "AWS CRT", "100 Gb/s, 16 MiB, CRC32",
            "up CRC32 of every part; down the store's is asked for, and compared where that is possible",
            script="awscrt",
            options=["throughput_target_gbps=100.0", f"part_size={16 * mib}", "checksum=CRC32"],
        ),
        Python(site, "obstore", "defaults", "up SHA-256 of every part; down nothing", script="obstore"),
        Python(
            site, "obstore", "16 of 16 MiB, unsigned, 64 files at once", "nothing",
            script="obstore",
            options=[
                f"chunk_size={16 * mib}", "max_concurrency=16", "threads=16", "many=64",
                "unsigned_payload=true",
            ],
        ),
    ]
