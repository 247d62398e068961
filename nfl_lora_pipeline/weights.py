"""Whether an adapter's weights are still those that were trained."""

from collections.abc import Mapping
from hashlib import file_digest
from pathlib import Path
from typing import Any

from nfl_lora_pipeline.files import DamagedFile

WEIGHTS_NAME = "adapters.safetensors"
RECORDED = "weights_sha256"  # in provenance.json


def weights_record(folder: Path) -> dict[str, str]:
    """What provenance.json says of the weights in an adapter's folder."""
    return {RECORDED: _hash(folder / WEIGHTS_NAME)}


def check_weights(folder: Path, made_of: Mapping[str, Any], *, mend: str) -> None:
    """Hold an adapter's weights against the hash that was recorded when they were trained.

    Args:
        folder: of the adapter.
        made_of: its provenance. One from before the hash was recorded has none, and is taken as it is.
        mend: what to do about it, for the message.

    Raises:
        DamagedFile: they are others, or cannot be read.
    """
    file = folder / WEIGHTS_NAME
    recorded = made_of.get(RECORDED)
    try:
        found = _hash(file) if recorded else recorded
    except OSError as error:
        raise DamagedFile(file, f"cannot be read ({error.strerror})", mend) from error
    if found != recorded:
        raise DamagedFile(file, "is damaged, since its SHA-256 is not the one recorded when it was trained", mend)


def _hash(file: Path) -> str:
    with file.open("rb") as content:
        return file_digest(content, "sha256").hexdigest()
