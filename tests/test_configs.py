"""Every shipped YAML: parses into its class, survives saving, and refuses each of its keys when misspelt."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import yaml

from configs import schema
from configs.compare_schema import CompareConfig
from configs.evaluate_schema import EvaluateConfig
from configs.inference_schema import InferenceConfig
from configs.sr_schema import EvaluateSRConfig
from configs.stage3_schema import Stage3Config
from utils.config import ConfigError, config_to_dict, load_config, parse_config, save_config

FOLDER = Path(__file__).resolve().parents[1] / "configs"
CLASSES = {
    "stage1_yolo_pretrain": schema.Stage1Config,
    "stage2_sr_pretrain": schema.Stage2Config,
    "stage3_joint_finetune": Stage3Config,
    "evaluate": EvaluateConfig,
    "inference": InferenceConfig,
    "evaluate_sr": EvaluateSRConfig,
}
FIVE = set(CLASSES) - {"evaluate_sr"}
FILES = sorted(file for file in FOLDER.rglob("*.yaml") if file.stem in CLASSES)
each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(FOLDER)))


FREE = ("args", "retrained", "systems", "detectors", "sliced")


def dotted(tree: dict, path: tuple = ()) -> list[tuple]:
    """Paths of all keys, sections included; the free keys of mappings are not ours to check."""
    found = []
    for key, value in tree.items():
        found.append((*path, key))
        if isinstance(value, dict) and key not in FREE:
            found += dotted(value, (*path, key))
    return found


def misspell(word: str, chance: random.Random) -> list[str]:
    """One letter left out, doubled, replaced, added, and two swapped."""
    i, letter = chance.randrange(len(word)), chance.choice("abcdefghijklmnopqrstuvwxyz_")
    j = chance.randrange(max(1, len(word) - 1))
    return [
        word[:i] + word[i + 1 :],
        word[:i] + word[i] + word[i:],
        word[:i] + letter + word[i + 1 :],
        word[:i] + letter + word[i:],
        word[:j] + word[j : j + 2][::-1] + word[j + 2 :],
    ]


def misspelt(tree: dict, chance: random.Random):
    """(path of the right key, path of the wrong key, tree with it), none of whose wrong keys happens to be right."""
    for path in dotted(tree):
        for wrong in chance.sample(misspell(path[-1], chance), 2):
            changed = copy = {**tree}
            for part in path[:-1]:
                copy[part] = {**copy[part]}
                copy = copy[part]
            items = [(wrong if key == path[-1] else key, value) for key, value in copy.items()]
            copy.clear()
            copy.update(items)
            if wrong and wrong != path[-1] and len(items) == len(copy):
                yield path, (*path[:-1], wrong), changed


def valid_names(file: Path) -> set[tuple]:
    return set(dotted(config_to_dict(CLASSES[file.stem]())))


def test_every_folder_holds_all_five():
    for folder in (FOLDER, *(FOLDER / name for name in ("demo", "hit_uav", "bccd"))):
        assert {file.stem for file in folder.glob("*.yaml")} >= FIVE


@each_file
def test_parses_and_survives_saving(file: Path, tmp_path: Path):
    config = load_config(CLASSES[file.stem], file)
    assert config == parse_config(CLASSES[file.stem], "", ["--config", str(file)])
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(CLASSES[file.stem], tmp_path / "saved.yaml") == config
    assert yaml.safe_load((tmp_path / "saved.yaml").read_text()) == config_to_dict(config)


# Where stage 3's file is the published recipe; the defaults are what files mean that were written before there was one.
RECIPE = {
    ("stage3_joint_finetune", (section, key))
    for section, keys in {
        "warm_up": ("epochs", "quality_epochs"),
        "optim": ("epochs", "batch", "lr", "lr_low", "lr_sr", "lr_masker", "warmup", "ema"),
        "losses": ("distill", "distill_outputs"),
        "gumbel": ("start",),
    }.items()
    for key in keys
}


def test_stage3_has_the_recipe_of_the_published_tables():
    """Of the comparison that the README shows; but for the low learning rate, which made no difference."""
    compared = load_config(CompareConfig, FOLDER / "compare" / "hit_uav_x4_edsr_8x32.yaml")
    base = load_config(Stage3Config, FOLDER / "hit_uav" / "stage3_joint_finetune.yaml")
    ours = load_config(Stage3Config, FOLDER / "stage3_joint_finetune.yaml")
    frozen, retrained = compared.overrides["frozen"], compared.overrides["retrained"]
    warm_up = ours.warm_up
    assert (warm_up.quality_epochs, warm_up.epochs) == (compared.unlabelled_epochs, compared.masker_epochs)
    assert (warm_up.batch, warm_up.lr, warm_up.lr) == tuple(frozen[f"optim.{k}"] for k in ("batch", "lr", "lr_sr"))
    assert warm_up.lr_masker == base.optim.lr_masker
    for terms in (warm_up, ours.losses):
        assert (terms.distill, terms.distill_outputs) == (compared.distill, compared.distill_outputs)
    for key in ("epochs", "batch", "lr", "lr_sr"):
        assert getattr(ours.optim, key) == retrained[f"optim.{key}"], key
    for key in ("lr_masker", "lr_low", "warmup", "weight_decay", "ema", "schedule"):
        assert getattr(ours.optim, key) == getattr(base.optim, key), key
    assert ours.gumbel == base.gumbel and ours.augment == base.augment
    assert ours.masker.budget_dropout == compared.overrides["stage3"]["masker.budget_dropout"]


@pytest.mark.parametrize("name", CLASSES)
def test_general_files_repeat_the_defaults(name: str):
    """The general files are documented defaults; only paths, worker counts and examples differ, and the recipe."""
    config, default = load_config(CLASSES[name], FOLDER / f"{name}.yaml"), CLASSES[name]()
    flat = {path: value for path in dotted(config_to_dict(config)) if not isinstance(value := at(config, path), dict)}
    for path, value in flat.items():
        if not isinstance(value, str | list | None) and path[-1] != "workers" and (name, path) not in RECIPE:
            assert value == at(default, path), path


def at(config, path: tuple):
    tree = config_to_dict(config)
    for part in path:
        tree = tree[part]
    return tree


def test_misspelt_keys_of_files_are_refused_with_the_right_name(tmp_path: Path):
    """Every key of a class in the first file that has it: what is said of it depends on the class."""
    chance, right, total, known = random.Random(0), 0, 0, set()
    for file in FILES:
        tree, valid = yaml.safe_load(file.read_text()), valid_names(file)
        before = known.copy()
        for path, wrong, changed in misspelt(tree, chance):
            known.add((file.stem, path))
            if wrong in valid or (file.stem, path) in before:
                continue
            (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(changed, sort_keys=False))
            with pytest.raises(ConfigError) as caught:
                load_config(CLASSES[file.stem], tmp_path / "wrong.yaml")
            message = str(caught.value)
            line = f"wrong.yaml:{line_of(wrong, tmp_path / 'wrong.yaml')}: unknown key '{'.'.join(wrong)}'"
            assert line in message, message
            total += 1
            right += f"did you mean {'.'.join(path)}?" in message
    assert total > 400
    assert right >= 0.95 * total, f"{right} of {total}"


def line_of(path: tuple, file: Path) -> int:
    """Line of a key in block style, found by its indentation (safe_dump indents by two)."""
    depth, wanted = 0, list(path)
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        if line.startswith("  " * depth + wanted[depth] + ":"):
            depth += 1
            if depth == len(wanted):
                return number
    raise AssertionError(f"{path} not in the file")


def test_misspelt_options_are_refused_with_the_right_name(capsys):
    chance, right, total = random.Random(1), 0, 0
    for name, config_class in CLASSES.items():
        valid = valid_names(Path(name))
        for path in sorted(valid):
            if isinstance(at(config_class(), path), dict):  # sections and free mappings
                continue
            for wrong in chance.sample(misspell(path[-1], chance), 3):
                option = ".".join((*path[:-1], wrong))
                if not wrong or (*path[:-1], wrong) in valid:
                    continue
                with pytest.raises(SystemExit) as caught:
                    parse_config(config_class, "", [f"--{option}", "1"])
                error = capsys.readouterr().err
                assert caught.value.code == 2
                assert f"unknown option --{option.replace('-', '_')};" in error and error.count("\n") == 1, error
                total += 1
                right += f"did you mean --{'.'.join(path)}?" in error
    assert total > 400
    assert right >= 0.95 * total, f"{right} of {total}"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--losses.target=2", "losses.target must be at most 0.99"),
        ("--losses.hr_share=1", "losses.hr_share must be at most 0.9"),
        ("--losses.distill=-1", "losses.distill must be at least 0"),
        ("--data.label_share=0", "data.label_share must be above 0"),
        ("--data.label_share=2", "data.label_share must be at most 1"),
        ("--masker.budget_dropout=[0.1, 1.5]", "masker.budget_dropout must be at most 1"),
        ("--gumbel.end=0", "gumbel.end must be at least 0.01"),
        ("--masker.halo=-3", "masker.halo must be at least 0"),
        ("--run.log_every=0", "run.log_every must be at least 1"),
        ("--data.scale=5", "data.scale must be at most 4"),
        ("--augment.scale=2", "augment.scale must be at most 0.9"),
        ("--optim.lr_low=-1", "optim.lr_low must be at least 0"),
        ("--optim.milestones=[3, 0]", "optim.milestones must be at least 1, found [3, 0]"),
        ("--data.degradation.first.jpeg=[0, 95]", "data.degradation.first.jpeg must be at least 1"),
        ("--data.scales=[1, 31]", "data.scales must be at most 30"),
        ("--loss.pixel=l3", "loss.pixel must be one of l1, charbonnier"),
    ],
)
def test_values_out_of_bounds_are_refused(option, message, capsys):
    kind = schema.Stage2Config if option.startswith(("--data.deg", "--data.scales", "--loss.")) else Stage3Config
    with pytest.raises(SystemExit):
        parse_config(kind, "", [option])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "option"),
    [
        (schema.Stage1Config, "--batch=0"),
        (EvaluateConfig, "--overlays=-1"),
        (EvaluateConfig, "--conf=3"),
        (InferenceConfig, "--conf=1.5"),
        (InferenceConfig, "--batch=0"),
        (InferenceConfig, "--threads=-1"),
    ],
)
def test_every_script_refuses_them(config, option, capsys):
    with pytest.raises(SystemExit) as end:
        parse_config(config, "", [option])
    assert end.value.code == 2 and option.split("=")[0] in capsys.readouterr().err
