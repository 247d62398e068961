import pytest

from nfl_lora_pipeline.files import DamagedFile, replace_file, replacing_folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path):
    file = tmp_path / "report.md"
    replace_file(file, b"old")
    replace_file(file, b"new")
    assert file.read_bytes() == b"new"
    assert names(tmp_path) == ["report.md"]


def test_the_folder_of_a_file_is_made(tmp_path):
    replace_file(tmp_path / "weeks" / "2025-W01" / "WR.json", b"[]")
    assert (tmp_path / "weeks" / "2025-W01" / "WR.json").read_bytes() == b"[]"


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_nothing_temporary(tmp_path):
    replace_file(tmp_path / "report.md", b"old")
    with pytest.raises(TypeError):
        replace_file(tmp_path / "report.md", "text")
    assert (tmp_path / "report.md").read_bytes() == b"old"
    assert names(tmp_path) == ["report.md"]


def test_a_path_that_is_a_folder_is_not_replaced_by_a_file(tmp_path):
    (tmp_path / "report.md" / "inside").mkdir(parents=True)
    with pytest.raises(DamagedFile, match=r"report\.md: is a folder with something in it"):
        replace_file(tmp_path / "report.md", b"new")
    assert names(tmp_path) == ["report.md"]


def test_a_folder_is_swapped_in_whole(tmp_path):
    target = tmp_path / "data" / "splits"
    with replacing_folder(target) as folder:
        (folder / "old.jsonl").write_text("1")
        assert not target.exists()
    with replacing_folder(target) as folder:
        (folder / "new.jsonl").write_text("2")
        assert names(target) == ["old.jsonl"]
    assert names(target) == ["new.jsonl"]
    assert names(target.parent) == ["splits"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_the_old_folder_and_nothing_temporary(tmp_path, error):
    target = tmp_path / "splits"
    with replacing_folder(target) as folder:
        (folder / "old.jsonl").write_text("1")
    with pytest.raises(error), replacing_folder(target) as folder:
        (folder / "half.jsonl").write_text("2")
        raise error
    assert names(target) == ["old.jsonl"]
    assert names(tmp_path) == ["splits"]
