"""Retraining triggers: weekly, after the base models changed, when models got worse, when the market did (`spec` 12.6).

| cause | when |
| --- | --- |
| `weekly` | the last bar that the training saw, test folds included, closed more than seven days ago |
| `base_retrained` | the meta layer was trained on the predictions of other base models than those that vote |
| `accuracy` | a voter's live accuracy is more than 5 points under the backtest's, and outside its band (`envelope`) |
| `drift` | the distribution of a feature left its band |

`qt train DATA --out DIR --update` trains on the bars since, `qt models promote DIR --as NAME` serves it.
"""

from collections.abc import Iterator
from typing import Any

from qtcore.types import NS_PER_DAY
from research.live.records import iso

WEEK, DROP = 7 * NS_PER_DAY, 0.05


def retrain_reasons(models: Any, meta: Any, rows: list[dict[str, Any]], now: int) -> Iterator[tuple[str, str]]:
    """Yield each cause with a sentence. models, meta: what is served, None for stored votes and no layer; rows: of `Envelope.compare`."""
    if models is not None:
        if (last := trained_to(models)) is not None and now - last > WEEK:
            yield "weekly", f"the training saw bars until {iso(last)}, {(now - last) // NS_PER_DAY} days ago, a week is allowed"
        known = set(getattr(meta, "config", {}).get("base_artefacts", ()))
        strange = sorted({a.slot for a in models.artefacts if a.hash not in known}) if known else []
        if strange:
            yield "base_retrained", f"the meta layer was trained on other versions of {', '.join(strange)} than those that vote"
    fallen = [row for row in rows if row["name"].startswith("accuracy.") and row["is_out"] and row["usual"] - row["value"] > DROP]
    if fallen:
        text = ", ".join(f"{row['name'].partition('.')[2]} {row['value']:.1%} after {row['usual']:.1%}" for row in fallen)
        yield "accuracy", f"accuracy fell by more than 5 points: {text}"
    if drifted := [row["name"].partition(".")[2] for row in rows if row["name"].startswith("drift.") and row["is_out"]]:
        yield "drift", f"the market is another one than in the backtest by {', '.join(drifted)}"


def trained_to(models: Any) -> int | None:
    """Return the close of the last bar that a training saw, ns UTC; None where the artefacts do not say."""
    spans = [span[1] for a in models.artefacts for span in a.meta.get("split", {}).get("close_time", {}).values()]
    return max(spans, default=None)
