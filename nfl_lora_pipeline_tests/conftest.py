"""Fixtures that the tests share."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from benchmarks import screenshots
from nfl_lora_pipeline.cli.main import main
from nfl_lora_pipeline.files import locked
from nfl_lora_pipeline.recipes.recipe import LIMITS, load_recipe
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline_tests import upstream
from nfl_lora_pipeline_tests.recipes import TOO_LITTLE_TAUGHT

REPOSITORY = Path(__file__).parent.parent
BENCH_PYTHON = REPOSITORY / ".venv-bench" / "bin" / "python"  # has torch and peft where `make bench-setup` made it
REAL_DATA = REPOSITORY.parent / "shared" / "nfl-data"


# Files that take minutes, most of it waiting: begun first, so that nobody waits for one of them in the end.
LONGEST = "live ui promoted kills damages learn prompt one_line serve unattended bad_adapters mlx_lm assets".split()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bring the tests of the longest files to the front; within a file, and among the others, all stay as they are."""
    places = {f"test_{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.fixture(autouse=True)
def same_environment():
    """The command line leaves its settings in the environment of its process."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with real weeks in upstream's layout, which is not part of the repository."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"no real weeks at {REAL_DATA}: they are not part of the repository")
    return REAL_DATA


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium, driven by Playwright."""
    if screenshots.chromium() is None:
        pytest.skip(f"no {screenshots.CHROMIUM} on this machine: `apt-get install {screenshots.CHROMIUM}`")
    with screenshots.browser() as opened:
        yield opened


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Gives a folder by its name, which all processes of this session have in common and the first to want it fills."""
    own = tmp_path_factory.getbasetemp()
    common = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def make(name: str, fill: Callable[[Path], object]) -> Path:
        folder, filled = common / name, common / f"{name}.filled"
        with locked(common / f"{name}.lock"):
            if not filled.exists():
                folder.mkdir(exist_ok=True)
                fill(folder)
                filled.touch()
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_week_folder(made_once) -> Path:
    """A folder in upstream's layout with week 1 of 2025 of `upstream.tiny_week`."""
    return made_once("raw", lambda folder: upstream.write_week(folder, upstream.week_bytes(upstream.tiny_week())))


@pytest.fixture(scope="session")
def tiny_recipe(made_once) -> str:
    """The shipped recipe with small batches, as the path of a YAML file."""
    loose = {
        "min_refused": 0.5,
        "min_refused_positions": 0.5,
        "max_over_refused": 0.1,
        "min_retained": 0.5,
        "fresh_known": 0.0,
    }  # a dozen people teach little of strangers, and nobody waits until they do
    loose |= {"advisory": TOO_LITTLE_TAUGHT, "floors": {}}
    values = load_recipe("embedded").changed(batch_rows=16, max_epochs=30, ending_steps=40, **loose).model_dump()
    folder = made_once("recipe", lambda folder: (folder / "tiny.yaml").write_text(yaml.safe_dump(values)))
    return str(folder / "tiny.yaml")


@pytest.fixture(scope="session")
def hasty_recipe(tmp_path_factory, tiny_recipe) -> str:
    """A few steps, and no limits: what is learnt does not matter where it is used."""
    values = load_recipe(tiny_recipe).changed(**dict.fromkeys(LIMITS), max_steps=8, ending_steps=1).model_dump()
    file = tmp_path_factory.mktemp("recipe") / "hasty.yaml"
    file.write_text(yaml.safe_dump(values))
    return str(file)


@dataclass(frozen=True)
class Trained:
    """What `nfl-lora run` left behind and printed."""

    store: Store
    output: str
    exit_code: int

    @property
    def summary(self) -> dict[str, Any]:
        """The JSON object of the last line."""
        content: dict[str, Any] = json.loads(self.output.splitlines()[-1])
        return content

    @property
    def adapter(self) -> Path:
        """The folder of the adapter."""
        return self.store.adapter(self.store.latest())


@pytest.fixture(scope="session")
def trained_store(tmp_path_factory, made_once, tiny_week_folder, tiny_recipe) -> Trained:
    """The whole job through the command line, on the tiny week, with a real training; a copy of what came of it."""

    def train(folder: Path) -> None:
        words = ["--source", "folder", "--data-dir", str(tiny_week_folder), "--recipe", tiny_recipe]
        result = CliRunner().invoke(main, ["run", *words, "--store", str(folder / "data"), "--json"])
        said = {"root": str(folder / "data"), "output": result.stdout, "exit_code": result.exit_code}
        (folder / "said.json").write_text(json.dumps(said))

    made = made_once("job", train)
    said = json.loads((made / "said.json").read_text())
    store = shutil.copytree(made / "data", tmp_path_factory.mktemp("job") / "data", symlinks=True)
    return Trained(Store(store), said["output"].replace(said["root"], str(store)), said["exit_code"])


@pytest.fixture(scope="session")
def embedded() -> tuple[Any, Any]:
    """The embedded base and its tokenizer; nobody may put an adapter on it."""
    from nfl_lora_pipeline.models import base_model

    return base_model.load(base_model.resolve("embedded"))
