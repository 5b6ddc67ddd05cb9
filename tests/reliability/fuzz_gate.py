"""Coverage-guided fuzzing of what reads other people's files; needs requirements-fuzz.txt.

    python -m tests.reliability.fuzz_gate "label file" FOLDER -runs=100000

FOLDER keeps the corpus: what reached something new. Ends with status 0 where every content was read or refused by a
UserError that names the file.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["configs", "utils", "data"]):
    from tests.reliability.gates import READERS, seeds
    from utils.errors import UserError


def main(gate: str, corpus: Path, options: list[str]) -> None:
    name, read = READERS[gate]
    corpus.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp())
    for number, content in enumerate(seeds(gate, folder)):
        (corpus / f"seed{number}").write_bytes(content)

    def try_it(content: bytes) -> None:
        path = folder / name
        path.write_bytes(content)
        try:
            read(path)
        except UserError as error:
            assert name in str(error)

    warnings.simplefilter("ignore")
    atheris.Setup(["fuzz_gate", "-rss_limit_mb=0", "-timeout=60", *options, str(corpus)], try_it)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
