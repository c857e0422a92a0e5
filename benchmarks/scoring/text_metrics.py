"""Scores of generated text: every metric of the language streams, without torch.

Each metric gives an item (prompt, output, answer) a number in [0, 1]; a task's score is the mean
over all items. Where the code released with TRACE and TreeLoRA measures something else than the
metric's name says, that stands beside it as a metric of its own:

- `prefix` credits "120" for the answer "12"; `first_line` does not;
- `first_character` takes the "A" of "After all" for the choice A; `letter` does not;
- `rouge_l_released` is the summary-level score of the package `rouge` 1.0.1, which looks at
  distinct words and, sentence by sentence, at no order among sentences. As in the released code an
  output without a line end gets one, which makes an empty word behind a final full stop: even an
  output equal to the answer may then miss 1;
- `edit_similarity_released` is difflib's ratio in whole percent, as fuzzywuzzy gives it where no
  faster library is installed. Its value depends on which text comes first.

Texts may be in any script. A letter with a mark is the same composed or decomposed; the released
metrics take texts as they are. The words of `rouge_l` are runs of letters, marks and digits, case
and width aside. Scripts that put no spaces between words (Chinese, Japanese, Thai, Lao, Burmese,
Khmer) count by character: a division into words would be that of some dictionary. So do the ROUGE
scores usual for Chinese summaries (Hu et al., LCSTS, EMNLP 2015) and the tokens `zh` of sacrebleu,
which the words of `sari` are where the answer is in such a script. Where the answer has no letter
beyond a-z, the words of `rouge_l` are those of the package rouge-score, to which all other letters
are gaps, so that scores of English summaries compare with published ones.

`sari` follows Xu et al., "Optimizing Statistical Machine Translation for Text Simplification" (TACL
2016), in the reading of the Hugging Face metric of this name: scores per sentence, precision only
for deletions, 0 / 0 = 1, and an empty output is one empty word. The source is the whole prompt,
instruction included, as in the released code. An output equal to the answer need not reach 1: words
that the source repeats more often than the answer count as deleted in part.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from functools import partial
from statistics import fmean

from rapidfuzz import fuzz
from rapidfuzz.distance import LCSseq

from analysis.text import quoted, suggest
from benchmarks.common.errors import DataError

VERSION = 2  # raise it when a metric changes; of streams whose tasks name their metrics

Measure = Callable[[str, str, str], float]
METRICS: dict[str, Measure] = {}  # name -> (output, answer, prompt) -> score in [0, 1]

_AS_THEY_ARE = {"prefix", "first_character", "rouge_l_released", "edit_similarity_released"}
_ANSWER_TOKENS = {  # longest answer -> tokens of an output that decide
    **dict.fromkeys(("exact", "first_line", "normalised", "prefix"), partial(max, 16)),
    **dict.fromkeys(("letter", "first_character"), lambda longest: 4),
}


def _metric(measure: Measure) -> Measure:
    """Register a function as the metric of its name."""
    METRICS[measure.__name__] = measure
    return measure


def score(
    metric: str, outputs: Sequence[str], answers: Sequence[str], prompts: Sequence[str]
) -> float:
    """The mean of `scores`, in [0, 1]."""
    return fmean(scores(metric, outputs, answers, prompts))


def scores(
    metric: str, outputs: Sequence[str], answers: Sequence[str], prompts: Sequence[str]
) -> list[float]:
    """The score of each output, in [0, 1].

    Args:
        metric: a key of METRICS.
        outputs, answers, prompts: n texts each, item by item; only "sari" reads the prompts.

    Raises:
        DataError: the metric is unknown, there is no item, or the numbers of texts differ.
    """
    check(metric)
    if not len(outputs) == len(answers) == len(prompts) > 0:
        raise DataError(
            f"a score takes as many outputs as answers and prompts, at least one, not "
            f"{len(outputs)}, {len(answers)} and {len(prompts)}: pass one of each per item"
        )
    texts = outputs, answers, prompts
    if metric not in _AS_THEY_ARE:
        texts = ([unicodedata.normalize("NFC", text) for text in part] for part in texts)
    return list(map(METRICS[metric], *texts))


def check(metric: str) -> None:
    """DataError if the metric is unknown."""
    if metric not in METRICS:
        raise DataError(f"the metric {quoted(metric)} is unknown: {suggest(metric, METRICS)}")


def answer_tokens(metric: str, longest: int = 0) -> int | None:
    """How many tokens to generate where the longest answer has so many, its end included.

    What follows cannot change the score of an output that neither begins with many empty tokens
    nor spells the answer in more tokens; None where all of the text counts.
    """
    check(metric)
    needed = _ANSWER_TOKENS.get(metric)
    return needed and needed(longest)


# ---------------------------------------------------------------------------- right or wrong


@_metric
def exact(output: str, answer: str, prompt: str) -> float:
    """The output equals the answer, white space around them aside."""
    return float(output.strip() == answer.strip())


@_metric
def first_line(output: str, answer: str, prompt: str) -> float:
    """The first line of the output equals the answer, white space around them aside."""
    return float(output.strip().split("\n")[0].strip() == answer.strip())


def _plain(text: str) -> str:
    kept = (c for c in _folded(text) if c not in string.punctuation and _kind(c) != "P")
    return " ".join("".join(kept).split())


@_metric
def normalised(output: str, answer: str, prompt: str) -> float:
    """Equal in lower case, without punctuation, with single spaces (O-LoRA), of any width."""
    return float(_plain(output) == _plain(answer))


@_metric
def prefix(output: str, answer: str, prompt: str) -> float:
    """The output starts with the answer, as in the released code."""
    output = output.strip()
    return float(output != "" and output.startswith(answer))


@_metric
def letter(output: str, answer: str, prompt: str) -> float:
    """The output opens with the choice, A to Z, that the answer opens with."""
    chosen, right = (
        _CHOICE.match(unicodedata.normalize("NFKC", text)) for text in (output, answer)
    )
    return float(bool(chosen and right) and chosen[1] == right[1])


@_metric
def first_character(output: str, answer: str, prompt: str) -> float:
    """Both begin with the same character, as in the released code."""
    output = output.strip()
    return float(output != "" and output[0] == answer[:1])


# ---------------------------------------------------------------------------- scripts

# Letters and marks of scripts without spaces between words, and their punctuation.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u30ff\u3100-\u312f\u31a0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua9e0-\ua9ff\uaa60-\uaa7f\uf900-\ufaff\uff00-\uffef"
    "\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
_ALONE = re.compile(f"[{_UNSPACED}]")
_CHOICE = re.compile(rf"\W*([A-Z])(?:\b|(?=[{_UNSPACED}]))")


def _kind(character: str) -> str:
    """L for letters, M for marks, N for numbers, P for punctuation, and others."""
    return unicodedata.category(character)[0]


def _folded(text: str) -> str:
    """The text without case and width: of letters that are compatible, the usual one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKC", text).casefold())


def _words(text: str) -> list[str]:
    """Runs of letters, marks and digits, characters of unspaced scripts alone."""
    text = "".join(c if _kind(c) in "LMN" else " " for c in text if unicodedata.category(c) != "Cf")
    return _ALONE.sub(r" \g<0> ", _folded(text)).split()


# ---------------------------------------------------------------------------- ROUGE-L


@_metric
def rouge_l(output: str, answer: str, prompt: str) -> float:
    """F1 of the longest common subsequence of words, without punctuation and case."""
    english = not any(_kind(c) in "LMN" for c in answer if not c.isascii())
    a, b = (
        re.findall("[a-z0-9]+", text.lower()) if english else _words(text)
        for text in (output, answer)
    )
    if not a or not b:
        return 0.0
    return 2 * LCSseq.similarity(a, b) / (len(a) + len(b))


@_metric
def rouge_l_released(output: str, answer: str, prompt: str) -> float:
    """Summary-level ROUGE-L over distinct words, as in the released code."""
    if not output or not answer:
        return 0.0
    if "\n" not in output:
        output += "\n"
    found, wanted = _sentences(output), _sentences(answer)
    n_found, n_wanted = (len(set().union(*text)) for text in (found, wanted))
    if not n_found or not n_wanted:
        return 0.0
    common = set().union(*(_common_words(a, b) for a in found for b in wanted))
    precision, recall = len(common) / n_wanted, len(common) / n_found  # answer and output swapped
    return 2 * precision * recall / (precision + recall + 1e-8)


def _sentences(text: str) -> dict[tuple[str, ...], None]:
    """The distinct sentences, in order, as words; white space alone is one empty word."""
    return dict.fromkeys(
        tuple(" ".join(part.split()).split(" ")) for part in text.split(".") if part
    )


def _common_words(a: tuple[str, ...], b: tuple[str, ...]) -> set[str]:
    """The words on one longest common subsequence: which one decides the score.

    Table T of the lengths, (len(a) + 1, len(b) + 1), read back from its end.
    """
    if set(a).isdisjoint(b):
        return set()
    table = [[0] * (len(b) + 1)]
    for word in a:
        row, left, diagonal = [0], 0, 0
        for other, up in zip(b, table[-1][1:], strict=True):
            if word == other:
                left = diagonal + 1
            elif up > left:
                left = up
            diagonal = up
            row.append(left)
        table.append(row)
    words, i, j = set(), len(a), len(b)
    while i and j:
        if a[i - 1] == b[j - 1]:
            words.add(a[i - 1])
            i, j = i - 1, j - 1
        elif table[i - 1][j] > table[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return words


# ---------------------------------------------------------------------------- SARI


@_metric
def sari(output: str, answer: str, prompt: str) -> float:
    """Mean of the scores for words kept, deleted and added; the source is the prompt."""
    return sari_of(prompt, output, [answer])


def sari_of(source: str, output: str, references: Sequence[str]) -> float:
    """SARI of one output in [0, 1], with word n-grams of n = 1..4 and any number of references."""
    unspaced = any(map(_ALONE.search, references))
    source, output, *references = (
        _tokens_13a(text, unspaced) for text in (source, output, *references)
    )
    total = 0.0
    for n in range(1, 5):
        s, c = (_ngrams(words, n, len(references)) for words in (source, output))
        g = sum((_ngrams(words, n) for words in references), Counter())
        kept, deleted = s & c, s - c
        good, ideal = kept & g, s & g
        total += _f1(
            _mean([good[k] / count for k, count in kept.items()]),
            _ratio(good.total(), ideal.total()),
        )
        unwanted = deleted - g
        total += _mean([unwanted[k] / count for k, count in deleted.items()])
        added, missing = c.keys() - s.keys(), g.keys() - s.keys()
        hit = len(added & missing)
        total += _f1(_ratio(hit, len(added)), _ratio(hit, len(missing)))
    return total / 12


def _ngrams(words: list[str], n: int, times: int = 1) -> Counter:
    counts = Counter(zip(*(words[i:] for i in range(n)), strict=False))
    return Counter({gram: times * count for gram, count in counts.items()})


def _mean(values: list[float]) -> float:
    return fmean(values) if values else 1.0


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def _f1(precision: float, recall: float) -> float:
    both = precision + recall
    return 2 * precision * recall / both if both else 0.0


def _tokens_13a(text: str, unspaced: bool = False) -> list[str]:
    """Words of the lower-cased text by the rules of NIST's mteval-v13a; at least an empty one.

    With `unspaced` the characters of unspaced scripts are words.
    """
    text = text.lower().replace("<skipped>", "").replace("-\n", "")
    for entity, sign in (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")):
        text = text.replace(entity, sign)
    if unspaced:
        text = _ALONE.sub(r" \g<0> ", text)
    text = re.sub(r"([!-&(-+/:-@\[-`{-~])", r" \1 ", f" {text} ")
    text = re.sub(r"(\D)([.,])", r"\1 \2 ", text, flags=re.ASCII)  # not within a number
    text = re.sub(r"([.,])(\D)", r" \1 \2", text, flags=re.ASCII)
    text = re.sub(r"(\d)-", r"\1 - ", text, flags=re.ASCII)
    return " ".join(text.split()).split(" ")


# ---------------------------------------------------------------------------- edit similarity


def _code(text: str) -> str:
    """Py150's placeholders resolved: `<NUM_LIT:7>` is 7, `<NUM_LIT>` 0, other bare ones nothing."""
    return _PLACEHOLDER.sub(
        lambda found: (found[1] == "NUM") * "0" if found[2] is None else found[2], text
    )


_PLACEHOLDER = re.compile("<(NUM|STR|CHAR)_LIT(?::(.*?))?>", re.DOTALL)


@_metric
def edit_similarity(output: str, answer: str, prompt: str) -> float:
    """1 - indel distance / total length, literal placeholders resolved."""
    output, answer = _code(output).strip(), _code(answer).strip()
    return fuzz.ratio(output, answer) / 100 if output and answer else 0.0


@_metric
def edit_similarity_released(output: str, answer: str, prompt: str) -> float:
    """The ratio of difflib in whole percent, placeholders resolved, as released."""
    output, answer = _code(output), _code(answer)
    if not output or not answer:
        return 0.0
    return round(100 * SequenceMatcher(None, output, answer).ratio()) / 100
