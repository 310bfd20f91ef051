"""Feature recipes: how each feature is made. One line per name, from the primitives; formulas in `registry`, places in `plan`."""

import math
from collections.abc import Callable, Iterable

from qtcore.choices import MacdUnits, RsiVariant
from qtcore.features import primitives as op
from qtcore.features import table as tb
from qtcore.features.clock import MEMORY
from qtcore.features.plan import Graph, Node
from qtcore.params import Params
from qtcore.types import NS_PER_HOUR

SHORT = 24  # bars of which 80 % must be there for a window of a family that is longer, whose value is of the bars there are


class Recipes:
    """The vocabulary of the lines below, for the parameters of one bank."""

    def __init__(self, graph: Graph, params: Params, interval_ns: int, benchmark: int) -> None:
        self.graph, self.params, self.benchmark = graph, params, benchmark
        self.hour = max(1, NS_PER_HOUR // interval_ns)
        self.is_within_hours = interval_ns <= NS_PER_HOUR

    def momentum(self, lag: int) -> Node:
        """Return x[t] / x[t - lag] - 1; exactly 0 when the price is the same."""
        g = self.graph
        return g.node(op.SCALED, g.close, (g.close, lag), (g.inverse, lag))

    def over_close(self, a: Node, b: Node | None = None, k: float = 1.0) -> Node:
        """Return k (a - b) / x; b is 0 when left out."""
        g = self.graph
        return g.node(op.SCALED, a, g.zero if b is None else b, g.inverse, k=k)

    def minus(self, a: Node, b: Node | None = None, k: float = 1.0) -> Node:
        """Return k (a - b); b is 0 when left out."""
        g = self.graph
        return g.node(op.SCALED, a, g.zero if b is None else b, g.mask, k=k)

    def ratio(self, a: Node, b: Node, k: float, empty: float) -> Node:
        """Return k a / b, `empty` where b is 0."""
        return self.graph.node(op.RATIO, a, self.graph.zero, b, self.graph.zero, k=k, empty=empty)

    def rsi(self, n: int) -> Node:
        """Return RSI_n; 14 has a fast way, the general one repairs it around holes."""
        g = self.graph
        up, down = g.pair(op.MOVES, g.close, (g.close, 1))
        if self.params.features.rsi_variant == RsiVariant.WILDER:
            means = [g.node(tb.WILDER, move, g.for_worker, k=1.0 / n) for move in (up, down)]
            return g.node(op.RATIO, means[0], g.zero, *means, k=100.0, empty=50.0)
        sums = [g.window_sum(move, n, g.for_worker) for move in (up, down)]
        general = g.node(op.RATIO, sums[0], g.zero, *sums, k=100.0, empty=50.0)
        if n != 14:
            return general
        fast = g.node(op.INDEX14, g.total(up, 4), g.total(down, 4), up, down, empty=float(g.n_symbols))
        fast.general = [(fast, general, n)]
        return fast

    def volume_ratio(self, n: int) -> Node:
        """Return v / SMA_n(v) for n = 10 or 20: the fast way makes both, the general one repairs them around holes."""
        g = self.graph
        planes = g.pair(op.RATIOS, g.volume, g.total(g.volume, 4), empty=float(g.n_symbols))
        general = [self.ratio(g.volume, g.window_sum(g.volume, m, g.mask), float(m), 1.0) for m in (10, 20)]
        planes[0].general = [(planes[0], general[0], 20), (planes[1], general[1], 20)]
        return planes[0 if n == 10 else 1]

    def mean(self, x: Node, n: int) -> Node:
        """Return SMA_n of a series that is 0 at a hole."""
        return self.minus(self.graph.window_sum(x, n, self.graph.mask), k=1.0 / n)

    def ema(self, n: int) -> Node:
        """Return EMA_n of the close."""
        return self.graph.node(tb.EMA, self.graph.close, k=2.0 / (n + 1))

    def macd(self) -> Node:
        """Return EMA_12 - EMA_26."""
        return self.minus(self.ema(12), self.ema(26))

    def macd_signal(self) -> Node:
        """Return EMA_9 of the MACD."""
        return self.graph.node(tb.EMA, self.macd(), k=2.0 / (9 + 1))

    def macd_hist(self) -> Node:
        """Return the MACD less its signal."""
        return self.minus(self.macd(), self.macd_signal())

    def cross(self, n: int) -> Node:
        """Return 1 where EMA_10 is above EMA_n."""
        return self.graph.node(op.ABOVE, self.ema(10), self.ema(n))

    def bands(self) -> tuple[Node, Node]:
        """Return the upper and the lower Bollinger band."""
        ddof = self.params.features.bb_ddof
        moments = self.graph.window_moments(self.graph.close, 20, self.graph.mask, ddof)
        return self.graph.pair(op.BANDS, *moments, k=4.0 / (20 - ddof))

    def spread(self, n: int) -> Node:
        """Return STD_n of log returns, NaN where unknown."""
        g = self.graph
        ret = g.node(op.LOG_RATIO, g.close, (g.close, 1))
        return g.node(op.ROOT, g.window_moments(ret, n, g.for_worker)[1], g.mask, k=1.0 / (n - 1))

    def volatility_20(self) -> Node:
        """Return STD_20 of the close, ddof 1, over the close."""
        g = self.graph
        return g.node(op.ROOT, g.window_moments(g.close, 20, g.mask)[1], g.inverse, k=1.0 / 19.0)

    def ranges(self) -> Node:
        """Return the sum of 14 true ranges."""
        g = self.graph
        return g.window_sum(g.node(op.TRUE_RANGE, g.high, g.low, (g.close, 1)), 14, g.mask)

    def trend(self) -> Node:
        """Return (EMA_20 - EMA_50) / (2 ATR_14) within [-1, 1]."""
        g = self.graph
        slope = g.node(op.RATIO, self.ema(20), self.ema(50), self.ranges(), g.zero, k=14.0 / 2.0)
        return g.node(op.CLIP, slope)

    def known(self, x: Node, otherwise: float) -> Node:
        """Return x, or a number where it is unknown."""
        return self.graph.node(op.DEFAULT, x, k=otherwise)

    def product(self, a: Node, b: Node | tuple[Node, int], k: float = 1.0) -> Node:
        """Return k a b."""
        return self.graph.node(op.SCALED, a, self.graph.zero, b, k=k)

    def move(self) -> Node:
        """Return ln(x[t] / x[t - 1]), 0 where unknown."""
        return self.known(self.graph.node(op.LOG_RATIO, self.graph.close, (self.graph.close, 1)), 0.0)

    def size(self) -> Node:
        """Return the absolute value of the last move."""
        return self.minus(*self.graph.pair(op.MOVES, self.move(), self.graph.zero))

    def gated(self, x: Node, n: int, mask: Node) -> Node:
        """Return x where at least 80 % of n values are there, of a long window of its last `SHORT`; else NaN."""
        n = min(n, SHORT)
        return self.product(x, self.graph.window_sum(mask, n, mask), 1.0 / n)

    def window(self, x: Node, n: int, mask: Node) -> Node:
        """Sum the last n values, scaled to n where some are missing; a long window is known once a short one is."""
        g = self.graph
        if n <= SHORT:
            return g.window_sum(x, n, mask)
        return self.gated(g.node(op.RATIO, g.total(x, n), g.zero, g.total(mask, n), g.zero, k=float(n)), n, mask)

    def squares(self, n: int) -> Node:
        """Return the sum of n squared moves."""
        return self.window(self.product(self.move(), self.move()), n, self.graph.for_worker)

    def realised(self, n: int) -> Node:
        """Return the root of the mean of n squared moves."""
        return self.graph.node(op.ROOT, self.squares(n), self.graph.mask, k=1.0 / n)

    def pairs(self, n: int) -> Node:
        """Return the sum of n products of neighbouring moves' sizes."""
        g = self.graph
        return g.window_sum(self.product(self.size(), (self.size(), 1)), n, self.product(g.for_worker, (g.for_worker, 1)))

    def jump_share(self, n: int) -> Node:
        """Return the share of n bars' variance that their pairs do not have; 0 where it is unknown or below 0."""
        g = self.graph
        apart = g.node(op.RATIO, self.squares(n), self.minus(self.pairs(n), k=math.pi / 2.0), self.squares(n), g.zero)
        return g.pair(op.MOVES, apart, g.zero)[0]

    def log_over(self, a: Node, b: Node) -> Node:
        """Return ln(a / b) of two prices of a bar, 0 at a hole."""
        return self.known(self.graph.node(op.LOG_RATIO, a, b), 0.0)

    def span(self) -> Node:
        """Return ln(high / low), 0 at a hole."""
        return self.minus(self.log_over(self.graph.high, self.graph.open), self.log_over(self.graph.low, self.graph.open))

    def spanned(self, terms: Node, n: int, k: float = 1.0) -> Node:
        """Return the root of k times the mean of n terms, which are 0 or above but for rounding."""
        g = self.graph
        return g.node(op.ROOT, g.window_sum(g.pair(op.MOVES, terms, g.zero)[0], n, g.mask), g.mask, k=k / n)

    def parkinson(self, n: int) -> Node:
        """Return Parkinson's volatility of n bars."""
        return self.spanned(self.product(self.span(), self.span()), n, 0.25 / math.log(2.0))

    def garman_klass(self, n: int) -> Node:
        """Return Garman and Klass's volatility of n bars."""
        g = self.graph
        span, body = self.span(), self.log_over(g.close, g.open)
        return self.spanned(self.minus(self.product(span, span, 0.5), self.product(body, body, 2.0 * math.log(2.0) - 1.0)), n)

    def rogers_satchell(self, n: int) -> Node:
        """Return Rogers and Satchell's volatility of n bars."""
        g = self.graph
        top, end, bottom = (self.log_over(price, g.open) for price in (g.high, g.close, g.low))
        parts = (g.node(op.SCALED, edge, end, edge) for edge in (top, bottom))
        return self.spanned(g.node(op.ADD4, *parts, g.zero, g.zero), n)

    def scaled_move(self, n: int) -> Node:
        """Return the sum of n moves in deviations of such a one, from the last 168 bars; 0 where nothing moved."""
        g = self.graph
        return g.node(op.RATIO, g.total(self.move(), n), g.zero, self.realised(168), g.zero, k=1.0 / math.sqrt(n))

    def from_high(self, n: int) -> Node:
        """Return the close over the highest high of n bars, less 1."""
        g = self.graph
        top = g.most(self.known(g.high, 0.0), n)
        return self.gated(g.node(op.RATIO, g.close, top, top, g.zero), n, g.mask)

    def from_low(self, n: int) -> Node:
        """Return the close over the lowest low of n bars, less 1: the low is 1 over the largest 1 / low."""
        g = self.graph
        deepest = g.most(self.known(g.node(op.RATIO, g.mask, g.zero, g.low, g.zero), 0.0), n)
        return self.gated(self.minus(self.product(g.close, deepest), g.mask), n, g.mask)

    def illiquidity(self, n: int) -> Node:
        """Return the sum of n moves' sizes over the quote volume that made them."""
        g = self.graph
        per_quote = g.node(op.RATIO, self.size(), g.zero, self.product(g.close, g.volume), g.zero)
        return self.window(self.known(per_quote, 0.0), n, g.for_worker)

    def signed_volume(self, n: int) -> Node:
        """Return the volume of n bars with the signs of their moves, over all of it."""
        g = self.graph
        sign = self.minus(g.node(op.ABOVE, self.move(), g.zero), g.node(op.ABOVE, g.zero, self.move()))
        signed, whole = (self.window(volume, n, g.mask) for volume in (self.product(g.volume, sign), g.volume))
        return g.node(op.RATIO, signed, g.zero, whole, g.zero)

    def turned(self, hours: int, quarter: float) -> Node:
        """Return where the close lies in a day or a week, as a sine, or a cosine a quarter on."""
        return self.graph.node(tb.TURN, k=float(hours), empty=quarter)

    def by_hour(self, x: Node, mask: Node, is_before: bool = False) -> Node:
        """Return what x was in the hour of the week that comes next, or in the one before the bar's, over some weeks."""
        return self.graph.node(tb.HOURLY, x, mask, k=1.0 / (MEMORY * self.hour), empty=float(is_before))

    def edge_of_session(self, is_start: bool) -> Node:
        """Return 1 where the hour of the week after a bar's, or before it, never had a bar yet; 0 where bars are longer than hours."""
        mask = self.graph.mask
        return self.minus(mask, self.known(self.by_hour(mask, mask, is_start), 0.0) if self.is_within_hours else mask)

    def hour_volatility(self) -> Node:
        """Return the volatility of the hour that comes next over that of a week; 1 where unknown."""
        g = self.graph
        hour = g.node(op.ROOT, self.by_hour(self.product(self.move(), self.move()), g.for_worker), g.mask)
        return self.known(self.ratio(hour, self.realised(168), 1.0, 1.0), 1.0)

    def hour_volume(self) -> Node:
        """Return the volume of the hour that comes next over the mean of a week; 1 where unknown."""
        g = self.graph
        return self.known(self.ratio(self.by_hour(g.volume, g.mask), self.window(g.volume, 168, g.mask), 168.0, 1.0), 1.0)

    def across(self, code: int, x: Node) -> Node:
        """Return the mean, the rank or the distance of a row of symbols; 0 where fewer than five have a value."""
        return self.graph.node(code, x, self.graph.mask, k=0.0)

    def market(self) -> Node:
        """Return the mean move of all symbols."""
        return self.across(tb.ROW_MEAN, self.graph.node(op.LOG_RATIO, self.graph.close, (self.graph.close, 1)))

    def lead(self, n: int) -> Node:
        """Return how far the benchmark's scaled move of n bars is ahead of a symbol's own; 0 without a benchmark."""
        own = self.known(self.scaled_move(n), 0.0)
        if self.benchmark < 0:
            return self.minus(own, own)
        return self.minus(self.graph.node(tb.ROW_PICK, own, self.graph.mask, k=float(self.benchmark)), own)

    def beta(self, n: int) -> Node:
        """Return the slope of a symbol's moves on the market's over n bars; 0 where the market never moved or too little is known."""
        g = self.graph
        common = self.window(self.product(self.move(), self.market()), n, g.for_worker)
        seen = self.product(self.market(), g.for_worker)
        slope = g.node(op.RATIO, common, g.zero, self.window(self.product(self.market(), seen), n, g.for_worker), g.zero)
        return self.known(slope, 0.0)

    def residual(self) -> Node:
        """Return what of the last move the beta before it and the market's move do not explain."""
        explained = self.product(self.market(), (self.beta(168), 1))
        return self.graph.node(op.SCALED, self.move(), explained, self.graph.for_worker)

    def residuals(self, n: int) -> Node:
        """Return the sum of n residuals; of a long window those that there are."""
        g = self.graph
        return g.window_sum(self.residual(), n, g.for_worker) if n <= SHORT else self.gated(g.total(self.residual(), n), n, g.for_worker)

    def market_sum(self, n: int) -> Node:
        """Return the sum of n moves of the market."""
        return self.graph.total(self.market(), n) if n > 1 else self.market()

    def volumes(self, n: int) -> Node:
        """Return the sum of n volumes."""
        return self.graph.window_sum(self.graph.volume, n, self.graph.mask)


_Recipe = Callable[[Recipes], Node]
RECIPES: dict[str, _Recipe] = {
    "price_change": lambda r: r.momentum(1),
    "high_low_range": lambda r: r.over_close(r.graph.high, r.graph.low),
    "rsi": lambda r: r.rsi(14),
    "rsi_28": lambda r: r.rsi(28),
    "rsi_category": lambda r: r.graph.node(op.CATEGORY, r.rsi(14)),
    "macd": lambda r: r.macd(),
    "macd_signal": lambda r: r.macd_signal(),
    "macd_hist": lambda r: r.macd_hist(),
    "macd_rel": lambda r: r.over_close(r.macd(), k=100.0),
    "macd_signal_rel": lambda r: r.over_close(r.macd_signal(), k=100.0),
    "macd_hist_rel": lambda r: r.over_close(r.macd_hist(), k=100.0),
    "ema_10_20_cross": lambda r: r.cross(20),
    "ema_10_50_cross": lambda r: r.cross(50),
    "bb_upper": lambda r: r.bands()[0],
    "bb_lower": lambda r: r.bands()[1],
    "bb_position": lambda r: r.graph.node(op.RATIO, r.graph.close, r.bands()[1], *r.bands(), empty=0.5),
    "bb_upper_rel": lambda r: r.over_close(r.bands()[0], r.graph.close),
    "bb_lower_rel": lambda r: r.over_close(r.bands()[1], r.graph.close),
    "close_to_bb_upper": lambda r: r.over_close(r.bands()[0], r.graph.close),
    "close_to_bb_lower": lambda r: r.over_close(r.graph.close, r.bands()[1]),
    "bollinger_width": lambda r: r.over_close(*r.bands()),
    "volatility_20": lambda r: r.volatility_20(),
    "momentum_10": lambda r: r.momentum(10),
    "momentum_20": lambda r: r.momentum(20),
    "momentum_1h": lambda r: r.momentum(r.hour),
    "volume_change": lambda r: r.graph.node(op.RATIO, r.graph.volume, (r.graph.last_volume, 1), (r.graph.last_volume, 1), r.graph.zero),
    "volume_ma_ratio": lambda r: r.volume_ratio(10),
    "volume_ratio": lambda r: r.volume_ratio(20),
    "arbiter_volume_trend": lambda r: r.volume_ratio(20),
    "volatility": lambda r: r.graph.node(tb.RANK, r.spread(24)),
    "trend_strength": lambda r: r.trend(),
    "volatility_24h": lambda r: r.known(r.spread(24), 0.0),
    "volatility_72h": lambda r: r.known(r.spread(72), 0.0),
    "volatility_168h": lambda r: r.known(r.spread(168), 0.0),
    "volatility_ratio": lambda r: r.known(r.ratio(r.spread(24), r.spread(168), 1.0, 1.0), 1.0),
    "volume_ma_24h": lambda r: r.mean(r.graph.volume, 24),
    "volume_ma_72h": lambda r: r.mean(r.graph.volume, 72),
    "volume_ma_24h_rel": lambda r: r.ratio(r.volumes(24), r.volumes(720), 30.0, 1.0),
    "volume_ma_72h_rel": lambda r: r.ratio(r.volumes(72), r.volumes(720), 10.0, 1.0),
    "volume_momentum": lambda r: r.known(r.ratio(r.graph.volume, r.volumes(24), 24.0, 1.0), 1.0),
    "volume_trend": lambda r: r.known(r.ratio(r.volumes(24), r.volumes(72), 3.0, 1.0), 1.0),
    "atr_14": lambda r: r.minus(r.ranges(), k=1.0 / 14.0),
    "atr_pct": lambda r: r.over_close(r.ranges(), k=1.0 / 14.0),
}
RECIPES |= {
    "jump_share_24": lambda r: r.jump_share(24),
    "bipower_24": lambda r: r.graph.node(op.ROOT, r.pairs(24), r.graph.mask, k=math.pi / 48.0),
    "parkinson_24": lambda r: r.parkinson(24),
    "garman_klass_24": lambda r: r.garman_klass(24),
    "rogers_satchell_24": lambda r: r.rogers_satchell(24),
    "illiquidity_24_168": lambda r: r.ratio(r.illiquidity(24), r.illiquidity(168), 7.0, 1.0),
}
for _n in (6, 24, 72, 168, 720):
    RECIPES[f"realised_{_n}"] = lambda r, n=_n: r.realised(n)  # type: ignore[misc]
for _n, _m in ((6, 24), (24, 168), (168, 720)):
    RECIPES[f"realised_{_n}_{_m}"] = lambda r, n=_n, m=_m: r.ratio(r.realised(n), r.realised(m), 1.0, 1.0)  # type: ignore[misc]
for _n in (1, 6, 24, 72, 168, 720):
    RECIPES[f"scaled_move_{_n}"] = lambda r, n=_n: r.scaled_move(n)  # type: ignore[misc]
for _n in (24, 168, 720):
    RECIPES[f"from_high_{_n}"] = lambda r, n=_n: r.from_high(n)  # type: ignore[misc]
    RECIPES[f"from_low_{_n}"] = lambda r, n=_n: r.from_low(n)  # type: ignore[misc]
RECIPES |= {
    "day_sine": lambda r: r.turned(24, 0.0),
    "day_cosine": lambda r: r.turned(24, 0.25),
    "week_sine": lambda r: r.turned(168, 0.0),
    "week_cosine": lambda r: r.turned(168, 0.25),
    "session_start": lambda r: r.edge_of_session(True),
    "session_end": lambda r: r.edge_of_session(False),
    "hour_volatility": lambda r: r.hour_volatility(),
    "hour_volume": lambda r: r.hour_volume(),
    "beta_168": lambda r: r.beta(168),
    "market_volatility_24": lambda r: r.graph.node(
        op.ROOT, r.graph.total(r.product(r.market(), r.market()), 24), r.graph.mask, k=1.0 / 24.0
    ),
    "breadth": lambda r: r.across(tb.ROW_MEAN, r.graph.node(op.ABOVE, r.move(), r.graph.zero)),
    "volatility_rank": lambda r: r.across(tb.ROW_RANK, r.realised(24)),
    "volume_rank": lambda r: r.across(tb.ROW_RANK, r.volume_ratio(20)),
}
for _n in (1, 6, 24, 168):
    RECIPES[f"move_rank_{_n}"] = lambda r, n=_n: r.across(tb.ROW_RANK, r.scaled_move(n))  # type: ignore[misc]
    RECIPES[f"move_distance_{_n}"] = lambda r, n=_n: r.across(tb.ROW_DISTANCE, r.scaled_move(n))  # type: ignore[misc]
    RECIPES[f"market_move_{_n}"] = lambda r, n=_n: r.market_sum(n)  # type: ignore[misc]
for _n in (1, 6, 24):
    RECIPES[f"lead_{_n}"] = lambda r, n=_n: r.lead(n)  # type: ignore[misc]
for _n in (6, 24, 168):
    RECIPES[f"residual_{_n}"] = lambda r, n=_n: r.residuals(n)  # type: ignore[misc]
for _n in (6, 24, 168):
    RECIPES[f"signed_volume_{_n}"] = lambda r, n=_n: r.signed_volume(n)  # type: ignore[misc]
for _n in (50, 200):
    RECIPES[f"sma_{_n}"] = lambda r, n=_n: r.graph.window_moments(r.graph.close, n, r.graph.mask)[0]  # type: ignore[misc]
    RECIPES[f"sma_{_n}_rel"] = lambda r, n=_n: r.over_close(  # type: ignore[misc]
        r.graph.window_moments(r.graph.close, n, r.graph.mask)[0], r.graph.close
    )
for _n in (10, 12, 20, 26, 50):
    RECIPES[f"ema_{_n}"] = lambda r, n=_n: r.ema(n)  # type: ignore[misc]
    RECIPES[f"ema_{_n}_rel"] = lambda r, n=_n: r.over_close(r.ema(n), r.graph.close)  # type: ignore[misc]


def compose(
    names: Iterable[str], n_symbols: int, params: Params, interval_ns: int, benchmark: int
) -> tuple[Graph, list[Node], dict[str, int]]:
    """Return the graph of the named planes, its wanted nodes, and the slot of every name; names of the same plane share one.

    benchmark: its column, -1 for none.
    """
    graph = Graph(n_symbols)
    recipes = Recipes(graph, params, interval_ns, benchmark)
    unit = "" if params.arbiter.macd_units == MacdUnits.PRICE else "_rel"
    wanted: list[Node] = []
    slots: dict[str, int] = {}
    for name in names:
        plain = {"arbiter_macd": f"macd{unit}", "arbiter_macd_signal": f"macd_signal{unit}"}.get(name, name)
        node = RECIPES[plain](recipes)
        if node not in wanted:
            wanted.append(node)
        slots[name] = wanted.index(node)
    return graph, wanted, slots
