import pytest
import yaml
from click.testing import CliRunner
from mlx_lm.lora import CONFIG_DEFAULTS

from nfl_lora_pipeline.cli.main import main
from nfl_lora_pipeline.tuning.recipe import RECIPES_FOLDER, Recipe, load_recipe, recipe_names

GOOD = "base_model: embedded\nrank: 8\nscale: 4.0\nlearning_rate: 1.0e-3\nbatch_rows: 4\nmax_epochs: 2\n"


def written(tmp_path, text):
    file = tmp_path / "own.yaml"
    file.write_text(text)
    return str(file)


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_loads(name):
    assert load_recipe(name).base_model


def test_the_embedded_recipe_is_shipped():
    assert "embedded" in recipe_names()
    assert load_recipe("embedded").base_model == "embedded"


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_says_what_it_is_for_and_holds_only_what_differs_from_the_defaults(name):
    text = (RECIPES_FOLDER / f"{name}.yaml").read_text()
    assert text.startswith("# ")
    same = [key for key, value in yaml.safe_load(text).items() if value == Recipe.model_fields[key].default]
    assert same == []


def test_every_key_says_what_it_is():
    assert all(field.description for field in Recipe.model_fields.values())


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_that_is_shown_is_one_to_begin_ones_own_with(name, tmp_path):
    shown = CliRunner().invoke(main, ["recipe", "show", name]).output
    assert load_recipe(written(tmp_path, shown)) == load_recipe(name)
    assert all("  # " in line for line in shown.splitlines())


def test_recipes_are_listed_with_what_they_are_for():
    lines = CliRunner().invoke(main, ["recipe", "list"]).output.splitlines()
    assert [line.split()[0] for line in lines] == recipe_names()
    assert all(len(line.split()) > 5 for line in lines)


def test_the_original_recipe_has_the_defaults_of_mlx_lm_but_for_what_its_file_explains():
    recipe, defaults = load_recipe("original"), CONFIG_DEFAULTS
    assert {"rank": recipe.rank, "dropout": recipe.dropout, "scale": recipe.scale} == defaults["lora_parameters"]
    found = (
        recipe.fine_tune_type,
        recipe.num_layers,
        recipe.batch_rows,
        recipe.max_steps,
        recipe.learning_rate,
        recipe.seed,
    )
    names = ("fine_tune_type", "num_layers", "batch_size", "iters", "learning_rate", "seed")
    assert found == tuple(defaults[name] for name in names)
    assert (recipe.method, recipe.schedule, recipe.warmup_steps) == ("mlx_lm", "constant", 0)
    assert (defaults["lr_schedule"], defaults["mask_prompt"], defaults["optimizer"]) == (None, False, "adam")
    assert (recipe.modules, recipe.weight_decay) == (["self_attn.qkv_proj"], 0)


def test_a_recipe_of_ones_own_is_read_with_defaults(tmp_path):
    recipe = load_recipe(written(tmp_path, GOOD))
    assert (recipe.rank, recipe.num_layers, recipe.fine_tune_type) == (8, -1, "lora")
    assert (recipe.method, recipe.schedule, recipe.weight_decay) == ("recall", "wsd", 0)


def test_a_number_without_a_point_before_its_exponent_is_one(tmp_path):
    assert load_recipe(written(tmp_path, GOOD.replace("1.0e-3", "1e-3"))).learning_rate == 0.001


@pytest.mark.parametrize(
    ("text", "key", "given"),
    [
        (GOOD + "rnak: 8\n", "rnak", "8"),
        (GOOD.replace("rank: 8", "rank: many"), "rank", "'many'"),
        (GOOD.replace("rank: 8", "rank: 0"), "rank", "0"),
        (GOOD.replace("learning_rate: 1.0e-3", "learning_rate: 0"), "learning_rate", "0"),
        (GOOD.replace("rank: 8", "rank: true"), "rank", "True"),
        (GOOD.replace("rank: 8", "rank: '8'"), "rank", "'8'"),
        (GOOD.replace("scale: 4.0", "scale: yes"), "scale", "True"),
        (GOOD.replace("scale: 4.0", "scale: .inf"), "scale", "inf"),
        (GOOD + "fine_tune_type: fool\n", "fine_tune_type", "'fool'"),
        (GOOD + "modules: [1]\n", "modules.0", "1"),
        (GOOD + "modules: []\n", "modules", "[]"),
        (GOOD + "fine_tune_type: full\nmodules: [mlp.down_proj]\n", "modules", "['mlp.down_proj']"),
        (GOOD + "num_layers: 0\n", "num_layers", "0"),
        (GOOD + "weight_decay: 1\n", "weight_decay", "1"),
        (GOOD + "schedule: falling\n", "schedule", "'falling'"),
        (GOOD + "method: mlx_lm\n", "schedule", "'wsd'"),
        (GOOD + "warm_start: 1\n", "warm_start", "1"),
        (GOOD + "seed: -1\n", "seed", "-1"),
        (GOOD + "7: 8\n", "7", "8"),
    ],
)
def test_a_bad_value_is_named_with_file_and_key(tmp_path, text, key, given):
    with pytest.raises(ValueError, match=r"own\.yaml") as caught:
        load_recipe(written(tmp_path, text))
    assert f": {key}: " in str(caught.value)
    assert f"(given: {given})" in str(caught.value)


@pytest.mark.parametrize(
    ("written_key", "said"),
    [
        ("rnak", "did you mean rank?"),
        ("learning-rate", "did you mean learning_rate?"),
        ("Batch_Rows", "did you mean batch_rows?"),
        ("wd", "use base_model, fine_tune_type, rank, "),
    ],
)
def test_an_unknown_key_is_answered_with_the_one_that_was_meant(tmp_path, written_key, said):
    with pytest.raises(ValueError) as caught:
        load_recipe(written(tmp_path, GOOD + f"{written_key}: 8\n"))
    assert f"own.yaml: {written_key}: no such key (given: 8); {said}" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "mend"),
    [
        (GOOD + "fine_tune_type: fool\n", "'lora', 'dora' or 'full'"),
        (GOOD + "method: mlx_lm\n", "'constant', 'linear' or 'cosine', since method mlx_lm measures no recall"),
        (GOOD.replace("rank: 8", "rank: 2000"), "less than or equal to 1024"),
        (GOOD + "num_layers: 0\n", "at least 1, or -1 for all layers"),
        (GOOD + "elsewhere_share: 0.5\nother_stats_share: 0.4\n", "at most 0.3: the rest of 0.8 is elsewhere_share's"),
    ],
)
def test_a_bad_value_is_answered_with_what_may_be_written(tmp_path, text, mend):
    with pytest.raises(ValueError) as caught:
        load_recipe(written(tmp_path, text))
    assert mend in str(caught.value)
    assert "Value error" not in str(caught.value)


def test_a_missing_key_is_named_with_its_file(tmp_path):
    with pytest.raises(ValueError, match=r"own\.yaml: base_model: Field required$"):
        load_recipe(written(tmp_path, GOOD.replace("base_model: embedded\n", "")))


@pytest.mark.parametrize(
    ("text", "problem"), [("rank: [1", "not valid YAML"), ("- rank\n", "expected keys"), ("", "expected keys")]
)
def test_a_file_that_holds_no_keys_and_values_is_named(tmp_path, text, problem):
    with pytest.raises(ValueError, match=rf"own\.yaml: {problem}"):
        load_recipe(written(tmp_path, text))


@pytest.mark.parametrize("name", ["nope", "folder/nope.yaml"])
def test_a_recipe_that_is_not_there_is_named_and_the_shipped_ones_are_offered(name):
    with pytest.raises(ValueError, match="no such recipe; use embedded, ") as caught:
        load_recipe(name)
    assert repr(name) in str(caught.value)
