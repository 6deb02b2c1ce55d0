"""`[models.NAME]` with `targets`: what an alias may say, and which models a server then serves."""

import re
from pathlib import Path

import pytest

from ore import settings
from ore.errors import StartupError
from ore.settings import AliasSettings, ModelSettings, ProviderSettings, Settings, load, resolve_models

HERE = """\
[models.small]
path = "/small.gguf"
[providers.openai]
kind = "openai"
models = ["gpt-5", "gpt-5-mini"]
[providers.box]
kind = "ollama"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ore.toml"


def loaded(file: Path, text: str, environ: dict[str, str] | None = None) -> settings.LoadedSettings:
    file.write_text(HERE + text, "utf-8")
    return load(file, {"HOME": "/h", **(environ or {})}, {})


def test_an_alias_is_no_model(file: Path) -> None:
    """It has settings of its own, and stands beside the models."""
    found = loaded(file, '[models.fast]\ntargets = ["small", "box/any:7b", "openai/gpt-5", "ore-tiny"]').settings
    assert found.models == {"small": ModelSettings(path="/small.gguf")}
    assert found.aliases == {"fast": AliasSettings(targets=("small", "box/any:7b", "openai/gpt-5", "ore-tiny"))}


def test_every_rule_can_be_given_in_a_file_and_in_variables(file: Path) -> None:
    """Lists of numbers are written with commas, as lists of strings are."""
    expected = AliasSettings(
        targets=("small", "box/x"),
        route="weighted",
        weights=(3.0, 0.5),
        spill_waiting=0,
        spill_seconds=2.5,
        spill_tokens=100,
        after_output="continue",
        retries=0,
    )
    rules = (
        'route = "weighted"\nweights = [3, 0.5]\nspill_waiting = 0\nspill_seconds = 2.5\nspill_tokens = 100\n'
        'after_output = "continue"\nretries = 0\n'
    )
    assert loaded(file, f'[models.fast]\ntargets = ["small", "box/x"]\n{rules}').settings.aliases["fast"] == expected
    variables = {
        "TARGETS": "small, box/x",
        "ROUTE": "weighted",
        "WEIGHTS": "3, 0.5",
        "SPILL_WAITING": "0",
        "SPILL_SECONDS": "2.5",
        "SPILL_TOKENS": "100",
        "AFTER_OUTPUT": "continue",
        "RETRIES": "0",
    }
    environ = {f"ORE_MODELS__FAST__{key}": value for key, value in variables.items()}
    assert loaded(file, "", environ).settings.aliases["fast"] == expected
    assert loaded(file, "", environ | {"ORE_MODELS__FAST__WEIGHTS": "[3, 0.5]"}).settings.aliases["fast"] == expected


def test_aliases_can_be_written_and_read_back(file: Path) -> None:
    """What `ore config show --origin` prints is a file that gives the same settings."""
    first = loaded(file, '[models.fast]\ntargets = ["small", "openai/gpt-5"]\nspill_waiting = 4\n')
    shown = settings.effective(first, origin=True)
    assert re.search(r"^spill_waiting = 4 +# .*ore\.toml, line \d+$", shown, re.M)
    assert re.search(r'^route = "ordered" +# default$', shown, re.M)
    file.write_text(shown)
    assert load(file, {"HOME": "/h"}, {}).settings == first.settings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "",
            '[models.x] has neither path nor targets (L1); add path = "FILE.gguf" to it, '
            'or targets = ["PROVIDER/MODEL"].',
        ),
        (
            'path = "a.gguf"\ntargets = ["small"]',
            "[models.x] has both path and targets (L2); keep path for a model here, or targets for an alias.",
        ),
        ("targets = []", '[models.x] has no targets (L2); add targets = ["PROVIDER/MODEL"] to it.'),
        (
            'targets = "small"',
            'models.x.targets is "small" (L2); it must be a list of strings.',
        ),
        (
            'targets = ["small"]\nslots = 2',
            "models.x.slots (L3) is for models with a path, and [models.x] has targets; leave it out.",
        ),
        (
            'path = "a.gguf"\nroute = "ordered"',
            "models.x.route (L3) is for aliases, and [models.x] has no targets; leave it out.",
        ),
        (
            'targets = ["smal"]',
            'models.x.targets names "smal" (L2), which is no model and no PROVIDER/MODEL; did you mean small?',
        ),
        (
            'targets = ["opnai/gpt-5"]',
            'models.x.targets names "opnai/gpt-5" (L2), but there is no [providers.opnai]; did you mean openai?',
        ),
        (
            'targets = ["openai/gpt-6"]',
            'models.x.targets names "openai/gpt-6" (L2), but the models of [providers.openai] do not have it; '
            "did you mean gpt-5?",
        ),
        (
            'targets = ["openai"]',
            'models.x.targets names "openai" (L2), which is a provider; add the model, openai/MODEL.',
        ),
        (
            'targets = ["small", "y"]\n[models.y]\ntargets = ["small"]',
            'models.x.targets names "y" (L2), which is an alias itself; name the targets of that one.',
        ),
        (
            'targets = ["x"]',
            'models.x.targets names "x" (L2), which is an alias itself; name the targets of that one.',
        ),
        (
            'targets = ["small", "box/a"]\nroute = "weighted"',
            '[models.x] has route = "weighted" and no weights; add weights = [1, 1] to it (L3).',
        ),
        (
            'targets = ["small", "box/a"]\nroute = "weighted"\nweights = [1]',
            "[models.x] needs a weight for each of its 2 targets, and has 1 of them (L4).",
        ),
        (
            'targets = ["small", "box/a"]\nweights = [1, 2]',
            '[models.x] has weights, which only route = "weighted" uses, not "ordered" (L3).',
        ),
        (
            'targets = ["small"]\nroute = "weighted"\nweights = [0]',
            "models.x.weights is [0] (L4); it must be a list of numbers above 0.",
        ),
        (
            'targets = ["small"]\nroute = "weighted"\nweights = [inf]',
            "models.x.weights is [inf] (L4); it must be a list of numbers above 0.",
        ),
        (
            'targets = ["small"]\nretries = -1',
            "models.x.retries is -1 (L3); it must be an integer of at least 0.",
        ),
    ],
)
def test_a_wrong_alias_is_one_sentence(file: Path, text: str, message: str) -> None:
    """It names the setting, its line, and what would be right."""
    with pytest.raises(StartupError) as caught:
        loaded(file, f"[models.x]\n{text}")
    first = HERE.count("\n")
    expected = re.sub(r"\(L(\d)\)", lambda line: f"({file}, line {first + int(line[1])})", message)
    assert caught.value.message == expected


def test_without_providers_the_sentence_says_how_to_get_one(file: Path) -> None:
    """The first thing that somebody writes who has read half of the page."""
    file.write_text('[models.x]\ntargets = ["openai/gpt-5"]')
    with pytest.raises(StartupError, match=r"there is no \[providers.openai\]; add that section, with kind ="):
        load(file, {"HOME": "/h"}, {})
    assert load(file, {"HOME": "/h", "OPENAI_API_KEY": "k"}, {}).settings.aliases


# What is served


def known(
    models: tuple[str, ...] = (), aliases: tuple[str, ...] = (), default_model: str = "", target: str = "openai/gpt-5"
) -> Settings:
    return Settings(
        data_dir="/d",
        default_model=default_model,
        models={name: ModelSettings(path=f"/{name}.gguf") for name in models},
        aliases={name: AliasSettings(targets=(target,)) for name in aliases},
        providers={"openai": ProviderSettings(kind="openai")},
    )


@pytest.mark.parametrize(
    ("before", "argument", "default", "models"),
    [
        (known(), None, "ore-tiny", ["ore-tiny"]),
        (known(default_model="openai/gpt-5"), None, "openai/gpt-5", ["ore-tiny"]),
        (known(), "openai/gpt-5", "openai/gpt-5", ["ore-tiny"]),
        (known(), "openai/x.gguf", "openai/x.gguf", ["ore-tiny"]),
        (known(), "./openai/x.gguf", "x", ["x"]),
        (known(aliases=("fast",)), None, "fast", []),
        (known(aliases=("fast",), target="ore-tiny"), None, "fast", ["ore-tiny"]),
        (known(("a",), ("fast",)), None, "", ["a"]),
        (known(("a",), ("fast",), default_model="fast"), None, "fast", ["a"]),
        (known(("a",), ("fast",)), "fast", "fast", ["a"]),
        (known(("a",)), None, "a", ["a"]),
        (known(("a",)), "openai/gpt-5", "openai/gpt-5", ["a"]),
    ],
)
def test_what_a_server_with_providers_serves(
    before: Settings, argument: str | None, default: str, models: list[str]
) -> None:
    """The bundled model where no NAME is configured, and what an alias needs; the default may be any name."""
    found = resolve_models(before, argument)
    assert (found.default_model, list(found.models)) == (default, models)
    assert found.aliases == before.aliases


def test_names_that_cannot_be_served_are_refused() -> None:
    """An unknown provider, a model that its provider may not be asked for, a file that would take an alias's name."""
    with pytest.raises(StartupError, match=r"no PROVIDER/MODEL; did you mean openai/gpt-5\?"):
        resolve_models(known(aliases=("fast",)), "opnai/gpt-5")
    with pytest.raises(StartupError, match=r"default_model is x/y, which no .* defines, and no provider has; there is"):
        resolve_models(known(default_model="x/y"))
    with pytest.raises(StartupError, match=r"would be served as fast, which is an alias; rename one"):
        resolve_models(known(aliases=("fast",)), "/models/fast.gguf")


@pytest.mark.parametrize(
    ("wanted", "hint"),
    [("opnai/gpt-5", "did you mean openai/gpt-5?"), ("openai/", "did you mean"), ("x/y", "openai/MODEL")],
)
def test_a_model_of_a_provider_that_is_not_there_is_told_which_may_be_meant(wanted: str, hint: str) -> None:
    """The provider may be written wrong, or the model be missing."""
    with pytest.raises(StartupError) as caught:
        resolve_models(known(default_model=wanted))
    assert hint in caught.value.message


CLASSIFIED = '[models.intents]\npath = "/intents.skops"\n[models.desk]\ntargets = ["small", "box/x"]\n'


def test_a_classifier_can_be_given_in_a_file_and_in_variables(file: Path) -> None:
    """Its labels are a table in the file, inline or with a header of its own, and JSON in a variable."""
    expected = AliasSettings(targets=("small", "box/x"), classifier="intents", labels={"code": "box/x", "a b": "small"})
    inline = 'classifier = "intents"\nlabels = {code = "box/x", "a b" = "small"}\n'
    header = 'classifier = "intents"\n[models.desk.labels]\ncode = "box/x"\n"a b" = "small"\n'
    for text in (inline, header):
        found = loaded(file, CLASSIFIED + text)
        assert found.settings.aliases["desk"] == expected
        file.write_text(settings.effective(found))
        assert load(file, {"HOME": "/h"}, {}).settings == found.settings
    environ = {
        "ORE_MODELS__DESK__CLASSIFIER": "intents",
        "ORE_MODELS__DESK__LABELS": '{"code": "box/x", "a b": "small"}',
    }
    assert loaded(file, CLASSIFIED, environ).settings.aliases["desk"] == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('classifier = "intents"', "has a classifier and no labels"),
        ('labels = {a = "small"}', "has labels and no classifier"),
        ('classifier = "intents"\nlabels = {a = "openai/gpt-5"}', "which is none of its targets"),
        ('classifier = "intents"\nlabels = "a"', "a table of strings"),
        ('classifier = "intent"\nlabels = {a = "small"}', "did you mean intents"),
        ('classifier = "small"\nlabels = {a = "small"}', "which is no classical model"),
    ],
)
def test_a_classifier_that_makes_no_sense_is_refused(file: Path, text: str, said: str) -> None:
    with pytest.raises(StartupError, match=said):
        resolve_models(loaded(file, CLASSIFIED + text).settings)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('model = "intents"', "no refuse_labels"),
        ('refuse_labels = ["a"]', "no model"),
        ('model = "small"\nrefuse_labels = ["a"]', "no classical model"),
    ],
)
def test_a_guard_that_could_check_nothing_is_refused(file: Path, text: str, said: str) -> None:
    with pytest.raises(StartupError, match=said):
        resolve_models(loaded(file, f"{CLASSIFIED}[guard]\n{text}").settings)


def test_a_guard_may_be_the_file_of_the_command_line(file: Path) -> None:
    found = loaded(file, '[guard]\nmodel = "spam"\nrefuse_labels = ["spam"]').settings
    assert resolve_models(found, "/models/spam.skops").models["spam"].path == "/models/spam.skops"
