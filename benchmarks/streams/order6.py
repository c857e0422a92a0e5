"""order6: order 6 of O-LoRA (Wang et al. 2023, arXiv 2310.14152), 15 tasks with labels."""

from benchmarks.streams.common.packs import Benchmark

stream = Benchmark(
    "order6",
    [
        "yelp",
        "amazon",
        "MNLI",
        "CB",
        "COPA",
        "QQP",
        "RTE",
        "IMDB",
        "SST-2",
        "dbpedia",
        "agnews",
        "yahoo",
        "MultiRC",
        "BoolQA",
        "WiC",
    ],
)
