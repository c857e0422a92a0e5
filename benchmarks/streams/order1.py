"""order1: order 1 of O-LoRA (Wang et al. 2023, arXiv 2310.14152), 4 tasks with labels."""

from benchmarks.streams.common.packs import Benchmark

stream = Benchmark(
    "order1",
    [
        "dbpedia",
        "amazon",
        "yahoo",
        "agnews",
    ],
)
