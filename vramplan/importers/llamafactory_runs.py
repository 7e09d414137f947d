"""Whether a file of LLaMA-Factory trains: the same keys are also those of its chat, its predictions and its exports."""

from collections.abc import Iterable

from vramplan.importers.source import Source
from vramplan.importers.vocabulary.llamafactory import CHAT, CHAT_PREFIXES

_CHAT = "add do_train: true where it trains; of a chat, `vramplan predict MODEL --method inference` predicts the memory"
_EVALUATES = "add do_train: true where it trains; a prediction or an evaluation alone has no scenario"


def refuse_what_does_not_train(source: Source, keys: Iterable[str]) -> None:
    """train/sft/workflow.py trains where do_train says so (llamafactory 0.9.5); without the key, which people leave out
    of what they show, all but a file of a chat or an evaluation is read as if it did.

    hparams/parser.py: a chat is configured by _INFER_ARGS, which have no TrainingArguments, and needs no data set.
    """
    trains = source.flag("do_train")
    if trains:
        source.pass_on("do_train")
        return
    for key in ("do_predict", "predict_with_generate", "do_eval"):
        if source.flag(key):
            source.refuse(key, "without do_train: true trains nothing", hint=_EVALUATES)
        source.pass_on(key)
    if trains is False:
        source.refuse("do_train", "trains nothing", hint=_EVALUATES)
    if all(key in CHAT or key.startswith(CHAT_PREFIXES) for key in keys):
        key = "template" if source.has("template") else "model_name_or_path"
        source.refuse(key, "and no key of a training: the file is one of a chat", hint=_CHAT)
