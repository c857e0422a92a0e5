"""order4: order 4 of O-LoRA (Wang et al. 2023, arXiv 2310.14152), 15 tasks with labels."""

from benchmarks.streams.common.packs import Benchmark

stream = Benchmark(
    "order4",
    [
        "MNLI",
        "CB",
        "WiC",
        "COPA",
        "QQP",
        "BoolQA",
        "RTE",
        "IMDB",
        "yelp",
        "amazon",
        "SST-2",
        "dbpedia",
        "agnews",
        "MultiRC",
        "yahoo",
    ],
)
