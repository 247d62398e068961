"""`nfl-lora doctor`: what it says of this machine and of a store, as typed."""

import shutil

from click.testing import CliRunner

from nfl_lora_pipeline.cli.main import main


def doctor(store):
    return CliRunner().invoke(main, ["doctor", "--store", str(store)], color=False)


def test_it_names_versions_device_memory_disk_and_what_is_promoted(trained_store, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # nothing listens there
    ended = doctor(trained_store.store.root)
    assert ended.exit_code == 0, ended.output
    said = {line.split()[1]: line for line in ended.output.splitlines()}
    assert list(said) == ["versions", "device", "memory", "disk", "upstream", "models", "store"]
    assert f"promoted {trained_store.store.promoted()}" in said["store"]
    assert said["upstream"].startswith("note")
    assert "use --source folder or sample" in said["upstream"]
    assert said["models"].endswith("use the embedded base, a folder or a GGUF file")


def test_without_a_store_it_says_so_and_creates_none(tmp_path, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    ended = doctor(tmp_path / "none" / "data")
    assert ended.exit_code == 0
    assert "weeks none, promoted nothing" in ended.output
    assert not (tmp_path / "none").exists()


def test_a_damaged_store_is_named_and_exit_code_1(trained_store, tmp_path, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    root = tmp_path / "data"
    shutil.copytree(trained_store.store.root, root, symlinks=True, ignore=shutil.ignore_patterns("dagster"))
    (root / "adapters" / "current").unlink()
    (root / "adapters" / "current").symlink_to("nowhere")
    ended = doctor(root)
    assert ended.exit_code == 1
    assert "current" in ended.output.splitlines()[-1]
