"""What a corpus of a given size costs, computed from the rates in bench/rates.json.

Nothing is measured here: `python -m bench.sizing` prints docs/sizing.md, with the arithmetic. After
a new measurement, change the file of rates and write the page again.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.measure import Figure, markdown

SIZES = (10**6, 10**8, 10**10)
_RATES = Path(__file__).with_name("rates.json")
_UNITS = (("years", 31_557_600), ("days", 86_400), ("h", 3600), ("min", 60), ("s", 1))
_GIB = 2**30


class Rates:
    """The rates by name, and where each comes from."""

    def __init__(self, said: dict[str, Any]) -> None:
        self.said = said
        self.value = {name: float(each[0]) for kind in _KINDS for name, each in said[kind].items()}

    def __getitem__(self, name: str) -> float:
        return self.value[name]

    def gradient_seconds(self, size: int) -> float:
        """Seconds that the teacher's gradients take, on the measured machine: each shard has one
        at least."""
        count = max(self["gradients"], size / self["rows_per_shard"])
        return count * self["tokens_per_text"] / self["gradient_tokens"]


_KINDS = ("measured", "not_measured")


def main() -> None:
    """Print the page."""
    print(page(Rates(json.loads(_RATES.read_text()))), end="")


def page(rates: Rates) -> str:
    """The whole page as markdown."""
    blocks = [
        "# What a corpus costs",
        (
            "Printed by `python -m bench.sizing` from bench/rates.json. Rates are of"
            f" {rates.said['machine']}, {rates.said['date']}; what was not measured says so."
            " Everything else is arithmetic on them, and assumes that time grows with the number"
            " of samples."
        ),
        *(_listed(rates, kind) for kind in _KINDS),
        "## Time and cost",
        _arithmetic(rates),
        *(markdown(f"{size:,} samples", list(_costs(rates, size))) for size in SIZES),
        "## Storage, memory and search",
        markdown("samples", [each for size in SIZES for each in _space(rates, size)]),
        "## Which index",
        _index(rates),
        "## What breaks first",
        *_breaks(rates),
    ]
    return "\n\n".join(blocks) + "\n"


def duration(seconds: float) -> str:
    """Seconds in the largest unit of which there is at least one."""
    unit, length = next((each for each in _UNITS if seconds >= each[1]), _UNITS[-1])
    return f"{seconds / length:,.1f} {unit}"


def _listed(rates: Rates, kind: str) -> str:
    rows = [
        f"| `{name}` | {value:,} {unit} | {origin} |"
        for name, (value, unit, origin) in rates.said[kind].items()
    ]
    return "\n".join([f"| {kind.replace('_', ' ')} | value | from |", "|---|---|---|", *rows])


def _arithmetic(rates: Rates) -> str:
    return "\n".join(
        [
            (
                f"* Gradients: {rates['gradients']:,.0f} x {rates['tokens_per_text']:.0f} tokens /"
                f" {rates['gradient_tokens']} tokens/s = {duration(rates.gradient_seconds(0))},"
                " once; on the measured machine in every row. So many are drawn with"
                " `distillation.candidates_per_shard` at their number over that of the shards; more"
                " shards than that have one each."
            ),
            (
                f"* On a GPU, of a decoder some 30 times as large: {rates['gradients']:,.0f} x"
                f" {rates['tokens_per_text']:.0f} tokens / {rates['gpu_gradient_tokens']:,.0f}"
                f" tokens/s = {duration(_gpu_seconds(rates))}."
            ),
            (
                "* Total: gradients + samples / (texts/s) + samples / 1,000,000 x"
                f" {rates['filter_seconds']:.0f} s; a cluster divides all but the gradients by its"
                f" {rates['ray_machines']:.0f} machines; a GPU filters at the measured machine's"
                " rate."
            ),
        ]
    )


def _gpu_seconds(rates: Rates) -> float:
    return rates["gradients"] * rates["tokens_per_text"] / rates["gpu_gradient_tokens"]


def _costs(rates: Rates, size: int) -> Iterator[Figure]:
    """Hours and dollars of one size, by machine and student."""
    machines = rates["ray_machines"]
    hour = rates["machine_hour"]
    filtering = size / 1e6 * rates["filter_seconds"]
    for row, texts, share, price in (
        ("2 cores, kernel student", rates["kernel_texts"], 1, hour),
        ("2 cores, static student", rates["static_texts"], 1, hour),
        (f"Ray, {machines:.0f} machines, kernel", rates["kernel_texts"], machines, hour * machines),
        (f"Ray, {machines:.0f} machines, static", rates["static_texts"], machines, hour * machines),
        ("one GPU, kernel", rates["gpu_texts"], 1, rates["gpu_hour"]),
    ):
        embedding = size / texts / share
        total = rates.gradient_seconds(size) + embedding + filtering / share
        for metric, seconds in (
            ("embedding", embedding),
            ("filtering", filtering / share),
            ("total", total),
        ):
            yield Figure("", row, metric, seconds / 3600, None, "h")
        yield Figure("", row, "rent", total / 3600 * price, None, "USD")


def _space(rates: Rates, size: int) -> Iterator[Figure]:
    row = f"{size:,}"
    text = size * rates["tokens_per_text"] * rates["text_bytes"]
    yield Figure("", row, "text", text / _GIB, None, "GiB")
    stored = 2 * rates["vector_bytes"] + rates["code_bytes"]
    yield Figure("", row, "vectors and codes", size * stored / _GIB, None, "GiB")
    ids, codes = (size * rates[name] / _GIB for name in ("id_bytes", "code_bytes"))
    yield Figure("", row, "memory to embed", ids, None, "GiB")
    yield Figure("", row, "memory to search", codes, None, "GiB")
    yield Figure("", row, "a search", size / 1e6 * rates["search_ms"] / 1000, None, "s")


def _index(rates: Rates) -> str:
    """Sizes at which a search in order of the codes stops being enough."""
    in_a_second = 1e6 * 1000 / rates["search_ms"]
    in_memory = rates["laptop_gib"] / 2 * _GIB / rates["code_bytes"]
    return "\n".join(
        [
            "Today's index looks through all codes (48 bytes a vector) and ranks the best again.",
            "",
            (
                f"* Up to {in_a_second:.2g} vectors a search takes less than a second: 1,000 ms /"
                f" {rates['search_ms']} ms x 1,000,000. Beyond, inverted lists (FAISS's IVF) have"
                " to be put before the codes; with 1 list in 100 read, a search at 10^10 takes"
                f" {duration(1e4 * rates['search_ms'] / 1000 / 100)}."
            ),
            (
                f"* Up to {in_memory:.2g} vectors the codes fit into half of a laptop's"
                f" {rates['laptop_gib']:.0f} GiB. Beyond, the lists have to stay on disk, or be"
                " spread over machines."
            ),
            "",
            "Filtering needs no index: a sample is scored by its own vector. Search and audit do.",
        ]
    )


def _breaks(rates: Rates) -> list[str]:
    """The limits, lowest first; each as the number of samples at which it is met."""
    extra = (rates["shard_cost"] - 1) / 1000
    shards = 1 / extra
    memory = rates["laptop_gib"] * _GIB / rates["code_bytes"]
    found = [
        (
            shards * rates["rows_per_shard"],
            (
                f"refreshing: what a new shard costs beyond itself grows with the shards there are,"
                f" {rates['shard_cost']:.2f} - 1 at 1,000; at {shards:,.0f} shards of"
                f" {rates['rows_per_shard']:,.0f} rows it is as much as the shard itself (if it"
                " grows in proportion)"
            ),
        ),
        (
            memory,
            (
                f"FAISS: codes fill a laptop's memory, {rates['laptop_gib']:.0f} GiB /"
                f" {rates['code_bytes']:.0f} bytes"
            ),
        ),
        (
            10**6 / rates["manifests_per_shard"] * rates["rows_per_shard"],
            (
                "manifests, and the files that DuckDB opens: a million manifests in force,"
                f" {rates['manifests_per_shard']:.0f} a shard (that a million is too many is"
                " assumed)"
            ),
        ),
    ]
    lines = [f"{n}. {size:.2g} samples. {text}." for n, (size, text) in enumerate(sorted(found), 1)]
    largest = SIZES[-1] / rates["rows_per_shard"]
    return [
        "\n".join(lines),
        (
            f"At {SIZES[-1]:,} samples there are {largest:,.0f} shards,"
            f" {largest * rates['manifests_per_shard']:,.0f} manifests in force and as many"
            f" segments of the index as shards. Larger shards help all but the codes: {10**6:,}"
            f" rows each make a tenth of that, and filtering one took"
            f" {rates['filter_mib']:,.0f} MiB."
        ),
    ]


if __name__ == "__main__":
    main()
