"""Whether a client did what it was to do: what it says of itself is not taken for it.

Each function gives a check, which is called after every run, and thoroughly after those of the first round; it
says what is wrong, or nothing.
"""

import base64
import ssl
import urllib.error
import urllib.parse
import urllib.request
import xml.etree.ElementTree as xml
import zlib


class Fresh:
    """Names that nothing has had before."""

    def __init__(self, before, after):
        self.before, self.after, self.number = before, after, 0

    def next(self):
        self.number += 1
        return self.last()

    def last(self):
        return f"{self.before}{self.number}{self.after}"


def piped(bytes):
    """So many bytes came through the pipe."""

    def check(told, _thorough):
        return None if told["stdout_bytes"] == bytes else f"{told['stdout_bytes']} bytes came out instead of {bytes}"

    return check


def uploaded(site, keys, bytes):
    """The object last uploaded has this size."""

    def check(_told, _thorough):
        found = head(site, keys.last()).get("content-length")
        return None if found == str(bytes) else f"the store has {found} bytes instead of {bytes}"

    return check


def uploaded_many(site, prefixes, count):
    """So many objects are under the prefix last used."""

    def check(_told, _thorough):
        found = sum(1 for _ in listed(site, prefixes.last()))
        return None if found == count else f"the store has {found} objects instead of {count}"

    return check


def file(site, key, target, bytes):
    """A file has the object's size and, looked at thoroughly, its checksum."""

    def check(_told, thorough):
        found = target.stat().st_size if target.exists() else 0
        if found != bytes:
            return f"the file has {found} bytes instead of {bytes}"
        if thorough and crc32(target) != head(site, key).get("x-amz-checksum-crc32"):
            return "the file is not what the store has"
        return None

    return check


def folder(site, prefix, target, count, each):
    """A folder has so many files of this size and, looked at thoroughly, of the right checksum."""

    def check(_told, thorough):
        files = list(target.iterdir())
        wrong = [file for file in files if file.stat().st_size != each]
        if len(files) != count or wrong:
            return f"{len(files)} files instead of {count}, {len(wrong)} of them of another size"
        if thorough:
            expected = head(site, f"{prefix}000000").get("x-amz-checksum-crc32")
            if any(crc32(file) != expected for file in files):
                return "a file is not what the store has"
        return None

    return check


def folder_of(site, prefix, target, sizes):
    """A folder has files of these sizes and, looked at thoroughly, of the right checksums."""

    def check(_told, thorough):
        found = [file.stat().st_size for file in sorted(target.iterdir())]
        if found != sizes:
            return f"{len(found)} files, {sum(found)} bytes instead of {len(sizes)}, {sum(sizes)} bytes"
        for number in range(0, len(sizes), 50) if thorough else []:
            name = f"{number:06}"
            if crc32(target / name) != head(site, prefix + name).get("x-amz-checksum-crc32"):
                return "a file is not what the store has"
        return None

    return check


def head(site, key):
    """Headers of an object, its checksum included; none where there is no such object."""
    request = urllib.request.Request(
        f"{site.endpoint}/{site.bucket}/{urllib.parse.quote(key)}", method="HEAD",
        headers={"x-amz-checksum-mode": "ENABLED"},
    )
    try:
        with opened(site, request) as answer:
            return {name.lower(): value for name, value in answer.headers.items()}
    except urllib.error.HTTPError:
        return {}


def listed(site, prefix):
    """Keys under a prefix."""
    token = ""
    while True:
        query = {"list-type": "2", "prefix": prefix}
        if token:
            query["continuation-token"] = token
        with opened(site, f"{site.endpoint}/{site.bucket}?{urllib.parse.urlencode(query)}") as answer:
            page = xml.parse(answer)
        yield from (key.text for key in page.iterfind(".//{*}Contents/{*}Key"))
        token = page.findtext("{*}NextContinuationToken")
        if not token:
            return


def opened(site, request):
    # No proxy of the caller's stands between this machine and itself.
    handlers = [urllib.request.ProxyHandler({})]
    if site.ca:
        handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=site.ca)))
    return urllib.request.build_opener(*handlers).open(request, timeout=60)


def crc32(path):
    """As S3 writes it."""
    sum = 0
    with open(path, "rb") as content:
        while block := content.read(1 << 20):
            sum = zlib.crc32(block, sum)
    return base64.b64encode(sum.to_bytes(4, "big")).decode()
