"""order5: order 5 of O-LoRA (Wang et al. 2023, arXiv 2310.14152), 15 tasks with labels."""

from benchmarks.streams.common.packs import Benchmark

stream = Benchmark(
    "order5",
    [
        "MultiRC",
        "BoolQA",
        "WiC",
        "MNLI",
        "CB",
        "COPA",
        "QQP",
        "RTE",
        "IMDB",
        "SST-2",
        "dbpedia",
        "agnews",
        "yelp",
        "amazon",
        "yahoo",
    ],
)
