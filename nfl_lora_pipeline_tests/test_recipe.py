import pytest

from nfl_lora_pipeline.recipe import RECIPES_FOLDER, load_recipe, recipe_names

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


def test_the_embedded_recipe_explains_every_key():
    lines = (RECIPES_FOLDER / "embedded.yaml").read_text().splitlines()
    assert [line for line in lines if "#" not in line] == []


def test_a_recipe_of_ones_own_is_read_with_defaults(tmp_path):
    recipe = load_recipe(written(tmp_path, GOOD))
    assert (recipe.rank, recipe.num_layers, recipe.fine_tune_type) == (8, -1, "lora")


@pytest.mark.parametrize(
    ("text", "key", "given"),
    [
        (GOOD + "rnak: 8\n", "rnak", "8"),
        (GOOD.replace("rank: 8", "rank: many"), "rank", "'many'"),
        (GOOD.replace("rank: 8", "rank: 0"), "rank", "0"),
        (GOOD.replace("learning_rate: 1.0e-3", "learning_rate: 0"), "learning_rate", "0"),
        (GOOD + "fine_tune_type: full\n", "fine_tune_type", "'full'"),
        (GOOD + "modules: [1]\n", "modules.0", "1"),
    ],
)
def test_a_bad_value_is_named_with_file_and_key(tmp_path, text, key, given):
    with pytest.raises(ValueError, match=r"own\.yaml") as caught:
        load_recipe(written(tmp_path, text))
    assert f": {key}: " in str(caught.value)
    assert f"(given: {given})" in str(caught.value)


def test_a_missing_key_is_named_with_its_file(tmp_path):
    with pytest.raises(ValueError, match=r"own\.yaml: rank: Field required$"):
        load_recipe(written(tmp_path, GOOD.replace("rank: 8\n", "")))


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
