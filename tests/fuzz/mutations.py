"""Ways to spoil a file. Each takes a random generator; equal seeds spoil alike."""

import copy
import json
import os
import socket
import zlib

from recon_search import seals

VALUES = (
    None, True, False, 0, 1, -1, 10**9, 2**62, 2**63, 10**30, 0.5, -0.0, 1e308, float("nan"),
    float("inf"), "", "a", "x" * 5000, "../../etc/passwd", "http://localhost:1/x", "hf-hub:a/b",
    "os:system", "\u202e\x00", [], {}, [[]], [1, [2]], {"a": {}}, [None], [["left"]],
    [[1], ["left"]],
    "torch.nn:Linear", "resnet18", ["a", "a"], {"pretrained": True}, [10**9] * 4,
)  # fmt: skip
"""What stands in the place of another value."""

STRANGERS = (
    b"", b" ", b"\n", b"{}", b"[]", b"null", b"0", b'"text"', b"NaN", b"\x00" * 64, b"\xff" * 64,
    b"<!doctype html><html><body>404</body></html>", b"\x89PNG\r\n\x1a\n" + bytes(40),
    b"PK\x03\x04" + bytes(60), b"\x80\x02cposix\nsystem\n(S'true'\ntR.",
    b"SQLite format 3\x00" + bytes(84), b"[" * 100_000, b'{"a":' * 100_000, b"1" * 5000,
    b'{"format": ' + b"9" * 5000 + b"}",
    b'{"a": 1, "a": 2}', b"\xef\xbb\xbf{}", b'{"a": "\\ud800"}',
    b"version https://git-lfs.github.com/spec/v1\n",
    (2**63).to_bytes(8, "little") + b"{}", (10**8).to_bytes(8, "little") + b"{}",
    (2).to_bytes(8, "little") + b"{}", (100_000).to_bytes(8, "little") + b"[" * 100_000,
)  # fmt: skip
"""Whole contents of other files."""


def spoil(random, content):
    """Return bytes that differ from those of a file, and what was done, in words."""
    way = random.choice((cut, flip, flip, flip, zero, repeat, leave_out, insert, exchange))
    return way(random, content), way.__name__


def cut(random, content):
    return content[: random.randrange(len(content))]


def flip(random, content):
    found = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 8))):
        found[random.randrange(len(found))] ^= 1 << random.randrange(8)
    return bytes(found)


def zero(random, content):
    start = random.randrange(len(content))
    end = min(len(content), start + random.choice((1, 16, 4096)))
    return content[:start] + bytes(end - start) + content[end:]


def repeat(random, content):
    start, end = sorted(random.randrange(len(content) + 1) for _ in range(2))
    return content[:end] + content[start:end] + content[end:]


def leave_out(random, content):
    start = random.randrange(len(content))
    return content[:start] + content[start + random.choice((1, 8, 100)) :]


def insert(random, content):
    start = random.randrange(len(content) + 1)
    return content[:start] + random.randbytes(random.choice((1, 8, 64))) + content[start:]


def exchange(random, content):
    return random.choice(STRANGERS)


def place(random, path):
    """Put something that is no regular file where one was; returns what, in words."""
    kind = random.choice(("folder", "pipe", "loop", "nowhere", "device", "socket", "absent"))
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "nowhere":
        path.symlink_to("/nowhere/at/all")
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(os.path.relpath(path))
    return kind


def change(random, value):
    """Return a JSON value with one thing in it changed, and what was done."""
    value = copy.deepcopy(value)
    parents = [each for each in _containers(value) if each]
    if not parents:
        return random.choice(VALUES), "swap"
    parent = random.choice(parents)
    key = random.choice([*parent] if isinstance(parent, dict) else range(len(parent)))
    way = random.choice(("swap", "swap", "swap", "drop", "rename", "double", "trade", "deepen"))
    if way == "swap":
        parent[key] = random.choice(VALUES)
    elif way == "drop":
        del parent[key]
    elif way == "rename" and isinstance(parent, dict):
        parent[random.choice(("", "x", "format", "digest", f"{key}s"))] = parent.pop(key)
    elif way == "double" and isinstance(parent, list):
        parent.append(parent[key])
    elif way == "trade":
        other = random.choice(parents)
        there = random.choice([*other] if isinstance(other, dict) else range(len(other)))
        parent[key], other[there] = copy.deepcopy(other[there]), copy.deepcopy(parent[key])
    elif isinstance(parent[key], int | float) and not isinstance(parent[key], bool):
        parent[key] = random.choice((parent[key] + 1, -parent[key] - 1, parent[key] * 1e6))
    else:
        for _ in range(random.choice((1, 90, 900))):
            parent[key] = [parent[key]]
    return value, way


def double_a_key(random, text):
    """Write a key of the outermost object twice, the second time with another value."""
    value = json.loads(text)
    more = json.dumps({random.choice([*value]): random.choice(VALUES)})[1:-1]
    return text.rstrip().removesuffix("}").rstrip() + ", " + more + "}"


def change_json(random, content, *, sealed):
    """Change JSON text; `sealed`: with the digest of what it then holds."""
    text = content.decode()
    if not sealed and random.random() < 0.1:
        return double_a_key(random, text).encode(), "a key twice"
    value, way = change(random, json.loads(text))
    if sealed and isinstance(value, dict):
        value = seals.seal(value)
    return json.dumps(value).encode(), way


def change_tensors(random, content, *, sealed):
    """Change the header or the numbers of a safetensors file."""
    size = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    texts = header["__metadata__"]
    way = random.choice(
        ("header", "metadata", "metadata", "metadata", "numbers", "packed", "packed")
    )
    packed = [key for key, each in header.items() if _is_packed(each, data)]
    if way == "packed" and packed:
        data, way = change_packed(random, header, data, random.choice(packed))
    elif way in ("numbers", "packed") and data:
        data = random.choice((flip, zero))(random, data)
    elif way == "metadata":
        key = random.choice([*texts])
        value, way = change(random, {key: json.loads(texts[key])})
        texts.pop(key)
        texts |= {name: json.dumps(each) for name, each in value.items()}
        way = f"metadata {key}, {way}"
    else:
        header, way = change(random, header)
    if sealed and isinstance(header, dict) and isinstance(header.get("__metadata__"), dict):
        header["__metadata__"].pop(seals.KEY, None)
        told = json.dumps(seals.digest_of_tensors(header, data))
        header["__metadata__"][seals.KEY] = told
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data, way


def change_packed(random, header, data, name):
    """Change what the bytes of a packed tensor hold, and pack it again; the header is adapted."""
    start, end = header[name]["data_offsets"]
    places, numbers = data[start : start + 1], zlib.decompress(data[start + 1 : end])
    way = random.choice((flip, zero, cut, insert, leave_out, bomb, twice))
    spoilt = way(random, numbers) if numbers else b"1"
    content = places + (spoilt if way is twice else zlib.compress(spoilt))
    for key, each in header.items():
        if key != "__metadata__":
            places = each["data_offsets"]
            each["data_offsets"] = [
                at + (len(content) - end + start) * (at >= end) for at in places
            ]
    header[name]["shape"] = [len(content)]
    return data[:start] + content + data[end:], f"packed {name}, {way.__name__}"


def bomb(random, content):
    return bytes(random.choice((10**6, 10**8)))


def twice(random, content):
    return zlib.compress(content) + zlib.compress(content)


def _is_packed(told, data):
    places = told.get("data_offsets")
    return bool(places) and told.get("dtype") == "U8" and data[slice(*places)][1:2] == b"\x78"


def _containers(value):
    """All lists and objects within a value, itself first."""
    found = [value] if isinstance(value, dict | list) else []
    for each in found:
        inner = each.values() if isinstance(each, dict) else each
        found += [one for one in inner if isinstance(one, dict | list)]
    return found
