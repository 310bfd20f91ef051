"""Does a folder come back as the run that wrote it, and is a folder that cannot refused?"""

import json

import numpy as np
import pytest

import research
from tests.conftest import assert_same_bits
from tests.support import PUBLISHED


@pytest.fixture(scope="module")
def run():
    bars = research.simulate("random_walk", seed=5, n_bars=500, n_symbols=3)
    first, second = bars.close_time[[200, 300]].astype("M8[ns]").astype(str)
    stages = [(first, False, True), (second, True, False)]
    return research.backtest(bars, research.Predictions.random(bars, seed=1), PUBLISHED, stages=stages)


def test_a_saved_run_comes_back(run, tmp_path):
    run.save(tmp_path / "run", record=False)
    back = research.load_run(tmp_path / "run")
    for name in ("equity", "balance", "exposure", "final_action", "governor_reason"):
        assert_same_bits(getattr(back.result, name), getattr(run.result, name), name)
    for table in ("decisions", "trades", "fills", "equity"):
        assert getattr(back, table).equals(getattr(run, table)), table
    assert back.manifest == run.manifest
    assert back.folder == tmp_path / "run"
    assert back.stats().equals(run.stats())


def test_an_altered_folder_is_refused(run, tmp_path):
    folder = run.save(tmp_path / "run", record=False)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["params"]["broker.fee_rate"] = 0.0005
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(research.UserError, match=r"must come out again as it was written, was .* other arrays .*; see `qt reproduce"):
        research.load_run(folder)


def test_own_layers_are_refused(run, tmp_path):
    def judge(votes, planes, params):
        return np.ones(votes.action.shape[1:], np.int8), np.full(votes.action.shape[1:], 0.5)

    own = research.backtest(run.bars, run.predictions, PUBLISHED, judge=judge)
    with pytest.raises(research.UserError, match=r"must have its own judge at hand to be made again, was .* without; run its script again"):
        research.load_run(own.save(tmp_path / "run", record=False))
