"""METEOR and SPICE, which exist as Java programs only: computed where Java and pycocoevalcap's copies of them are.

METEOR 1.5 stands in the package; SPICE also needs the models of CoreNLP 3.6.0, which are not downloaded unasked:
`python -m pycocoevalcap.spice.get_stanford_models` fetches them. What is missing is left out of the scores, and so is
with a warning what fails.
"""

import json
import os
import shutil
import subprocess
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from jaxtyping import Float

from crossgrain.metrics.ngrams import Words, check_captions

Scores = dict[str, tuple[float, Float[np.ndarray, " N"]]]  # of the corpus, and of each caption
_REFLECTION = "--add-opens=java.base/java.lang=ALL-UNNAMED"  # which SPICE needs from Java 16 on; Java 8 reads none


def java_scores(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> Scores:
    """{"METEOR", "SPICE"} as far as they can be computed here, in [0, 1]."""
    check_captions(candidates, references)
    texts = [_text(words) for words in candidates]
    told = [[_text(words) for words in several] for several in references]
    scores: Scores = {}
    for name, jar, score in (("METEOR", meteor_jar(), _meteor), ("SPICE", spice_jar(), _spice)):
        if jar is None:
            continue
        try:
            scores[name] = score(jar, texts, told)
        except (OSError, ValueError, LookupError, RuntimeError, subprocess.CalledProcessError) as error:
            warnings.warn(f"{name} is left out of the scores: {_reason(error)}", stacklevel=2)
    return scores


def meteor_jar() -> Path | None:
    """METEOR's program, where it can be run."""
    return _jar("meteor/meteor-1.5.jar")


def spice_jar() -> Path | None:
    """SPICE's program, where it can be run and has its models."""
    models = _jar("spice/lib/stanford-corenlp-3.6.0-models.jar")
    return _jar("spice/spice-1.0.jar") if models else None


def _jar(name: str) -> Path | None:
    package = find_spec("pycocoevalcap") if shutil.which("java") else None
    places = [Path(folder, name) for folder in (package.submodule_search_locations or ())] if package else []
    return next((place for place in places if place.is_file()), None)


def _reason(error: Exception) -> str:
    """In one line, with the last one of what a program said."""
    said = error.stderr.decode(errors="replace") if isinstance(error, subprocess.CalledProcessError) else ""
    return ": ".join([type(error).__name__, str(error), *said.strip().splitlines()[-1:]])


def _text(words: Words) -> str:
    """A caption as both programs take it: on one line, without what parts captions in METEOR's protocol."""
    return " ".join(" ".join(map(str, words)).replace("|||", "").split())


def _meteor(jar: Path, texts: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, np.ndarray]:
    """Ask METEOR over its own protocol: statistics of every caption, then what they make together."""
    command = ["java", "-Xmx2G", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]
    pipe, silent = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, cwd=jar.parent, stdin=pipe, stdout=pipe, stderr=silent, encoding="utf-8") as program:
        asking, answers = program.stdin, program.stdout
        assert asking is not None and answers is not None

        def ask(*parts: str) -> None:
            asking.write(" ||| ".join(parts) + "\n")
            asking.flush()

        def answer() -> str:
            line = answers.readline()
            if not line:
                raise RuntimeError(f"{jar} ended without an answer")
            return line.strip()

        statistics = []
        for text, told in zip(texts, references, strict=True):
            ask("SCORE", *told, text)
            statistics.append(answer())
        ask("EVAL", *statistics)
        scores = [float(answer()) for _ in range(len(texts) + 1)]
        asking.close()
    return scores[-1], np.array(scores[:-1])


def _spice(jar: Path, texts: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, np.ndarray]:
    """Run SPICE on a file; the F-score of each caption's scene graph, NaN where there is none, and their mean."""
    asked = [
        {"image_id": number, "test": text, "refs": list(told)}
        for number, (text, told) in enumerate(zip(texts, references, strict=True))
    ]
    with TemporaryDirectory() as folder:
        question, answer = Path(folder, "captions.json"), Path(folder, "scores.json")
        question.write_text(json.dumps(asked), encoding="utf-8")
        command = ["java", "-Xmx8G", "-jar", str(jar), str(question), "-out", str(answer), "-subset", "-silent"]
        options = " ".join(filter(None, (os.environ.get("JDK_JAVA_OPTIONS"), _REFLECTION)))
        environment = {**os.environ, "JDK_JAVA_OPTIONS": options}
        subprocess.run(command, cwd=jar.parent, check=True, capture_output=True, env=environment)
        found = {item["image_id"]: item["scores"]["All"]["f"] for item in json.loads(answer.read_text("utf-8"))}
    scores = np.array([np.nan if found[number] is None else found[number] for number in range(len(texts))], dtype=float)
    return float(scores.mean()), scores
