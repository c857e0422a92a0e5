"""order2: order 2 of O-LoRA (Wang et al. 2023, arXiv 2310.14152), 4 tasks with labels."""

from benchmarks.streams.common.packs import Benchmark

stream = Benchmark(
    "order2",
    [
        "dbpedia",
        "amazon",
        "agnews",
        "yahoo",
    ],
)
