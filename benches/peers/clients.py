"""One job by one Python client, in a process of its own: clients.py CLIENT JOB [ARGUMENT...] [NAME=VALUE...]

Jobs are `up FILE KEY`, `down KEY FILE`, `cat KEY`, `up-many FOLDER PREFIX`, `down-many PREFIX FOLDER COUNT`
and `start`, which only gets ready. Endpoint, credentials and bucket come from the environment, as for every
other peer; NAME=VALUE are the settings that differ from the client's own defaults.
"""

import os
import pathlib
import sys
from concurrent.futures import ThreadPoolExecutor

BUCKET = os.environ.get("BUCKET", "")
MIB = 1 << 20


class Boto3:
    """`upload_file` and its siblings; for many files one transfer manager, which is what is behind them."""

    def __init__(self, settings):
        import boto3
        from boto3.s3.transfer import TransferConfig

        config = {name: int(value) if value.isdigit() else value for name, value in settings.items()}
        self.client = boto3.client("s3", region_name=os.environ["AWS_REGION"])
        self.config = TransferConfig(**config)

    def up(self, file, key):
        self.client.upload_file(file, BUCKET, key, Config=self.config)

    def down(self, key, file):
        self.client.download_file(BUCKET, key, file, Config=self.config)

    def cat(self, key):
        self.client.download_fileobj(BUCKET, key, sys.stdout.buffer, Config=self.config)

    def manager(self):
        from boto3.s3.transfer import create_transfer_manager

        return create_transfer_manager(self.client, self.config)

    def up_many(self, folder, prefix):
        with self.manager() as manager:
            jobs = [
                manager.upload(str(file), BUCKET, prefix + file.name)
                for file in pathlib.Path(folder).iterdir()
            ]
            for job in jobs:
                job.result()

    def down_many(self, prefix, folder, _count):
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        with self.manager() as manager:
            jobs = [
                manager.download(BUCKET, found["Key"], os.path.join(folder, found["Key"][len(prefix):]))
                for page in pages
                for found in page["Contents"]
            ]
            for job in jobs:
                job.result()


class AwsCrt:
    """The library under `aws` version 2, by its own Python bindings. It has no listing: names are counted."""

    def __init__(self, settings):
        from urllib.parse import urlparse

        from awscrt import io, s3
        from awscrt.auth import AwsCredentialsProvider

        self.s3 = s3
        self.checksum = settings.pop("checksum", "")
        config = {name: float(value) if "." in value else int(value) for name, value in settings.items()}
        url = urlparse(os.environ["AWS_ENDPOINT_URL"])
        self.host = url.netloc
        if url.scheme == "https":
            options = io.TlsContextOptions()
            options.override_default_trust_store_from_path(None, os.environ["AWS_CA_BUNDLE"])
            tls = io.ClientTlsContext(options).new_connection_options()
            config.update(tls_mode=s3.S3RequestTlsMode.ENABLED, tls_connection_options=tls)
        else:
            config.update(tls_mode=s3.S3RequestTlsMode.DISABLED)
        group = io.EventLoopGroup()
        self.client = s3.S3Client(
            bootstrap=io.ClientBootstrap(group, io.DefaultHostResolver(group)),
            region=os.environ["AWS_REGION"],
            credential_provider=AwsCredentialsProvider.new_static(
                os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
            ),
            **config,
        )

    def put(self, file, key):
        headers = [("content-length", str(os.stat(file).st_size)), ("content-type", "application/octet-stream")]
        how = {"send_filepath": str(file)}
        if self.checksum:
            where = self.s3.S3ChecksumLocation.TRAILER
            algorithm = self.s3.S3ChecksumAlgorithm[self.checksum]
            how["checksum_config"] = self.s3.S3ChecksumConfig(algorithm=algorithm, location=where)
        return self.request("PUT", self.s3.S3RequestType.PUT_OBJECT, key, headers, how)

    def get(self, key, how):
        if self.checksum:
            how["checksum_config"] = self.s3.S3ChecksumConfig(validate_response=True)
        return self.request("GET", self.s3.S3RequestType.GET_OBJECT, key, [], how)

    def request(self, method, kind, key, headers, how):
        from awscrt.http import HttpHeaders, HttpRequest

        request = HttpRequest(method, f"/{BUCKET}/{key}", HttpHeaders([("host", self.host), *headers]))
        return self.client.make_request(type=kind, request=request, **how).finished_future

    def up(self, file, key):
        self.put(file, key).result()

    def down(self, key, file):
        self.get(key, {"recv_filepath": file}).result()

    def cat(self, key):
        write = sys.stdout.buffer.write
        self.get(key, {"on_body": lambda chunk, offset, **_: write(chunk)}).result()

    def up_many(self, folder, prefix):
        jobs = [self.put(file, prefix + file.name) for file in pathlib.Path(folder).iterdir()]
        for job in jobs:
            job.result()

    def down_many(self, prefix, folder, count):
        names = [f"{number:06}" for number in range(int(count))]
        jobs = [self.get(prefix + name, {"recv_filepath": os.path.join(folder, name)}) for name in names]
        for job in jobs:
            job.result()


class Obstore:
    """Rust's `object_store` by its Python bindings; a download's ranges are asked for by threads, if any."""

    def __init__(self, settings):
        import obstore
        from obstore.store import S3Store

        self.obstore = obstore
        self.threads = int(settings.pop("threads", 0))
        self.many = int(settings.pop("many", 16))
        unsigned = settings.pop("unsigned_payload", "")
        self.put = {name: int(value) for name, value in settings.items()}
        options = {"allow_http": True, "timeout": "600s"}
        if "AWS_CA_BUNDLE" in os.environ:
            options["root_certificate"] = pathlib.Path(os.environ["AWS_CA_BUNDLE"]).read_bytes()
        more = {"unsigned_payload": True} if unsigned else {}
        self.store = S3Store(
            BUCKET,
            endpoint=os.environ["AWS_ENDPOINT_URL"],
            access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
            secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
            region=os.environ["AWS_REGION"],
            virtual_hosted_style_request=False,
            client_options=options,
            **more,
        )

    def up(self, file, key):
        self.obstore.put(self.store, key, pathlib.Path(file), **self.put)

    def down(self, key, file):
        if not self.threads:
            with open(file, "wb") as target:
                self.stream(key, target)
            return
        size = self.obstore.head(self.store, key)["size"]
        step = self.put["chunk_size"]
        target = os.open(file, os.O_WRONLY | os.O_CREAT)
        os.truncate(target, size)

        def fetch(start):
            length = min(step, size - start)
            os.pwrite(target, self.obstore.get_range(self.store, key, start=start, length=length), start)

        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(fetch, range(0, size, step)))

    def cat(self, key):
        self.stream(key, sys.stdout.buffer)

    def stream(self, key, target):
        for chunk in self.obstore.get(self.store, key).stream():
            target.write(chunk)

    def up_many(self, folder, prefix):
        with ThreadPoolExecutor(self.many) as pool:
            files = pathlib.Path(folder).iterdir()
            list(pool.map(lambda file: self.obstore.put(self.store, prefix + file.name, file), files))

    def down_many(self, prefix, folder, _count):
        def fetch(path):
            name = path.rsplit("/", 1)[1]
            with open(os.path.join(folder, name), "wb") as target:
                target.write(self.obstore.get(self.store, path).bytes())

        found = self.obstore.list(self.store, prefix.rstrip("/"), chunk_size=1000)
        with ThreadPoolExecutor(self.many) as pool:
            list(pool.map(fetch, (entry["path"] for page in found for entry in page)))


def main():
    name, job, *rest = sys.argv[1:]
    settings = dict(word.split("=", 1) for word in rest if "=" in word)
    client = {"boto3": Boto3, "awscrt": AwsCrt, "obstore": Obstore}[name](settings)
    if job != "start":
        getattr(client, job.replace("-", "_"))(*(word for word in rest if "=" not in word))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
