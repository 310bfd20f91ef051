from dataclasses import fields
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

import research
from qtcore import Params
from qtcore.params import PARAMS, describe
from qtcore.profiles import PROFILES
from qtcore.types import InputError
from research.data import simulate
from research.errors import ConfigError, UserError
from research.runs.config import load_config
from research.training.plan import PLANS, TrainingPlan


def test_later_wins(tmp_path: Path) -> None:
    file = tmp_path / "qt.toml"
    file.write_text('[governor]\nmin_confidence = 0.6\nmax_daily_trades = 5\n[run]\nlabel = "L3"\nmodels = ["xgb"]\n')
    config = load_config("original", file, ["governor.min_confidence=0.7", "run.seed=3"])
    assert config.params.governor.min_confidence == 0.7
    assert config.params.governor.max_daily_trades == 5
    assert config.params.ensemble.tie_break.name == "ORDER"
    assert (config.run.label, config.run.models, config.run.seed) == ("L3", ("xgb",), 3)


def test_what_was_changed_can_be_said_again() -> None:
    texts = ["governor.min_confidence=0.7", "ensemble.weights=1,1,1,1,0", "run.models=xgb,lgbm", "run.rolling=on", "run.retrain_every=7d"]
    config = load_config("original", sets=texts)
    assert load_config("original", sets=config.changes()) == config
    assert load_config("original").changes() == []
    told = config.run.training(("lgbm",))
    assert told.models == ("xgb", "lgbm")
    assert (told.is_rolling, told.retrain_every, told.n_folds, told.embargo) == (True, "7d", None, None)
    assert load_config().run.training(("lgbm",)).models == ("lgbm",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("governor.max_daily_trade=3", "did you mean governor.max_daily_trades"),
        ("governor.min_confidence=2", r"governor.min_confidence must be a number in \[0.0, 1.0\], was '2'"),
        ("governor.max_daily_trades=2.5", "must be an int in"),
        ("meta.mode=oracle", "must be one of policy, override, v5, bet, was 'oracle'"),
        ("meta.enabled=perhaps", "must be on or off"),
        ("ensemble.weights=1,2", "must be 5 numbers"),
        ("ensemble.weights=0,0,0,0,0", "sum above 0"),
        ("nonsense", "layer.name=value"),
        ("min_confidence=0.7", r"layer.name=value, was 'min_confidence=0.7'; did you mean governor.min_confidence\?"),
        ("enabled=off", r"did you mean meta.enabled or arbiter.enabled\?"),
        ("folds=3", r"did you mean run.folds\?"),
        ("nothing_like_it=3", "layer.name=value, was 'nothing_like_it=3'; `qt doctor --params` lists the names"),
        ("run.folds=0", r"run.folds must be auto or an int in \[1, 10000\], was '0'"),
        ("run.folds=-1", r"run.folds must be auto or an int in \[1, 10000\], was '-1'"),
        ("run.seed=x", r"run.seed \(--seed\) must be an int in \[0, 4294967295\], was 'x'"),
        ("run.label_=x", "run.label_ must be one of"),
        ("run.shuffle=true", "splits must keep the order of time, was run.shuffle=true; neighbouring labels share bars"),
        ("run.rolling=perhaps", "run.rolling must be on or off, was 'perhaps'"),
        ("run.preset=slow", r"run.preset \(--preset\) must be one of default, published, original, fast, tiny, was 'slow'"),
        ("run.split=random", "run.split must be one of walk_forward, single_split, was 'random'"),
        ("run.embargo=-3", r"run.embargo must be auto or an int in \[0, 2147483647\], was '-3'"),
    ],
)
def test_a_bad_value_is_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_config(sets=[text])


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must be a TOML file .*, was not found"):
        load_config(path=tmp_path / "none.toml")
    bad = tmp_path / "bad.toml"
    bad.write_text("[governor\n")
    with pytest.raises(UserError, match="was no TOML"):
        load_config(path=bad)
    bad.write_text("governor = 3\n")
    with pytest.raises(UserError, match="must be a table"):
        load_config(path=bad)


def test_the_profiles_differ_in_the_switches_of_the_specification() -> None:
    published, original = Params.profile("published").flat(), Params.profile("original").flat()
    changed = {name for name in published if published[name] != original[name]}
    switches = "ensemble.tie_break meta.policy_base meta.missing_fill arbiter.macd_units governor.sizing_mode governor.cooldown_scope"
    switches += " governor.exposure_mode governor.drawdown_basis features.feature_set meta.consensus_guard features.warmup meta.enabled"
    assert changed == {*switches.split(), "arbiter.enabled"}


@pytest.mark.parametrize("name", ["published", "original"])
def test_a_fixed_profile_names_all_that_a_default_could_change(name: str) -> None:
    params = Params.profile(name)
    assert {*PROFILES[name]} == {*params.flat()} == {*Params().flat()}
    assert params.flat() == PROFILES[name]
    assert params.sharing is None  # a new voter gets its equal share, as with the defaults
    left_to_the_user = {"models", "params", "base", "seed", "shuffle", "periods", "knows_until"}
    assert {*PLANS[name]} == {field.name for field in fields(TrainingPlan)} - left_to_the_user


def test_a_profile_is_of_the_training_too_and_what_is_said_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PLANS, "original", {**PLANS["original"], "calibration": "temperature", "train_share": 0.5})
    config = load_config("original", sets=["run.train_share=0.3"])
    assert (config.run.calibration, config.run.train_share) == ("temperature", 0.3)
    assert config.changes() == ["run.train_share=0.3"]
    preds = research.train(simulate("random_walk", n_bars=400), ["lgbm"], profile="original", n_folds=2, train_share=0.4, processes=1)
    plan = preds.models.config["plan"]
    assert (plan["calibration"], plan["train_share"], plan["params"]["ensemble.tie_break"]) == ("temperature", 0.4, "order")
    with pytest.raises(InputError, match=r"profile \(--profile\) must be one of default, published, original, was 'best'"):
        research.train(simulate("random_walk", n_bars=400), profile="best")


def test_what_a_file_does_not_name_is_as_it_was_published() -> None:
    values = {name: value for name, value in Params.profile("original").flat().items() if name != "ensemble.tie_break"}
    assert Params.stored(values) == Params.profile("original").with_values({"ensemble.tie_break": "hold"})
    assert TrainingPlan.stored({"seed": 3}) == TrainingPlan.profile("published", seed=3)


def test_every_parameter_round_trips_through_the_record_and_text() -> None:
    params = Params.profile("original")
    assert Params().with_values(params.flat()) == params
    record = params.record()[0]
    for row in describe():
        layer, name = row["name"].split(".")
        if name in (PARAMS[layer].names or ()):
            assert list(record[layer][name].reshape(-1)) == list(_as_list(getattr(getattr(params, layer), name)))
    assert all(row["meaning"] for row in describe())


def _as_list(value: object) -> tuple:
    return value if isinstance(value, tuple) else (value,)


def test_config_is_the_same_in_whatever_order_names_are_set(tmp_path):
    sets = ["stages=2024-03-01 meta=on arbiter=off; 2024-04-01 arbiter=on", "meta.enabled=off", "governor.min_confidence=0.6"]
    told = [load_config(sets=order) for order in permutations(sets)]
    assert all(config == told[0] for config in told)
    assert len(told[0].params.stages) == 2
    assert told[0].params.meta.enabled is False  # before the first stage, which turns it on
    (tmp_path / "qt.toml").write_text("[[stage]]\nfrom = 2024-03-01\nmeta = true\n", encoding="utf-8")
    mixed = load_config(path=tmp_path / "qt.toml", sets=["meta.enabled=off"])
    assert [stage.values for stage in mixed.params.stages] == [(("meta.enabled", True),)]


def test_values_that_go_only_together_may_be_set_in_any_order():
    sets = ["decide.rule=edge", "meta.mode=bet", "ensemble.rule=mean"]
    told = [load_config("published", sets=order).params for order in permutations(sets)]
    assert all(params == told[0] for params in told)
    with pytest.raises(InputError, match=r"decide\.min_edge must be a number in .*, was '-3'"):
        load_config("published", sets=["decide.rule=edge", "decide.min_edge=-3", "meta.mode=bet"])
    with pytest.raises(InputError, match=r"meta\.mode must be bet where decide\.rule is edge, was policy"):
        load_config("published", sets=["decide.rule=edge"])


def test_search_is_set_as_everything_else_is(tmp_path):
    (tmp_path / "qt.toml").write_text("[search]\nmethod = 'random'\nsettings = 20\n", encoding="utf-8")
    search = load_config(path=tmp_path / "qt.toml", sets=["search.objective=-max_drawdown", "search.by_regime=on"]).search
    assert (search.search, search.n_settings, search.objective, search.by_regime) == ("random", 20, "-max_drawdown", True)
    assert load_config(sets=["search.method=adaptive"]).search.n_settings == 1_000
    with pytest.raises(UserError, match=r"search.settings \(--settings\) must be auto or an int in \[0, 2147483647\], was 'many'"):
        load_config(sets=["search.settings=many"])


def test_plan_takes_numbers_of_numpy_and_switches_as_words_and_nothing_else():
    plan = TrainingPlan.told(n_folds=np.int64(3), train_share=np.float32(0.5), seed=7.0, is_rolling="off", embargo=None)
    assert (plan.n_folds, plan.train_share, plan.seed, plan.is_rolling) == (3, 0.5, 7, False)
    assert [type(value) for value in (plan.n_folds, plan.train_share, plan.seed)] == [int, float, int]  # JSON keeps them
    for asked in (
        {"is_rolling": "perhaps"},
        {"is_rolling": 2},
        {"n_folds": True},
        {"n_folds": 2.5},
        {"seed": "seven"},
        {"models": 3},
        {"label": 3},
        {"train_share": np.nan},
    ):
        with pytest.raises(ConfigError, match=r"run\.\w+( \(--seed\))? must be"):
            TrainingPlan.told(**asked)
    with pytest.raises(UserError, match="folds must be one of"):
        TrainingPlan.told(folds=3)
    with pytest.raises(ConfigError, match=r"search\.by_regime must be on or off"):
        load_config(sets=["search.by_regime=perhaps"])
