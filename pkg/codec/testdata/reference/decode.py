#!/usr/bin/env python3
"""A decoder of the learning codec (codec 2), written from docs/format/link-codec.md.

It follows the document section by section and is made to be read, not to be fast. It shares no
code with the codec that it checks: coder.py, state.py, columns.py and session.py beside it are all
that it needs.

    decode.py vectors.ndjson …     decodes golden vectors, prints a JSON line for each record
"""

import json
import sys

from coder import Refused
from session import Session


def line_of(r):
    """A record as a line of the golden vectors: what is empty is left out."""
    line = {}
    for name in ("topic", "payload"):
        try:
            line[name] = r[name].decode()
        except UnicodeDecodeError:
            line[name + "_hex"] = r[name].hex()
    line["time_us"] = r["time"]
    line["qos"], line["retain"] = r["meta"] & 3, r["meta"] >> 2 & 1 == 1
    line["time_quality"] = r["meta"] >> 3 & 3
    boot = r.get("boot", bytes(16))
    line["boot"], line["mono_us"] = boot.hex() if any(boot) else "", r.get("mono", 0)
    line["properties"] = r.get("properties")
    return {name: v for name, v in line.items() if v}


def decode_vectors(file):
    """Decodes the bodies of a file of vectors as one session; yields the lines that they make."""
    session, bodies = Session(), 0
    for line in file:
        vector = json.loads(line)
        if "body" not in vector:
            continue
        bodies += 1
        try:
            records = session.decode(bytes.fromhex(vector["body"]), vector.get("seed", 0))
        except Refused as e:
            raise Refused("body %d: %s" % (bodies, e))
        yield from map(line_of, records)
        yield {"bodies": bodies, "digest": "%016x" % session.digest, "state_bytes": session.used}


def main():
    for name in sys.argv[1:]:
        with open(name, encoding="utf-8") as file:
            for line in decode_vectors(file):
                print(json.dumps(line))


if __name__ == "__main__":
    main()
