"""Names of folders and files that are written down, as they are understood from every other folder."""

from pathlib import Path

EMBEDDED = "embedded"
YAML_ENDINGS = (".yaml", ".yml")


def lasting_base(name: str) -> str:
    """A base model's name: of a folder its absolute path, any other as it is."""
    folder = Path(name).expanduser()
    return str(folder.resolve()) if name not in ("", EMBEDDED) and folder.is_dir() else name


def lasting_recipe(name: str) -> str:
    """A recipe's name: of a YAML file its absolute path, any other as it is."""
    file = Path(name)
    return str(file.resolve()) if name.endswith(YAML_ENDINGS) and file.is_file() else name
