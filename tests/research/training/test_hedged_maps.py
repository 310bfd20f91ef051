"""Are opinions of a book that hedges the market worth what symbols do beyond it, and are they nobody else's?"""

import numpy as np
import pytest

import research
from qtcore.chain.outcome import outcomes
from qtcore.params import Params
from research.errors import UserError
from research.training.map_fit import Trades, usual

BOOK = {"governor.book": "cross_section", "governor.neutral": "dollar", "meta.enabled": False}
WORLD = "simulated:relative?n_bars=4000&n_symbols=8&ic=0.2"


@pytest.fixture(scope="module")
def trained():
    bars = research.load_bars(WORLD)
    params = Params().with_values(BOOK)
    return bars, params, research.train(bars, ("lgbm",), "XS", params, preset="tiny", n_folds=4)


def test_results_are_those_beyond_the_mean_of_their_bar_and_known_when_all_of_it_have_ended():
    bars = research.load_bars("simulated:gaps?n_bars=600&n_symbols=6&holes=0.03")
    plain = Params().with_values({"broker.max_holding_bars": 4})
    results, ends = outcomes(bars, plain)
    found = Trades.of(bars, plain.with_values(BOOK))
    for t in range(bars.n - 1):
        entered = [s for s in range(6) if bars.open[t + 1, s] == bars.open[t + 1, s]]
        open_still = any(ends[side, t, s] < 0 for side in (0, 1) for s in entered)
        last = bars.n if open_still else max((ends[side, t, s] for side in (0, 1) for s in entered), default=-1)
        for side in (0, 1):
            known = [r for r in results[side, t] if r == r]
            for s in range(6):
                want = results[side, t, s] - sum(known) / len(known) if known else np.nan
                assert found.results[side, t, s] == pytest.approx(want, nan_ok=True, abs=1e-15)
                assert found.ends[side, t, s] == (last if ends[side, t, s] >= 0 else -1)
    assert np.array_equal(Trades.of(bars, plain).results, results, equal_nan=True)
    assert np.nanvar(found.results) < 0.8 * np.nanvar(results)


def test_maps_are_kept_at_the_book_that_hedges_and_prove_themselves(trained, tmp_path):
    bars, params, made = trained
    assert made.maps.params["governor.book"] == "cross_section"
    assert usual(Params().with_values({"governor.book": "cross_section"})).governor.book == Params().governor.book
    run = research.backtest(bars, made, params)
    run.save(tmp_path / "run", record=False)
    assert [check["detail"] for check in run.verify()["checks"] if not check["passed"]] == []
    assert run.result.fills.size > 0


def test_what_was_found_for_one_kind_of_book_is_refused_for_the_other(trained):
    bars, params, made = trained
    with pytest.raises(UserError, match="hedges the market, was for a book that does not hedge the market; train with the same"):
        research.backtest(bars, made, Params().with_values({"meta.enabled": False}))
    plain = research.train(bars, ("lgbm",), "XS", Params().with_values({"meta.enabled": False}), preset="tiny", n_folds=2)
    with pytest.raises(UserError, match="for a book that does not hedge the market, was for a book that hedges the market"):
        research.backtest(bars, plain, params)
    research.backtest(bars, plain, Params().with_values({"governor.book": "cross_section", "meta.enabled": False}))
