"""Does the model section say what the artefacts' metadata say, and that nothing was recorded where nothing was?"""

import base64
import json
import re
import shutil
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from research.report import build, model_figures
from research.report.models import artefacts, importance_table, model_table, status_text
from research.workflow.recording import save_run
from tests.support.fake_run import fake_run

FEATURES = [f"feature_{i}" for i in range(14)]


def metadata(slot="xgb", fold=0, status="accepted", **more):
    why = ["unskilled: direction 50.1% is within chance"] if status == "unskilled" else ["accuracy low in an uptrend"]
    figures = {"n_scored": 4_000, "accuracy": 0.36, "majority_baseline": 0.39, "balanced_accuracy": 0.345, "balanced_accuracy_error": 0.01}
    figures |= {"log_loss": 1.09, "base_rate_log_loss": 1.05, "predicted_shares": {"HOLD": 0.3}}
    return {"slot": slot, "status": status, "warnings": why, "split": {"fold": fold, "cells": {"fit": 20_000}}} | figures | more


def recorded(seed):
    rng = np.random.default_rng(seed)
    gain = dict(zip(FEATURES, rng.dirichlet(np.ones(len(FEATURES))).tolist()))
    drop = dict(zip(FEATURES, rng.normal(0.002, 0.003, len(FEATURES)).tolist()))
    loss = np.linspace(1.1, 1.0, 400).tolist()
    return {"importance": {"gain": gain, "permutation": drop}, "history": {"train": loss, "valid": loss, "best": 120}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QT_HOME", str(tmp_path_factory.mktemp("home")))
        return save_run(fake_run(n=500, seed=1), tmp_path_factory.mktemp("reports") / "run", record=False)


def with_models(folder, tmp_path, metas):
    copy = shutil.copytree(folder, tmp_path / "run")
    for meta in metas:
        name = f"{meta['slot']}_v1_v5_meta.json"
        target = copy / "models" / ("meta" if meta["slot"] == "meta" else "") / f"fold_{meta['split']['fold']:02d}" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(meta), encoding="utf-8")
    return copy


def section(html):
    start = html.index('<section id="models">')
    return html[start : html.index("</section>", start)]


def test_a_run_without_artefacts_says_so(folder):
    text = section(build(folder).read_text(encoding="utf-8"))
    assert "No artefacts of models lie in this run" in text
    assert "No learning curves were recorded" in text
    assert "No feature importance was recorded" in text
    assert text.count("<figure>") == 1  # reliability needs no artefacts
    assert "Where the predictions come from" in text


def test_every_fold_of_every_model_has_its_row(folder, tmp_path):
    metas = [metadata(slot, fold, "unskilled" if fold else "accepted", **recorded(fold)) for slot in ("xgb", "nhits") for fold in (0, 1)]
    metas.append(metadata("meta", 1, kind="logistic", vector="meta26", n_train=900, synthetic=True))
    copy = with_models(folder, tmp_path, metas)
    found = artefacts(copy)
    assert [(m["slot"], m["split"]["fold"]) for m in found] == [("xgb", 0), ("xgb", 1), ("nhits", 0), ("nhits", 1), ("meta", 1)]
    rows = model_table(found).rows
    assert rows[0][:3] == ["XGBoost", "1", "accepted"]
    assert rows[1][-1] == "direction 50.1% is within chance"
    assert rows[4][:4] == ["meta model (logistic, meta26)", "2", "accepted, synthetic", "900"]
    assert "2 of 5 fitted models are not accepted: 2 without skill" in status_text(found)
    html = build(copy).read_text(encoding="utf-8")
    text = section(html)
    assert text.count("<figure>") == 3
    assert len(html.encode()) < 3_000_000
    for image in re.findall(r'data:image/svg\+xml;base64,([^"]+)"', text):
        svg = base64.b64decode(image).decode()
        assert len(list(ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}path"))) > 5
        assert "NaN" not in svg


def test_importance_is_the_mean_over_folds():
    metas = [metadata(fold=k, importance={"gain": {"a": 0.2 + k}, "permutation": {"a": 0.01 * (k + 1), "b": -0.01}}) for k in range(2)]
    table = importance_table(metas)
    assert table.headers == ["feature", "XGBoost, permutation", "gain"]
    assert table.rows == [["a", "+1.50 %", "70.0 %"], ["b", "-1.00 %", "-"]]
    assert importance_table([metadata()]) is None


def test_what_was_not_recorded_is_not_drawn():
    assert model_figures.curves([metadata()]) is None
    assert model_figures.importance([metadata()]) is None
    assert model_figures.reliability({"xgb": {"n": [0] * 15}}) is None
    only_gain = metadata(importance={"gain": {"a": 0.7, "b": 0.3}})
    assert model_figures.importance([only_gain]) is not None
    assert model_figures.curves([metadata(params={"history": {"train": [1.0], "valid": [1.1], "best": 0}})]) is not None
