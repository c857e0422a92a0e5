"""order3: order 3 of O-LoRA (Wang et al. 2023, arXiv 2310.14152), 4 tasks with labels."""

from benchmarks.streams.common.packs import Benchmark

stream = Benchmark(
    "order3",
    [
        "yahoo",
        "amazon",
        "agnews",
        "dbpedia",
    ],
)
