"""Choices: the values of parameters that are one of several names."""

from enum import IntEnum


class EnsembleRule(IntEnum):
    """How voters become one opinion: the weighted vote (`spec` 4), or the weighted mean of their probabilities."""

    VOTE = 0
    MEAN = 1


class DecideRule(IntEnum):
    """What an opinion must clear before it trades: the published confidences, or its costs (`qtcore.chain.price`)."""

    CONFIDENCE = 0
    EDGE = 1


class TieBreak(IntEnum):
    """What an exact tie of the vote means (`spec` 4.3)."""

    HOLD = 0
    ORDER = 1


class MetaMode(IntEnum):
    """Which meta layer runs (`spec` 5-7); `BET` asks whether the ensemble's bet pays (Lopez de Prado 2018, chapter 3)."""

    POLICY = 0
    OVERRIDE = 1
    V5 = 2
    BET = 3


class MetaVariant(IntEnum):
    """What policy mode does where there is no strong consensus: the published rules, or what the learned model says (`spec` 7.4)."""

    PUBLISHED = 0
    LEARNED = 1


class PolicyBase(IntEnum):
    """What the policy takes for the ensemble's opinion (`spec` 7.2)."""

    SHARED = 0
    SCORE = 1


class MissingFill(IntEnum):
    """How the policy counts absent models (`spec` 7.1)."""

    OMIT = 0
    HOLD_HALF = 1


class MacdUnits(IntEnum):
    """Units of the arbiter's MACD (`spec` 1.8)."""

    PERCENT = 0
    PRICE = 1


class SizingMode(IntEnum):
    """How a position is sized (`spec` 10.4); `KELLY_EDGE`: net edge over the variance of the result."""

    KELLY_WIN_RATE = 0
    KELLY_CONFIDENCE = 1
    KELLY_EMPIRICAL = 2
    KELLY_EDGE = 3


class CooldownScope(IntEnum):
    """Which losses start a cooldown (`spec` 10.3)."""

    SYMBOL_LAST_LOSS = 0
    LAST_50 = 1


class ExposureMode(IntEnum):
    """Whether the new position is part of the exposure check (`spec` 10.3)."""

    PROJECTED = 0
    EXISTING = 1


class DrawdownBasis(IntEnum):
    """Equity with unrealised PnL, or realised balance only (`spec` 10.6 p)."""

    EQUITY = 0
    BALANCE = 1


class DrawdownReset(IntEnum):
    """What lifts a drawdown halt (`spec` 10.6 p)."""

    NONE = 0
    DAILY = 1
    MANUAL = 2


class GovernOrder(IntEnum):
    """In which order a bar's decisions reach the governor (`spec` 10.6 c)."""

    SYMBOLS = 0
    BY_CONFIDENCE = 1
    BY_EDGE = 2


class BookKind(IntEnum):
    """How symbols share the account: each traded alone, or one book of weights across them (`qtcore.chain.book`)."""

    SYMBOLS = 0
    CROSS_SECTION = 1


class Neutral(IntEnum):
    """What the weights that a book aims at add up to zero in: nothing, money, past betas to the market, or both."""

    NONE = 0
    DOLLAR = 1
    BETA = 2
    DOLLAR_BETA = 3


class FillAt(IntEnum):
    """Where an order of bar t is filled (`spec` 10.6 d).

    `CLOSE`: at that bar's own close; `NEXT_CLOSE`: at the close of t + 1; `ONE_BAR_LATER`: at the open of t + 2; `WORST`: in t + 1 at its
    high for a buy and its low for a sell, stops too.
    """

    NEXT_OPEN = 0
    CLOSE = 1
    NEXT_CLOSE = 2
    ONE_BAR_LATER = 3
    WORST = 4

    @property
    def delay(self) -> int:
        """Bars from a decision to its fill."""
        return {FillAt.CLOSE: 0, FillAt.ONE_BAR_LATER: 2}.get(self, 1)

    @property
    def is_at_close(self) -> bool:
        """Whether orders are filled when their bar's stops, funding and mark are done."""
        return self in (FillAt.CLOSE, FillAt.NEXT_CLOSE)


class FeatureSet(IntEnum):
    """Which 18 features the models see (`spec` 1.1, D-10)."""

    V5_REL = 0
    V5 = 1
    V5_TRAINED = 2


FAMILIES = ("volatility", "clock", "range", "cross_section", "market", "flow")  # sets of features beside these 18 (`spec` 1.10)


class RsiVariant(IntEnum):
    """Simple or Wilder's average in the RSI (`spec` D-02)."""

    SMA = 0
    WILDER = 1
