"""trace: the eight tasks of TRACE (Wang et al. 2023, arXiv 2310.06762) in their order."""

from benchmarks.streams.common.packs import Benchmark

stream = Benchmark(
    "trace",
    [
        "C-STANCE",
        "FOMC",
        "MeetingBank",
        "Py150",
        "ScienceQA",
        "NumGLUE-cm",
        "NumGLUE-ds",
        "20Minuten",
    ],
)
