"""long15: TRACE's eight tasks and then seven of O-LoRA's, the stream of the paper's Table 9.

The paper does not print their order; it is that of the authors' code.
"""

from benchmarks.streams.common.packs import Benchmark

stream = Benchmark(
    "long15",
    [
        "C-STANCE",
        "FOMC",
        "MeetingBank",
        "Py150",
        "ScienceQA",
        "NumGLUE-cm",
        "NumGLUE-ds",
        "20Minuten",
        "dbpedia",
        "amazon",
        "yahoo",
        "agnews",
        "yelp",
        "BoolQA",
        "QQP",
    ],
)
