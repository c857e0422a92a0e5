"""Two kinds of tokenizers, trained on three texts, as language models bring them."""

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from benchmarks.backbones.tokenizer import Tokenizer

TEXTS = [
    "What is the topic?\nSports win the cup.\nAnswer:Sports",
    "Is it true? A plane can land on water.\nAnswer:contradiction",
    "Solve 12 + 30.\nAnswer:42",
]


def sentencepiece(texts=TEXTS, size=400):
    """As Llama-2's: a space before what begins a text, pieces over it, bytes for the rest."""
    own = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    own.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    own.pre_tokenizer = pre_tokenizers.Split("\n", "isolated")
    own.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False)
    own.train_from_iterator(texts, trainer)
    return own


def byte_level(texts=TEXTS, size=400):
    own = tokenizers.Tokenizer(models.BPE())
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    own.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    own.train_from_iterator(texts, trainer)
    return own


def loaded(own, folder, begins="<s>", **options):
    """Saved and read again as a language model's tokenizer; without a token for padding.

    Texts have `begins` before them and, after a bar, what follows them.
    """
    before, _, after = begins.partition("|")
    if begins:
        whole = f"{before} $A {after}".strip()
        special = [(token, own.token_to_id(token)) for token in set(whole.split()) - {"$A"}]
        own.post_processor = processors.TemplateProcessing(whole, None, special)
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "clean_up_tokenization_spaces": False}
    PreTrainedTokenizerFast(tokenizer_object=own, **(tokens | options)).save_pretrained(folder)
    return Tokenizer.from_folder(folder)
