"""math_llm: the three tasks of TRACE that need reasoning, the stream of the paper's Table 7."""

from benchmarks.streams.common.packs import Benchmark

stream = Benchmark(
    "math_llm",
    [
        "ScienceQA",
        "NumGLUE-cm",
        "NumGLUE-ds",
    ],
)
