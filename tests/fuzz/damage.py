"""Damage to bytes and to JSON, and values that a command line may get: by a seed."""

import json
import random
from typing import Any

HOSTILE: list[Any] = [
    None, True, -1, 0, 1, 2**31, 2**53, 2**63, 2**64, 10**30, -(10**30), 1e308, -0.0,
    0.5, float("nan"), float("inf"), "", "x" * 5_000, "\x1b[2J\x1b]0;t\x07", "[/red]",
    "\u202e", "é", "\x00", "../../x", "/etc/passwd", "~nosuchuser/x", "NaN", "a:b",
    [], {}, [[]], {"a": {}}, [0] * 100, json.loads("[" * 200 + "]" * 200),
]  # fmt: skip

# Nothing here names a set that would be fetched, or a file that a test could harm.
VALUES = [
    "", " ", "0", "-1", "1", "2", "7", "1e9", "1e400", "nan", "inf", "-inf", "0.5",
    "1e-320", "9" * 25, "9" * 5_000, "0x10", "\uff11", "400M", "1T", "5ms", "1e30ms",
    "0s", "90s", "10min", "1e300min", "nanms", "none", "None", "True", "digits",
    "fashion_mnist", "cifar10", "cifar10/x:1.0.0", "~", "~nosuchuser", "~nosuchuser/x",
    "/", "/dev/null", "/dev/zero", "/proc/self/mem", "/proc/self/fd/0", "a\x00b",
    "x" * 300, "é", "\udcff", "\x1b[2J", "[/red]", "..", "../../x", "fifo", "empty",
    "ok.png", "torn.json", "os:path", "os:nothing", "nosuch:thing", "a:b:c", ":",
    "os.path:join", "sys:modules", "search_space.spaces:load", "mbconv", "mnasnet",
    "accel-nasbench", "*.kernel=3", "stage3.kernel=3,5", "stage3.kernel=", "=", "[=",
    "**=1", "*.*=*", "stage0.kernel=3,3", "*.se_ratio=0", "*.se_ratio=nan", "x=1",
    "efficientnet-b0", "efficientnet-b7", "mobilenet-v2", "resnet-50", "tiny.json",
    "trained", "trained/model", "searched", "searched/best.json", "grid", "table.json",
    "trained/model/weights.safetensors", "random", "ppo", "evolution", "reinforce",
    "soft", "hard", "absolute", "flops", "throughput-a100", "latency-zcu102",
    "imagenet-surrogate", "train", "onnx", "stablehlo", "safetensors", "sgd", "adam",
    "rmsprop", "bfloat16", "float64", "efficientnet", "efficientnet-lite", "short",
    "cosine", "0,1,2", "0,,1", "1,nan", "2GB", "1e40GB", "-5GB", "processor", "32",
    "inference", "training", "18446744073709551616", "--", "-", "--help", "\n",
]  # fmt: skip


def of_bytes(rng: random.Random, data: bytes) -> bytes:
    """Returns `data` with bits turned, parts cut out or put in, or the end cut off."""
    damaged = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = rng.randrange(len(damaged) + 1)
        match rng.randrange(7):
            case 0 if damaged:
                damaged[at % len(damaged)] ^= 1 << rng.randrange(8)
            case 1:
                del damaged[at:]
            case 2:
                damaged[at:at] = rng.randbytes(rng.choice([1, 4, 64]))
            case 3 if damaged:
                damaged[at % len(damaged)] = rng.choice([0, 0x7F, 0x80, 0xFF])
            case 4:
                del damaged[at : at + rng.choice([1, 8, 100])]
            case 5:
                number = rng.choice([2**63 - 1, 2**32, 2**64 - 1, 0, 1])
                damaged[at : at + 8] = number.to_bytes(8, "little")
            case _:
                damaged[at : at + 64] = bytes(64)
    return bytes(damaged)


def of_json(rng: random.Random, document: Any) -> bytes:
    """Returns the text of `document` with a place or two replaced, removed or added."""
    copy = json.loads(json.dumps(document))
    for _ in range(rng.choice([1, 1, 2])):
        places = list(_places(copy))
        if not places:
            break
        inside, key = rng.choice(places)
        value = rng.choice(HOSTILE)
        match rng.randrange(4):
            case 0:
                del inside[key]
            case 1 if isinstance(inside, dict):
                inside[rng.choice(["x", "", "version", "name"])] = value
            case 1:
                inside.insert(0, value)
            case 2 if isinstance(inside[key], int | float):
                inside[key] = inside[key] * rng.choice([-1, 0, 2, 1_000, 10**9])
            case _:
                inside[key] = value
    return json.dumps(copy).encode()


def of_file(rng: random.Random, data: bytes) -> bytes:
    """Returns damaged `data`; of JSON, mostly damaged JSON; of lines of it, a line."""
    if rng.random() < 0.4:
        return of_bytes(rng, data)
    try:
        lines = data.splitlines()
        number = rng.randrange(len(lines))
        if rng.random() < 0.2 and len(lines) > 2:
            rng.shuffle(lines)
        else:
            lines[number] = of_json(rng, json.loads(lines[number]))
        return b"\n".join(lines) + b"\n"
    except (ValueError, IndexError):
        pass
    try:
        return of_json(rng, json.loads(data))
    except ValueError:
        return of_bytes(rng, data)


def of_safetensors(rng: random.Random, data: bytes) -> bytes:
    """Returns the file with its header damaged as JSON, its length true or absurd."""
    size = int.from_bytes(data[:8], "little")
    header = of_json(rng, json.loads(data[8 : 8 + size]))
    claimed = rng.choice([len(header), len(header), size, 2**40, 2**63])
    return claimed.to_bytes(8, "little") + header + data[8 + size :]


def _places(node: Any):
    items = (
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
    for key, value in list(items):
        yield node, key
        yield from _places(value)
