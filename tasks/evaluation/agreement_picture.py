"""The picture of `dapflow agreement --picture`: how far two judges agree by how much the answers
differ in length.

    agreement_by_length(agreement)  ->  a PNG
Test: pytest tests/flows/cli/test_agreement.py
"""

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dapflow.tasks.evaluation.agreement import Agreement
from dapflow.tasks.pictures import as_png


def agreement_by_length(agreement: Agreement) -> bytes:
    """Agreement of two judges by how much the answers differ in length, with 95 % intervals."""
    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.add_subplot()
    for place, share in enumerate(agreement.by_length):
        axes.plot([place, place], [100 * share.low, 100 * share.high], color="#4477aa")
        axes.plot(place, 100 * share.agreement, marker="o", color="#4477aa")
    axes.set_xticks(
        range(len(agreement.by_length)),
        [f"{share.least:,}-{share.most:,}\n{share.n:,} pairs" for share in agreement.by_length],
        fontsize=7,
    )
    axes.set_xlabel("difference in length, characters", fontsize=8)
    axes.set_ylabel("agreement, % of pairs (95 % interval)", fontsize=8)
    axes.set_ylim(0, 100)
    return as_png(FigureCanvasAgg(figure))
