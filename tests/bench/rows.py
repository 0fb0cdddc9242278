"""What a bench says: one row a comparison, with its noise, judged against its bar.

`ratio` is ours / peer (above 1 = we are faster), the median of the per-round ratios; `noise` is their interquartile
range. A bar is met, missed, or undecided when it lies inside the noise around the ratio.
"""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Row:
    suite: str
    workload: str
    peer: str
    ratio: float
    bar: float | None
    met: bool | str | None
    runs: int
    noise: float
    ours: float = 0.0
    theirs: float = 0.0
    unit: str = ""

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def judge(ratio: float, noise: float, bar: float | None) -> bool | str | None:
    """Met or not; 'undecided' when the bar lies within half the noise of the ratio; None without a bar."""
    if bar is None:
        return None
    if abs(ratio - bar) <= noise / 2:
        return "undecided"
    return ratio >= bar


def compare(
    suite: str,
    workload: str,
    peer: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    bar: float | None,
    unit: str,
) -> Row:
    """A row from rounds of rates (higher is better), paired by round."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True) if b > 0]
    ratio = statistics.median(ratios)
    quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratio, ratio, ratio]
    noise = quartiles[2] - quartiles[0]
    return Row(
        suite=suite,
        workload=workload,
        peer=peer,
        ratio=round(ratio, 3),
        bar=bar,
        met=judge(ratio, noise, bar),
        runs=len(ratios),
        noise=round(noise, 3),
        ours=round(statistics.median(ours), 3),
        theirs=round(statistics.median(theirs), 3),
        unit=unit,
    )
