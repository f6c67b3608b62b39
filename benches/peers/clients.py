"""One transfer by one Python client, in a process of its own: clients.py CLIENT up|down FILE BUCKET KEY.

Endpoint and credentials come from the environment, as for every other peer. Each client runs as it comes,
with its own defaults, except that it is told to use path-style addresses where it must be told.
"""

import os
import sys
from concurrent.futures import Future


def boto3(direction, file, bucket, key):
    import boto3

    s3 = boto3.client("s3", region_name=os.environ["AWS_REGION"])
    if direction == "up":
        s3.upload_file(file, bucket, key)
    else:
        s3.download_file(bucket, key, file)


def awscrt(direction, file, bucket, key):
    from urllib.parse import urlparse

    from awscrt.auth import AwsCredentialsProvider
    from awscrt.http import HttpHeaders, HttpRequest
    from awscrt.io import ClientBootstrap, DefaultHostResolver, EventLoopGroup
    from awscrt.s3 import S3Client, S3RequestTlsMode, S3RequestType

    url = urlparse(os.environ["AWS_ENDPOINT_URL"])
    group = EventLoopGroup()
    client = S3Client(
        bootstrap=ClientBootstrap(group, DefaultHostResolver(group)),
        region=os.environ["AWS_REGION"],
        credential_provider=AwsCredentialsProvider.new_static(
            os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
        ),
        tls_mode=S3RequestTlsMode.DISABLED,
        throughput_target_gbps=100,
    )
    headers = HttpHeaders([("host", url.netloc)])
    path = f"/{bucket}/{key}"
    if direction == "up":
        headers.add("content-length", str(os.stat(file).st_size))
        headers.add("content-type", "application/octet-stream")
        kind, how = S3RequestType.PUT_OBJECT, {"send_filepath": file}
        request = HttpRequest("PUT", path, headers)
    else:
        kind, how = S3RequestType.GET_OBJECT, {"recv_filepath": file}
        request = HttpRequest("GET", path, headers)
    done: Future = client.make_request(type=kind, request=request, **how).finished_future
    done.result()


def obstore(direction, file, bucket, key):
    import obstore
    from obstore.store import S3Store

    store = S3Store(
        bucket,
        endpoint=os.environ["AWS_ENDPOINT_URL"],
        access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
        secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        region=os.environ["AWS_REGION"],
        virtual_hosted_style_request=False,
        client_options={"allow_http": True, "timeout": "300s"},
    )
    if direction == "up":
        with open(file, "rb") as source:
            obstore.put(store, key, source, max_concurrency=12)
    else:
        with open(file, "wb") as target:
            for chunk in obstore.get(store, key).stream(min_chunk_size=4 << 20):
                target.write(chunk)


if __name__ == "__main__":
    client, *arguments = sys.argv[1:]
    {"boto3": boto3, "awscrt": awscrt, "obstore": obstore}[client](*arguments)
