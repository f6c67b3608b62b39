"""boto3 as the tests' other client: one request as JSON a line in, one answer as JSON a line out.

A request names an operation below and its arguments. The answer is {"ok": ...}, or {"error": ...,
"code": ...} when boto3 raised. Bytes travel in files, never in JSON.
"""

import base64
import json
import sys

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

MIB = 1 << 20
SUMS = ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256")


class Client:
    def __init__(self, endpoint, access_key, secret_key, ca_bundle, checksums):
        self.s3 = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            verify=ca_bundle,
            config=Config(
                s3={"addressing_style": "path"},
                request_checksum_calculation=checksums,
                response_checksum_validation=checksums,
            ),
        )

    def put(self, bucket, key, path, extra):
        """A single PutObject."""
        with open(path, "rb") as body:
            return plain(self.s3.put_object(Bucket=bucket, Key=key, Body=body, **of_json(extra)))

    def upload(self, bucket, key, path, part_size, extra):
        """The transfer manager's upload, as most programs use it."""
        config = TransferConfig(multipart_threshold=part_size, multipart_chunksize=part_size)
        self.s3.upload_file(path, bucket, key, ExtraArgs=of_json(extra), Config=config)

    def multipart(self, bucket, key, path, sizes, algorithm, kind, extra):
        """A multipart upload by hand, in parts of exactly these sizes."""
        where = {"Bucket": bucket, "Key": key}
        extra = of_json(extra)
        create = {"ChecksumAlgorithm": algorithm, "ChecksumType": kind} if algorithm else {}
        each = {"ChecksumAlgorithm": algorithm} if algorithm else {}
        keys = {name: extra[name] for name in extra if name.startswith("SSECustomer")}
        upload = self.s3.create_multipart_upload(**where, **create, **extra)["UploadId"]
        parts = []
        with open(path, "rb") as file:
            for number, size in enumerate(sizes, 1):
                sent = self.s3.upload_part(
                    **where, UploadId=upload, PartNumber=number, Body=file.read(size), **each, **keys
                )
                sums = {f"Checksum{sum}": sent.get(f"Checksum{sum}") for sum in SUMS}
                part = {"PartNumber": number, "ETag": sent["ETag"], **sums}
                parts.append({name: value for name, value in part.items() if value})
            assert not file.read(1), "the sizes are those of the whole file"
        done = self.s3.complete_multipart_upload(
            **where,
            UploadId=upload,
            MultipartUpload={"Parts": parts},
            **({"ChecksumType": kind} if algorithm else {}),
            **keys,
        )
        return plain(done)

    def get(self, bucket, key, path, extra):
        """A GetObject of all of it; tells whether boto3 validated the body against a checksum."""
        reply = self.s3.get_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED", **of_json(extra))
        body = reply["Body"]
        with open(path, "wb") as file:
            while chunk := body.read(MIB):
                file.write(chunk)
        answer = plain(reply)
        answer["validated"] = type(body).__name__ == "StreamingChecksumBody"
        return answer

    def download(self, bucket, key, path, extra):
        """The transfer manager's download, in ranges."""
        config = TransferConfig(multipart_threshold=8 * MIB, multipart_chunksize=8 * MIB)
        self.s3.download_file(bucket, key, path, ExtraArgs=of_json(extra), Config=config)

    def head(self, bucket, key, extra):
        return plain(self.s3.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED", **of_json(extra)))

    def unfinished(self, bucket):
        """Keys of the multipart uploads that were neither completed nor aborted."""
        pages = self.s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket)
        return [upload["Key"] for page in pages for upload in page.get("Uploads", [])]


def of_json(extra):
    """Customer keys come in base64, and boto3 wants them raw."""
    key = extra.get("SSECustomerKey")
    return {**extra, "SSECustomerKey": base64.b64decode(key)} if key else extra


def plain(reply):
    """What of a reply JSON can say."""
    told = (bool, int, str, dict)
    dropped = ("ResponseMetadata", "Body")
    return {k: v for k, v in reply.items() if isinstance(v, told) and k not in dropped}


def main():
    client = Client(**json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"ok": getattr(client, request.pop("operation"))(**request)}
        except Exception as error:  # whatever it is, the test is told
            code = error.response["Error"]["Code"] if isinstance(error, ClientError) else None
            answer = {"error": f"{type(error).__name__}: {error}", "code": code}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
