"""Do the sequence models keep the protocol of a base model, and are their networks those of the papers?"""

import json

import numpy as np
import pytest
import torch

from research.errors import UserError
from research.training.models.base import ModelAbsentError, class_weights, make_model, model_target, scaler_path
from research.training.models.neural import BATCH, CLIP, reproducibly, spread
from research.training.models.nhits import NHiTSBlock, NHiTSNetwork, interpolation, max_pool
from research.training.models.patchtst import PatchTSTNetwork, rev_in
from research.training.models.schedule import artefact_hash
from research.training.models.windows import Windows
from tests.conftest import assert_same_bits

NAMES = ("alpha", "beta", "gamma", "delta")
SLOTS = ("nhits", "patchtst")
L, S = 24, 5  # of preset tiny; symbols
PRESETS = ("default", "original", "published", "fast", "tiny")


def market(n: int, seed: int = 0, lookback: int = L) -> tuple[Windows, np.ndarray]:
    """Windows whose class is the sign of what the first feature did 3 bars ago against 9 bars ago: no single row tells it."""
    rng = np.random.default_rng(seed)
    matrix = (rng.normal(0.0, 1.0, (n + lookback, S, 4)) * [1.0, 100.0, 1e-4, 1.0] + [0.0, 1e4, 0.0, 5.0]).astype(np.float32)
    moved = np.zeros((n + lookback, S))
    moved[9:] = matrix[6:-3, :, 0] - matrix[:-9, :, 0]
    cells = np.arange(lookback * S, len(matrix) * S)
    return Windows(matrix, cells, lookback), np.where(moved > 0.6, 2, np.where(moved < -0.6, 0, 1)).astype(np.int8).reshape(-1)[cells]


def unfitted(slot: str, preset: str = "tiny"):
    return make_model(model_target(slot), NAMES, preset)


def fitted(slot: str, seed: int = 42, n: int = 120):
    model = unfitted(slot)
    model.fit(*market(n), *market(40, 1), seed)
    return model


@pytest.fixture(scope="module", params=SLOTS)
def model(request):
    return fitted(request.param)


def some(n: int, seed: int = 7) -> Windows:
    windows = market(-(-n // S), seed)[0]
    return Windows(windows.matrix, windows.cells[:n], L)


# ------------------------------------------------------------------ prediction


def test_a_window_gives_the_same_bits_in_any_place_and_company(model):
    windows = some(70)
    whole = model.predict_proba(windows)
    assert whole.dtype == np.float64
    assert whole.shape == (70, 3)
    np.testing.assert_allclose(whole.sum(axis=1), 1.0, atol=1e-12)
    cells, rng = windows.cells, np.random.default_rng(0)
    for order in (np.arange(70)[::-1], rng.permutation(70), rng.integers(0, 70, 33)):
        assert_same_bits(model.predict_proba(Windows(windows.matrix, cells[order], L)), whole[order])
    for place in range(BATCH):  # one window in every place, strangers around it
        order = rng.integers(0, 70, BATCH)
        order[place] = 11
        assert_same_bits(model.predict_proba(Windows(windows.matrix, cells[order], L))[place], whole[11])
    one_by_one = [model.predict_proba(Windows(windows.matrix, cells[i : i + 1], L)) for i in range(70)]
    assert_same_bits(np.concatenate(one_by_one), whole)


def test_a_window_gives_the_same_bits_from_any_piece_of_history(model):
    windows = some(40)
    whole = model.predict_proba(windows)
    t, s = np.divmod(windows.cells, S)
    for i in (0, 13, 39):
        piece = np.ascontiguousarray(windows.matrix[t[i] - L + 1 : t[i] + 1])
        assert_same_bits(model.predict_proba(Windows(piece, np.array([(L - 1) * S + s[i]]), L)), whole[i : i + 1])


def test_a_window_depends_on_its_own_rows_alone(model):
    windows = some(30)
    whole = model.predict_proba(windows)
    t, s = np.divmod(windows.cells[17], S)
    changed = np.full_like(windows.matrix, 77.0)
    changed[t - L + 1 : t + 1, s] = windows.matrix[t - L + 1 : t + 1, s]
    one = np.array([windows.cells[17]])
    assert_same_bits(model.predict_proba(Windows(changed, one, L)), whole[17:18])
    for row, says in ((t - L + 1, True), (t, True), (t - L, False), (t + 1, False)):
        moved = windows.matrix.copy()
        moved[row, s, 0] += 1.0
        same = np.array_equal(model.predict_proba(Windows(moved, one, L)), whole[17:18])
        assert same is not says, row


def test_where_the_place_matters_windows_go_one_by_one(model, monkeypatch):
    forward = type(model.network).forward

    def by_place(self, windows):
        return forward(self, windows) + 1e-3 * torch.arange(len(windows))[:, None] * torch.tensor([1.0, 0.0, 0.0])

    monkeypatch.setattr(type(model.network), "forward", by_place)
    again = unfitted(model.slot)
    again.scaler = model.scaler
    again._read(model._write())
    assert again.batch == 1
    assert model.batch == BATCH


# ------------------------------------------------------------------ training


@pytest.mark.parametrize("slot", SLOTS)
def test_a_refit_has_the_same_hash_and_another_seed_another(slot, tmp_path):
    hashes = []
    for i, seed in enumerate((42, 42, 43)):
        torch.rand(3)  # the caller's own generator plays no part
        path = tmp_path / f"{i}.safetensors"
        fitted(slot, seed, n=60).save(path)
        hashes.append(artefact_hash(path))
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize("slot", SLOTS)
def test_a_pattern_in_time_is_learned(slot):
    model = unfitted(slot)
    windows, classes = market(1200)
    model.fit(windows, classes, *market(200, 1), 42)
    unseen, truth = market(200, 2)
    said = model.predict_proba(unseen).argmax(axis=1)
    moved = (truth != 1) & (said != 1)
    assert np.mean(said[moved] == truth[moved]) > 0.8


def test_the_best_epoch_is_kept_and_the_rest_is_told(model):
    seen = []
    again = unfitted(model.slot)
    again.on_progress = lambda *report: seen.append(report)
    noise = np.random.default_rng(3).integers(0, 3, 80 * S).astype(np.int8)  # 400 windows: more than one batch
    again.fit(*market(120), market(80, 1)[0], noise, 42)
    history, best = again.history, again.history["best"]
    assert history["valid"][best] == min(history["valid"])
    n_epochs, rounds = len(history["valid"]), again.presets["tiny"].rounds
    assert len(history["train"]) == n_epochs <= rounds
    done = [report[0] for report in seen]
    assert done == sorted(set(done))
    assert len(done) > n_epochs
    assert done[-1] in (10 * n_epochs, 10 * n_epochs - 1)  # the shares of the batches may add up to a little less than 1
    assert seen[-1][1:] == (10 * rounds, f"epoch {n_epochs}")
    assert again.params()["history"] == history
    assert again.params()["rounds"] == best + 1
    windows = market(80, 1)[0]  # the loss of what was kept is the best one reported
    weights = class_weights(np.bincount(market(120)[1], minlength=3), "balanced")[noise]
    losses = -np.log(again.predict_proba(windows)[np.arange(len(noise)), noise])
    assert np.sum(weights * losses) / np.sum(weights) == pytest.approx(history["valid"][best], rel=1e-4)


def test_training_stops_when_patience_ends(monkeypatch):
    model = unfitted("nhits")
    preset = model.presets["tiny"]
    monkeypatch.setitem(model.presets, "tiny", type(preset)(preset.params, 50, 3, "balanced"))
    noise = np.random.default_rng(3).integers(0, 3, 40 * S).astype(np.int8)
    model.fit(*market(60), market(40, 1)[0], noise, 42)
    assert len(model.history["valid"]) == model.history["best"] + 4 < 50


@pytest.mark.parametrize("slot", SLOTS)
def test_what_cannot_be_fitted_is_absent(slot):
    windows, classes = market(20)
    with pytest.raises(ModelAbsentError, match="must hold every class, 100 were without SELL, BUY"):
        unfitted(slot).fit(windows, np.ones_like(classes), *market(20, 1), 42)
    with pytest.raises(ModelAbsentError, match="training windows of 24 complete rows must exist, was 0"):
        unfitted(slot).fit(Windows(windows.matrix, windows.cells[:0], L), classes[:0], *market(20, 1), 42)
    with pytest.raises(ModelAbsentError, match="validation rows must exist, was 0"):
        unfitted(slot).fit(windows, classes, Windows(windows.matrix, windows.cells[:0], L), classes[:0], 42)


def test_a_capped_fit_takes_windows_evenly_over_time_and_of_every_symbol():
    which = spread(19 * 19_000, 19_000, 42)  # every 19th would be one symbol of 19
    assert len(which) == 19_000
    assert (np.diff(which) > 0).all()
    assert (which // 19 == np.arange(19_000)).all()
    assert np.bincount(which % 19).min() > 850
    assert_same_bits(which, spread(19 * 19_000, 19_000, 42))
    assert_same_bits(spread(7, 10, 42), np.arange(7))
    assert_same_bits(spread(7, None, 42), np.arange(7))


def test_torch_is_left_as_it_was():
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    with reproducibly(1):
        assert torch.get_num_threads() == 1
        torch.rand(5)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: training on one is not tried")
@pytest.mark.parametrize("slot", SLOTS)
def test_a_gpu_trains_what_the_cpu_serves(slot, tmp_path):
    for name in "ab":
        fitted(slot).save(tmp_path / name)
    assert artefact_hash(tmp_path / "a") == artefact_hash(tmp_path / "b")


# ------------------------------------------------------------------ presets, inputs, files


@pytest.mark.parametrize("slot", SLOTS)
def test_presets_are_those_of_the_specification(slot):
    default, original, fast = (unfitted(slot, preset).params() for preset in ("default", "original", "fast"))
    assert {preset: unfitted(slot, preset).lookback for preset in PRESETS} == dict.fromkeys(PRESETS, 120) | {"tiny": L}
    assert default.items() >= {"max_rounds": 100, "patience": 15, "class_weights": "balanced", "dropout": 0.1, "max_windows": None}.items()
    assert (fast["max_windows"], fast["max_rounds"]) == (12_000, 2)
    if slot == "nhits":
        assert default.items() >= {"pools": [1, 2, 4], "hidden": [128, 64, 32], "blocks": 1, "learning_rate": 1e-3, "batch": 128}.items()
        assert original.items() >= {"hidden": [512, 256, 128], "blocks": 3, "channels": 1, "horizon": 1}.items()
    else:
        assert default.items() >= {"patch": 12, "stride": 12, "d_model": 64, "heads": 4, "layers": 2, "ff": 128}.items()
        assert default.items() >= {"learning_rate": 1e-4, "weight_decay": 1e-5, "batch": 64}.items()
        assert original.items() >= {"d_model": 64, "heads": 8, "layers": 2, "ff": 256, "has_level": False}.items()
        assert fast.items() >= {"d_model": 32, "layers": 1}.items()
    assert unfitted(slot, "published").params() | {"preset": "original"} == original
    with pytest.raises(UserError, match=r"preset \(--preset\) must be one of default, original, published, fast, tiny, was 'huge'"):
        unfitted(slot, "huge")


def test_windows_of_another_kind_are_refused(model):
    windows = some(5)
    with pytest.raises(ValueError, match=r"must get float32 windows \[N, 24, 4\] of alpha, beta, gamma, delta, was Windows \[5, 23, 4\]"):
        model.predict_proba(Windows(windows.matrix, windows.cells, 23))
    with pytest.raises(ValueError, match=r"was ndarray \[5, 4\]"):
        model.predict_proba(np.zeros((5, 4), np.float32))
    with pytest.raises(ValueError, match="must be fitted or loaded before it predicts"):
        unfitted(model.slot).predict_proba(windows)


def test_a_stored_model_answers_alike_and_writes_the_same_file(model, tmp_path):
    path = tmp_path / "m.safetensors"
    model.save(path)
    again = unfitted(model.slot).load(path)
    assert_same_bits(again.predict_proba(some(20)), model.predict_proba(some(20)))
    again.save(tmp_path / "again.safetensors")
    assert artefact_hash(tmp_path / "again.safetensors") == artefact_hash(path)


def test_files_that_do_not_belong_are_refused(model, tmp_path):
    path = tmp_path / "m.safetensors"
    model.save(path)
    data, text = path.read_bytes(), scaler_path(path).read_text()
    path.write_bytes(data[:-10])
    with pytest.raises(ModelAbsentError, match="was altered or cut short"):
        unfitted(model.slot).load(path)
    path.write_bytes(data)
    with pytest.raises(ModelAbsentError, match=r"must have the features .* in another order"):
        make_model(model_target(model.slot), NAMES[::-1], "tiny").load(path)
    with pytest.raises(
        ModelAbsentError, match=r"must be a .safetensors file of its library, was not: its weights are of other names or sizes"
    ):
        unfitted(model.slot, "fast").load(path)
    for broken in (b"no weights at all", b""):
        path.write_bytes(broken)
        scaler_path(path).write_text(model.scaler.to_json(NAMES, broken))
        with pytest.raises(ModelAbsentError, match=r"must be a .safetensors file of its library, was not"):
            unfitted(model.slot).load(path)
    path.write_bytes(data)
    scaler_path(path).write_text(json.dumps(json.loads(text) | {"scale": [0.0] * 4}))
    with pytest.raises(ModelAbsentError, match="positive scales"):
        unfitted(model.slot).load(path)


def test_a_network_that_answers_always_the_same_is_absent(model, tmp_path):
    path, again = tmp_path / "m.safetensors", unfitted(model.slot)
    again.scaler, again.network = model.scaler, again._build(again.presets["tiny"].params)
    for name, value in again.network.named_parameters():
        if name.startswith("head"):
            torch.nn.init.zeros_(value)
    again.save(path)
    with pytest.raises(ModelAbsentError, match="must answer two random windows differently, was the same within 1e-06"):
        unfitted(model.slot).load(path)


def test_network_clips_wild_values(model):
    windows = some(1)
    wild = windows.matrix.copy()
    t, s = np.divmod(windows.cells[0], S)
    wild[t, s, 0] = 1e30
    edge = windows.matrix.copy()
    edge[t, s, 0] = model.scaler.mean[0] + (CLIP + 1.0) * model.scaler.scale[0]
    assert_same_bits(model.predict_proba(Windows(wild, windows.cells, L)), model.predict_proba(Windows(edge, windows.cells, L)))


# ------------------------------------------------------------------ N-HiTS as in the paper


def test_pooling_takes_the_largest_of_each_stretch():
    x = np.random.default_rng(0).normal(size=(2, 3, 12)).astype(np.float32)
    for kernel in (1, 2, 4):
        want = x.reshape(2, 3, 12 // kernel, kernel).max(axis=-1)
        assert_same_bits(max_pool(torch.from_numpy(x), kernel).numpy(), want)
        assert_same_bits(torch.nn.functional.max_pool1d(torch.from_numpy(x), kernel).numpy(), want)


def test_interpolation_draws_straight_lines_between_knots():
    rng = np.random.default_rng(1)
    for n_knots, length in ((2, 8), (4, 8), (8, 8), (30, 120), (1, 8), (1, 1)):
        theta = rng.normal(size=n_knots)
        drawn = theta @ interpolation(n_knots, length).double().numpy()
        at = np.linspace(0.0, length - 1.0, n_knots)
        for t in range(length):  # as the paper: theta[1] + (theta[2] - theta[1]) / (t2 - t1) * (t - t1)
            left = min(int(np.searchsorted(at, t, side="right")) - 1, max(n_knots - 2, 0))
            slope = (theta[left + 1] - theta[left]) / (at[left + 1] - at[left]) if n_knots > 1 else 0.0
            assert drawn[t] == pytest.approx(theta[left] + slope * (t - at[left]), abs=1e-6)


def nhits(**sizes) -> NHiTSNetwork:
    torch.manual_seed(5)
    known = {"lookback": 24, "channels": 3, "horizon": 4, "stacks": [(1, 16), (2, 8), (4, 8)], "blocks": 2, "dropout": 0.1}
    return NHiTSNetwork(4, **known | sizes).eval()


def test_a_block_is_pool_network_and_two_interpolations():
    block = NHiTSBlock((3, 24, 4), 4, 8, 0.1).eval()
    x = torch.randn(2, 3, 24)
    backcast, forecast = (y.detach().numpy() for y in block(x))
    assert (backcast.shape, forecast.shape) == ((2, 3, 24), (2, 3, 4))
    pooled = x.numpy().reshape(2, 3, 6, 4).max(axis=-1).reshape(2, 18)
    for i in (0, 3, 6):
        layer = block.network[i]
        pooled = pooled @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        pooled = np.maximum(pooled, 0.0) if i < 6 else pooled
    theta = pooled.reshape(2, 3, 7)  # 24 / 4 knots look back, 4 / 4 ahead
    for b in range(2):
        for c in range(3):
            knots = np.linspace(0, 23, 6)
            np.testing.assert_allclose(backcast[b, c], np.interp(np.arange(24), knots, theta[b, c, :6]), atol=1e-5)
            np.testing.assert_allclose(forecast[b, c], np.full(4, theta[b, c, 6]), atol=1e-5)


def test_stacks_are_doubly_residual():
    network, x = nhits(), torch.randn(2, 24, 4)
    residual = network.embed(x).transpose(1, 2)
    backcasts, forecasts, inputs = [], [], []
    for block in network.blocks:
        inputs.append(residual)
        back, fore = block(residual)
        backcasts.append(back)
        forecasts.append(fore)
        residual = residual - back
    left, forecast = network.decompose(x)
    embedded = network.embed(x).transpose(1, 2)
    torch.testing.assert_close(left + sum(backcasts), embedded)
    torch.testing.assert_close(forecast, sum(forecasts))
    torch.testing.assert_close(inputs[3], embedded - sum(backcasts[:3]))
    torch.testing.assert_close(network(x), network.head(forecast.flatten(1)))
    assert [block.pool for block in network.blocks] == [1, 1, 2, 2, 4, 4]
    for block in network.blocks:
        for p in block.parameters():
            torch.nn.init.zeros_(p)
    left, forecast = network.decompose(x)  # blocks that say nothing leave all of the window and forecast nothing
    torch.testing.assert_close(left, embedded)
    assert not forecast.any()


def test_a_lookback_that_the_pools_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="lookback must be a multiple of the pool kernel 4, was 30"):
        nhits(lookback=30)


# ------------------------------------------------------------------ PatchTST as in the paper

SIZES = {"lookback": 24, "patch": 6, "stride": 6, "d_model": 16, "heads": 2, "layers": 2, "ff": 32, "dropout": 0.1, "has_level": True}


def patchtst(**sizes) -> PatchTSTNetwork:
    torch.manual_seed(6)
    return PatchTSTNetwork(4, SIZES | sizes).eval()


def test_normalisation_takes_level_and_scale_of_each_channel_away():
    x = torch.randn(3, 4, 24, dtype=torch.float64) + 1.0
    scale, shift = torch.rand(1, 4, 1, dtype=torch.float64) + 0.5, torch.randn(1, 4, 1, dtype=torch.float64) * 9.0
    values, mean, deviation = rev_in(x)
    torch.testing.assert_close(rev_in(x * scale + shift)[0], values, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(values * deviation + mean, x)
    np.testing.assert_allclose(values.mean(-1), 0.0, atol=1e-12)
    np.testing.assert_allclose(values.numpy().std(axis=-1), 1.0, atol=1e-3)
    assert not rev_in(torch.full((1, 1, 24), 3.0))[0].any()
    network = patchtst(has_level=False).double()  # without the level nothing of it reaches the answer
    moved = (x * scale + shift).transpose(1, 2)
    torch.testing.assert_close(network(moved), network(x.transpose(1, 2)), rtol=1e-3, atol=1e-3)
    assert (patchtst().double()(moved) - patchtst().double()(x.transpose(1, 2))).abs().max() > 0.01


def test_channels_are_encoded_alone_and_alike():
    network, x = patchtst(), torch.randn(3, 4, 24)
    encoded = network.encode(x)
    assert encoded.shape == (3, 4, 4, 16)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(network.encode(x[:, order]), encoded[:, order])
    changed = x.clone()
    changed[:, 1] += torch.randn(24)
    again = network.encode(changed)
    torch.testing.assert_close(again[:, [0, 2, 3]], encoded[:, [0, 2, 3]])
    assert (again[:, 1] - encoded[:, 1]).abs().max() > 0.01


def test_patches_hold_exactly_their_rows():
    for patch, stride, n in ((6, 6, 4), (6, 3, 7)):
        network, x = patchtst(patch=patch, stride=stride, layers=0), torch.randn(1, 1, 24)
        plain = network.encode(x)  # without attention a token sees its own patch only
        assert plain.shape[2] == n
        for row in range(24):
            changed = x.clone()
            changed[..., row] += 1.0
            moved = (network.encode(changed) - plain).abs().amax((0, 1, 3)) > 1e-6
            assert moved.tolist() == [k * stride <= row < k * stride + patch for k in range(n)], row


def test_the_order_of_patches_is_known():
    network, x = patchtst(), torch.randn(1, 4, 24)
    turned = x.unflatten(2, (4, 6)).flip(2).flatten(2)
    assert (network.encode(turned).mean(2) - network.encode(x).mean(2)).abs().max() > 1e-4
    torch.nn.init.zeros_(network.position)
    torch.testing.assert_close(network.encode(turned).mean(2), network.encode(x).mean(2))


def test_attention_equals_the_library():
    network, tokens = patchtst(), torch.randn(5, 4, 16)
    layer = network.layers[0]
    library = torch.nn.TransformerEncoderLayer(16, 2, 32, 0.1, "gelu", batch_first=True, norm_first=True).eval()
    names = {"self_attn.in_proj_": "mix.", "self_attn.out_proj.": "out.", "linear1.": "network.0.", "linear2.": "network.3."}
    names |= {"norm1.": "norm_attention.", "norm2.": "norm_network."}
    mine = layer.state_dict()
    library.load_state_dict({theirs + part: mine[own + part] for theirs, own in names.items() for part in ("weight", "bias")})
    torch.testing.assert_close(layer(tokens), library(tokens), rtol=1e-5, atol=1e-5)
